package blackbox

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// TestFairness: many long requests of one key hardly delay the short ones of another.
func TestFairness(t *testing.T) {
	const slots, floods, drops = 4, 32, 3
	p := serve(t, "--max-num-seqs", strconv.Itoa(slots), "--api-key", "flood,drop")
	p.key = "drop"
	var flooded atomic.Int64
	var clients sync.WaitGroup
	for i := range floods {
		clients.Go(func() {
			a, err := p.ask(t.Context(), completionPath, long(400).with(fields{"seed": i}), "Authorization", "Bearer flood")
			if err != nil || a.status != http.StatusOK || a.usage.Completion != 400 {
				t.Errorf("flood: %+v, %v", a, err)
			}
			flooded.Add(1)
		})
	}
	eventually(t, limit, "the flood fills the server", func() bool {
		return p.metrics(t).sum(t, "vllm:num_requests_waiting") > 10
	})
	before := flooded.Load()
	for range drops {
		p.must(t, chatPath, say(demo, "hi"))
	}
	// A short request takes the place of a long one at once, so hardly more long ones end than by chance. If it waited for
	// one to end, and they end together, that many would end for each short one.
	if done := flooded.Load() - before; done > slots*(drops-1) {
		t.Errorf("%d of %d long requests ended before %d short ones of another key", done, floods, drops)
	}
	clients.Wait()
	p.wantIdle(t)
}

// TestFullQueue: what does not fit is refused with 429 and a time to come back; what runs and waits is answered.
func TestFullQueue(t *testing.T) {
	p := serve(t, "--max-num-seqs", "2", "--max-queue", "4")
	const clients = 40
	status := make([]int, clients)
	parallel(clients, clients, func(i int) {
		a, err := p.ask(t.Context(), completionPath, long(300).with(fields{"seed": i, "stream": i%2 == 0}))
		if err != nil {
			t.Error(err)
			return
		}
		status[i] = a.status
		switch a.status {
		case http.StatusOK:
			if len(a.choices) != 1 || a.choices[0].finish != "length" {
				t.Errorf("%+v", a)
			}
		case http.StatusTooManyRequests:
			seconds, err := strconv.Atoi(a.retryAfter)
			if err != nil || seconds < 1 || seconds > 300 || a.err == nil || a.err.Code == nil || *a.err.Code != "rate_limit_exceeded" {
				t.Errorf("Retry-After %q, %+v", a.retryAfter, a.err)
			}
		default:
			t.Errorf("status %d: %+v", a.status, a.err)
		}
	})
	slices.Sort(status)
	served, _ := slices.BinarySearch(status, http.StatusOK+1)
	if served < 4 || served > 20 {
		t.Errorf("%d of %d requests were served: %v", served, clients, status)
	}
	p.wantIdle(t)
	p.must(t, completionPath, long(10).with(fields{"n": 4}))
	// More choices than the queue ever holds could be tried again for ever: that is no matter of load.
	a, err := p.ask(t.Context(), completionPath, long(10).with(fields{"n": 5}))
	if err != nil || a.status != http.StatusBadRequest || a.err.Param == nil || *a.err.Param != "n" {
		t.Errorf("%+v, %v", a, err)
	}
}
