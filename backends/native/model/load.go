package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// Options choose how a checkpoint is loaded.
type Options struct {
	DType   DType // "" is Auto
	KVDType DType // Auto, Float32, BFloat16, FP8 or Int8; "" is Auto, which is Float32
	MaxLen  int   // tokens of a sequence; 0: as many as the checkpoint was made for
	Bits    int   // 8 or 4: weights are rounded to that many bits when they are loaded; 0: they are not
	Mapped  bool  // matrices are used from the checkpoint's mapped files, which must stay open: slower, but without a copy

	Grow *Growth // more tokens than the checkpoint has; nil: none

	// Check, if there is one, is called before each matrix: an error ends the load.
	Check func() error
}

// source gives the weights. Tensors are asked for in the order in which they are packed and released after it, so
// that no more than one matrix is ever in memory twice.
type source interface {
	tensor(name string, shape []int) checkpoint.Tensor
	part(name string, shape []int, i int) checkpoint.Tensor // the i-th of a tensor's first dimension
	release(name string)
}

type weightsSource struct {
	*checkpoint.Weights
	spec   *Spec
	stored func(name string) string
}

func (s weightsSource) find(name string) storedTensor {
	t, _, _ := s.spec.find(s.Weights, s.stored(name)) // checked before
	return t
}

func (s weightsSource) tensor(name string, shape []int) checkpoint.Tensor {
	t := s.find(name)
	if t.packed == nil {
		return t.Tensor
	}
	return t.rows(0, tensor{shape: shape[:len(shape)-1]}.elements())
}

func (s weightsSource) part(name string, shape []int, i int) checkpoint.Tensor {
	rows := tensor{shape: shape[1 : len(shape)-1]}.elements()
	return s.find(name).rows(i*rows, (i+1)*rows)
}

func (s weightsSource) release(name string) {
	for _, part := range s.find(name).names {
		s.Release(part)
	}
}

// Load packs a checkpoint's weights into device memory. The caller may close w afterwards, but for Options.Mapped.
func Load(dev *kernels.Device, spec *Spec, w *checkpoint.Weights, o Options) (*Model, error) {
	spec = spec.as(w)
	if err := spec.checkWeights(w, o.Mapped); err != nil {
		return nil, fmt.Errorf("load model: %w", err)
	}
	return load(dev, spec, weightsSource{w, spec, spec.names.in(w)}, o)
}

func load(dev *kernels.Device, spec *Spec, src source, o Options) (*Model, error) {
	if err := spec.Check(o); err != nil {
		return nil, fmt.Errorf("load model: %w", err)
	}
	m := &Model{dev: dev, spec: spec.grown(o.Grow), options: o, dtype: spec.resolve(o.DType), maxLen: spec.MaxLen}
	if o.MaxLen > 0 {
		m.maxLen = o.MaxLen
	}
	if m.embedScale = float32(spec.EmbedScale); spec.EmbedScaleRounded {
		m.embedScale = m.dtype.round(m.embedScale)
	}
	l := &loader{Model: m, src: src, tensors: map[string]tensor{}}
	for _, t := range spec.tensors() {
		l.tensors[t.name] = t
	}
	l.all()
	if l.err != nil {
		return nil, errors.Join(fmt.Errorf("load model: %w", l.err), m.Close())
	}
	return m, nil
}

// Check refuses options with which the model cannot be loaded.
func (s *Spec) Check(o Options) error {
	if _, err := ParseDType(string(o.DType)); err != nil {
		return err
	}
	if _, ok := kvDTypes[o.KVDType]; !ok {
		return fmt.Errorf("KV cache dtype %q is none of auto, float32, bfloat16, fp8, int8", o.KVDType)
	}
	if o.Bits != 0 && o.Bits != 4 && o.Bits != 8 {
		return fmt.Errorf("weights of %d bits: 8 or 4", o.Bits)
	}
	if o.Mapped && o.Bits != 0 {
		return errors.New("weights that are rounded cannot be used from mapped files")
	}
	if o.Mapped && slices.ContainsFunc(s.tensors(), func(t tensor) bool { return t.turned }) {
		return errors.New("weights that are stored as [in, out], or of latent attention, cannot be used from mapped files")
	}
	if o.Grow != nil {
		if o.Mapped {
			return errors.New("a vocabulary that grows cannot be used from mapped files")
		}
		if err := o.Grow.check(s); err != nil {
			return err
		}
	}
	if o.MaxLen < 0 || o.MaxLen > s.LongestLen {
		return fmt.Errorf("a length of %d tokens; the model was made for at most %d", o.MaxLen, s.LongestLen)
	}
	return nil
}

// loader fills a Model. After the first error its methods do nothing.
type loader struct {
	*Model
	src     source
	tensors map[string]tensor
	at      int // next free byte of small
	err     error
}

func (l *loader) all() {
	s := l.spec
	small := 0
	for _, t := range s.tensors() {
		if !t.matrix {
			small += roundUp(t.elements())
		}
	}
	for _, r := range s.Ropes {
		small += roundUp(s.ropeRows(l.maxLen) * r.Dim)
	}
	l.small, l.err = l.dev.Alloc(small * kernels.F32.Size())
	if l.err != nil {
		return
	}
	l.embed = l.matrix(s.Hidden, s.names.embed())
	l.head = l.embed
	if !s.TiedHead {
		l.head = l.matrix(s.Hidden, s.names.head())
	}
	l.finalNorm = l.norm(s.names.finalNorm())
	for i := range s.Layers {
		l.layers = append(l.layers, l.layer(i))
	}
	for _, r := range s.Ropes {
		values := r.Table(s.switchLen(l.maxLen))
		values = append(values, r.Table(l.maxLen)...)
		l.ropes = append(l.ropes, l.f32(s.ropeRows(l.maxLen), r.Dim, values))
	}
	l.bytes += int64(l.at)
}

