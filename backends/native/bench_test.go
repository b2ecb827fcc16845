package native

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pagoda/backends/native/sched"
	"pagoda/engine"
	"pagoda/models/demo"
)

// qwen06B is the shape of Qwen3-0.6B.
const qwen06B = `{"architectures":["Qwen3ForCausalLM"],"torch_dtype":"bfloat16","vocab_size":151936,"hidden_size":1024,
	"intermediate_size":3072,"num_hidden_layers":28,"num_attention_heads":16,"num_key_value_heads":8,"head_dim":128,
	"max_position_embeddings":40960,"rms_norm_eps":1e-6,"rope_theta":1000000,"hidden_act":"silu","tie_word_embeddings":true}`

// qwen17B is the shape of Qwen3-1.7B.
var qwen17B = strings.NewReplacer(`"hidden_size":1024`, `"hidden_size":2048`, `:3072`, `:6144`).Replace(qwen06B)

// dummyFiles are a checkpoint of the given shape without weights, with the built-in model's tokenizer.
func dummyFiles(b *testing.B, config string) fs.FS {
	b.Helper()
	files := fstest.MapFS{"config.json": &fstest.MapFile{Data: []byte(config)}}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
		data, err := fs.ReadFile(demo.FS(), name)
		if err != nil {
			b.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	return files
}

// openDummy serves a model of the given shape with random weights.
func openDummy(b *testing.B, config string, o Options) *Engine {
	b.Helper()
	o.Files, o.Name, o.LoadFormat = dummyFiles(b, config), "dummy", "dummy"
	e, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return e
}

// script makes the model say a text: whatever the logits are, they are made to pick its next token. It starts at
// another place for each choice.
func script(e *Engine, text []int32) {
	e.runner.onLogits = func(c *choice, logits []float32) {
		clear(logits)
		at := c.seq.NumOutput() + len(e.runner.picked)
		logits[text[(at+c.seq.Index*97)%len(text)]] = 100
	}
}

// BenchmarkGuessing measures decoding with and without guesses, on texts that a model of 0.6 B parameters is made to say:
// "copy" is a long quotation of the prompt with a token changed in about every 40, "prose" goes on with the document
// that the prompt begins, and "random" does not repeat itself.
func BenchmarkGuessing(b *testing.B) {
	e := openDummy(b, qwen06B, Options{MaxModelLen: 2048, MaxNumSeqs: 16, NumSpeculativeTokens: 8, KVCacheBytes: 2 << 30})
	document, err := os.ReadFile("../../docs/decisions.md")
	if err != nil {
		b.Fatal(err)
	}
	prose, err := e.Tokenize(context.Background(), &engine.Request{Model: "dummy", Text: ptr(string(document[:6000]))})
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	other := func() int32 { return random.Int32N(int32(e.vocab)) }
	edited := slices.Clone(prose[:400])
	for i := 20; i < len(edited); i += 20 + random.IntN(40) {
		edited[i] = other()
	}
	noise := make([]int32, 400)
	for i := range noise {
		noise[i] = other()
	}
	for _, text := range []struct {
		name   string
		answer []int32
	}{{"copy", edited}, {"prose", prose[400:1200]}, {"random", noise}} {
		for _, seqs := range []int{1, 4, 16} {
			for _, ahead := range []int{0, 8} {
				b.Run(fmt.Sprintf("%s/seqs=%d/ahead=%d", text.name, seqs, ahead), func(b *testing.B) {
					script(e, text.answer)
					for b.Loop() {
						measureGuessing(b, e, prose[:400], seqs, ahead)
					}
				})
			}
		}
	}
}

// BenchmarkDraftModel measures decoding by a model of 1.7 B parameters with one of 0.6 B that guesses ahead. What they say
// is given: a token guessed is right with the share named.
func BenchmarkDraftModel(b *testing.B) {
	e := openDummy(b, qwen17B, Options{MaxModelLen: 1024, MaxNumSeqs: 4, NumSpeculativeTokens: 8, KVCacheBytes: 1 << 30,
		SpeculativeMethod: "draft_model", DraftFiles: dummyFiles(b, qwen06B)})
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]int32, 400)
	for i := range text {
		text[i] = random.Int32N(int32(e.vocab))
	}
	script(e, text)
	model := e.runner.spec.drafter
	for _, c := range []struct {
		right float64
		ahead int
	}{{0, 0}, {0, 8}, {0.7, 8}, {0.9, 8}} {
		e.runner.spec.drafter = &scriptedDrafter{model, text, c.right, random}
		b.Run(fmt.Sprintf("ahead=%d/right=%g", c.ahead, c.right), func(b *testing.B) {
			for b.Loop() {
				measureGuessing(b, e, text[:64], 1, c.ahead)
			}
		})
	}
}

// scriptedDrafter takes the time that a drafter takes, and guesses right as often as it is told.
type scriptedDrafter struct {
	drafter
	text   []int32
	right  float64
	random *rand.Rand
}

func (s *scriptedDrafter) draft(plan sched.Plan, most []int) error {
	if err := s.drafter.draft(plan, most); err != nil {
		return err
	}
	for _, it := range plan.Items {
		for i := range it.Draft {
			it.Draft[i] = s.text[(it.Seq.NumOutput()+i)%len(s.text)]
			if s.random.Float64() >= s.right {
				it.Draft[i] = 0
			}
		}
	}
	return nil
}

func measureGuessing(b *testing.B, e *Engine, prompt []int32, seqs, ahead int) {
	const tokens = 96
	before := e.Stats()[0]
	req := &engine.Request{Model: "dummy", Tokens: prompt, SpeculativeTokens: &ahead,
		Sampling: engine.Sampling{N: seqs, Temperature: ptr(0.0), IgnoreEOS: true, MaxTokens: ptr(tokens)}}
	var first time.Time
	n := 0
	for ev, err := range e.Generate(context.Background(), req) {
		if err != nil {
			b.Fatal(err)
		}
		if first.IsZero() {
			first = time.Now()
		}
		n += len(ev.Tokens)
	}
	after := e.Stats()[0]
	b.ReportMetric(float64(n-1)/time.Since(first).Seconds(), "tok/s")
	b.ReportMetric(float64(after.Steps-before.Steps), "steps")
	b.ReportMetric(float64(after.DraftTokens-before.DraftTokens), "guessed")
	b.ReportMetric(float64(after.AcceptedTokens-before.AcceptedTokens), "right")
}
