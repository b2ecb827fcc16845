package proxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// Times are the pool's and the supervisor's intervals. A zero one takes the default.
type Times struct {
	Probe       time.Duration // between two health checks of an upstream that is up (5 s)
	ProbeDown   time.Duration // between two of one that is down, doubled up to Probe (0.2 s)
	Cooldown    time.Duration // of the breaker at first, doubled up to a minute (1 s)
	Wait        time.Duration // how long a request waits when no upstream is up (10 s)
	Stall       time.Duration // without a sign of life from an upstream that has requests; negative is no limit (5 min)
	Lost        time.Duration // without an acknowledgement from an upstream's host, on a connection (30 s)
	Start       time.Duration // for a spawned server to become ready (30 min)
	Stop        time.Duration // for a spawned server between SIGTERM and SIGKILL (15 s)
	Restart     time.Duration // before the first restart of a spawned server, doubled up to a minute (1 s)
	ListRefresh time.Duration // between two looks at the file with the list of upstreams (2 s)
}

// withDefaults fills what is zero.
func (t Times) withDefaults() Times {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&t.Probe, 5*time.Second)
	set(&t.ProbeDown, 200*time.Millisecond)
	set(&t.Cooldown, time.Second)
	set(&t.Wait, 10*time.Second)
	set(&t.Stall, 5*time.Minute)
	set(&t.Lost, 30*time.Second)
	set(&t.Start, 30*time.Minute)
	set(&t.Stop, 15*time.Second)
	set(&t.Restart, time.Second)
	set(&t.ListRefresh, 2*time.Second)
	return t
}

const (
	breakerLimit = 5 // failures in a row that open the breaker
	maxCooldown  = time.Minute
	maxProbeDown = time.Second // a server that has started should not wait long to be noticed
	// affinitySlack is by how many requests an upstream that knows a prompt's beginning may be busier than the least
	// loaded one and still get it: recomputing a prompt costs about as much as waiting behind that many.
	affinitySlack = 4
)

// errStalled ends the requests of an upstream that gives no sign of life.
var errStalled = errors.New("no sign of life from the upstream")

// pool is a model's upstreams. It is safe for concurrent use.
type pool struct {
	d     *Dialect
	want  string // the model at the upstreams, "" for their first
	times Times
	log   zerolog.Logger
	m     *Metrics
	// prepare makes an upstream that answers fit for requests, before it gets any.
	prepare func(ctx context.Context, r *replica, n names)

	mu       sync.Mutex // guards all below, and the replicas' fields that say so
	model    string     // as clients call it, for logs and metrics
	replicas []*replica
	affinity *affinity
	changed  chan struct{} // closed and replaced when an upstream comes up, and when the pool closes
	closed   bool
	probes   sync.WaitGroup
}

func newPool(d *Dialect, want, model string, times Times, m *Metrics, log zerolog.Logger) *pool {
	return &pool{d: d, want: want, model: model, times: times, log: log, m: m, affinity: newAffinity(),
		changed: make(chan struct{})}
}

// add takes an upstream in. Requests go to it once it is up.
func (p *pool) add(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	if p.closed {
		stop()
		close(r.done)
		return
	}
	r.alive()
	p.replicas = append(p.replicas, r)
	p.probes.Go(func() {
		defer close(r.done)
		p.watch(ctx, r)
	})
}

// remove lets an upstream go: it gets no more requests and finishes those it has. Its time series go too if it is not to
// come back.
func (p *pool) remove(r *replica, forget bool) {
	p.mu.Lock()
	r.leaving = true
	p.replicas = slices.DeleteFunc(p.replicas, func(x *replica) bool { return x == r })
	p.affinity.forget(r)
	p.mu.Unlock()
	r.stop()
	<-r.done
	r.conns.close()
	if forget {
		p.m.forget(p.name(), r.id)
	}
}

func (p *pool) list() []*replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.replicas)
}

// name is what clients call the model.
func (p *pool) name() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.model
}

// rename is for a model that has its name from its first upstream.
func (p *pool) rename(model string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.model = model
}

