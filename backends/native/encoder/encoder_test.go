package encoder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"pagoda/engine"
	"pagoda/kernels"
)

// golden is what transformers computed with a tiny checkpoint; testdata/golden.py says how.
type golden struct {
	Texts  []string
	Pooled map[string][][]float64
	Pairs  [][2]string
	Logits []float64
}

func open(t *testing.T, name string, o Options) (*Engine, golden) {
	t.Helper()
	var g golden
	data, err := os.ReadFile("testdata/" + name + "/golden.json")
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil || len(g.Texts)+len(g.Pairs) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	o.Dir, o.Name = "testdata/"+name, "m"
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err) // also memory that was not given back
		}
	})
	return e, g
}

func embed(t *testing.T, e *Engine, texts ...string) [][]float32 {
	t.Helper()
	req := &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}}
	for _, s := range texts {
		req.Inputs = append(req.Inputs, engine.Input{Text: s})
	}
	got, err := e.Embed(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	return got.Vectors
}

func everyVariant(t *testing.T, f func(t *testing.T, variant string)) {
	for _, v := range kernels.Variants() {
		t.Run(v, func(t *testing.T) { f(t, v) })
	}
}

func TestGoldenEmbeddings(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		for _, name := range []string{"bert", "roberta", "xlm-roberta"} {
			for _, pooling := range PoolingTypes() {
				e, g := open(t, name, Options{Kernels: variant, PoolingType: pooling})
				for i, v := range embed(t, e, g.Texts...) {
					for k, want := range g.Pooled[pooling][i] {
						if !(math.Abs(float64(v[k])-want) <= 1e-4) {
							t.Fatalf("%s, %s, text %d: number %d is %g, want %g", name, pooling, i, k, v[k], want)
						}
					}
				}
			}
		}
	})
}

func TestGoldenScores(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		for _, name := range []string{"bert-score", "xlm-roberta-score"} {
			e, g := open(t, name, Options{Kernels: variant})
			req := &engine.ScoreRequest{Pooling: engine.Pooling{Model: "m"}}
			for _, p := range g.Pairs {
				req.Pairs = append(req.Pairs, engine.Pair{First: p[0], Second: p[1]})
			}
			got, err := e.Score(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for i, logit := range g.Logits {
				if want := 1 / (1 + math.Exp(-logit)); !(math.Abs(got.Scores[i]-want) <= 1e-4) {
					t.Errorf("%s, pair %d: %g, want %g", name, i, got.Scores[i], want)
				}
			}
			_, err = e.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Inputs: []engine.Input{{Text: "a"}}})
			wantParam(t, err, "model")
		}
	})
}

func wantParam(t *testing.T, err error, param string) {
	t.Helper()
	if e, ok := errors.AsType[*engine.Error](err); !ok || e.Param != param {
		t.Errorf("%v, want one of %s", err, param)
	}
}

// TestBatchInvariance: vectors are the same, bit for bit, alone and among those of other requests.
func TestBatchInvariance(t *testing.T) {
	alone, g := open(t, "bert", Options{MaxNumSeqs: 1})
	var want [][]float32
	for _, s := range g.Texts {
		want = append(want, embed(t, alone, s)[0])
	}
	e, _ := open(t, "bert", Options{MaxBatchedTokens: 64, MaxNumSeqs: 7})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 10 {
				i := (w + n) % len(g.Texts)
				order := append(slices.Clone(g.Texts[i:]), g.Texts[:i]...)
				req := &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m", Tenant: fmt.Sprint(w % 3)}}
				for _, s := range order {
					req.Inputs = append(req.Inputs, engine.Input{Text: s})
				}
				got, err := e.Embed(context.Background(), req)
				if err != nil {
					t.Error(err)
					return
				}
				for k, v := range got.Vectors {
					if !slices.Equal(v, want[(i+k)%len(want)]) {
						t.Errorf("text %d differs", (i+k)%len(want))
					}
				}
			}
		})
	}
	wg.Wait()
	if s := e.Stats()[0]; s.Running != 0 || s.Waiting != 0 || len(e.runner.service) != 0 || s.StepTokensSum == 0 {
		t.Errorf("%+v", s)
	}
}

