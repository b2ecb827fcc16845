package native

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// hybridFiles are a tiny checkpoint with layers of linear attention, and a tokenizer of 64 words.
func hybridFiles(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile("model/testdata/qwen3_5/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	var words []string
	for id := range 64 {
		words = append(words, fmt.Sprintf(`"w%d":%d`, id, id))
	}
	files["tokenizer.json"] = &fstest.MapFile{Data: fmt.Appendf(nil, `{"version":"1.0","added_tokens":[],
		"pre_tokenizer":{"type":"WhitespaceSplit"},"model":{"type":"WordLevel","vocab":{%s},"unk_token":"w0"}}`,
		strings.Join(words, ","))}
	return files
}

func openHybrid(t *testing.T, o Options) *Engine {
	t.Helper()
	o.Files, o.Name, o.Log, o.DType = hybridFiles(t), "m", zerolog.Nop(), "float32"
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil { // states or blocks that were not given back
			t.Error("close:", err)
		}
	})
	return e
}

// TestStates: a model that keeps states gives the same answers, bit for bit, alone or among others, in chunks, preempted,
// as several samples, after others were broken off.
func TestStates(t *testing.T) {
	const numTokens = 40
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	var reqs []*engine.Request
	for i := range 16 {
		prompt := make([]int32, 1+random.IntN(120))
		for p := range prompt {
			prompt[p] = 3 + random.Int32N(61)
		}
		if i > 8 { // begins as another does
			prompt = append(append([]int32{}, reqs[i-8].Tokens...), prompt[:min(20, len(prompt))]...)
		}
		reqs = append(reqs, &engine.Request{Model: "m", Tokens: prompt, Output: engine.Output{Logprobs: ptr(3)},
			Sampling: engine.Sampling{IgnoreEOS: true, MaxTokens: ptr(numTokens), Temperature: ptr(float64(i % 2)), Seed: ptr(int64(i))}})
	}
	answers := func(t *testing.T, e *Engine, workers int) [][]result {
		t.Helper()
		out := make([][]result, len(reqs))
		parallel(workers, len(reqs), func(i int) {
			got, err := run(context.Background(), e, reqs[i])
			if err != nil {
				t.Errorf("request %d: %v", i, err)
			}
			out[i] = got
		})
		return out
	}
	same := func(t *testing.T, i int, got, want result) {
		t.Helper()
		if len(want.tokens) != numTokens || !reflect.DeepEqual(got.tokens, want.tokens) || !reflect.DeepEqual(got.logprobs, want.logprobs) {
			t.Errorf("request %d:\n got %v\nwant %v, or their log probabilities differ", i, got.tokens, want.tokens)
		}
	}
	want := answers(t, openHybrid(t, Options{}), 1)
	perBlock := openHybrid(t, Options{}).model.KVBytesPerBlock(BlockSize)
	for name, o := range map[string]Options{
		"mixed":       {},
		"few":         {MaxNumSeqs: 3},
		"one thread":  {Threads: 1},
		"chunks of 1": {MaxBatchedTokens: 1, MaxNumSeqs: 1},
		"chunks of 7": {MaxBatchedTokens: 7, MaxNumSeqs: 5},
		"preempted":   {KVCacheBytes: 24 * perBlock},
	} {
		t.Run(name, func(t *testing.T) {
			e := openHybrid(t, o)
			for range 2 {
				for i, got := range answers(t, e, 12) {
					same(t, i, got[0], want[i][0])
				}
			}
			s := e.Stats()[0]
			if s.PrefixHits != 0 || (s.Preemptions > 0) != (name == "preempted") {
				t.Errorf("%d prefix hits, %d preemptions", s.PrefixHits, s.Preemptions)
			}
		})
	}
	t.Run("samples", func(t *testing.T) {
		e := openHybrid(t, Options{MaxNumSeqs: 4})
		for i := 0; i < len(reqs); i += 2 { // the greedy ones
			req := *reqs[i]
			req.Sampling.N = 3
			got, err := run(context.Background(), e, &req)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range got {
				same(t, i, r, want[i][0])
			}
		}
	})
	t.Run("broken off", func(t *testing.T) {
		e := openHybrid(t, Options{MaxNumSeqs: 3})
		ctx, cancel := context.WithCancel(context.Background())
		parallel(len(reqs), len(reqs), func(i int) {
			n := 0
			for _, err := range e.Generate(ctx, reqs[i]) {
				if err != nil {
					break
				}
				if n++; n > i {
					cancel()
				}
			}
		})
		cancel()
		waitIdle(t, e)
		for i, got := range answers(t, e, 5) {
			same(t, i, got[0], want[i][0])
		}
	})
}

func TestStatesRefuseGuesses(t *testing.T) {
	for _, o := range []Options{{SpeculativeMethod: "ngram", NumSpeculativeTokens: 4},
		{SpeculativeMethod: "draft_model", NumSpeculativeTokens: 4, DraftFiles: hybridFiles(t)}} {
		o.Files, o.Name, o.Log = hybridFiles(t), "m", zerolog.Nop()
		if e, err := New(o); err == nil || !strings.Contains(err.Error(), "speculative_method") {
			if e != nil {
				err = errors.Join(err, e.Close(context.Background()))
			}
			t.Errorf("%s: %v", o.SpeculativeMethod, err)
		}
	}
	e := openHybrid(t, Options{NumSpeculativeTokens: 4})
	req := &engine.Request{Model: "m", Tokens: []int32{5}, Sampling: engine.Sampling{MaxTokens: ptr(2)}, SpeculativeTokens: ptr(2)}
	_, err := run(context.Background(), e, req)
	if got := engine.AsError(err); err == nil || got.Code != engine.Invalid || got.Param != "speculative_tokens" {
		t.Errorf("two guesses: %v", err)
	}
	req.SpeculativeTokens = ptr(0)
	if _, err := run(context.Background(), e, req); err != nil {
		t.Errorf("no guesses: %v", err)
	}
	err = serveDemo(t, Options{SpeculativeMethod: "draft_model", NumSpeculativeTokens: 2, DraftFiles: hybridFiles(t)})
	if err == nil || !strings.Contains(err.Error(), "cannot be a draft model") {
		t.Errorf("as a draft model: %v", err)
	}
}

// serveDemo is the error of serving the built-in model.
func serveDemo(t *testing.T, o Options) error {
	o.Files, o.Name, o.Log = demoFiles(t), "m", zerolog.Nop()
	e, err := New(o)
	if e != nil {
		err = errors.Join(err, e.Close(context.Background()))
	}
	return err
}

// TestStatesTakeMemory: what states take is told before the KV cache takes the rest.
func TestStatesTakeMemory(t *testing.T) {
	e := openHybrid(t, Options{MaxNumSeqs: 8})
	states := 8 * e.model.Spec().StateBytes()
	if got, want := e.kv.Bytes(), states+int64(e.kv.NumBlocks())*e.model.KVBytesPerBlock(BlockSize); states == 0 || got != want {
		t.Errorf("%d bytes, want %d, of states %d", got, want, states)
	}
	o := Options{Files: hybridFiles(t), Name: "m", Log: zerolog.Nop(), MaxNumSeqs: 4096, MaxBatchedTokens: 4096,
		MemoryBytes: e.model.Bytes() + 4096*e.model.Spec().StateBytes()/2}
	if e, err := New(o); err == nil || !strings.Contains(err.Error(), "max_num_seqs") {
		if e != nil {
			err = errors.Join(err, e.Close(context.Background()))
		}
		t.Errorf("too little memory: %v", err)
	}
}
