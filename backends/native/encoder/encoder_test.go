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
	o.Dir = "testdata/" + name
	return start(t, o), g
}

func start(t *testing.T, o Options) *Engine {
	t.Helper()
	o.Name = "m"
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err) // also memory that was not given back
		}
	})
	return e
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
		for _, name := range []string{"bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert"} {
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
		for _, name := range []string{"bert-score", "xlm-roberta-score", "distilbert-score", "mpnet-score", "modernbert-score"} {
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
	for _, name := range []string{"bert", "mpnet", "modernbert"} {
		t.Run(name, func(t *testing.T) { testBatchInvariance(t, name) })
	}
}

func testBatchInvariance(t *testing.T, name string) {
	alone, g := open(t, name, Options{MaxNumSeqs: 1})
	var want [][]float32
	for _, s := range g.Texts {
		want = append(want, embed(t, alone, s)[0])
	}
	e, _ := open(t, name, Options{MaxBatchedTokens: 64, MaxNumSeqs: 7})
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
	if s := e.Stats()[0]; s.Running != 0 || s.Waiting != 0 || len(e.runner.tenants) != 0 || s.StepTokensSum == 0 {
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
	e, _ := open(t, "bert", Options{MaxNumSeqs: 1})
	r := e.runner
	make1 := func(id int32) *text { return &text{ids: []int32{id}, second: 1} }
	ctx, leave := context.WithCancel(t.Context())
	many := func() []*text {
		texts := make([]*text, 200)
		for i := range texts {
			texts[i] = make1(5)
		}
		return texts
	}
	texts := many()
	// The request leaves before the loop can take its first text.
	r.mu.Lock()
	j, err := r.add("a", 0, texts)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if pieces := r.choose(); len(pieces) != 1 || pieces[0].t != texts[0] || r.waiting != 199 {
		t.Errorf("%d pieces, %d wait", len(pieces), r.waiting)
	}
	r.leave(j)
	r.finish(piece{texts[0], 1}, nil)
	if r.waiting != 0 || len(r.jobs) != 0 || len(r.tenants) != 0 {
		t.Errorf("%d texts wait for nobody, %d jobs, %d tenants", r.waiting, len(r.jobs), len(r.tenants))
	}
	r.mu.Unlock()
	err = r.run(ctx, "a", 0, many())
	if got, ok := errors.AsType[*engine.Error](err); !ok || got.Code != engine.Canceled || r.load().Waiting != 0 {
		t.Errorf("%v, %d wait", err, r.load().Waiting)
	}
	err = r.run(t.Context(), "a", 0, []*text{make1(1 << 20)}) // beyond the vocabulary: the step fails
	if got, ok := errors.AsType[*engine.Error](err); !ok || got.Code != engine.Internal {
		t.Errorf("%v", err)
	}
	if err := r.run(t.Context(), "a", 0, []*text{make1(5)}); err != nil {
		t.Errorf("after a step that failed: %v", err)
	}
}

// scripted is a trunk that has room for some tokens.
type scripted struct{ free int }

func (s *scripted) begin(t *text) bool {
	if len(t.ids) > s.free {
		return false
	}
	s.free -= len(t.ids)
	return true
}
func (s *scripted) end(t *text) { s.free += len(t.ids) }
func (s *scripted) forward(*kernels.Stream, []piece, []int32) ([]float32, error) {
	return nil, errors.New("not here")
}
func (s *scripted) close() error { return nil }

// queue is a runner whose steps the test takes.
type queue struct{ *runner }

func newQueue(whole bool, tokens, seqs, room int) *queue {
	return &queue{newRunner(&workspace{trunk: &scripted{room}, tokens: tokens, seqs: seqs, whole: whole}, nil, 1000, "m", nil)}
}

func (q *queue) ask(tenant string, priority int, lens ...int) *job {
	var texts []*text
	for _, n := range lens {
		texts = append(texts, &text{ids: make([]int32, n)})
	}
	j, err := q.add(tenant, priority, texts)
	if err != nil {
		panic(err)
	}
	return j
}

// steps takes n steps and says what they were of.
func (q *queue) steps(n int) (got []string) {
	for range n {
		step := "|"
		pieces := q.choose()
		for _, p := range pieces {
			step += fmt.Sprint(p.t.job.tenant.name, p.end-p.t.done)
		}
		for _, p := range pieces {
			q.finish(p, nil)
			if j := p.t.job; j.left == 0 {
				q.leave(j)
			}
		}
		got = append(got, step)
	}
	return got
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name string
		q    *queue
		ask  func(q *queue)
		want []string
	}{
		{"priorities, then tenants in turn, then arrival; the first that does not fit ends a step", newQueue(true, 6, 4, 1000), func(q *queue) {
			q.ask("a", 0, 2, 2, 2)
			q.ask("b", 0, 1, 3)
			q.ask("c", -1, 1)
		}, []string{"|c1a2b1", "|b3a2", "|a2", "|"}},
		{"a tenant's requests in turn", newQueue(true, 4, 4, 1000), func(q *queue) {
			q.ask("a", 0, 4, 4, 4, 4)
			q.steps(1)
			q.ask("a", 0, 1)
		}, []string{"|a4", "|a1", "|a4", "|a4"}},
		{"long texts in pieces, others beside them", newQueue(false, 8, 4, 1000), func(q *queue) {
			q.ask("a", 0, 30)
			q.steps(1)
			q.ask("b", 0, 3, 3, 3)
		}, []string{"|b3a5", "|b3a5", "|b3a5", "|a7"}},
		{"without room only what has begun goes on", newQueue(false, 8, 4, 40), func(q *queue) {
			q.ask("a", 0, 30)
			q.steps(1)
			q.ask("b", 0, 20, 2)
		}, []string{"|a8", "|a8", "|a6", "|b8", "|b8", "|b4b2"}},
		{"a step has so many texts", newQueue(false, 8, 2, 1000), func(q *queue) { q.ask("a", 0, 1, 1, 1) }, []string{"|a1a1", "|a1"}},
	} {
		c.ask(c.q)
		if got := c.q.steps(len(c.want)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if len(c.q.jobs) != 0 || c.q.waiting != 0 || len(c.q.tenants) != 0 {
			t.Errorf("%s: %d jobs, %d texts, %d tenants are left", c.name, len(c.q.jobs), c.q.waiting, len(c.q.tenants))
		}
	}
}

// TestFairness: a tenant who asks again and again for something large gets no more than one whose many small texts wait.
func TestFairness(t *testing.T) {
	q := newQueue(true, 8, 8, 1000)
	q.ask("small", 0, slices.Repeat([]int{1}, 400)...)
	got := map[string]int{}
	for range 40 {
		if t := q.tenants["large"]; t == nil || len(t.jobs) == 0 {
			q.ask("large", 0, 8)
		}
		pieces := q.choose()
		for _, p := range pieces {
			got[p.t.job.tenant.name] += p.end - p.t.done
			q.finish(p, nil)
			if j := p.t.job; j.left == 0 {
				q.leave(j)
			}
		}
	}
	if s, l := got["small"], got["large"]; l-s > 8 || s-l > 8 || s+l < 300 {
		t.Errorf("small got %d tokens, large %d", s, l)
	}
}

func TestQueueIsFull(t *testing.T) {
	q := newQueue(true, 6, 4, 1000)
	q.limit = 3
	q.ask("a", 0, 1, 1, 1)
	err := q.run(t.Context(), "b", 0, []*text{{ids: []int32{1}}})
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
