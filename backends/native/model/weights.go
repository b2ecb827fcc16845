package model

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pagoda/checkpoint"
)

// names are a checkpoint's weight names outside the layers.
type names struct {
	layouts []layout // the usual one first, then others in which checkpoints are found too
	unused  []string // what the names of tensors begin with that a checkpoint may have for other parts than the decoder
}

// layout is where a checkpoint has the decoder.
type layout struct {
	base string // what the names begin with, but for the head's
	head string
}

func (n names) embed() string     { return n.layouts[0].base + "embed_tokens.weight" }
func (n names) finalNorm() string { return n.layouts[0].base + "norm" }
func (n names) head() string      { return n.layouts[0].head + ".weight" }

// in returns what the tensor of a name is called in w.
func (n names) in(w *checkpoint.Weights) func(name string) string {
	usual := n.layouts[0]
	for _, l := range n.layouts {
		if _, ok := w.Tensor(l.base + "embed_tokens.weight"); ok {
			return func(name string) string {
				if name == usual.head+".weight" {
					return l.head + ".weight"
				}
				return l.base + strings.TrimPrefix(name, usual.base)
			}
		}
	}
	return func(name string) string { return name }
}

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
	exact  bool     // it is not rounded to Options.Bits
	turned bool     // it is stored as [in, out]
	packed [][2]int // the matrices that are made of it, [out, in], where these are not what its shape says
}

func vector(name string, shape ...int) tensor { return tensor{name: name, shape: shape} }
func matrix(name string, shape ...int) tensor { return tensor{name: name, shape: shape, matrix: true} }

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

func (s *Spec) layerPrefix(layer int) string {
	return fmt.Sprintf("%slayers.%d.", s.names.layouts[0].base, layer)
}

// embedOrHead says whether a tensor is the embedding or the output matrix.
func (s *Spec) embedOrHead(name string) bool {
	return name == s.names.embed() || name == s.names.head()
}

// tensors lists the weights of the decoder.
func (s *Spec) tensors() []tensor {
	list := []tensor{matrix(s.names.embed(), s.Vocab, s.Hidden), vector(s.names.finalNorm()+".weight", s.Hidden)}
	if !s.TiedHead {
		list = append(list, matrix(s.names.head(), s.Vocab, s.Hidden))
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

// checkWeights compares a checkpoint with the spec and reports all differences in one error. Mapped weights are used as
// they are stored.
func (s *Spec) checkWeights(w *checkpoint.Weights, mapped bool) error {
	stored := s.names.in(w)
	known := map[string]bool{}
	if s.TiedHead {
		known[stored(s.names.head())] = true // often saved although the embedding stands for it
	}
	var problems []string
	for _, want := range s.tensors() {
		name := stored(want.name)
		got, ok, problem := s.find(w, name)
		for _, n := range append(got.names, name) {
			known[n] = true
		}
		switch {
		case !ok:
			problems = append(problems, "missing: "+name)
		case problem != nil:
			problems = append(problems, problem.Error())
		case got.packed != nil && mapped:
			problems = append(problems, name+" is quantized and cannot be used from mapped files")
		case !slices.Equal(got.Shape, want.shape):
			problems = append(problems, fmt.Sprintf("shape of %s: %v, want %v", name, got.Shape, want.shape))
		case !floatTypes[got.DType]:
			problems = append(problems, fmt.Sprintf("dtype of %s: %s, want F32, BF16 or F16", name, got.DType))
		}
	}
	for _, name := range w.Names() {
		if !known[name] && !s.names.isUnused(name) && !isUnusedScale(name) {
			problems = append(problems, fmt.Sprintf("surplus: %.120s", strings.Trim(strconv.Quote(name), `"`)))
		}
	}
	return listError("the weights do not fit the configuration", problems)
}

// isUnused says whether a checkpoint may have a tensor that the decoder has no use for.
func (n names) isUnused(name string) bool {
	return strings.HasSuffix(name, ".rotary_emb.inv_freq") || // old checkpoints have what the configuration says
		slices.ContainsFunc(n.unused, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
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
