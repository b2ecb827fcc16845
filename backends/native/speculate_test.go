package native

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pagoda/backends/native/model"
	"pagoda/backends/native/sched"
	"pagoda/engine"
	"pagoda/models/demo"
)

// TestGuessingChangesNothing holds everything that a client sees, and the logits behind each token bit for bit, against
// the same requests without guesses.
func TestGuessingChangesNothing(t *testing.T) {
	for _, dtype := range []string{"float32", "auto"} {
		t.Run(dtype, func(t *testing.T) {
			reqs := guessableRequests(t)
			longest := 0
			for _, r := range reqs {
				longest = max(longest, len(r.Tokens)+*r.Sampling.MaxTokens)
			}
			twoSeqs := int64(2*(longest+BlockSize)/BlockSize) * demoBlockBytes
			plain := open(t, Options{DType: dtype})
			wantLogits := record(plain)
			want := generateAll(t, plain, reqs)
			if s := plain.Stats()[0]; s.Drafts != 0 {
				t.Errorf("%d guesses without being asked", s.Drafts)
			}
			for _, v := range []struct {
				name    string
				options Options
				drafter func(e *Engine) drafter
				check   func(t *testing.T, s engine.Stats)
			}{
				{name: "ngram", options: Options{}, check: func(t *testing.T, s engine.Stats) {
					if s.AcceptedTokens == 0 {
						t.Error("nothing was guessed right")
					}
				}},
				{name: "no prefix cache", options: Options{NoPrefixCache: true}},
				{name: "preempted", options: Options{MaxModelLen: longest, KVCacheBytes: twoSeqs},
					check: func(t *testing.T, s engine.Stats) {
						if s.Preemptions == 0 {
							t.Error("nothing was preempted")
						}
					}},
				{name: "small steps", options: Options{MaxNumSeqs: 4, MaxBatchedTokens: 9}},
				{name: "its own draft", options: Options{SpeculativeMethod: "draft_model", DraftFiles: demo.FS()}, drafter: eagerly,
					check: func(t *testing.T, s engine.Stats) {
						if 10*s.AcceptedTokens < 6*s.DraftTokens || s.DraftTokens < 1000 {
							t.Errorf("%d of %d right", s.AcceptedTokens, s.DraftTokens)
						}
					}},
				{name: "its own draft, few blocks", options: Options{SpeculativeMethod: "draft_model", DraftFiles: demo.FS(),
					NoPrefixCache: true, MaxNumSeqs: 4, MaxBatchedTokens: 40, MaxModelLen: longest, KVCacheBytes: 2 * twoSeqs},
					drafter: eagerly},
				{name: "a random draft", options: Options{SpeculativeMethod: "ngram"}, drafter: func(e *Engine) drafter {
					e.runner.spec.drafter = randomDraft(t, e)
					return eagerly(e)
				},
					check: func(t *testing.T, s engine.Stats) {
						if 20*s.AcceptedTokens > s.DraftTokens || s.DraftTokens < 1000 {
							t.Errorf("%d of %d right", s.AcceptedTokens, s.DraftTokens)
						}
					}},
				{name: "oracle", options: Options{NumSpeculativeTokens: 64},
					drafter: func(e *Engine) drafter { return &oracle{answers: answersOf(reqs, want), vocab: int32(e.vocab)} }},
			} {
				t.Run(v.name, func(t *testing.T) {
					o := v.options
					o.DType = dtype
					setDefault(&o.SpeculativeMethod, "ngram")
					setDefault(&o.NumSpeculativeTokens, 8)
					e := open(t, o)
					if v.drafter != nil {
						e.runner.spec.drafter = v.drafter(e)
					}
					logits := record(e)
					logits.seed = wantLogits.seed
					got := generateAll(t, e, reqs)
					for i := range reqs {
						compareResults(t, reqs[i].ID, got[i], want[i])
						if reqs[i].Sampling.N > 1 {
							continue // whose logits come in any order
						}
						have, want := logits.seen[reqs[i].ID], wantLogits.seen[reqs[i].ID]
						if reqs[i].Sampling.Stop != nil { // what is computed until the loop hears of the end may differ
							n := len(got[i][0].tokens)
							have, want = have[:n], want[:n]
						}
						if !slices.Equal(have, want) {
							t.Errorf("%s: other logits", reqs[i].ID)
						}
					}
					waitIdle(t, e)
					if err := e.runner.check(); err != nil {
						t.Error(err)
					}
					s := e.Stats()[0]
					if s.Drafts == 0 || s.DraftTokens < s.Drafts ||
						sum(s.AcceptedAt) != s.AcceptedTokens {
						t.Errorf("%d guesses of %d tokens, %d right, at %v", s.Drafts, s.DraftTokens, s.AcceptedTokens, s.AcceptedAt)
					}
					if v.check != nil {
						v.check(t, s)
					}
				})
			}
		})
	}
}

