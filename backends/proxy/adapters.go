package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"

	"pagoda/engine"
)

// checkAdapters fails if an upstream that is up lacks a configured adapter. Our table is the truth about names: SGLang
// answers with the base model where it does not know one.
func (e *Engine) checkAdapters(ctx context.Context) error {
	for _, a := range e.cfg.Adapters {
		if a.Name == e.name {
			return fmt.Errorf("an adapter has the model's name %q", a.Name)
		}
		for _, r := range e.pool.list() {
			if err := e.bring(ctx, r, a); err != nil {
				return fmt.Errorf("adapter %s: %w", a.Name, err)
			}
		}
	}
	return nil
}

// bringAll loads into r, which is coming up, the adapters of our table that it does not have: it may have been started
// again. One that cannot be loaded keeps no others away; requests for it go elsewhere.
func (e *Engine) bringAll(ctx context.Context, r *replica, n names) {
	if e.cfg.Times.Stall > 0 { // r's health is not looked at meanwhile
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.cfg.Times.Stall)
		defer cancel()
	}
	e.mu.Lock()
	adapters := slices.Clone(e.adapters)
	e.mu.Unlock()
	for _, a := range adapters {
		if n.has(a.Name) {
			continue
		}
		if err := r.loadAdapter(ctx, a); err != nil {
			e.cfg.Log.Error().Str("model", e.pool.name()).Str("upstream", r.id).Str("adapter", a.Name).Err(err).
				Msg("the upstream did not load an adapter")
			continue
		}
		n.adapters[a.Name] = true
	}
}

// bring loads an adapter into r if that is up and does not have it.
func (e *Engine) bring(ctx context.Context, r *replica, a Adapter) error {
	e.pool.mu.Lock()
	skip := !r.up || r.names.has(a.Name)
	e.pool.mu.Unlock()
	if skip {
		return nil
	}
	if err := r.loadAdapter(ctx, a); err != nil {
		return err
	}
	e.pool.mu.Lock()
	r.names.adapters[a.Name] = true
	e.pool.mu.Unlock()
	return nil
}

// loadAdapter asks an upstream to load an adapter.
func (r *replica) loadAdapter(ctx context.Context, a Adapter) error {
	if a.Path == "" || r.d.Adapters.Load == "" {
		return fmt.Errorf("upstream %s does not have it", r.id)
	}
	var o object
	o.text("lora_name", a.Name)
	o.text("lora_path", a.Path)
	return r.admit(ctx, r.d.Adapters.Load, o.end())
}

func (r *replica) unloadAdapter(ctx context.Context, name string) error {
	var o object
	o.text("lora_name", name)
	return r.admit(ctx, r.d.Adapters.Unload, o.end())
}

// admit posts to an administrative route; anything but 200 is an error.
func (r *replica) admit(ctx context.Context, path string, body []byte) error {
	resp, err := r.do(ctx, http.MethodPost, path, r.admin, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		message, _, _ := readError(text)
		return &statusError{resp.StatusCode, firstLine(message, maxMessage)}
	}
	return nil
}

// LoadAdapter makes an adapter available under its name, on all upstreams that are up; others get it when they come up.
func (e *Engine) LoadAdapter(ctx context.Context, _, name, path string) error {
	a := Adapter{Name: name, Path: path}
	e.mu.Lock()
	taken := a.Name == e.name || slices.ContainsFunc(e.adapters, func(b Adapter) bool { return b.Name == a.Name })
	e.mu.Unlock()
	if taken {
		return BadField("lora_name", "is the name of a model already: %q", a.Name)
	}
	for _, r := range e.pool.list() {
		if err := e.bring(ctx, r, a); err != nil {
			return &engine.Error{Code: engine.Upstream, Param: "lora_name", Message: "the model's server did not load the adapter", Err: err}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.adapters = append(e.adapters, a)
	return nil
}

// UnloadAdapter takes an adapter away again: from then on its name is unknown.
func (e *Engine) UnloadAdapter(ctx context.Context, name string) error {
	e.mu.Lock()
	at := slices.IndexFunc(e.adapters, func(a Adapter) bool { return a.Name == name })
	if at >= 0 {
		e.adapters = slices.Delete(e.adapters, at, at+1)
	}
	e.mu.Unlock()
	if at < 0 {
		return &engine.Error{Code: engine.NotFound, Param: "lora_name", Message: fmt.Sprintf("The adapter `%s` does not exist.", name)}
	}
	var failed error
	for _, r := range e.pool.list() {
		if e.d.Adapters.Unload == "" {
			continue
		}
		e.pool.mu.Lock()
		delete(r.names.adapters, name)
		e.pool.mu.Unlock()
		if err := r.unloadAdapter(ctx, name); err != nil {
			failed = err
		}
	}
	if failed != nil {
		return &engine.Error{Code: engine.Upstream, Message: "the model's server did not unload the adapter", Err: failed}
	}
	return nil
}
