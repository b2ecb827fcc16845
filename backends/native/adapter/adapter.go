// Package adapter keeps LoRA adapters in device memory: many at once, of different ranks and targets, loaded and
// unloaded while the model serves. They are never merged into the base weights.
package adapter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// Adapter is a loaded adapter. Whoever got it from Acquire calls Release once when done.
type Adapter struct {
	registry *Registry
	name     string
	id       uint64
	lora     *model.LoRA
	rank     int
	bytes    int64
	refs     int // guarded by registry.mu; the registry itself holds one until Unload
}

// Name is what clients call it.
func (a *Adapter) Name() string { return a.name }

// ID tells this load of this adapter from every other, also from one of the same name before: cached keys and values
// belong to it. It is never 0, which is the base model.
func (a *Adapter) ID() uint64 { return a.id }

// LoRA is what a batch's run names.
func (a *Adapter) LoRA() *model.LoRA { return a.lora }

// Rank is the largest rank of its matrices.
func (a *Adapter) Rank() int { return a.rank }

// Bytes is its memory.
func (a *Adapter) Bytes() int64 { return a.bytes }

// maxRank bounds what one adapter costs a step.
const maxRank = 1024

// Bytes is the memory that an adapter takes once it is loaded for a model with these options. It refuses what does not fit the
// model.
func Bytes(spec *model.Spec, o model.Options, ck *checkpoint.Checkpoint) (bytes int64, err error) {
	pairs, w, err := open(spec, ck)
	if err != nil {
		return 0, err
	}
	defer w.Close() // only read from: nothing is lost when it fails
	for _, p := range pairs {
		for _, t := range []checkpoint.Tensor{p.a, p.b} {
			bytes += kernels.MatrixBytes(spec.AdapterDType(o), t.Shape[0], t.Shape[1])
		}
	}
	return bytes, nil
}

// open finds an adapter's matrices, which are there until the weights are closed.
func open(spec *model.Spec, ck *checkpoint.Checkpoint) ([]pair, *checkpoint.Weights, error) {
	config, err := ck.AdapterConfig()
	if err != nil {
		return nil, nil, err
	}
	w, err := ck.AdapterWeights()
	if err != nil {
		return nil, nil, err
	}
	pairs, err := match(config, spec.Modules(), w)
	if err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	return pairs, w, nil
}

// build checks an adapter against the model and packs its matrices.
func build(dev *kernels.Device, m *model.Model, ck *checkpoint.Checkpoint) (*Adapter, error) {
	pairs, w, err := open(m.Spec(), ck)
	if err != nil {
		return nil, err
	}
	defer w.Close() // only read from: nothing is lost when it fails
	a := &Adapter{lora: m.Spec().NewLoRA()}
	for _, p := range pairs {
		u, err := p.pack(dev, m.AdapterDType())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", p.module.Name, err), a.free())
		}
		a.lora.Layers[p.module.Layer][p.module.Target] = u
		a.rank = max(a.rank, u.A.N())
		a.bytes += u.A.Bytes() + u.B.Bytes()
	}
	return a, nil
}

// pair is the two matrices of one module.
type pair struct {
	module model.Module
	a, b   checkpoint.Tensor // [rank, in], [out, rank]
	scale  float32
}

func (p pair) pack(dev *kernels.Device, dt kernels.DType) (*model.LowRank, error) {
	a, err := packMatrix(dev, dt, p.a)
	if err != nil {
		return nil, err
	}
	b, err := packMatrix(dev, dt, p.b)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &model.LowRank{A: a, B: b, Scale: p.scale}, nil
}

func packMatrix(dev *kernels.Device, dt kernels.DType, t checkpoint.Tensor) (*kernels.Matrix, error) {
	return dev.PackMatrix(dt, t.Shape[1], kernels.MatrixPart{Data: t.Data, DType: stored[t.DType], Rows: t.Shape[0]})
}

var stored = map[checkpoint.DType]kernels.DType{"F32": kernels.F32, "BF16": kernels.BF16, "F16": kernels.F16}

// match finds the matrices of each module that the configuration targets, and reports all that is missing, surplus or
// misshapen in one error.
func match(config *checkpoint.AdapterConfig, modules []model.Module, w *checkpoint.Weights) ([]pair, error) {
	const prefix = "base_model.model."
	surplus := map[string]bool{}
	for _, name := range w.Names() {
		surplus[name] = true
	}
	var pairs []pair
	var problems []string
	take := func(name string, rows, cols int) checkpoint.Tensor {
		delete(surplus, name)
		t, ok := w.Tensor(name)
		switch want := []int{rows, cols}; {
		case !ok:
			problems = append(problems, "missing: "+name)
		case !slices.Equal(t.Shape, want):
			problems = append(problems, fmt.Sprintf("shape of %s: %v, want %v", name, t.Shape, want))
		case stored[t.DType] == 0:
			problems = append(problems, fmt.Sprintf("dtype of %s: %s, want F32, BF16 or F16", name, t.DType))
		}
		return t
	}
	for _, module := range modules {
		if !config.Targets(module.Name) {
			continue
		}
		rank := config.Rank(module.Name)
		if rank < 1 || rank > maxRank {
			return nil, fmt.Errorf("%s: rank %d, must be 1 to %d", module.Name, rank, maxRank)
		}
		pairs = append(pairs, pair{module: module, scale: config.Scale(module.Name),
			a: take(prefix+module.Name+".lora_A.weight", rank, module.In),
			b: take(prefix+module.Name+".lora_B.weight", module.Out, rank)})
	}
	for _, name := range w.Names() {
		switch {
		case surplus[name] && strings.Contains(name, ".experts."):
			problems = append(problems, fmt.Sprintf("adapters of experts are not supported: %.160s", name))
		case surplus[name] && strings.Contains(name, ".kv_b_proj."):
			problems = append(problems, fmt.Sprintf("adapters of latent attention's kv_b_proj are not supported: %.160s", name))
		case surplus[name]:
			problems = append(problems, fmt.Sprintf("surplus: %.160s", name))
		}
	}
	if len(pairs) == 0 {
		problems = append(problems, "target_modules names no projection of the model")
	}
	return pairs, listError(problems)
}

func listError(problems []string) error {
	const most = 20
	if len(problems) == 0 {
		return nil
	}
	if n := len(problems) - most; n > 0 {
		problems = append(problems[:most], fmt.Sprintf("and %d more", n))
	}
	return fmt.Errorf("the adapter does not fit the model:\n  %s", strings.Join(problems, "\n  "))
}

// free closes the matrices.
func (a *Adapter) free() error {
	var errs []error
	for _, l := range a.lora.Layers {
		for _, u := range l {
			if u != nil {
				errs = append(errs, u.A.Close(), u.B.Close())
			}
		}
	}
	a.lora = nil
	return errors.Join(errs...)
}