const demoBlockBytes = 48 << 10 // of the built-in model's float32 cache

func sum(list []uint64) (n uint64) {
	for _, x := range list {
		n += x
	}
	return n
}

// guessableRequests are requests of all kinds: greedy and seeded, with penalties, several choices, adapters, stop strings,
// log-probabilities of output and prompt, lengths that cut a guess off.
func guessableRequests(t *testing.T) (reqs []*engine.Request) {
	all := cases(t)
	add := func(c *testCase, change func(r *engine.Request)) {
		r := c.greedy()
		r.ID = fmt.Sprint("request ", len(reqs))
		change(r)
		reqs = append(reqs, r)
	}
	for _, i := range rand.Perm(len(all))[:40] {
		add(&all[i], func(*engine.Request) {})
	}
	longer := func(r *engine.Request) { r.Sampling.IgnoreEOS, r.Sampling.MaxTokens = true, ptr(90) }
	for i, change := range []func(r *engine.Request){
		func(*engine.Request) {},
		func(r *engine.Request) { r.Model = "pirate" },
		func(r *engine.Request) { r.Model = "shout"; r.Sampling.MaxTokens = ptr(61) },
		func(r *engine.Request) { r.Sampling.Temperature, r.Sampling.Seed = ptr(0.7), ptr(int64(5)) },
		func(r *engine.Request) {
			r.Sampling.Temperature, r.Sampling.Seed, r.Sampling.TopP = ptr(1.0), ptr(int64(6)), ptr(0.9)
			r.Sampling.N = 3
		},
		func(r *engine.Request) { r.Sampling.RepetitionPenalty, r.Sampling.FrequencyPenalty = ptr(1.05), 0.1 },
		func(r *engine.Request) { r.Sampling.N = 2; r.Output.PromptLogprobs = ptr(2) },
		func(r *engine.Request) { r.Sampling.N = 12 }, // more than two sequences' blocks hold, whenever the others come
		func(r *engine.Request) { r.Sampling.Stop = []string{"e the", "ar"} },
		func(r *engine.Request) { r.Sampling.StopTokenIDs = []int32{300, 301, 302, 303, 304, 305} },
		func(r *engine.Request) { r.Sampling.IgnoreEOS, r.Sampling.MinTokens = false, 20 },
		func(r *engine.Request) { r.SpeculativeTokens = ptr(1) },
		func(r *engine.Request) { r.Sampling.LogitBias = map[int32]float32{280: 3} },
	} {
		for range 2 {
			add(&all[rand.IntN(len(all))], longer)
			r := reqs[len(reqs)-1]
			r.Model = "pagoda-demo"
			change(r)
			if i == 0 { // a prompt that repeats itself
				r.Tokens = slices.Concat(r.Tokens, r.Tokens, r.Tokens[:len(r.Tokens)/2])
			}
		}
	}
	return reqs
}

func generateAll(t *testing.T, e *Engine, reqs []*engine.Request) [][]result {
	t.Helper()
	out := make([][]result, len(reqs))
	plain := e.opts.NumSpeculativeTokens == 0
	parallel(32, len(reqs), func(i int) {
		req := *reqs[i]
		if plain {
			req.SpeculativeTokens = nil
		}
		var err error
		if out[i], err = run(context.Background(), e, &req); err != nil {
			t.Errorf("%s: %v", req.ID, err)
		}
	})
	return out
}

