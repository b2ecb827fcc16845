package encoder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
)

// decoderGolden is what testdata/decoders.py computed.
type decoderGolden struct {
	Texts                 []string
	Vectors, Queries, Cut [][]float64
	Told                  [][]float64
	Pooled                map[string][][]float64
	Tokens                [][]int32

	Pairs              [][2]string
	Instruction        string
	Yes, No            int
	Scores, Instructed []float64
}

func openDecoder(t *testing.T, name string, o Options) (*Engine, decoderGolden) {
	t.Helper()
	var g decoderGolden
	data, err := os.ReadFile("testdata/" + name + "/golden.json")
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil || len(g.Texts)+len(g.Pairs) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	if o.Dir == "" {
		o.Dir = "testdata/" + name
	}
	return start(t, o), g
}

func vectors(t *testing.T, e *Engine, req *engine.EmbedRequest, texts []string) [][]float32 {
	t.Helper()
	req.Model = "m"
	for _, s := range texts {
		req.Inputs = append(req.Inputs, engine.Input{Text: s})
	}
	got, err := e.Embed(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return got.Vectors
}

func wantVectors(t *testing.T, what string, got [][]float32, want [][]float64, within float64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d vectors, want %d", what, len(got), len(want))
	}
	for i, v := range got {
		if len(v) != len(want[i]) {
			t.Fatalf("%s: text %d has %d numbers, want %d", what, i, len(v), len(want[i]))
		}
		for k, x := range v {
			if !(math.Abs(float64(x)-want[i][k]) <= within) {
				t.Fatalf("%s: text %d, number %d is %g, want %g", what, i, k, x, want[i][k])
			}
		}
	}
}

var matryoshka = map[string]jsontext.Value{"is_matryoshka": jsontext.Value("true")}

// TestDecoderEmbeddings: as sentence-transformers, on each kernel variant, whole and in pieces.
func TestDecoderEmbeddings(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		for _, tokens := range []int{512, 16} {
			e, g := openDecoder(t, "qwen3-embedding", Options{Kernels: variant, MaxBatchedTokens: tokens, MaxNumSeqs: 8, Overrides: matryoshka})
			query := "query"
			wantVectors(t, "texts", vectors(t, e, &engine.EmbedRequest{}, g.Texts), g.Vectors, 1e-4)
			wantVectors(t, "queries", vectors(t, e, &engine.EmbedRequest{PromptName: &query}, g.Texts), g.Queries, 1e-4)
			wantVectors(t, "cut", vectors(t, e, &engine.EmbedRequest{Dimensions: new(6)}, g.Texts), g.Cut, 1e-4)
			var ids []engine.Input
			for _, list := range g.Tokens {
				ids = append(ids, engine.Input{Tokens: list})
			}
			wantVectors(t, "tokens", vectors(t, e, &engine.EmbedRequest{Inputs: ids}, nil), g.Vectors, 1e-4)
		}
	})
}

// TestBothWays: decoders whose tokens see those after them, as sentence-transformers and transformers compute them.
func TestBothWays(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		for _, tokens := range []int{512, 16} { // texts are computed whole all the same
			e, g := openDecoder(t, "gemma3-embedding", Options{Kernels: variant, MaxBatchedTokens: tokens})
			query := "query"
			wantVectors(t, "texts", vectors(t, e, &engine.EmbedRequest{}, g.Texts), g.Vectors, 1e-4)
			wantVectors(t, "queries", vectors(t, e, &engine.EmbedRequest{PromptName: &query}, g.Texts), g.Queries, 1e-4)
			e = start(t, Options{Dir: "testdata/qwen3-embedding", PoolingType: poolMean, Overrides: keys("is_causal", "false"), MaxBatchedTokens: tokens})
			wantVectors(t, "told", vectors(t, e, &engine.EmbedRequest{Normalize: new(false)}, g.Texts), g.Told, 1e-4)
		}
	})
	_, err := New(Options{Dir: stateful(t), Name: "m", PoolingType: poolMean, Overrides: keys("is_causal", "false")})
	if err == nil || !strings.Contains(err.Error(), "layer 0 cannot look both ways") {
		t.Error(err)
	}
}

func TestDecoderPooling(t *testing.T) {
	for _, pooling := range PoolingTypes() {
		for _, tokens := range []int{512, 16} {
			e, g := openDecoder(t, "qwen3-embedding", Options{PoolingType: pooling, MaxBatchedTokens: tokens, MaxNumSeqs: 8})
			got := vectors(t, e, &engine.EmbedRequest{Normalize: new(false)}, g.Texts)
			wantVectors(t, fmt.Sprint(pooling, tokens), got, g.Pooled[pooling], 1e-4)
		}
	}
}

