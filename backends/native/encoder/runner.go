package encoder

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"pagoda/engine"
	"pagoda/kernels"
)

// text is an input on its way through the loop.
type text struct {
	job    *job
	ids    []int32
	second int // where the second text of a pair begins; len(ids): there is none
	out    []float32
}

// job is a request's texts.
type job struct {
	tenant   string
	priority int
	left     int           // texts without a result; guarded by runner.mu
	err      error         // of the first that failed; guarded by runner.mu
	done     chan struct{} // closed when left is 0 or err is set
}

// runner owns the workspace. Its loop computes what waits, many texts at a time.
type runner struct {
	work   *workspace
	stream *kernels.Stream
	limit  int // texts that may wait
	failed func(error)

	mu      sync.Mutex // guards what follows
	wake    *sync.Cond
	waiting []*text // in the order they came
	service map[string]int64
	running int
	closed  bool
	stats   engine.Stats

	ended chan struct{}
}

func newRunner(w *workspace, s *kernels.Stream, limit int, name string, failed func(error)) *runner {
	r := &runner{work: w, stream: s, limit: limit, failed: failed, service: map[string]int64{}, ended: make(chan struct{}),
		stats: engine.Stats{Model: name, Ready: true, BlockSize: blockSize, KVDType: "F32",
			StepTokens: make([]uint64, len(engine.StepTokenBounds)+1)}}
	r.wake = sync.NewCond(&r.mu)
	return r
}

// run computes the texts of one request. They fit the workspace.
func (r *runner) run(ctx context.Context, tenant string, priority int, texts []*text) error {
	j := &job{tenant: tenant, priority: priority, left: len(texts), done: make(chan struct{})}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return engine.Errorf(engine.Unavailable, "the server is shutting down")
	}
	if n := len(r.waiting); n >= r.limit {
		r.mu.Unlock()
		return &engine.Error{Code: engine.Busy, Message: fmt.Sprintf("%d texts wait already; try again shortly", n), RetryAfter: time.Second}
	}
	for _, t := range texts {
		t.job = j
		r.stats.PromptTokens += uint64(len(t.ids))
	}
	r.join(tenant)
	r.waiting = append(r.waiting, texts...)
	r.wake.Signal()
	r.mu.Unlock()
	select {
	case <-j.done:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if j.left > 0 { // failed, or nobody wants the rest
		r.waiting = slices.DeleteFunc(r.waiting, func(t *text) bool { return t.job == j })
	}
	r.forget(tenant)
	switch {
	case j.err != nil:
		return j.err
	case j.left > 0:
		return engine.Errorf(engine.Canceled, "the request was canceled")
	}
	return nil
}

// join begins a tenant's account where the least of the others stands.
func (r *runner) join(tenant string) {
	if _, ok := r.service[tenant]; ok {
		return
	}
	least := int64(-1)
	for _, s := range r.service {
		if least < 0 || s < least {
			least = s
		}
	}
	r.service[tenant] = max(0, least)
}

// forget drops the account of a tenant that has nothing waiting.
func (r *runner) forget(tenant string) {
	if !slices.ContainsFunc(r.waiting, func(t *text) bool { return t.job.tenant == tenant }) {
		delete(r.service, tenant)
	}
}

// loop runs until close.
func (r *runner) loop() {
	defer close(r.ended)
	for {
		r.mu.Lock()
		for len(r.waiting) == 0 && !r.closed {
			r.wake.Wait()
		}
		if r.closed {
			for _, t := range r.waiting {
				t.job.fail(engine.Errorf(engine.Unavailable, "the server is shutting down"))
			}
			r.waiting = nil
			r.mu.Unlock()
			return
		}
		texts := r.choose()
		r.running = len(texts)
		r.mu.Unlock()
		vectors, err := r.step(texts)
		if err != nil {
			r.failed(err)
		}
		r.mu.Lock()
		r.running = 0
		for i, t := range texts {
			if err != nil {
				t.job.fail(&engine.Error{Code: engine.Internal, Message: "the step failed", Err: err})
				continue
			}
			t.out = slices.Clone(vectors[i])
			t.job.finish()
		}
		r.mu.Unlock()
	}
}

// choose takes the texts of a step: by priority, then from the tenant that had the least computed for it, then in the
// order they came. The first that does not fit ends the step, so that none is overtaken for ever.
func (r *runner) choose() (texts []*text) {
	tokens := 0
	for len(r.waiting) > 0 && len(texts) < r.work.seqs {
		best := 0
		for i, t := range r.waiting {
			b := r.waiting[best].job
			if t.job.priority < b.priority || t.job.priority == b.priority && r.service[t.job.tenant] < r.service[b.tenant] {
				best = i
			}
		}
		t := r.waiting[best]
		if tokens+len(t.ids) > r.work.tokens {
			break
		}
		tokens += len(t.ids)
		r.service[t.job.tenant] += int64(len(t.ids))
		texts = append(texts, t)
		r.waiting = slices.Delete(r.waiting, best, best+1)
	}
	bucket := 0
	for bucket < len(engine.StepTokenBounds) && float64(tokens) > engine.StepTokenBounds[bucket] {
		bucket++
	}
	r.stats.Steps++
	r.stats.StepTokens[bucket]++
	r.stats.StepTokensSum += uint64(tokens)
	r.stats.ComputedTokens += uint64(tokens)
	return texts
}

// step turns a panic into an error: it costs the requests of one step, not the process.
func (r *runner) step(texts []*text) (vectors [][]float32, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a step: %v\n%s", p, debug.Stack())
		}
	}()
	return r.work.forward(r.stream, texts)
}

// fail and finish are called under runner.mu.
func (j *job) fail(err error) {
	if j.err == nil && j.left > 0 {
		j.err = err
		close(j.done)
	}
}

func (j *job) finish() {
	if j.left--; j.left == 0 && j.err == nil {
		close(j.done)
	}
}

// load is the state for metrics.
func (r *runner) load() engine.Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.StepTokens = slices.Clone(s.StepTokens)
	s.Running, s.Waiting, s.Ready = r.running, len(r.waiting), !r.closed
	return s
}

func (r *runner) close() {
	r.mu.Lock()
	r.closed = true
	r.wake.Broadcast()
	r.mu.Unlock()
	<-r.ended
}
