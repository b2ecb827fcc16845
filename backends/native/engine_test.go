package native

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"pagoda/engine"
	"pagoda/models/demo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open serves the built-in model with its adapters; the test fails if it does not give everything back at its end.
func open(t testing.TB, o Options) *Engine {
	t.Helper()
	o.Files, o.Name, o.Log = demo.FS(), "pagoda-demo", zerolog.New(zerolog.NewTestWriter(t))
	for _, name := range []string{"shout", "pirate", "french"} {
		sub, err := fs.Sub(demo.FS(), "adapters/"+name)
		if err != nil {
			t.Fatal(err)
		}
		o.Adapters = append(o.Adapters, AdapterSource{Name: name, Files: sub})
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Error("close:", err)
		}
	})
	return e
}

// testCase is a line of models/demo/cases.jsonl.
type testCase struct {
	Skill          string            `json:"skill"`
	Adapter        string            `json:"adapter"`
	Messages       []json.RawMessage `json:"messages"`
	Tools          []json.RawMessage `json:"tools"`
	EnableThinking bool              `json:"enable_thinking"`
	PromptText     string            `json:"prompt_text"`
	PromptIDs      []int32           `json:"prompt_ids"`
	GreedyIDs      []int32           `json:"greedy_ids"`
	GreedyText     string            `json:"greedy_text"`
	MinGap         float64           `json:"min_gap"`
	FirstTop10     [][2]float64      `json:"first_top10"`
}

func (c *testCase) model() string {
	if c.Adapter == "" {
		return "pagoda-demo"
	}
	return c.Adapter
}

func cases(t testing.TB) []testCase {
	t.Helper()
	data, err := os.ReadFile("../../models/demo/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var out []testCase
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c testCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	if len(out) != 150 {
		t.Fatalf("%d cases", len(out))
	}
	return out
}

// result is all that a request's events said about one choice.
type result struct {
	tokens   []int32
	text     string
	logprobs []engine.Logprob
	finish   engine.FinishReason
	stop     string
	prompt   *engine.Prompt
	usage    *engine.Usage
}

// run generates to the end and returns the choices.
func run(ctx context.Context, e *Engine, req *engine.Request) ([]result, error) {
	out := make([]result, max(1, req.Sampling.N))
	for ev, err := range e.Generate(ctx, req) {
		if err != nil {
			return out, err
		}
		r := &out[ev.Index]
		if ev.Prompt != nil {
			out[0].prompt = ev.Prompt
		}
		r.tokens = append(r.tokens, ev.Tokens...)
		r.logprobs = append(r.logprobs, ev.Logprobs...)
		r.text += ev.Text
		if ev.Finish != "" {
			r.finish, r.stop = ev.Finish, ev.StopString
		}
		if ev.Usage != nil {
			out[0].usage = ev.Usage
		}
	}
	return out, nil
}

func ptr[T any](v T) *T { return &v }

// greedy asks for a case's tokens as given, with the log-probabilities of the likeliest ten.
func (c *testCase) greedy() *engine.Request {
	return &engine.Request{Model: c.model(), Tokens: c.PromptIDs,
		Sampling: engine.Sampling{Temperature: ptr(0.0), MaxTokens: ptr(len(c.GreedyIDs) + 8)},
		Output:   engine.Output{Logprobs: ptr(10)}}
}

// TestCases runs every case, 32 at once, and compares with the reference implementation.
func TestCases(t *testing.T) {
	for _, d := range []struct {
		dtype          string
		minExact       int
		logprobsWithin float64
	}{{"float32", 150, 0.001}, {"auto", 147, 0.05}} {
		t.Run(d.dtype, func(t *testing.T) {
			e := open(t, Options{DType: d.dtype})
			all := cases(t)
			exact := 0
			var mu sync.Mutex
			parallel(32, len(all), func(i int) {
				c := &all[i]
				rs, err := run(context.Background(), e, c.greedy())
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("case %d: %v", i, err)
					return
				}
				r := rs[0]
				if slices.Equal(r.tokens, c.GreedyIDs) && r.text == c.GreedyText && r.finish == engine.FinishStop {
					exact++
				} else if d.dtype == "float32" || c.MinGap > 0.5 {
					t.Errorf("case %d (%s, gap %g): %q, want %q", i, c.Skill, c.MinGap, r.text, c.GreedyText)
				}
				compareTop(t, i, r, c.FirstTop10, d.logprobsWithin)
			})
			if exact < d.minExact {
				t.Errorf("%d of %d cases are exact, want %d", exact, len(all), d.minExact)
			}
		})
	}
}

// compareTop holds the first step's log-probabilities against the reference's.
func compareTop(t *testing.T, i int, r result, want [][2]float64, within float64) {
	t.Helper()
	got := map[int32]float64{}
	for _, l := range r.logprobs[0].Top {
		got[l.Token] = l.Logprob
	}
	for rank, w := range want {
		g, ok := got[int32(w[0])]
		if !ok && rank < len(want)-2 { // the last ranks may differ by a tie
			t.Errorf("case %d: token %v is not among the likeliest", i, w[0])
		}
		if ok && !(math.Abs(g-w[1]) <= within) {
			t.Errorf("case %d: token %v has log-probability %g, want %g", i, w[0], g, w[1])
		}
	}
}

// parallel runs f(0) to f(n-1) on workers goroutines.
func parallel(workers, n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
