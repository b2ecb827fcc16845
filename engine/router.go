package engine

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// Router is an Engine over several, each found by the names of its models. It begins empty, so that a server can answer
// probes while models load: requests are Unavailable until the first Add. It is safe for concurrent use.
type Router struct {
	mu      sync.Mutex // guards engines and closed
	engines []Engine   // only appended to: what all returns may be read without mu
	closed  bool
}

var (
	_ Engine    = (*Router)(nil)
	_ Tokenizer = (*Router)(nil)
	_ Statser   = (*Router)(nil)
	_ Forwarder = (*Router)(nil)
	_ Embedder  = (*Router)(nil)
	_ Scorer    = (*Router)(nil)

	_ AdapterManager = (*Router)(nil)
)

// loadingRetryAfter is when to ask again while models load.
const loadingRetryAfter = time.Second

// Add puts e behind the router, which closes it from then on. It fails, and leaves e to the caller, if the router is
// closed or one of e's names is taken.
func (r *Router) Add(e Engine) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return Errorf(Unavailable, "the server is shutting down")
	}
	for _, m := range e.Models() {
		for _, other := range r.engines {
			if serves(other, m.ID) {
				return Errorf(Invalid, "two models are named %q", m.ID)
			}
		}
	}
	r.engines = append(r.engines, e)
	return nil
}

func (r *Router) all() []Engine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.engines
}

func serves(e Engine, model string) bool {
	return slices.ContainsFunc(e.Models(), func(m Model) bool { return m.ID == model })
}

// find returns the engine that serves model.
func (r *Router) find(model string) (Engine, error) {
	engines := r.all()
	if len(engines) == 0 {
		return nil, &Error{Code: Unavailable, Message: "the model is still loading", RetryAfter: loadingRetryAfter}
	}
	for _, e := range engines {
		if serves(e, model) {
			return e, nil
		}
	}
	var names []string
	for _, m := range r.Models() {
		names = append(names, m.ID)
	}
	return nil, &Error{Code: NotFound, Param: "model",
		Message: "the model '" + model + "' does not exist; served are: " + strings.Join(names, ", ")}
}

// Generate passes req to the engine that serves its model.
func (r *Router) Generate(ctx context.Context, req *Request) iter.Seq2[Event, error] {
	e, err := r.find(req.Model)
	if err != nil {
		return func(yield func(Event, error) bool) { yield(Event{}, err) }
	}
	return e.Generate(ctx, req)
}

// Models lists the models of all engines in the order they were added.
func (r *Router) Models() []Model {
	engines := r.all()
	if len(engines) == 1 {
		return engines[0].Models()
	}
	var out []Model
	for _, e := range engines {
		out = append(out, e.Models()...)
	}
	return out
}

// Stats is the load of all engines that can tell it.
func (r *Router) Stats() []Stats {
	var out []Stats
	for _, e := range r.all() {
		if s, ok := e.(Statser); ok {
			out = append(out, s.Stats()...)
		}
	}
	return out
}

// Close closes all engines at once and refuses new ones.
func (r *Router) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	engines := r.all()
	errs := make([]error, len(engines))
	var wg sync.WaitGroup
	for i, e := range engines {
		wg.Go(func() { errs[i] = e.Close(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *Router) tokenizer(model string) (Tokenizer, error) {
	e, err := r.find(model)
	if err != nil {
		return nil, err
	}
	if t, ok := e.(Tokenizer); ok {
		return t, nil
	}
	return nil, BadField("model", "the model '%s' has no tokenizer here", model)
}

// Tokenize asks the engine that serves req's model.
func (r *Router) Tokenize(ctx context.Context, req *Request) ([]int32, error) {
	t, err := r.tokenizer(req.Model)
	if err != nil {
		return nil, err
	}
	return t.Tokenize(ctx, req)
}

// Detokenize asks the engine that serves model.
func (r *Router) Detokenize(ctx context.Context, model string, tokens []int32) (string, error) {
	t, err := r.tokenizer(model)
	if err != nil {
		return "", err
	}
	return t.Detokenize(ctx, model, tokens)
}

// TokenText asks the engine that serves model.
func (r *Router) TokenText(ctx context.Context, model string, tokens []int32) ([]string, error) {
	t, err := r.tokenizer(model)
	if err != nil {
		return nil, err
	}
	return t.TokenText(ctx, model, tokens)
}

// Forward asks the engine that serves req's model, if that has an upstream.
func (r *Router) Forward(ctx context.Context, req *RawRequest) (*RawResponse, error) {
	e, err := r.find(req.Model)
	if err != nil {
		return nil, err
	}
	if f, ok := e.(Forwarder); ok {
		return f.Forward(ctx, req)
	}
	return nil, &Error{Code: NotFound, Param: "model", Message: "the model '" + req.Model + "' has no upstream to pass this request on to"}
}

// adapterManager returns what manages the adapters of a model, or of the model that an adapter is of.
func (r *Router) adapterManager(model string) (AdapterManager, error) {
	e, err := r.find(model)
	if err != nil {
		return nil, err
	}
	if m, ok := e.(AdapterManager); ok {
		return m, nil
	}
	return nil, Errorf(Invalid, "the model '%s' takes adapters at start only", model)
}

// LoadAdapter asks the engine that serves base. A name that any engine has is taken.
func (r *Router) LoadAdapter(ctx context.Context, base, name, path string) error {
	for _, e := range r.all() {
		if serves(e, name) {
			return BadField("lora_name", "there is a model or an adapter named %q already", name)
		}
	}
	m, err := r.adapterManager(base)
	if err != nil {
		return err
	}
	return m.LoadAdapter(ctx, base, name, path)
}

// UnloadAdapter asks the engine that serves the adapter.
func (r *Router) UnloadAdapter(ctx context.Context, name string) error {
	m, err := r.adapterManager(name)
	if err != nil {
		return err
	}
	return m.UnloadAdapter(ctx, name)
}

// Embed asks the engine that serves req's model, if that makes embeddings.
func (r *Router) Embed(ctx context.Context, req *EmbedRequest) (*Embedding, error) {
	e, err := r.find(req.Model)
	if err != nil {
		return nil, err
	}
	if m, ok := e.(Embedder); ok {
		return m.Embed(ctx, req)
	}
	return nil, BadField("model", "the model '%s' is served to generate and makes no embeddings (option pooling_type)", req.Model)
}

// Score asks the engine that serves req's model, if that scores.
func (r *Router) Score(ctx context.Context, req *ScoreRequest) (*Scores, error) {
	e, err := r.find(req.Model)
	if err != nil {
		return nil, err
	}
	if m, ok := e.(Scorer); ok {
		return m.Score(ctx, req)
	}
	return nil, BadField("model", "the model '%s' is served to generate and does not score texts (option hf_overrides)", req.Model)
}
