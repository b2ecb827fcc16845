package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// Config says what an Engine stands in front of.
type Config struct {
	Dialect *Dialect
	// Name is what clients call the model; "" is the name that the upstream gives it.
	Name string
	// UpstreamModel is what the upstreams call it; "" is their first model.
	UpstreamModel string
	// URLs are the upstreams, or ListFile names a file with one a line, which is read again when it changes.
	URLs     []string
	ListFile string
	Key      string // the upstreams' API key, "" for none
	// Spawn starts a server of ours instead.
	Spawn *Spawn
	// NoWait makes New return before an upstream is up; until then requests wait for one. It needs Name or UpstreamModel.
	NoWait bool
	// Adapters are loaded into the upstreams that do not have them.
	Adapters []Adapter
	Times    Times
	Metrics  *Metrics
	Log      zerolog.Logger
}

// Adapter is a LoRA adapter: its name and its folder as the upstream sees it. Without a path the upstream has it already.
type Adapter struct{ Name, Path string }

// Engine is an engine.Engine in front of one model's upstreams.
type Engine struct {
	cfg   Config
	d     *Dialect
	name  string
	pool  *pool
	child *child // nil: attached
	began time.Time

	stopWork context.CancelFunc // ends what runs when Close's time is over
	over     context.Context
	lines    lifelines      // of requests to generate
	work     sync.WaitGroup // background goroutines

	mu       sync.Mutex // guards all below
	closed   bool
	running  int
	idle     chan struct{} // closed when closed and nothing runs
	adapters []Adapter
}

var (
	_ engine.Engine    = (*Engine)(nil)
	_ engine.Statser   = (*Engine)(nil)
	_ engine.Tokenizer = (*Engine)(nil)
	_ engine.Forwarder = (*Engine)(nil)
	_ engine.Embedder  = (*Engine)(nil)
	_ engine.Scorer    = (*Engine)(nil)

	_ engine.AdapterManager = (*Engine)(nil)
)

// New makes an engine and waits until an upstream is up: as long as ctx lasts for attached ones, for a spawned one as long
// as its time to start.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	cfg.Times = cfg.Times.withDefaults()
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	if cfg.Spawn != nil && len(cfg.URLs)+len(cfg.ListFile) > 0 || cfg.Spawn == nil && len(cfg.URLs) == 0 && cfg.ListFile == "" {
		return nil, errors.New("proxy: either a server to start or the URLs of running ones")
	}
	e := &Engine{cfg: cfg, d: cfg.Dialect, name: cmp.Or(cfg.Name, cfg.UpstreamModel), began: time.Now(), idle: make(chan struct{})}
	if cfg.NoWait && e.name == "" {
		return nil, errors.New("proxy: a model that nobody waits for needs a name")
	}
	e.over, e.stopWork = context.WithCancel(context.Background())
	e.pool = newPool(cfg.Dialect, cfg.UpstreamModel, cmp.Or(e.name, cfg.Dialect.Name), cfg.Times, cfg.Metrics, cfg.Log)
	e.adapters = slices.Clone(cfg.Adapters)
	e.pool.prepare = e.bringAll
	if err := e.start(ctx); err != nil {
		e.stop()
		return nil, err
	}
	if e.name == "" {
		names, _ := e.pool.namesOf()
		e.name = names.base
		e.pool.rename(e.name)
	}
	cfg.Metrics.add(e)
	e.work.Go(e.watchStalls)
	if err := e.checkAdapters(ctx); err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *Engine) start(ctx context.Context) error {
	if e.cfg.Spawn != nil {
		return e.spawn(ctx)
	}
	urls := e.cfg.URLs
	if e.cfg.ListFile != "" {
		var err error
		if urls, err = readList(e.cfg.ListFile); err != nil {
			return err
		}
		e.work.Go(e.watchList)
	}
	if err := e.setURLs(urls); err != nil {
		return err
	}
	if e.cfg.NoWait {
		return nil
	}
	return e.pool.waitUp(ctx)
}

// stop ends everything at once.
func (e *Engine) stop() {
	e.cut()
	e.pool.close()
	if e.child != nil {
		e.child.stop(canceledContext())
	}
	e.work.Wait()
}

// cut ends all that runs.
func (e *Engine) cut() {
	e.stopWork()
	e.lines.close()
}

func canceledContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// begin counts a request in, unless the engine is closed.
func (e *Engine) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return engine.Errorf(engine.Unavailable, "the server is shutting down")
	}
	e.running++
	return nil
}

func (e *Engine) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running--; e.closed && e.running == 0 {
		close(e.idle)
	}
}

// Close refuses new requests, waits for the running ones until ctx ends, cancels the rest, and ends a spawned server.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		if e.running == 0 {
			close(e.idle)
		}
	}
	e.mu.Unlock()
	select {
	case <-e.idle:
	case <-ctx.Done():
	}
	e.cut()
	e.pool.close()
	if e.child != nil {
		e.child.stop(ctx)
	}
	e.work.Wait()
	return nil
}