func TestRefuses(t *testing.T) {
	e, _ := open(t, "bert", Options{})
	ask := func(change func(*engine.EmbedRequest)) error {
		req := &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Inputs: []engine.Input{{Text: "a"}}}
		change(req)
		_, err := e.Embed(t.Context(), req)
		return err
	}
	long := engine.Input{Text: strings.Repeat("hello ", 50)}
	err := ask(func(r *engine.EmbedRequest) { r.Inputs = append(r.Inputs, long) })
	if wantParam(t, err, "input[1]"); !strings.Contains(fmt.Sprint(err), "52 tokens, the model takes at most 40") {
		t.Error(err)
	}
	wantParam(t, ask(func(r *engine.EmbedRequest) { r.Dimensions = new(8) }), "dimensions")
	wantParam(t, ask(func(r *engine.EmbedRequest) { r.Model = "x" }), "model")
	wantParam(t, ask(func(r *engine.EmbedRequest) { r.Inputs[0].Tokens = []int32{1 << 20} }), "input[0]")
	wantParam(t, ask(func(r *engine.EmbedRequest) { r.Truncate = new(1) }), "truncate_prompt_tokens")
	score := &engine.ScoreRequest{Pooling: engine.Pooling{Model: "m"}, Field: "documents", Pairs: []engine.Pair{{First: "a", Second: "a"}, {First: "a", Second: long.Text}}}
	_, err = e.Score(t.Context(), score)
	wantParam(t, err, "documents[1]")
	score.MaxSecond = 3
	_, err = e.Score(t.Context(), score)
	wantParam(t, err, "max_tokens_per_doc")
	for _, err := range e.Generate(t.Context(), &engine.Request{}) {
		wantParam(t, err, "model")
	}
	got, err := e.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m", Truncate: new(-1)}, Inputs: []engine.Input{long}})
	if err != nil || got.Tokens[0] != 40 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNormalize(t *testing.T) {
	e, _ := open(t, "bert", Options{})
	got, err := e.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Normalize: new(true), Inputs: []engine.Input{{Text: "hello"}}})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, v := range got.Vectors[0] {
		sum += float64(v) * float64(v)
	}
	if !(math.Abs(sum-1) < 1e-6) {
		t.Errorf("squared length %g", sum)
	}
}

func TestLongestFirst(t *testing.T) {
	for _, c := range [][5]int{{5, 5, 10, 5, 5}, {3, 9, 8, 3, 5}, {9, 3, 8, 5, 3}, {9, 9, 7, 3, 4}, {2, 9, 3, 1, 2}} {
		if a, b := longestFirst(c[0], c[1], c[2]); a+b != c[3]+c[4] || a > c[0] || b > c[1] {
			t.Errorf("%v: %d and %d", c, a, b)
		}
	}
}