// announce wakes those who wait for an upstream. It is called with mu held.
func (p *pool) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// close ends the probing. Requests that run go on.
func (p *pool) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.announce()
	}
	for _, r := range p.replicas {
		r.stop()
	}
	p.mu.Unlock()
	p.probes.Wait()
	for _, r := range p.list() {
		r.client.CloseIdleConnections()
		r.conns.close()
	}
}

// links is what tells upstreams that have seen the beginning of req's prompt, nil if there is nothing to choose from.
func (p *pool) links(req *engine.Request) []uint64 {
	p.mu.Lock()
	alone := len(p.replicas) < 2
	p.mu.Unlock()
	if alone {
		return nil
	}
	return p.affinity.chain(req)
}

// take chooses an upstream for a request and counts the request in; give counts it out. It prefers upstreams that are
// not in avoid, and waits if none is up that has the adapter ("" is none).
func (p *pool) take(ctx context.Context, adapter string, links []uint64, avoid []*replica) (*replica, names, error) {
	var deadline *time.Timer // made when there is something to wait for
	for {
		p.mu.Lock()
		r, retry := p.choose(adapter, links, avoid)
		if r != nil {
			n := r.names
			r.running.Add(1)
			if r.running.Load() == 1 {
				r.alive() // the clock of an idle upstream stood still
			}
			p.affinity.note(links, r)
			p.mu.Unlock()
			return r, n, nil
		}
		closed, changed := p.closed, p.changed
		p.mu.Unlock()
		if closed {
			return nil, names{}, engine.Errorf(engine.Unavailable, "the server is shutting down")
		}
		if deadline == nil {
			deadline = time.NewTimer(p.times.Wait)
			defer deadline.Stop()
		}
		again := time.NewTimer(retry)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, names{}, canceled(context.Cause(ctx))
		case <-deadline.C:
			again.Stop()
			return nil, names{}, &engine.Error{Code: engine.Unavailable, RetryAfter: time.Second,
				Message: "no server of this model is available; try again shortly"}
		}
		again.Stop()
	}
}

// choose is called with mu held. Without a choice it says when to look again.
func (p *pool) choose(adapter string, links []uint64, avoid []*replica) (*replica, time.Duration) {
	now := time.Now()
	retry := p.times.Wait
	ready, fresh := make([]*replica, 0, 8), make([]*replica, 0, 8) // few upstreams need no allocation
	for _, r := range p.replicas {
		switch {
		case !r.up || r.leaving || adapter != "" && !r.names.has(adapter):
		case r.until.After(now):
			retry = min(retry, r.until.Sub(now))
		case !r.until.IsZero() && r.trial:
			retry = min(retry, 50*time.Millisecond) // its trial is under way
		default:
			ready = append(ready, r)
			if !slices.Contains(avoid, r) {
				fresh = append(fresh, r)
			}
		}
	}
	if len(fresh) > 0 {
		ready = fresh
	}
	if len(ready) == 0 {
		return nil, max(retry, time.Millisecond)
	}
	least := ready[0]
	for _, r := range ready[1:] {
		if r.running.Load() < least.running.Load() {
			least = r
		}
	}
	best := least
	if known, _ := p.affinity.find(links); known != nil && slices.Contains(ready, known) &&
		known.running.Load() <= least.running.Load()+affinitySlack {
		best = known
	}
	if !best.until.IsZero() {
		best.trial = true
	}
	return best, 0
}

// outcome is how a try ended, as the breaker sees it.
type outcome int

const (
	answered outcome = iota // well, or with an error that is the request's own
	failed                  // the upstream's fault
	broken                  // the connection
	neither                 // the client went away first
)

