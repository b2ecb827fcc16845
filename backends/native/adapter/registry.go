package adapter

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// Errors of Registry.
var (
	ErrNotFound = errors.New("no such adapter")
	ErrExists   = errors.New("an adapter of this name is loaded")
)

// Registry holds a model's adapters by name. It is safe for concurrent use. An adapter that is unloaded keeps its
// memory until the last user releases it.
type Registry struct {
	dev *kernels.Device
	m   *model.Model

	mu     sync.Mutex
	byName map[string]*Adapter // nil while it loads
	lastID uint64
	bytes  int64 // of all adapters whose memory is held, unloaded ones in use included
}

// NewRegistry makes an empty registry.
func NewRegistry(dev *kernels.Device, m *model.Model) *Registry {
	return &Registry{dev: dev, m: m, byName: map[string]*Adapter{}}
}

// Load reads an adapter and makes it known by name. Others can be used and loaded meanwhile.
func (r *Registry) Load(name string, ck *checkpoint.Checkpoint) (*Adapter, error) {
	if err := r.reserve(name); err != nil {
		return nil, fmt.Errorf("load adapter %s: %w", name, err)
	}
	a, err := build(r.dev, r.m, ck)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.byName, name)
		return nil, fmt.Errorf("load adapter %s: %w", name, err)
	}
	r.lastID++
	a.registry, a.name, a.id, a.refs = r, name, r.lastID, 1
	r.byName[name] = a
	r.bytes += a.bytes
	return a, nil
}

func (r *Registry) reserve(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byName[name]; ok {
		return ErrExists
	}
	r.byName[name] = nil
	return nil
}

// Unload makes the name free at once, and the memory when nobody uses the adapter any more.
func (r *Registry) Unload(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.byName[name]
	if a == nil {
		return fmt.Errorf("unload %s: %w", name, ErrNotFound)
	}
	delete(r.byName, name)
	return a.release()
}

// Acquire returns an adapter for use; its memory stays until Release.
func (r *Registry) Acquire(name string) (*Adapter, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.byName[name]
	if a == nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	a.refs++
	return a, nil
}

// Release ends a use that began with Acquire.
func (a *Adapter) Release() error {
	a.registry.mu.Lock()
	defer a.registry.mu.Unlock()
	return a.release()
}

// release drops a reference and frees with the last. registry.mu is held.
func (a *Adapter) release() error {
	if a.refs--; a.refs > 0 {
		return nil
	}
	a.registry.bytes -= a.bytes
	return a.free()
}

// List returns the adapters by name.
func (r *Registry) List() []*Adapter {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.DeleteFunc(slices.Collect(maps.Values(r.byName)), func(a *Adapter) bool { return a == nil })
	slices.SortFunc(list, func(a, b *Adapter) int { return cmp.Compare(a.name, b.name) })
	return list
}

// Bytes is the memory of all adapters.
func (r *Registry) Bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// Close unloads all adapters.
func (r *Registry) Close() error {
	var errs []error
	for _, a := range r.List() {
		errs = append(errs, r.Unload(a.name))
	}
	return errors.Join(errs...)
}
