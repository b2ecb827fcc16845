package native

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pagoda/engine"
)

// TestFaultIsolation poisons one request's logits: it fails with an Internal error that hides the cause, the others
// in its batch are not disturbed, and the engine goes on.
func TestFaultIsolation(t *testing.T) {
	e := open(t, Options{DType: "float32"})
	all := cases(t)[:40]
	e.runner.onLogits = func(c *choice, logits []float32) {
		switch c.job.id {
		case "7":
			logits[len(logits)/2] = float32(math.NaN())
		case "9":
			panic("broken invariant")
		}
	}
	parallel(16, len(all), func(i int) {
		req := all[i].greedy()
		req.ID = fmt.Sprint(i)
		rs, err := run(context.Background(), e, req)
		if i == 7 || i == 9 {
			if got := engine.AsError(err); err == nil || got.Code != engine.Internal || strings.Contains(got.Message, "NaN") {
				t.Errorf("poisoned request: %v", err)
			}
			return
		}
		if err != nil || !slices.Equal(rs[0].tokens, all[i].GreedyIDs) {
			t.Errorf("case %d beside a poisoned one: %v, %v", i, rs[0].tokens, err)
		}
	})
	waitIdle(t, e)
}

// waitIdle waits until nothing runs, waits or holds blocks.
func waitIdle(t *testing.T, e *Engine) {
	t.Helper()
	for range 3000 {
		if s := e.Stats()[0]; s.Running == 0 && s.Waiting == 0 && s.KVUsage == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("still busy: %+v", e.Stats()[0])
}

// long is a request that runs until it is stopped, up to the model's length.
func long(model string) *engine.Request {
	return &engine.Request{Model: model, Text: ptr("<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"),
		Sampling: engine.Sampling{IgnoreEOS: true, Temperature: ptr(1.0), Seed: ptr(int64(1))}}
}

// TestLeaveFreesBlocks leaves requests after their first event, by breaking off and by cancelling the context.
func TestLeaveFreesBlocks(t *testing.T) {
	e := open(t, Options{})
	for name, leave := range map[string]func(cancel context.CancelFunc) bool{
		"stop ranging": func(context.CancelFunc) bool { return false },
		"cancel":       func(cancel context.CancelFunc) bool { cancel(); return true },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			n := 0
			for _, err := range e.Generate(ctx, long("shout")) {
				if err != nil {
					if engine.AsError(err).Code != engine.Canceled {
						t.Error(err)
					}
					break
				}
				if n++; n == 3 && !leave(cancel) {
					break
				}
			}
			waitIdle(t, e)
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	e := open(t, Options{MaxNumSeqs: 1, MaxQueue: 2})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var busy, fine atomic.Int32
	parallel(12, 12, func(int) {
		for _, err := range e.Generate(ctx, long("pagoda-demo")) {
			if err == nil {
				if fine.Add(1) == 1 {
					continue
				}
				if busy.Load() > 0 {
					cancel()
				}
				continue
			}
			if got := engine.AsError(err); got.Code == engine.Busy {
				busy.Add(1)
				if got.RetryAfter < time.Second {
					t.Errorf("come back after %v", got.RetryAfter)
				}
			} else if got.Code != engine.Canceled {
				t.Error(err)
			}
		}
	})
	if busy.Load() == 0 {
		t.Error("twelve requests found room in a queue of two")
	}
	waitIdle(t, e)
	never := long("pagoda-demo")
	never.Sampling.N = 3
	for _, err := range e.Generate(context.Background(), never) { // to come back later would not help
		if got := engine.AsError(err); got == nil || got.Code != engine.Invalid || got.Param != "n" {
			t.Errorf("three sequences in a queue of two: %v", err)
		}
	}
}

func TestSamplesShareThePrompt(t *testing.T) {
	for _, noCache := range []bool{false, true} {
		e := open(t, Options{NoPrefixCache: noCache})
		req := &engine.Request{Model: "pagoda-demo", Tokens: cases(t)[100].PromptIDs,
			Sampling: engine.Sampling{N: 5, Temperature: ptr(1.5), Seed: ptr(int64(7)), MaxTokens: ptr(20)}}
		first, err := run(context.Background(), e, req)
		if err != nil {
			t.Fatal(err)
		}
		again, err := run(context.Background(), e, req)
		if err != nil {
			t.Fatal(err)
		}
		different := map[string]bool{}
		for i := range first {
			different[fmt.Sprint(first[i].tokens)] = true
			if !slices.Equal(first[i].tokens, again[i].tokens) {
				t.Errorf("choice %d differs with the same seed", i)
			}
			if first[i].finish == "" {
				t.Errorf("choice %d has no finish reason", i)
			}
		}
		if len(different) < 2 {
			t.Error("five samples at temperature 1.5 are all the same")
		}
		sum := 0
		for _, r := range first {
			sum += len(r.tokens)
		}
		if u := first[0].usage; u == nil || u.Completion != sum || u.Prompt != len(req.Tokens) {
			t.Errorf("usage %+v, want %d and %d tokens", u, len(req.Tokens), sum)
		}
	}
}

func TestRefusals(t *testing.T) {
	e := open(t, Options{})
	vocab := int32(e.vocab)
	text := func(s string) *engine.Request { return &engine.Request{Model: "pagoda-demo", Text: &s} }
	with := func(r *engine.Request, change func(*engine.Request)) *engine.Request { change(r); return r }
	for name, c := range map[string]struct {
		req   *engine.Request
		code  engine.Code
		param string
	}{
		"unknown model":   {with(text("a"), func(r *engine.Request) { r.Model = "gpt-9" }), engine.NotFound, "model"},
		"empty prompt":    {text(""), engine.Invalid, "prompt"},
		"token above":     {&engine.Request{Model: "pagoda-demo", Tokens: []int32{1, vocab}}, engine.Invalid, "prompt"},
		"token below":     {&engine.Request{Model: "pagoda-demo", Tokens: []int32{-1}}, engine.Invalid, "prompt"},
		"long prompt":     {text(strings.Repeat("hello ", 1100)), engine.TooLong, "prompt"},
		"very long":       {text(strings.Repeat("hello ", 1<<20)), engine.TooLong, "prompt"},
		"long completion": {with(text("a"), func(r *engine.Request) { r.Sampling.MaxTokens = ptr(1024) }), engine.TooLong, "prompt"},
		"bias outside": {with(text("a"), func(r *engine.Request) { r.Sampling.LogitBias = map[int32]float32{vocab: 1} }),
			engine.Invalid, "logit_bias"},
		"stop id outside": {with(text("a"), func(r *engine.Request) { r.Sampling.StopTokenIDs = []int32{vocab} }),
			engine.Invalid, "stop_token_ids"},
		"unknown field": {with(text("a"), func(r *engine.Request) { r.Extra = map[string]json.RawMessage{"z": nil, "b": nil} }),
			engine.Invalid, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(context.Background(), e, c.req)
			if got := engine.AsError(err); err == nil || got.Code != c.code || got.Param != c.param {
				t.Errorf("error %v (%+v), want code %d for %q", err, got, c.code, c.param)
			}
		})
	}
	if s := e.Stats()[0]; s.Steps != 0 {
		t.Errorf("%d steps were computed", s.Steps)
	}
}

func TestPromptLogprobs(t *testing.T) {
	e := open(t, Options{DType: "float32", MaxBatchedTokens: 64})
	c := cases(t)[0]
	ids := slices.Concat(c.PromptIDs, c.GreedyIDs)
	whole := &engine.Request{Model: "pagoda-demo", Tokens: ids, Sampling: engine.Sampling{MaxTokens: ptr(0)},
		Output: engine.Output{PromptLogprobs: ptr(2)}}
	scored, err := run(context.Background(), e, whole)
	if err != nil {
		t.Fatal(err)
	}
	generated, err := run(context.Background(), e, c.greedy())
	if err != nil {
		t.Fatal(err)
	}
	got := scored[0].prompt.Logprobs
	if len(got) != len(ids) || scored[0].finish != engine.FinishLength || len(scored[0].tokens) != 0 {
		t.Fatalf("%d log-probabilities for %d tokens, finish %q, %d tokens", len(got), len(ids), scored[0].finish,
			len(scored[0].tokens))
	}
	for i, g := range generated[0].logprobs {
		l := got[len(c.PromptIDs)+i]
		if l.Token != g.Token || l.Logprob != g.Logprob || l.Top[0].Token != l.Token {
			t.Errorf("token %d: scored %+v, generated %+v", i, l.TokenLogprob, g.TokenLogprob)
		}
	}
}

// TestSoak sends 10,000 requests (1,000 with -short), many of which are left at a random moment, and then finds all
// blocks free and the memory as it was after the first tenth.
func TestSoak(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1_000
	}
	e := open(t, Options{MaxQueue: 64, MaxNumSeqs: 16, KVCacheBytes: 8 << 20, NumSpeculativeTokens: 8})
	all := cases(t)
	soak(t, e, all, n/10)
	waitIdle(t, e)
	before, goroutines := heap(), runtime.NumGoroutine()
	soak(t, e, all, n-n/10)
	waitIdle(t, e)
	if err := e.runner.check(); err != nil {
		t.Error(err)
	}
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	if now := runtime.NumGoroutine(); now > goroutines {
		t.Errorf("goroutines grew from %d to %d", goroutines, now)
	}
	t.Logf("%+v", e.Stats()[0])
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func soak(t *testing.T, e *Engine, all []testCase, n int) {
	parallel(40, n, func(i int) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		req := all[rand.IntN(len(all))].greedy()
		req.Sampling.MaxTokens = ptr(1 + rand.IntN(12))
		req.Sampling.N = 1 + rand.IntN(5)/4
		req.Tenant = fmt.Sprint(rand.IntN(5))
		req.SpeculativeTokens = ptr(rand.IntN(9))
		if rand.IntN(3) == 0 {
			req.Sampling.Temperature = ptr(1.0)
		}
		leaveAt := rand.IntN(20)
		if leaveAt == 0 {
			time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
		}
		events := 0
		for _, err := range e.Generate(ctx, req) {
			if err != nil {
				if c := engine.AsError(err).Code; c != engine.Canceled && c != engine.Busy {
					t.Error(err)
				}
				return
			}
			if events++; events == leaveAt {
				return
			}
		}
	})
}