// TestDecoderInvariance: vectors are the same, bit for bit, alone, whole, in pieces and among others', also where the model
// keeps a state of each text.
func TestDecoderInvariance(t *testing.T) {
	for name, dir := range map[string]string{"qwen3": "", "qwen3_5": stateful(t)} {
		for _, pooling := range []string{poolLast, poolMean} {
			alone, g := openDecoder(t, "qwen3-embedding", Options{Dir: dir, PoolingType: pooling, MaxNumSeqs: 1, MaxModelLen: 200})
			var inputs []engine.Input
			var want [][]float32
			for i := range g.Texts {
				inputs = append(inputs, engine.Input{Tokens: fold(g.Tokens[i], 60)})
				want = append(want, vectors(t, alone, &engine.EmbedRequest{Inputs: inputs[i:]}, nil)[0])
			}
			e, _ := openDecoder(t, "qwen3-embedding", Options{Dir: dir, PoolingType: pooling, MaxBatchedTokens: 24, MaxNumSeqs: 5, MaxModelLen: 200})
			var wg sync.WaitGroup
			for w := range 6 {
				wg.Go(func() {
					for n := range 4 {
						i := (w + n) % len(inputs)
						order := append(slices.Clone(inputs[i:]), inputs[:i]...)
						got, err := e.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m", Tenant: fmt.Sprint(w % 3)}, Inputs: order})
						if err != nil {
							t.Error(err)
							return
						}
						for k, v := range got.Vectors {
							if !slices.Equal(v, want[(i+k)%len(want)]) {
								t.Errorf("%s, %s: text %d differs", name, pooling, (i+k)%len(want))
							}
						}
					}
				})
			}
			wg.Wait()
			d := e.work.trunk.(*decoder)
			if len(d.blocks) != d.kv.NumBlocks() || len(d.freeStates) != 5 {
				t.Errorf("%d of %d blocks and %d of 5 states are free", len(d.blocks), d.kv.NumBlocks(), len(d.freeStates))
			}
		}
	}
}

