package encoder

import (
	"cmp"
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

	// The loop's.
	done  int // tokens computed
	room  room
	sum   []float64 // of the hidden states of those tokens, where their mean is wanted
	out   []float32 // the vector, as far as it is known
	begun bool      // it has room
}

// piece is what a step computes of a text: the tokens from t.done to end.
type piece struct {
	t   *text
	end int
}

// job is a request's texts.
type job struct {
	tenant   *tenant
	priority int
	service  int64         // tokens computed for it, beginning with what the least served of its tenant's had
	waiting  []*text       // in order; the first may be computed in part
	left     int           // texts without a result
	err      error         // of the first that failed
	done     chan struct{} // closed when left is 0 or err is set
}

// tenant is one party among whom the machine is shared.
type tenant struct {
	name    string
	service int64  // tokens computed for it, lifted to the least of the others' when it begins to ask
	jobs    []*job // that are not over
}

// maxIdleTenants bounds how many tenants without requests have their service remembered.
const maxIdleTenants = 1024

// runner owns the workspace. Its loop computes what waits, many texts at a time.
type runner struct {
	work   *workspace
	stream *kernels.Stream
	limit  int // texts that may wait
	failed func(error)

	mu      sync.Mutex // guards what follows, jobs and tenants
	wake    *sync.Cond
	jobs    []*job // with texts that wait, in the order they came
	waiting int    // their texts
	tenants map[string]*tenant
	running int
	closed  bool
	stats   engine.Stats

	ended chan struct{}
}

func newRunner(w *workspace, s *kernels.Stream, limit int, name string, failed func(error)) *runner {
	r := &runner{work: w, stream: s, limit: limit, failed: failed, tenants: map[string]*tenant{}, ended: make(chan struct{}),
		stats: engine.Stats{Model: name, Ready: true, BlockSize: blockSize, KVDType: "F32",
			StepTokens: make([]uint64, len(engine.StepTokenBounds)+1)}}
	r.wake = sync.NewCond(&r.mu)
	return r
}

// run computes the texts of one request. They fit the workspace.
func (r *runner) run(ctx context.Context, tenant string, priority int, texts []*text) error {
	r.mu.Lock()
	j, err := r.add(tenant, priority, texts)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-j.done:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave(j)
	switch {
	case j.err != nil:
		return j.err
	case j.left > 0:
		return engine.Errorf(engine.Canceled, "the request was canceled")
	}
	return nil
}

func (r *runner) add(name string, priority int, texts []*text) (*job, error) {
	if r.closed {
		return nil, engine.Errorf(engine.Unavailable, "the server is shutting down")
	}
	if r.waiting >= r.limit {
		return nil, &engine.Error{Code: engine.Busy, Message: fmt.Sprintf("%d texts wait already; try again shortly", r.waiting),
			RetryAfter: time.Second}
	}
	j := &job{tenant: r.join(name), priority: priority, waiting: texts, left: len(texts), done: make(chan struct{})}
	for i, other := range j.tenant.jobs {
		if i == 0 || other.service < j.service {
			j.service = other.service
		}
	}
	j.tenant.jobs = append(j.tenant.jobs, j)
	for _, t := range texts {
		t.job = j
		r.stats.PromptTokens += uint64(len(t.ids))
	}
	r.jobs = append(r.jobs, j)
	r.waiting += len(texts)
	r.wake.Signal()
	return j, nil
}

// join finds a tenant. One that did not ask for anything has no claim to what it did not ask for: it starts where the
// least served of the others stands, or where it stood if that is more.
func (r *runner) join(name string) *tenant {
	t := r.tenants[name]
	if t == nil {
		t = &tenant{name: name}
		r.tenants[name] = t
	}
	if len(t.jobs) == 0 {
		if least, ok := r.least(); ok {
			t.service = max(t.service, least)
		}
	}
	return t
}

// least is the smallest service of those who ask for something.
func (r *runner) least() (least int64, ok bool) {
	for _, t := range r.tenants {
		if len(t.jobs) > 0 && (!ok || t.service < least) {
			least, ok = t.service, true
		}
	}
	return least, ok
}

// leave ends a job that is over or that nobody waits for.
func (r *runner) leave(j *job) {
	for _, t := range j.waiting {
		r.giveUp(t)
	}
	r.waiting -= len(j.waiting)
	j.waiting = nil
	r.jobs = slices.DeleteFunc(r.jobs, func(other *job) bool { return other == j })
	t := j.tenant
	t.jobs = slices.DeleteFunc(t.jobs, func(other *job) bool { return other == j })
	if len(t.jobs) > 0 {
		return
	}
	// What a tenant had beyond others counts when it comes back, unless nobody was there to have less.
	least, ok := r.least()
	switch {
	case !ok:
		clear(r.tenants)
	case t.service <= least:
		delete(r.tenants, t.name)
	case len(r.tenants) > maxIdleTenants:
		for name, t := range r.tenants {
			if len(t.jobs) == 0 {
				delete(r.tenants, name)
			}
		}
	}
}