// Generate sends req to an upstream, and to another if that fails before the answer begins.
func (e *Engine) Generate(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] {
	return func(yield func(engine.Event, error) bool) {
		if err := e.begin(); err != nil {
			yield(engine.Event{}, err)
			return
		}
		defer e.end()
		left := false
		err := e.generate(ctx, req, func(ev engine.Event) bool {
			left = !yield(ev, nil)
			return !left
		})
		if err != nil && !left {
			yield(engine.Event{}, named(clientError(err), req))
		}
	}
}

// maxSent is how often a request is sent at most: one that ends its servers must not end all of them.
const maxSent = 3

func (e *Engine) generate(ctx context.Context, req *engine.Request, yield func(engine.Event) bool) error {
	adapter, err := e.resolve(req.Model)
	if err != nil {
		return err
	}
	enc, err := e.d.encode(req)
	if err != nil {
		return err
	}
	defer enc.free()
	arrived := time.Now()
	links := e.pool.links(req)
	for t := (tries{arrived: arrived}); ; {
		r, n, err := e.pool.take(ctx, adapter, links, t.avoid)
		if err != nil {
			return err
		}
		a := newAnswer(req, n.maxLen, arrived, yield)
		err = e.try(ctx, r, t.stale, enc, e.upstreamName(n, adapter), a)
		if err == nil || a.begun || a.left || !e.again(ctx, &t, req.ID, r, err) {
			return err
		}
	}
}

// tries are those of one request.
type tries struct {
	arrived time.Time
	sent    int        // those that an upstream may have seen
	avoid   []*replica // where one failed
	stale   bool       // the last one met a connection that the upstream had closed
}

// again says, after a try at r that failed with err, whether another may help, which t then prepares.
func (e *Engine) again(ctx context.Context, t *tries, id string, r *replica, err error) bool {
	if _, unsent := errors.AsType[*notSentError](err); !unsent {
		t.sent++
	}
	if ctx.Err() != nil || t.sent >= maxSent || !retryable(err) || t.sent == 0 && time.Since(t.arrived) > e.cfg.Times.Wait {
		return false
	}
	if _, t.stale = errors.AsType[*staleError](err); !t.stale {
		t.avoid = append(t.avoid, r)
	}
	if lacks(err) {
		select {
		case <-time.After(lackPause): // other requests end meanwhile
		case <-ctx.Done():
		}
	}
	e.cfg.Metrics.retries.WithLabelValues(e.name).Inc()
	e.cfg.Log.Warn().Str("request_id", id).Str("model", e.name).Str("upstream", r.id).Err(err).Msg("sending the request again")
	return true
}

// try sends req to r, over a fresh connection if that is asked for, and tells the pool how it went.
func (e *Engine) try(ctx context.Context, r *replica, fresh bool, enc *encoded, model string, a *answer) error {
	l := &lifeline{}
	patient := context.AfterFunc(ctx, func() { l.cut(context.Cause(ctx)) })
	defer patient()
	e.lines.join(l, r)
	defer e.lines.leave(l)
	began := time.Now()
	err := r.post(ctx, l, fresh, enc, model, a)
	if !a.first.IsZero() {
		e.cfg.Metrics.first.WithLabelValues(e.name, r.id).Observe(a.first.Sub(began).Seconds())
	}
	return e.conclude(ctx, l, r, err, a.left)
}

// conclude counts a try that ended with err, or that the client has left, and tells the pool. ctx is the client's.
func (e *Engine) conclude(ctx context.Context, l *lifeline, r *replica, err error, left bool) error {
	label, o := outcomeOK, answered
	switch cause := cmp.Or(l.why(), context.Cause(ctx)); {
	case cause == errStalled:
		err = &brokenError{errStalled}
		label, o = outcomeStalled, failed
	case cause != nil || left:
		label, o = outcomeCanceled, neither
		if cause != nil {
			err = canceled(cause)
		}
	case err != nil:
		label, o = classify(err)
	}
	e.cfg.Metrics.tried(e.name, r.id, label)
	e.pool.give(r, o)
	return err
}

var errClosed = errors.New("the engine was closed")

// lackPause is how long a request waits that met a lack of something.
const lackPause = 200 * time.Millisecond

// lacks says that this program or its machine has run out of something that a connection needs, such as files: no upstream's fault.
func lacks(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL},
		func(lack error) bool { return errors.Is(err, lack) })
}

// classify says whose fault an error is.
func classify(err error) (string, outcome) {
	if _, ok := errors.AsType[*notSentError](err); ok {
		if lacks(err) {
			return outcomeBroken, neither
		}
		return outcomeBroken, broken
	}
	if _, ok := errors.AsType[*brokenError](err); ok {
		return outcomeBroken, broken
	}
	if _, ok := errors.AsType[*staleError](err); ok {
		return outcomeBroken, neither
	}
	switch engine.AsError(err).Code {
	case engine.Upstream, engine.Timeout, engine.Unavailable, engine.Internal:
		return outcomeFailed, failed
	}
	return outcomeRefused, answered
}