// TestLeaving: requests that are left at any moment, before others and behind them, give back all that they held, and the others
// get what they would have got alone.
func TestLeaving(t *testing.T) {
	for name, dir := range map[string]string{"qwen3": "", "qwen3_5": stateful(t)} {
		// Room for two texts of full length and some blocks: many must wait for it.
		e, g := openDecoder(t, "qwen3-embedding", Options{Dir: dir, MaxBatchedTokens: 16, MaxNumSeqs: 3, MaxModelLen: 200})
		var inputs []engine.Input
		for _, ids := range g.Tokens {
			inputs = append(inputs, engine.Input{Tokens: fold(ids, 60)})
		}
		ask := func(ctx context.Context, tenant string) ([][]float32, error) {
			got, err := e.Embed(ctx, &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m", Tenant: tenant}, Inputs: inputs})
			if err != nil {
				return nil, err
			}
			return got.Vectors, nil
		}
		want, err := ask(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, 2))
		var left atomic.Int32
		var wg sync.WaitGroup
		for w := range 6 {
			steps := random.IntN(30)
			wg.Go(func() {
				for n := range 8 {
					ctx, leave := context.WithCancel(t.Context())
					if leaves := (w+n)%2 == 0; leaves {
						before := e.Stats()[0].Steps
						go func() {
							for e.Stats()[0].Steps < before+uint64(steps) && ctx.Err() == nil {
								runtime.Gosched()
							}
							leave()
						}()
					}
					got, err := ask(ctx, fmt.Sprint(w%3))
					if failed, ok := errors.AsType[*engine.Error](err); ok && failed.Code == engine.Canceled {
						left.Add(1)
					} else if err != nil {
						t.Error(err)
					}
					for i, v := range got {
						if !slices.Equal(v, want[i]) {
							t.Errorf("%s: text %d differs", name, i)
						}
					}
					leave()
				}
			})
		}
		wg.Wait()
		if n := left.Load(); n == 0 || n > 24 {
			t.Errorf("%s: %d requests were left of 24 that wanted to", name, n)
		}
		// What a step was computing when its request left is given back with the next one.
		if _, err := ask(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		e.runner.mu.Lock()
		d := e.work.trunk.(*decoder)
		if len(d.blocks) != d.kv.NumBlocks() || len(d.freeStates) != 3 || e.runner.waiting != 0 || len(e.runner.jobs) != 0 || len(e.runner.tenants) != 0 {
			t.Errorf("%s: %d of %d blocks and %d of 3 states are free, %d texts wait", name, len(d.blocks), d.kv.NumBlocks(), len(d.freeStates), e.runner.waiting)
		}
		e.runner.mu.Unlock()
	}
}

// fold brings tokens into a vocabulary of that size.
func fold(ids []int32, vocab int32) []int32 {
	out := slices.Clone(ids)
	for i := range out {
		out[i] %= vocab
	}
	return out
}

// stateful makes a checkpoint with linear attention, and another's tokenizer, since ids are all that counts.
func stateful(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"../../model/testdata/qwen3_5/config.json", "../../model/testdata/qwen3_5/model.safetensors",
		"qwen3-embedding/tokenizer.json", "qwen3-embedding/tokenizer_config.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pairScores(t *testing.T, e *Engine, req *engine.ScoreRequest, pairs [][2]string) []float64 {
	t.Helper()
	req.Model, req.Field = "m", "documents"
	for _, p := range pairs {
		req.Pairs = append(req.Pairs, engine.Pair{First: p[0], Second: p[1]})
	}
	got, err := e.Score(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return got.Scores
}

func wantScores(t *testing.T, what string, got, want []float64) {
	t.Helper()
	logit := func(p float64) float64 { return math.Log(p / (1 - p)) } // near 1 what p is says little
	for i := range want {
		if !(math.Abs(logit(got[i])-logit(want[i])) <= 1e-3) {
			t.Errorf("%s: %v, want %v", what, got, want)
			return
		}
	}
}

var original = map[string]jsontext.Value{
	"architectures":              jsontext.Value(`["Qwen3ForSequenceClassification"]`),
	"classifier_from_token":      jsontext.Value(`["no","yes"]`),
	"is_original_qwen3_reranker": jsontext.Value("true"),
}

// TestDecoderScores: the original by what vLLM's hf_overrides say and by sentence-transformers' files, and converted ones.
func TestDecoderScores(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		for name, o := range map[string]Options{
			"qwen3-reranker": {Overrides: original},
			"qwen3-seq-cls":  {},
		} {
			o.Kernels, o.MaxBatchedTokens, o.MaxNumSeqs = variant, 64, 8
			e, g := openDecoder(t, name, o)
			wantScores(t, name, pairScores(t, e, &engine.ScoreRequest{}, g.Pairs), g.Scores)
			wantScores(t, name, pairScores(t, e, &engine.ScoreRequest{Instruction: g.Instruction}, g.Pairs), g.Instructed)
		}
	})
}

