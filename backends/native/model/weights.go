package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pagoda/checkpoint"
)

// Target is a projection's place among those of its layer: the mixer's, its output, then the feed-forward's.
type Target int

// projection is a matrix [out, in] that adapters may address, with or without a bias. Its name is without the layer's
// prefix and without ".weight" or ".bias".
type projection struct {
	name    string
	out, in int
	bias    bool
}

// tensor is a weight that a checkpoint must have: a matrix, or several one after another along its first dimensions, to be
// packed; or else values that are kept in float32.
type tensor struct {
	name   string
	shape  []int
	matrix bool
}

func vector(name string, shape ...int) tensor { return tensor{name: name, shape: shape} }
func matrix(name string, shape ...int) tensor { return tensor{name, shape, true} }

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
func (s *Spec) Modules() (list []Module) {
	for i, l := range s.Layers {
		for t, p := range l.projections(s) {
			list = append(list, Module{s.layerPrefix(i) + p.name, i, Target(t), p.in, p.out})
		}
	}
	return list
}

// projections lists a layer's, in the order of their targets.
func (l LayerSpec) projections(s *Spec) []projection {
	list := append(l.Mixer.projections(s), l.Mixer.output(s))
	return append(list, l.FF.projections(s)...)
}

func (s *Spec) layerPrefix(layer int) string { return fmt.Sprintf(s.names.layer, layer) }

// embedOrHead says whether a tensor is the embedding or the output matrix.
func (s *Spec) embedOrHead(name string) bool {
	return name == s.names.embed+".weight" || name == s.names.head+".weight"
}

// tensors lists the weights of the decoder.
func (s *Spec) tensors() []tensor {
	list := []tensor{matrix(s.names.embed+".weight", s.Vocab, s.Hidden), vector(s.names.finalNorm+".weight", s.Hidden)}
	if !s.TiedHead {
		list = append(list, matrix(s.names.head+".weight", s.Vocab, s.Hidden))
	}
	for i, l := range s.Layers {
		for _, t := range l.tensors(s) {
			t.name = s.layerPrefix(i) + t.name
			list = append(list, t)
		}
	}
	return list
}

// tensors lists the weights of a layer, without its prefix.
func (l LayerSpec) tensors(s *Spec) (list []tensor) {
	for _, name := range []string{l.InputNorm, l.MixerNorm, l.FFNorm, l.FFOutNorm} {
		if name != "" {
			list = append(list, vector(name+".weight", s.Hidden))
		}
	}
	for _, p := range l.projections(s) {
		list = append(list, matrix(p.name+".weight", p.out, p.in))
		if p.bias {
			list = append(list, vector(p.name+".bias", p.out))
		}
	}
	return slices.Concat(list, l.Mixer.tensors(s), l.FF.tensors(s))
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