// giveUp gives a text's room back.
func (r *runner) giveUp(t *text) {
	if t.begun {
		r.work.trunk.end(t)
		t.begun = false
	}
}

// loop runs until close.
func (r *runner) loop() {
	defer close(r.ended)
	for {
		r.mu.Lock()
		for len(r.jobs) == 0 && !r.closed {
			r.wake.Wait()
		}
		if r.closed {
			for len(r.jobs) > 0 {
				r.fail(r.jobs[0], engine.Errorf(engine.Unavailable, "the server is shutting down"))
			}
			r.mu.Unlock()
			return
		}
		pieces := r.choose()
		r.running = len(pieces)
		r.mu.Unlock()
		err := r.step(pieces)
		if err != nil {
			r.failed(err)
		}
		r.mu.Lock()
		r.running = 0
		for _, p := range pieces {
			r.finish(p, err)
		}
		r.mu.Unlock()
	}
}

// finish takes a piece's result.
func (r *runner) finish(p piece, err error) {
	t, j := p.t, p.t.job
	gone := !slices.Contains(j.tenant.jobs, j)
	if err == nil && !gone && j.err == nil && p.end < len(t.ids) {
		t.done = p.end
		r.requeue(t)
		return
	}
	r.giveUp(t)
	switch {
	case gone:
	case err != nil:
		r.fail(j, &engine.Error{Code: engine.Internal, Message: "the step failed", Err: err})
	default:
		if j.left--; j.left == 0 && j.err == nil {
			close(j.done)
		}
	}
}

// requeue puts a text back before its job's others.
func (r *runner) requeue(t *text) {
	if len(t.job.waiting) == 0 {
		r.jobs = append(r.jobs, t.job)
	}
	t.job.waiting = slices.Insert(t.job.waiting, 0, t)
	r.waiting++
}

// fail ends a job with an error; what waits of it never is computed.
func (r *runner) fail(j *job, err error) {
	for _, t := range j.waiting {
		r.giveUp(t)
	}
	r.waiting -= len(j.waiting)
	j.waiting = nil
	r.jobs = slices.DeleteFunc(r.jobs, func(other *job) bool { return other == j })
	if j.err == nil && j.left > 0 {
		j.err = err
		close(j.done)
	}
}

// choose takes what the next step computes. A text that does not fit behind others ends the step, so that none is
// overtaken for ever; without room for one that was not begun the step goes on with those that were.
func (r *runner) choose() (pieces []piece) {
	tokens, begunOnly := 0, false
	for len(pieces) < r.work.seqs && tokens < r.work.tokens {
		j := r.next(begunOnly)
		if j == nil {
			break
		}
		t := j.waiting[0]
		n := len(t.ids) - t.done
		if left := r.work.tokens - tokens; n > left {
			if r.work.whole {
				break
			}
			n = left
		}
		if !t.begun {
			if t.begun = r.work.trunk.begin(t); !t.begun {
				begunOnly = true
				continue
			}
		}
		tokens += n
		j.service += int64(n)
		j.tenant.service += int64(n)
		pieces = append(pieces, piece{t, t.done + n})
		r.waiting--
		if j.waiting = j.waiting[1:]; len(j.waiting) == 0 {
			r.jobs = slices.DeleteFunc(r.jobs, func(other *job) bool { return other == j })
		}
	}
	r.count(tokens)
	return pieces
}

// next is the job that goes first: by priority, then by what was computed for its tenant and for itself, then by arrival.
func (r *runner) next(begunOnly bool) (best *job) {
	for _, j := range r.jobs {
		if begunOnly && !j.waiting[0].begun {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(j.priority, best.priority), cmp.Compare(j.tenant.service, best.tenant.service),
			cmp.Compare(j.service, best.service)) < 0 {
			best = j
		}
	}
	return best
}

// count notes a step of so many tokens.
func (r *runner) count(tokens int) {
	bucket := 0
	for bucket < len(engine.StepTokenBounds) && float64(tokens) > engine.StepTokenBounds[bucket] {
		bucket++
	}
	r.stats.Steps++
	r.stats.StepTokens[bucket]++
	r.stats.StepTokensSum += uint64(tokens)
	r.stats.ComputedTokens += uint64(tokens)
}

// step turns a panic into an error: it costs the requests of one step, not the process.
func (r *runner) step(pieces []piece) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a step: %v\n%s", p, debug.Stack())
		}
	}()
	return r.work.forward(r.stream, pieces)
}

// load is the state for metrics.
func (r *runner) load() engine.Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.StepTokens = slices.Clone(s.StepTokens)
	s.Running, s.Waiting, s.Ready = r.running, r.waiting, !r.closed
	return s
}

func (r *runner) close() {
	r.mu.Lock()
	r.closed = true
	r.wake.Broadcast()
	r.mu.Unlock()
	<-r.ended
}