func compareResults(t *testing.T, id string, got, want []result) {
	t.Helper()
	for i := range want {
		g, w := got[i], want[i]
		g.prompt, w.prompt = nil, nil
		if g.usage != nil && w.usage != nil {
			g.usage.Cached = w.usage.Cached // depends on who came before
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s, choice %d:\ngot  %v %q %s %v\nwant %v %q %s %v", id, i, g.tokens, g.text, g.finish, g.usage, w.tokens,
				w.text, w.finish, w.usage)
		}
		if p, q := got[i].prompt, want[i].prompt; p != nil && !reflect.DeepEqual(p, q) {
			t.Errorf("%s: another prompt", id)
		}
	}
}

// answersOf are the texts that each request's first choice ends up with, by request.
func answersOf(reqs []*engine.Request, results [][]result) map[string][]int32 {
	m := map[string][]int32{}
	for i, r := range reqs {
		m[r.ID] = slices.Concat(r.Tokens, results[i][0].tokens)
	}
	return m
}

// TestOwnDraftIsRight: a model that is its own draft guesses every token right, whatever was accepted, cut off, preempted
// or evicted before, so that its keys and values are those of the text.
func TestOwnDraftIsRight(t *testing.T) {
	all := cases(t)
	for name, o := range map[string]Options{
		"room for all":    {},
		"no prefix cache": {NoPrefixCache: true},
		"few blocks":      {MaxModelLen: 700, KVCacheBytes: 2 * 90 * demoBlockBytes, NoPrefixCache: true, MaxBatchedTokens: 90},
	} {
		t.Run(name, func(t *testing.T) {
			o.DType, o.SpeculativeMethod, o.DraftFiles, o.NumSpeculativeTokens = "float32", "draft_model", demo.FS(), 7
			e := open(t, o)
			e.runner.spec.drafter = &eager{e.runner.spec.drafter, e}
			parallel(8, 40, func(i int) {
				req := all[rand.IntN(len(all))].greedy()
				req.Model, req.Sampling.IgnoreEOS, req.Sampling.N = "pagoda-demo", true, 1+i%3
				req.Sampling.MaxTokens = ptr(1 + rand.IntN(100))
				if i%2 == 0 {
					req.SpeculativeTokens = ptr(rand.IntN(8))
				}
				if _, err := run(context.Background(), e, req); err != nil {
					t.Error(err)
				}
			})
			if s := e.Stats()[0]; s.AcceptedTokens != s.DraftTokens || s.DraftTokens < 1000 {
				t.Errorf("%d of %d guesses right, at %v", s.AcceptedTokens, s.DraftTokens, s.AcceptedAt)
			}
		})
	}
}

// TestDraftModelRefused: a draft model must speak the same tokens.
func TestDraftModelRefused(t *testing.T) {
	tokenizer, err := fs.ReadFile(demo.FS(), "tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	config, err := fs.ReadFile(demo.FS(), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tokenizer, config string
		want              string
	}{
		"fewer tokens":       {string(tokenizer), strings.Replace(string(config), `"vocab_size": 2048`, `"vocab_size": 2000`, 1), "2000 tokens"},
		"other tokens":       {strings.Replace(string(tokenizer), `"!": `, `"\u00a1": `, 1), string(config), "its token"},
		"no tokenizer":       {"", string(config), "tokenizer"},
		"unknown kind":       {string(tokenizer), strings.Replace(string(config), "Qwen3ForCausalLM", "Nothing", 1), "Nothing"},
		"without any weight": {string(tokenizer), string(config), "safetensors"},
	} {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{"config.json": &fstest.MapFile{Data: []byte(c.config)}}
			if c.tokenizer != "" {
				files["tokenizer.json"] = &fstest.MapFile{Data: []byte(c.tokenizer)}
			}
			_, err := New(Options{Files: demo.FS(), Name: "pagoda-demo", SpeculativeMethod: "draft_model", DraftFiles: files})
			if err == nil || !strings.Contains(err.Error(), "draft model: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
		})
	}
	for name, o := range map[string]Options{
		"no draft model":   {SpeculativeMethod: "draft_model"},
		"draft model idle": {SpeculativeMethod: "ngram", DraftFiles: demo.FS()},
	} {
		o.Files, o.Name = demo.FS(), "pagoda-demo"
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "draft_model") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// eager drafts whatever it costs.
type eager struct {
	drafter
	e *Engine
}