// modules makes the reranker one of sentence-transformers, with its own template.
func modules(t *testing.T, g decoderGolden, more map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"modules.json": `[{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
			{"path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"}]`,
		"1_LogitScore/config.json": fmt.Sprintf(`{"true_token_id": %d, "false_token_id": %d}`, g.Yes, g.No),
		"chat_template.jinja": "{%- set q = (messages | selectattr('role', 'eq', 'query') | first).content -%}\n" +
			"{%- set d = (messages | selectattr('role', 'eq', 'document') | first).content -%}\n" + strings.NewReplacer(
			"{{ messages[-2].content }}", "{{ q }}", "{{ messages[-1].content }}", "{{ d }}").Replace(qwen3Pairs),
	}
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} {
		data, err := os.ReadFile("testdata/qwen3-reranker/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(data)
	}
	for name, data := range more {
		files[name] = data
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestControlTokens: what spells a control token is text, in a text to embed as in both texts of a pair; in a prompt of the
// model's own it is the token.
func TestControlTokens(t *testing.T) {
	for _, name := range []string{"bert-score", "qwen3-seq-cls"} {
		e, _ := openDecoder(t, name, Options{})
		special := map[int32]bool{}
		var all string
		for _, s := range e.tok.Special() {
			if s.Content != e.tok.TemplateVars()["unk_token"] {
				special[s.ID], all = true, all+s.Content
			}
		}
		count := func(ids []int32) (n int) {
			for _, id := range ids {
				if special[id] {
					n++
				}
			}
			return n
		}
		text, err := e.encode("", all)
		if err != nil || len(special) < 3 || len(text) == 0 || count(text) != 0 {
			t.Errorf("%s: %v of %q, %v", name, text, all, err)
		}
		if ids, err := e.encode(all, "a"); err != nil || count(ids) != len(special) {
			t.Errorf("%s: %v, %v", name, ids, err)
		}
		if ids, err := e.encode(all[:1], all[1:]); err != nil || count(ids) != 0 {
			t.Errorf("%s: %v of what begins in the prompt, %v", name, ids, err)
		}
		pair := func(first, second string) int {
			req := &engine.ScoreRequest{Field: "documents", Pairs: []engine.Pair{{First: first, Second: second}}}
			ask := e.pairText
			if e.pairs != nil {
				ask = e.promptText
			}
			got, err := ask(req, 0)
			if err != nil {
				t.Fatal(err)
			}
			return count(got.ids)
		}
		if plain, first, second := pair("a", "a"), pair(all, "a"), pair("a", all); first != plain || second != plain {
			t.Errorf("%s: %d and %d control tokens in a pair, want %d", name, first, second, plain)
		}
	}
}

func TestLogitScore(t *testing.T) {
	_, g := openDecoder(t, "qwen3-reranker", Options{Overrides: original})
	e := start(t, Options{Dir: modules(t, g, nil)})
	wantScores(t, "modules", pairScores(t, e, &engine.ScoreRequest{}, g.Pairs), g.Scores)
	// A default prompt is the instruction, and scores may be the logits themselves.
	e = start(t, Options{Dir: modules(t, g, map[string]string{"config_sentence_transformers.json": `{"prompts": {"fox": "` + g.Instruction +
		`"}, "default_prompt_name": "fox", "activation_fn": "torch.nn.modules.linear.Identity"}`})})
	got := pairScores(t, e, &engine.ScoreRequest{}, g.Pairs)
	for i := range got {
		got[i] = 1 / (1 + math.Exp(-got[i]))
	}
	wantScores(t, "prompt", got, g.Instructed)
}

// TestLongDocuments: what does not fit loses the document's end, or is refused.
func TestLongDocuments(t *testing.T) {
	e, g := openDecoder(t, "qwen3-seq-cls", Options{})
	long := [2]string{"fox", strings.Repeat("lazy dog ", 200)}
	_, err := e.Score(t.Context(), &engine.ScoreRequest{Pooling: engine.Pooling{Model: "m"}, Field: "documents",
		Pairs: []engine.Pair{{First: long[0], Second: long[1]}}})
	wantParam(t, err, "documents[0]")
	cut := pairScores(t, e, &engine.ScoreRequest{Pooling: engine.Pooling{Truncate: new(-1)}}, [][2]string{long, {g.Pairs[0][0], g.Pairs[0][1]}})
	if !(math.Abs(cut[1]-g.Scores[0]) <= 1e-4) {
		t.Errorf("a short document's score is %g, want %g", cut[1], g.Scores[0])
	}
	ids, err := e.tok.Encode(long[1], false)
	if err != nil {
		t.Fatal(err)
	}
	for keep := len(ids); ; keep-- { // the longest beginning that fits
		short := [2]string{long[0], e.tok.Decode(ids[:keep], false)}
		if got, err := e.promptTokens(&engine.ScoreRequest{Pairs: []engine.Pair{{First: short[0]}}}, 0, short[1]); err != nil {
			t.Fatal(err)
		} else if len(got) <= e.maxLen {
			wantScores(t, "cut", cut[:1], pairScores(t, e, &engine.ScoreRequest{}, [][2]string{short}))
			break
		}
	}
	few := pairScores(t, e, &engine.ScoreRequest{MaxSecond: 2}, [][2]string{long})
	wantScores(t, "max_tokens_per_doc", few, pairScores(t, e, &engine.ScoreRequest{}, [][2]string{{long[0], e.tok.Decode(ids[:2], false)}}))
	_, err = e.Score(t.Context(), &engine.ScoreRequest{Pooling: engine.Pooling{Model: "m", Truncate: new(20)}, Field: "documents",
		Pairs: []engine.Pair{{First: long[0], Second: long[1]}}})
	wantParam(t, err, "truncate_prompt_tokens")
}

// TestQuantizedEmbedder: rounded weights make nearly the same vectors, in a smaller memory.
func TestQuantizedEmbedder(t *testing.T) {
	for bits, least := range map[int]float64{8: 0.99, 4: 0.8} {
		e, g := openDecoder(t, "qwen3-embedding", Options{Bits: bits})
		for i, v := range vectors(t, e, &engine.EmbedRequest{}, g.Texts) {
			cos := 0.0
			for k, x := range v {
				cos += float64(x) * g.Vectors[i][k]
			}
			if !(cos >= least && cos < 1-1e-9) {
				t.Errorf("%d bits: text %d: cosine %g", bits, i, cos)
			}
		}
	}
}

// TestDTypes: with 16-bit weights vectors are nearly the same: 8 or 11 bits of each weight are left.
func TestDTypes(t *testing.T) {
	for _, name := range []string{"bert", "distilbert", "mpnet", "modernbert", "qwen3-embedding", "gemma3-embedding"} {
		for dtype, least := range map[string]float64{"bfloat16": 0.999, "float16": 0.99999} {
			exact, g := openDecoder(t, name, Options{DType: "float32"})
			rounded, _ := openDecoder(t, name, Options{DType: dtype})
			want := vectors(t, exact, &engine.EmbedRequest{Normalize: new(true)}, g.Texts)
			for i, v := range vectors(t, rounded, &engine.EmbedRequest{Normalize: new(true)}, g.Texts) {
				cos := 0.0
				for k, x := range v {
					cos += float64(x) * float64(want[i][k])
				}
				if !(cos >= least) || slices.Equal(v, want[i]) {
					t.Errorf("%s, %s: text %d: cosine %.9f", name, dtype, i, cos)
				}
			}
		}
	}
}

func TestRefusesAtLoad(t *testing.T) {
	_, g := openDecoder(t, "qwen3-reranker", Options{Overrides: original})
	set := func(key, value string) map[string]jsontext.Value {
		return map[string]jsontext.Value{key: jsontext.Value(value)}
	}
	for want, o := range map[string]Options{
		`classifier_from_token: "maybe" is no token`:           {Dir: "testdata/qwen3-reranker", Overrides: set("classifier_from_token", `["no","maybe"]`)},
		"classifier_from_token: 3 tokens":                      {Dir: "testdata/qwen3-reranker", Overrides: set("classifier_from_token", `["a","b","c"]`)},
		`method "odd" is neither`:                              {Dir: "testdata/qwen3-seq-cls", Overrides: set("method", `"odd"`)},
		`does not go with 1 tokens`:                            {Dir: modules(t, g, nil), Overrides: map[string]jsontext.Value{"classifier_from_token": jsontext.Value(`["yes"]`), "method": jsontext.Value(`"from_2_way_softmax"`)}},
		"2 labels: only models with one":                       {Dir: "testdata/qwen3-seq-cls", Overrides: set("id2label", `{"0": "a", "1": "b"}`)},
		"missing: score.weight":                                {Dir: "testdata/qwen3-reranker", Overrides: map[string]jsontext.Value{"architectures": original["architectures"], "id2label": jsontext.Value(`{"0": "a"}`)}},
		"chat_template: LlamaForSequenceClassification scores": {Dir: "testdata/qwen3-seq-cls", Overrides: set("architectures", `["LlamaForSequenceClassification"]`)},
		"pooling_type: Qwen3ForSequenceClassification scores":  {Dir: "testdata/qwen3-seq-cls", PoolingType: "mean"},
		"the KV cache holds 1 blocks":                          {Dir: "testdata/qwen3-embedding", KVCacheBytes: 4096},
		"max_model_len: 1000 tokens":                           {Dir: "testdata/qwen3-embedding", MaxModelLen: 1000},
		"quantization_bit: has no effect on BertModel":         {Dir: "testdata/bert", Bits: 8},
		"chat_template: has no effect on Qwen3ForCausalLM":     {Dir: "testdata/qwen3-embedding", ChatTemplate: "x"},
		"1_LogitScore: true_token_id is absent":                {Dir: modules(t, g, map[string]string{"1_LogitScore/config.json": "{}"})},
		"default_prompt_name: there is no prompt":              {Dir: modules(t, g, map[string]string{"config_sentence_transformers.json": `{"default_prompt_name": "x"}`})},
		"the weights need 0 MiB":                               {Dir: "testdata/qwen3-embedding", MemoryBytes: 10},
		`infer_dtype: dtype "half" is none of`:                 {Dir: "testdata/qwen3-embedding", DType: "half"},
	} {
		o.Name = "m"
		if e, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
			if err == nil {
				_ = e.Close(t.Context())
			}
		}
	}
	e, _ := openDecoder(t, "qwen3-embedding", Options{})
	odd := "odd"
	_, err := e.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, PromptName: &odd, Inputs: []engine.Input{{Text: "a"}}})
	wantParam(t, err, "prompt_name")
	score := &engine.ScoreRequest{Pooling: engine.Pooling{Model: "m"}, Instruction: "x", Pairs: []engine.Pair{{First: "a", Second: "b"}}}
	_, err = e.Score(t.Context(), score)
	wantParam(t, err, "instruction")
	bert, _ := open(t, "bert-score", Options{})
	_, err = bert.Score(t.Context(), score)
	wantParam(t, err, "instruction")
}