// give counts a request out.
func (p *pool) give(r *replica, o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.running.Add(-1)
	switch o {
	case answered:
		r.failures, r.cooldown, r.until, r.trial = 0, 0, time.Time{}, false
		return
	case neither:
		r.trial = false
		return
	}
	r.failures++
	if o == broken {
		p.setDown(r, "its connection broke")
	}
	if isOpen := r.until.After(time.Now()); !isOpen && (r.failures >= breakerLimit || r.trial) { // many fail at once where many run
		r.cooldown = min(max(2*r.cooldown, p.times.Cooldown), maxCooldown)
		r.until, r.trial = time.Now().Add(r.cooldown), false
		p.log.Warn().Str("model", p.model).Str("upstream", r.id).Int("failures", r.failures).Dur("for_ms", r.cooldown).
			Msg("upstream fails again and again: it gets no requests for a while")
	}
}

// setDown keeps requests away from r until a health check passes, which begins at once. It is called with mu held.
func (p *pool) setDown(r *replica, why string) {
	if r.up {
		r.up, r.downSince = false, time.Now()
		p.log.Warn().Str("model", p.model).Str("upstream", r.id).Str("reason", why).Msg("upstream is down")
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// stalled keeps requests away from r until a health check passes.
func (p *pool) stalled(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setDown(r, errStalled.Error())
}

// downFor is for how long r has been down, 0 if it is up or never was.
func (p *pool) downFor(r *replica) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.downSince.IsZero() {
		return 0
	}
	return time.Since(r.downSince)
}

// watch checks r's health until ctx ends.
func (p *pool) watch(ctx context.Context, r *replica) {
	misses, wait, warned := 0, p.times.ProbeDown, time.Time{}
	for {
		r.conns.expire()
		seen := r.progress.Load()
		n, err := p.check(ctx, r)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			misses, wait = 0, p.times.ProbeDown
			if p.prepare != nil {
				p.prepare(ctx, r, n)
			}
			p.setUp(r, n)
		case lacks(err): // which says nothing about the upstream
			wait = min(2*wait, p.times.Probe, maxProbeDown)
		default:
			misses++
			p.mu.Lock()
			wasUp := r.up
			if wasUp && r.progress.Load() == seen && misses >= r.d.HealthMisses {
				p.setDown(r, err.Error())
			}
			down := !r.up
			p.mu.Unlock()
			if down && !wasUp && time.Since(warned) > 30*time.Second {
				warned = time.Now()
				p.log.Warn().Str("model", p.name()).Str("upstream", r.id).Err(err).Msg("waiting for the upstream")
			}
			wait = min(2*wait, p.times.Probe, maxProbeDown)
		}
		pause := p.times.Probe
		if err != nil {
			pause = wait
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-r.kick:
			wait = p.times.ProbeDown
			r.client.CloseIdleConnections() // a kept connection may work where new ones do not
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// check asks for r's health and, unless they are known, its names.
func (p *pool) check(ctx context.Context, r *replica) (names, error) {
	if err := r.healthy(ctx); err != nil {
		return names{}, err
	}
	n, err := r.ask(ctx, p.want)
	if err == nil {
		r.scrape(ctx)
	}
	return n, err
}

func (p *pool) setUp(r *replica, n names) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.names = n
	if r.up || p.closed {
		return
	}
	r.up, r.downSince = true, time.Time{}
	p.log.Info().Str("model", p.model).Str("upstream", r.id).Str("upstream_model", n.base).Msg("upstream is up")
	p.announce()
}

// isUp says whether r gets requests.
func (p *pool) isUp(r *replica) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.up && !r.until.After(time.Now())
}

// namesOf is what the first upstream that was ever up calls its models.
func (p *pool) namesOf() (names, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.replicas {
		if r.names.base != "" {
			return r.names, true
		}
	}
	return names{}, false
}

// waitUp waits until an upstream is up.
func (p *pool) waitUp(ctx context.Context) error {
	for {
		p.mu.Lock()
		up := slices.ContainsFunc(p.replicas, func(r *replica) bool { return r.up })
		closed, changed := p.closed, p.changed
		p.mu.Unlock()
		if up {
			return nil
		}
		if closed {
			return engine.Errorf(engine.Unavailable, "the server is shutting down")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func canceled(cause error) error {
	return &engine.Error{Code: engine.Canceled, Message: "the request was canceled", Err: cause}
}
