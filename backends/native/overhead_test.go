package native

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
	"pagoda/models/demo"
)

// stopped is an engine whose loop is not started: the test takes its turns.
type stopped struct {
	*Engine
	boxes []*mailbox
	bufs  [][]output
}

func openStopped(t testing.TB, o Options) *stopped {
	t.Helper()
	o.Name, o.Log = "m", zerolog.Nop()
	e := &Engine{opts: o.withDefaults()}
	t.Cleanup(func() {
		if err := e.free(); err != nil {
			t.Error(err)
		}
	})
	if err := e.load(); err != nil {
		t.Fatal(err)
	}
	return &stopped{Engine: e}
}

// add admits n requests of a 40-token prompt each and takes turns until all of them decode.
func (s *stopped) add(t testing.TB, n int, sampling engine.Sampling) {
	t.Helper()
	for i := range n {
		req := &engine.Request{Model: "m", Tokens: make([]int32, 40), Sampling: sampling}
		for j := range req.Tokens {
			req.Tokens[j] = int32(1 + (i*7+j)%1000)
		}
		a, err := s.newAnswer(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		s.runner.add(a.job)
		s.boxes, s.bufs = append(s.boxes, a.job.box), append(s.bufs, make([]output, 0, 8))
	}
	for range 20 {
		s.turn(t)
	}
	for i, q := range s.runner.jobs {
		if q.choices[0].seq.NumOutput() == 0 {
			t.Fatalf("sequence %d does not decode yet", i)
		}
	}
}

// turn takes one turn of the loop and reads what it has published.
func (s *stopped) turn(t testing.TB) {
	s.runner.turn()
	for i, b := range s.boxes {
		b.mu.Lock()
		got, err := len(b.outputs), b.err
		b.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if got > 0 {
			s.bufs[i], _ = b.take(context.Background(), s.bufs[i])
		}
	}
}

// drop ends all requests.
func (s *stopped) drop() {
	for _, j := range s.runner.jobs {
		j.gone.Store(true)
	}
	s.runner.dropGone()
	s.boxes, s.bufs = nil, nil
}

var overheadCases = map[string]engine.Sampling{
	"greedy":      {IgnoreEOS: true, Temperature: ptr(0.0)},
	"temperature": {IgnoreEOS: true, Temperature: ptr(1.0), Seed: ptr(int64(1))},
	"top_p":       {IgnoreEOS: true, Temperature: ptr(0.7), TopP: ptr(0.9), TopK: ptr(20), Seed: ptr(int64(1))},
	"penalty":     {IgnoreEOS: true, Temperature: ptr(0.0), RepetitionPenalty: ptr(1.1)},
}

// TestTurnsAllocateNothing: planning, filling the batch, the model, sampling and publishing allocate less than once in
// fifty tokens: what is left is block tables that grow, and with penalties the tokens seen.
func TestTurnsAllocateNothing(t *testing.T) {
	const n, turns = 64, 200
	for name, sampling := range overheadCases {
		t.Run(name, func(t *testing.T) {
			s := openStopped(t, Options{Files: demo.FS(), MaxNumSeqs: n, Threads: 1})
			s.add(t, n, sampling)
			got := testing.AllocsPerRun(turns, func() { s.turn(t) })
			if perToken := got / n; !(perToken <= 0.02) {
				t.Errorf("%v allocations a turn of %d sequences, %.3f a token", got, n, perToken)
			}
			s.drop()
		})
	}
}

// BenchmarkOverhead measures turns of 64 sequences of a 0.6 B model with a vocabulary of 151,936, and the share of the time
// that is not the model's.
func BenchmarkOverhead(b *testing.B) {
	s := openStopped(b, Options{Files: dummyFiles(b, qwen06B), LoadFormat: "dummy", MaxModelLen: 512, MaxNumSeqs: 64, NoPrefixCache: true})
	s.vocab = s.model.VocabSize() // the tokenizer has fewer
	s.runner.exec.vocab = s.vocab
	for name, sampling := range overheadCases {
		b.Run(name, func(b *testing.B) {
			s.add(b, 64, sampling)
			b.ReportAllocs()
			b.ResetTimer()
			forward, start := s.runner.exec.forward, time.Now()
			for range b.N {
				s.turn(b)
			}
			took := time.Since(start)
			forward = s.runner.exec.forward - forward
			b.ReportMetric(100*float64(took-forward)/float64(took), "%-outside")
			b.ReportMetric(float64((took-forward).Microseconds())/float64(b.N), "µs-outside/step")
			s.drop()
		})
	}
}