// TestMiniLM compares all-MiniLM-L6-v2 with sentence-transformers, on each kernel variant but the slow reference;
// test/minilm.sh fetches its weights.
func TestMiniLM(t *testing.T) {
	dir := os.Getenv("PAGODA_MINILM")
	if dir == "" {
		t.Skip("PAGODA_MINILM names no folder with the model; make minilm fetches it")
	}
	var want struct {
		Texts   []string
		Vectors [][]float64
	}
	data, err := os.ReadFile("testdata/minilm.json")
	if err == nil {
		err = json.Unmarshal(data, &want)
	}
	if err != nil || len(want.Texts) < 10 {
		t.Fatalf("%d texts, %v", len(want.Texts), err)
	}
	for _, variant := range kernels.Variants() {
		if variant == "ref" {
			continue
		}
		e, err := New(Options{Dir: dir, Name: "m", Kernels: variant})
		if err != nil {
			t.Fatal(err)
		}
		worst := 0.0
		for i, v := range embed(t, e, want.Texts...) {
			for k, x := range v {
				d := math.Abs(float64(x) - want.Vectors[i][k])
				if worst = max(worst, d); !(d <= 1e-4) {
					t.Fatalf("%s: text %d, number %d is %g, want %g", variant, i, k, x, want.Vectors[i][k])
				}
			}
		}
		t.Logf("%s: worst difference %.2g", variant, worst)
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestCancel: texts of a request that nobody waits for leave the queue, and a step that fails costs its own texts only.
func TestCancel(t *testing.T) {
	e, _ := open(t, "bert", Options{MaxNumSeqs: 1, MaxQueue: 4})
	r := e.runner
	make1 := func(id int32) *text { return &text{ids: []int32{id}, second: 1} }
	ctx, leave := context.WithCancel(t.Context())
	leave()
	texts := make([]*text, 200)
	for i := range texts {
		texts[i] = make1(5)
	}
	err := r.run(ctx, "a", 0, texts)
	if got, ok := errors.AsType[*engine.Error](err); err != nil && (!ok || got.Code != engine.Canceled) {
		t.Errorf("%v", err)
	}
	if s := r.load(); s.Waiting != 0 {
		t.Errorf("%d texts wait for nobody", s.Waiting)
	}
	err = r.run(t.Context(), "a", 0, []*text{make1(1 << 20)}) // beyond the vocabulary: the step fails
	if got, ok := errors.AsType[*engine.Error](err); !ok || got.Code != engine.Internal {
		t.Errorf("%v", err)
	}
	if err := r.run(t.Context(), "a", 0, []*text{make1(5)}); err != nil {
		t.Errorf("after a step that failed: %v", err)
	}
}

// TestChoose: priorities first, then tenants in turn, then the order of arrival; full is refused.
func TestChoose(t *testing.T) {
	r := newRunner(&workspace{tokens: 6, seqs: 4}, nil, 3, "m", nil)
	add := func(tenant string, priority int, lens ...int) {
		j := &job{tenant: tenant, priority: priority}
		r.join(tenant)
		for _, n := range lens {
			r.waiting = append(r.waiting, &text{job: j, ids: make([]int32, n)})
		}
	}
	add("a", 0, 2, 2, 2)
	add("b", 0, 1, 3)
	add("c", -1, 1)
	var got []string
	for len(r.waiting) > 0 {
		step := "|"
		for _, x := range r.choose() {
			step += fmt.Sprint(x.job.tenant, len(x.ids))
		}
		got = append(got, step)
	}
	if want := []string{"|c1a2b1", "|b3a2", "|a2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	add("a", 0, 1, 1, 1)
	err := r.run(t.Context(), "b", 0, []*text{{ids: []int32{1}}})
	if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.Busy {
		t.Errorf("%v", err)
	}
}

// TestCosines: an embedder scores pairs by the cosine of their vectors.
func TestCosines(t *testing.T) {
	e, g := open(t, "bert", Options{})
	got, err := e.Score(t.Context(), &engine.ScoreRequest{Pooling: engine.Pooling{Model: "m"},
		Pairs: []engine.Pair{{First: g.Texts[0], Second: g.Texts[0]}, {First: g.Texts[0], Second: g.Texts[2]}}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := g.Pooled["mean"][0], g.Pooled["mean"][2]
	var ab, aa, bb float64
	for i := range a {
		ab, aa, bb = ab+a[i]*b[i], aa+a[i]*a[i], bb+b[i]*b[i]
	}
	if want := ab / math.Sqrt(aa*bb); !(math.Abs(got.Scores[0]-1) <= 1e-6) || !(math.Abs(got.Scores[1]-want) <= 1e-4) {
		t.Errorf("%v, want 1 and %g", got.Scores, want)
	}
}