// slowSteps says that a step takes a second, and has said so for so long that no step changes it: guesses are cheap.
var slowSteps = stepCost{weight: 1e12, rows: 1e12, seconds: 1e12, rows2: 1e12, rowSeconds: 1e12}

func eagerly(e *Engine) drafter { return &eager{e.runner.spec.drafter, e} }

func (x *eager) draft(plan sched.Plan, most []int) error {
	x.e.runner.spec.cost = slowSteps
	for _, it := range plan.Items {
		if g := it.Seq.Owner.(*choice).guess; g != nil {
			g.rate, g.credit = 1, 1000
		}
	}
	return x.drafter.draft(plan, most)
}

// randomDraft drafts by a model of random weights, which is about never right.
func randomDraft(t *testing.T, e *Engine) drafter {
	m, err := model.LoadDummy(e.device, e.model.Spec(), 7, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.own(m.Close)
	kv, err := m.NewKV(256, BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	e.own(kv.Close)
	d, err := newModelDrafter(m, kv, e.device.NewStream(), e.vocab,
		model.Limits{MaxTokens: 64, MaxSeqs: e.opts.MaxNumSeqs, MaxLogitRows: e.opts.MaxNumSeqs}, true)
	if err != nil {
		t.Fatal(err)
	}
	e.own(d.close)
	return d
}

// oracle knows the answers and drafts them up to a random place, and then nonsense: every place of a rejection comes up.
type oracle struct {
	answers map[string][]int32
	vocab   int32
}

func (o *oracle) draft(plan sched.Plan, most []int) error {
	for i := range plan.Items {
		it := &plan.Items[i]
		c := it.Seq.Owner.(*choice)
		if most[i] == 0 {
			continue
		}
		c.guess.rate, c.guess.credit = 1, 1000
		answer := o.answers[c.job.id]
		right := rand.IntN(2*most[i] + 1)
		it.Draft = nil
		for k := range rand.IntN(most[i] + 1) {
			at := len(it.Seq.Tokens) + k
			if k >= right || at >= len(answer) {
				it.Draft = append(it.Draft, rand.Int32N(o.vocab))
			} else {
				it.Draft = append(it.Draft, answer[at])
			}
		}
	}
	return nil
}

func (o *oracle) prepare(sched.Plan, []int) error { return nil }
func (o *oracle) forget(*choice)                  {}

// failing breaks in every way that a drafter can.
type failing struct{ calls int }

func (f *failing) draft(plan sched.Plan, most []int) error {
	for i := range plan.Items {
		plan.Items[i].Draft = []int32{1}
	}
	if f.calls++; f.calls%2 == 0 {
		panic("broken invariant")
	}
	return fmt.Errorf("no idea")
}

func (f *failing) prepare(sched.Plan, []int) error { return nil }
func (f *failing) forget(*choice)                  {}

func TestFailingDrafter(t *testing.T) {
	e := open(t, Options{DType: "float32", SpeculativeMethod: "ngram", NumSpeculativeTokens: 4})
	f := &failing{}
	e.runner.spec.drafter = f
	all := cases(t)[:20]
	parallel(4, len(all), func(i int) {
		rs, err := run(context.Background(), e, all[i].greedy())
		if err != nil || !slices.Equal(rs[0].tokens, all[i].GreedyIDs) {
			t.Errorf("case %d: %v, %v", i, rs[0].tokens, err)
		}
	})
	waitIdle(t, e)
	if s := e.Stats()[0]; f.calls < 2 || s.DraftTokens != 0 {
		t.Errorf("%d calls, %d tokens", f.calls, s.DraftTokens)
	}
}

func TestGuessesAhead(t *testing.T) {
	for _, c := range []struct {
		method      string
		limit, want int
		asked       *int
	}{
		{"none", 8, 0, nil}, {"ngram", 8, 8, nil}, {"none", 8, 5, ptr(5)}, {"ngram", 8, 0, ptr(0)}, {"ngram", 4, 4, ptr(9)},
		{"none", 0, 0, ptr(3)},
	} {
		o := Options{SpeculativeMethod: c.method, NumSpeculativeTokens: c.limit}
		if got, err := o.guessesAhead(&engine.Request{SpeculativeTokens: c.asked}); err != nil || got != c.want {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
	o := Options{SpeculativeMethod: "ngram", NumSpeculativeTokens: 8}
	if _, err := o.guessesAhead(&engine.Request{SpeculativeTokens: ptr(-1)}); err == nil || err.Param != "speculative_tokens" {
		t.Errorf("-1: %v", err)
	}
}

// TestGuessLossIsBounded guesses texts of all kinds at all costs: what a sequence loses stays within a fiftieth of its
// time and one token's.
func TestGuessLossIsBounded(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		right, cost, limit := random.Float64(), 0.01+random.Float64(), 1+random.IntN(16)
		g := newGuess(limit)
		tokens, lost, least := 0, 0.0, 0.0
		for tokens < 500 {
			if random.IntN(100) == 0 {
				right = random.Float64() * random.Float64()
			}
			n := g.length(cost)
			if n < 0 || n > limit {
				t.Fatalf("%d tokens of at most %d", n, limit)
			}
			accepted := 0
			for accepted < n && random.Float64() < right {
				accepted++
			}
			g.learn(n, accepted, accepted+1)
			tokens += accepted + 1
			lost += cost*float64(n) - float64(accepted)
			if least = max(least, lost); lost > firstCredit+creditGrowth*float64(tokens)+1e-9 {
				t.Fatalf("right %.2f, cost %.2f: %.2f lost of %d", right, cost, lost, tokens)
			}
		}
	}
}

// TestGuessLength: the better the guesses and the cheaper, the longer.
func TestGuessLength(t *testing.T) {
	for _, c := range []struct {
		rate, cost float64
		want       int
	}{{1, 0.1, 8}, {0.9, 0.05, 8}, {0.5, 0.05, 3}, {0.5, 0.3, 1}, {0.1, 0.05, 1}, {0.02, 0.9, 1}} {
		g := &guess{limit: 8, rate: c.rate, credit: mostCredit}
		if got := g.length(c.cost); got != c.want {
			t.Errorf("rate %g, cost %g: %d, want %d", c.rate, c.cost, got, c.want)
		}
	}
	if got := (&guess{limit: 8, rate: 1, credit: 0.25}).length(0.1); got != 2 {
		t.Errorf("%d tokens of credit for 2", got)
	}
	if got := (&guess{limit: 8, rate: 1, credit: -1}).length(0.1); got != 0 {
		t.Errorf("%d tokens without credit", got)
	}
}

// TestStepCost finds a line again, among noise and one step that took a second.
func TestStepCost(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	for _, base := range []float64{0.0002, 0.05} {
		for _, slope := range []float64{0.02, 0.3} {
			var c stepCost
			for i := range 300 {
				n := 1 + random.IntN(8)
				took := base * (1 + slope*float64(n-1)) * (1 + 0.05*random.Float64())
				if i == 250 {
					took = 1
				}
				plan := sched.Plan{Items: []sched.Item{{Len: 1, Draft: make([]int32, n-1)}}, NumTokens: 1}
				c.addStep(plan, time.Duration(took*1e9))
			}
			for _, n := range []int{1, 8} {
				want := slope * float64(n) / (1 + slope*float64(n-1))
				if got := c.ofGuess(n); !(math.Abs(got-want) < 0.02+0.2*want) {
					t.Errorf("base %g, slope %g, %d sequences: %g, want %g", base, slope, n, got, want)
				}
			}
		}
	}
}