func (l *loader) layer(i int) (y layer) {
	spec := l.spec.Layers[i]
	p := &partLoader{loader: l, prefix: l.spec.layerPrefix(i), projections: spec.projections(l.spec)}
	for _, norm := range []struct {
		to   *kernels.Tensor
		name string
	}{{&y.inputNorm, spec.InputNorm}, {&y.mixerNorm, spec.MixerNorm}, {&y.ffNorm, spec.FFNorm}, {&y.ffOutNorm, spec.FFOutNorm}} {
		if norm.name != "" {
			*norm.to = p.norm(norm.name)
		}
	}
	y.mixer = spec.Mixer.load(p)
	y.output = p.linear(1)
	y.ff = spec.FF.load(p)
	return y
}

// partLoader loads the tensors of one layer, by their names in it.
type partLoader struct {
	*loader
	prefix      string
	projections []projection
	next        Target
}

// linear packs the layer's next n projections, side by side.
func (l *partLoader) linear(n int) linear {
	y := linear{first: l.next}
	var weights []string
	var bias []float32
	for _, p := range l.projections[l.next:][:n] {
		weights = append(weights, l.prefix+p.name+".weight")
		y.cols = append(y.cols, p.out)
		if p.bias {
			bias = append(bias, l.values(l.prefix+p.name+".bias")...)
		}
	}
	y.weight = l.matrix(l.projections[l.next].in, weights...)
	if len(bias) > 0 {
		y.bias = l.f32(1, len(bias), bias)
	}
	l.next += Target(n)
	return y
}

// norm is the weight of a norm of the layer.
func (l *partLoader) norm(name string) kernels.Tensor { return l.loader.norm(l.prefix + name) }

// vector is another tensor of the layer, as F32 [1, its elements].
func (l *partLoader) vector(name string) kernels.Tensor { return l.loader.vector(l.prefix+name, 0) }

// matrix packs the named weights, each [rows, k], stacked.
func (l *loader) matrix(k int, names ...string) *kernels.Matrix {
	if l.err != nil {
		return nil
	}
	var parts []kernels.MatrixPart
	for _, name := range names {
		t := l.tensor(name)
		parts = append(parts, kernels.MatrixPart{Data: t.Data, DType: kernelDType(t.DType), Rows: t.Shape[0]})
		if g := l.options.Grow; g != nil && l.spec.embedOrHead(name) {
			parts = append(parts, g.rows(t))
		}
	}
	m := l.pack(names[0], k, parts...)
	if !l.options.Mapped {
		for _, name := range names {
			l.src.release(name)
		}
	}
	return m
}

// pack packs the parts, each [rows, k], of a matrix that is called by a tensor's name.
func (l *loader) pack(name string, k int, parts ...kernels.MatrixPart) *kernels.Matrix {
	if l.err == nil && l.options.Check != nil {
		l.err = l.options.Check()
	}
	if l.err != nil {
		return nil
	}
	dt := l.options.quantized(l.spec, l.tensors[name])
	if dt == 0 {
		dt = l.packedAs(parts)
	}
	pack := l.dev.PackMatrix
	if l.options.Mapped {
		pack = l.dev.MapMatrix
	}
	m, err := pack(dt, k, parts...)
	if err != nil {
		l.err = fmt.Errorf("%s: %w", name, err)
		return nil
	}
	l.matrices = append(l.matrices, m)
	if l.options.Mapped {
		l.mapped += m.Bytes()
	} else {
		l.bytes += m.Bytes()
	}
	return m
}

func (l *loader) tensor(name string) checkpoint.Tensor {
	return l.src.tensor(name, l.tensors[name].shape)
}

// part is the i-th matrix of a stack.
func (l *loader) part(name string, i int) checkpoint.Tensor {
	return l.src.part(name, l.tensors[name].shape, i)
}

// packedAs is the type of a matrix in memory: for float32 that of its parts if they agree, since converting on use is
// exact and takes half the memory.
func (l *loader) packedAs(parts []kernels.MatrixPart) kernels.DType {
	if l.dtype != Float32 {
		return l.spec.storedAs(l.dtype)
	}
	for _, p := range parts {
		if p.DType != parts[0].DType {
			return kernels.F32
		}
	}
	return parts[0].DType
}

// norm is the weight of a norm, with Spec.NormOffset, as F32 [1, its elements].
func (l *loader) norm(name string) kernels.Tensor { return l.vector(name+".weight", l.spec.NormOffset) }

// vector is a tensor's elements with something added to each, as F32 [1, their number].
func (l *loader) vector(name string, plus float32) kernels.Tensor {
	values := l.values(name)
	for i := range values {
		values[i] += plus
	}
	return l.f32(1, len(values), values)
}

// values are a tensor's elements.
func (l *loader) values(name string) []float32 {
	if l.err != nil {
		return nil
	}
	return l.tensor(name).Floats()
}

// f32 puts values into the buffer of small tensors.
func (l *loader) f32(rows, cols int, values []float32) kernels.Tensor {
	if l.err != nil {
		return kernels.Tensor{}
	}
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	t := kernels.NewTensor(l.small, l.at, kernels.F32, rows, cols)
	l.err = l.small.Write(l.at, data)
	l.at += roundUp(len(values)) * kernels.F32.Size()
	return t
}

// roundUp makes the next tensor start at a multiple of 64 bytes.
func roundUp(elements int) int { return (elements + 15) &^ 15 }

func kernelDType(d checkpoint.DType) kernels.DType {
	switch d {
	case "BF16":
		return kernels.BF16
	case "F16":
		return kernels.F16
	}
	return kernels.F32
}