// retryable says whether another try may help. An upstream's own 500 is not tried again: a request that an engine cannot
// compute fails everywhere.
func retryable(err error) bool {
	if _, ok := errors.AsType[*notSentError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*brokenError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*staleError](err); ok {
		return true
	}
	switch e := engine.AsError(err); e.Code {
	case engine.Unavailable:
		return true
	case engine.Upstream:
		s, ok := errors.AsType[*statusError](err)
		return ok && (s.status == 502 || s.status == 404)
	}
	return false
}

// clientError is err as an *engine.Error that tells no addresses.
func clientError(err error) *engine.Error {
	if b, ok := errors.AsType[*brokenError](err); ok {
		if b.err == errStalled {
			return &engine.Error{Code: engine.Timeout, Message: "the model's server gives no sign of life", Err: err}
		}
		return &engine.Error{Code: engine.Upstream, Message: "the connection to the model's server broke", Err: err}
	}
	if _, ok := errors.AsType[*staleError](err); ok {
		return &engine.Error{Code: engine.Upstream, Message: "the connection to the model's server broke", Err: err}
	}
	if _, ok := errors.AsType[*notSentError](err); ok {
		return &engine.Error{Code: engine.Unavailable, Message: "the model's server cannot be reached; try again shortly",
			RetryAfter: time.Second, Err: err}
	}
	return engine.AsError(err)
}

// Models lists the model and its adapters.
func (e *Engine) Models() []engine.Model {
	n, _ := e.pool.namesOf()
	base := engine.Model{ID: e.name, Root: cmp.Or(n.base, e.cfg.UpstreamModel, e.name), Created: e.began, MaxLen: n.maxLen, Backend: e.d.Name, ForwardsUnknown: true}
	out := []engine.Model{base}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.adapters {
		m := base
		m.ID, m.Parent, m.Root = a.Name, base.ID, a.Name
		out = append(out, m)
	}
	return out
}

// MaxLen is the most tokens of prompt and answer together, 0 if the upstream does not tell. Before the first one is up it waits as
// a request does.
func (e *Engine) MaxLen(ctx context.Context) (int, error) {
	n, ok := e.pool.namesOf()
	if !ok {
		r, taken, err := e.pool.take(ctx, "", nil, nil)
		if err != nil {
			return 0, clientError(err)
		}
		e.pool.give(r, neither)
		n = taken
	}
	return n.maxLen, nil
}

// Stats is the load: what we have sent, and what the upstreams say of themselves.
func (e *Engine) Stats() []engine.Stats {
	s := engine.Stats{Model: e.name}
	replicas := e.pool.list()
	for _, r := range replicas {
		s.Ready = s.Ready || e.pool.isUp(r)
		waiting := int(r.load(e.d.Waiting))
		s.Waiting += waiting
		s.Running += max(0, int(r.running.Load())-waiting)
		s.KVUsage += r.load(e.d.KVUsage) / float64(len(replicas))
	}
	return []engine.Stats{s}
}

// watchStalls cancels the requests of upstreams that give no sign of life, and ends a server of ours that has worked and does not
// become healthy again.
func (e *Engine) watchStalls() {
	limit := e.cfg.Times.Stall
	if limit < 0 {
		return
	}
	tick := time.NewTicker(max(limit/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.over.Done():
			return
		}
		for _, r := range e.pool.list() {
			silent := r.silent()
			if e.child != nil && e.pool.downFor(r) >= limit {
				e.child.kill("it has not been healthy for too long")
			}
			if r.running.Load() == 0 || silent < limit {
				continue
			}
			e.cfg.Log.Error().Str("model", e.name).Str("upstream", r.id).Dur("silent_ms", silent).Int64("requests", r.running.Load()).
				Msg("upstream gives no sign of life: its requests end")
			r.alive()
			e.pool.stalled(r)
			e.lines.cut(r, errStalled)
			if e.child != nil {
				e.child.kill("it gives no sign of life")
			}
		}
	}
}

// resolve returns the adapter that a model's name chooses, "" for the base model.
func (e *Engine) resolve(name string) (string, error) {
	if name == e.name {
		return "", nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.ContainsFunc(e.adapters, func(a Adapter) bool { return a.Name == name }) {
		return name, nil
	}
	return "", &engine.Error{Code: engine.NotFound, Param: "model", Message: fmt.Sprintf("The model `%s` does not exist.", name)}
}

// upstreamName is the value of "model" that chooses the base model or an adapter.
func (e *Engine) upstreamName(n names, adapter string) string {
	if adapter == "" {
		return n.base
	}
	return e.d.Adapters.Join(n.base, adapter)
}
