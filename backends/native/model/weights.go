package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pagoda/checkpoint"
)

// Target is one of a layer's projections, as adapters address them.
type Target int

// The projections. Q, K and V are computed as one matrix product, Gate and Up as another.
const (
	Q Target = iota
	K
	V
	O
	Gate
	Up
	Down
	NumTargets
)

// names are an architecture's weight names, without ".weight" or ".bias". layer holds the place of the layer's number.
type names struct {
	embed, finalNorm, head, layer     string
	inputNorm, postNorm, qNorm, kNorm string
	projections                       [NumTargets]string
}

// tensor is a weight that a checkpoint must have.
type tensor struct {
	name  string
	shape []int
}

func (t tensor) elements() int {
	n := 1
	for _, size := range t.shape {
		n *= size
	}
	return n
}

// Module is a projection by the name that adapters use: a matrix [Out, In].
type Module struct {
	Name    string
	Layer   int
	Target  Target
	In, Out int
}

// Modules lists all projections.
func (s *Spec) Modules() []Module {
	list := make([]Module, 0, s.Layers*int(NumTargets))
	for layer := range s.Layers {
		for target := range NumTargets {
			m := Module{Name: s.layerName(layer, s.names.projections[target]), Layer: layer, Target: target}
			m.Out, m.In = s.projection(target)
			list = append(list, m)
		}
	}
	return list
}

// projection is the shape of a target's matrix.
func (s *Spec) projection(t Target) (out, in int) {
	switch t {
	case Q:
		return s.Heads * s.HeadDim, s.Hidden
	case K, V:
		return s.KVHeads * s.HeadDim, s.Hidden
	case O:
		return s.Hidden, s.Heads * s.HeadDim
	case Gate, Up:
		return s.Inter, s.Hidden
	default:
		return s.Hidden, s.Inter
	}
}

func (s *Spec) layerName(layer int, name string) string {
	return fmt.Sprintf(s.names.layer, layer) + name
}

// biased says whether a target's projection has a bias.
func (s *Spec) biased(t Target) bool {
	switch t {
	case Q, K, V:
		return s.QKVBias
	case O:
		return s.OBias
	default:
		return s.MLPBias
	}
}

// tensors lists the weights of the decoder.
func (s *Spec) tensors() []tensor {
	var list []tensor
	add := func(name string, shape ...int) { list = append(list, tensor{name + ".weight", shape}) }
	add(s.names.embed, s.Vocab, s.Hidden)
	add(s.names.finalNorm, s.Hidden)
	if !s.TiedHead {
		add(s.names.head, s.Vocab, s.Hidden)
	}
	for layer := range s.Layers {
		add(s.layerName(layer, s.names.inputNorm), s.Hidden)
		add(s.layerName(layer, s.names.postNorm), s.Hidden)
		if s.HeadNorms {
			add(s.layerName(layer, s.names.qNorm), s.HeadDim)
			add(s.layerName(layer, s.names.kNorm), s.HeadDim)
		}
	}
	for _, m := range s.Modules() {
		add(m.Name, m.Out, m.In)
		if s.biased(m.Target) {
			list = append(list, tensor{m.Name + ".bias", []int{m.Out}})
		}
	}
	return list
}

// checkWeights compares a checkpoint with the spec and reports all differences in one error.
func (s *Spec) checkWeights(w *checkpoint.Weights) error {
	surplus := map[string]bool{}
	for _, name := range w.Names() {
		surplus[name] = true
	}
	if s.TiedHead {
		delete(surplus, s.names.head+".weight") // often saved although the embedding stands for it
	}
	var problems []string
	for _, want := range s.tensors() {
		delete(surplus, want.name)
		got, ok := w.Tensor(want.name)
		switch {
		case !ok:
			problems = append(problems, "missing: "+want.name)
		case !slices.Equal(got.Shape, want.shape):
			problems = append(problems, fmt.Sprintf("shape of %s: %v, want %v", want.name, got.Shape, want.shape))
		case !floatTypes[got.DType]:
			problems = append(problems, fmt.Sprintf("dtype of %s: %s, want F32, BF16 or F16", want.name, got.DType))
		}
	}
	for _, name := range w.Names() {
		if surplus[name] {
			problems = append(problems, fmt.Sprintf("surplus: %.120s", name))
		}
	}
	return listError("the weights do not fit the configuration", problems)
}

var floatTypes = map[checkpoint.DType]bool{"F32": true, "BF16": true, "F16": true}

// listError makes one error of a list of problems, nil of an empty one.
func listError(title string, problems []string) error {
	const most = 20
	if len(problems) == 0 {
		return nil
	}
	if n := len(problems) - most; n > 0 {
		problems = append(problems[:most], fmt.Sprintf("and %d more", n))
	}
	return errors.New(title + ":\n  " + strings.Join(problems, "\n  "))
}
