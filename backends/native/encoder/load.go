package encoder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// linear is x·weightᵀ + bias, then act; 0: nothing.
type linear struct {
	weight *kernels.Matrix
	bias   kernels.Tensor // F32 [1, out], or no rows
	act    kernels.Activation
}

type norm struct{ w, b kernels.Tensor }

type layer struct {
	qkv, out, up, down linear
	mixNorm, ffNorm    norm
}

// weights are an encoder's in device memory.
type weights struct {
	words, positions, types *kernels.Matrix
	embedNorm               norm
	layers                  []layer
	head                    []linear // what follows the pooling

	matrices []*kernels.Matrix
	small    []*kernels.Buffer
	bytes    int64
}

func (w *weights) close() error {
	var errs []error
	for _, m := range w.matrices {
		errs = append(errs, m.Close())
	}
	for _, b := range w.small {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// loader fills weights. It collects all problems of names and shapes.
type loader struct {
	*weights
	dev      *kernels.Device
	from     *checkpoint.Weights
	base     string
	dtype    kernels.DType // of matrices
	budget   int64         // bytes; 0: no bound
	used     map[string]bool
	problems []error
}

func (l *loader) bad(format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf(format, args...))
}

// tensor finds a weight of that shape.
func (l *loader) tensor(name string, shape ...int) (t checkpoint.Tensor, ok bool) {
	l.used[name] = true
	t, ok = l.from.Tensor(name)
	switch {
	case !ok:
		l.bad("missing: %s", name)
	case !slices.Equal(t.Shape, shape):
		l.bad("shape of %s: %v, want %v", name, t.Shape, shape)
	case t.DType != "F32" && t.DType != "BF16" && t.DType != "F16":
		l.bad("dtype of %s: %s, want F32, BF16 or F16", name, t.DType)
	default:
		return t, len(l.problems) == 0
	}
	return t, false
}

// matrix packs weights [rows, k] side by side.
func (l *loader) matrix(rows, k int, names ...string) *kernels.Matrix {
	var parts []kernels.MatrixPart
	for _, name := range names {
		t, ok := l.tensor(name, rows, k)
		if ok {
			parts = append(parts, kernels.MatrixPart{Data: t.Data, DType: dtypeOf(t.DType), Rows: rows})
		}
	}
	if len(l.problems) > 0 {
		return nil
	}
	need := kernels.MatrixBytes(l.dtype, rows*len(names), k)
	if l.bytes += need; l.budget > 0 && l.bytes > l.budget {
		l.bad("the weights need more than the %d MiB of memory that there are", l.budget>>20)
		return nil
	}
	m, err := l.dev.PackMatrix(l.dtype, k, parts...)
	if err != nil {
		l.bad("%s: %w", names[0], err)
		return nil
	}
	l.matrices = append(l.matrices, m)
	for _, name := range names {
		l.from.Release(name)
	}
	return m
}

// row packs a matrix of one row.
func (l *loader) row(values []float32) *kernels.Matrix {
	if len(l.problems) > 0 {
		return nil
	}
	part := kernels.MatrixPart{Data: littleEndian(values), DType: kernels.F32, Rows: 1}
	m, err := l.dev.PackMatrix(kernels.F32, len(values), part)
	if err != nil {
		l.bad("the head: %w", err)
		return nil
	}
	l.matrices = append(l.matrices, m)
	return m
}

// vector puts the named weights of n elements each one after another, as F32 [1, all].
func (l *loader) vector(n int, names ...string) kernels.Tensor {
	var values []float32
	for _, name := range names {
		if t, ok := l.tensor(name, n); ok {
			values = append(values, t.Floats()...)
		}
	}
	if len(l.problems) > 0 {
		return kernels.Tensor{}
	}
	data := littleEndian(values)
	b, err := l.dev.Alloc(len(data))
	if err != nil {
		l.bad("%s: %w", names[0], err)
		return kernels.Tensor{}
	}
	l.small = append(l.small, b)
	l.bytes += int64(len(data))
	if err := b.Write(0, data); err != nil {
		l.bad("%s: %w", names[0], err)
	}
	return kernels.NewTensor(b, 0, kernels.F32, 1, n*len(names))
}

func (l *loader) norm(name string, n int) norm {
	return norm{l.vector(n, l.base+name+".weight"), l.vector(n, l.base+name+".bias")}
}

// linear loads projections [out, in] side by side; the names are complete.
func (l *loader) linear(out, in int, act kernels.Activation, names ...string) linear {
	var weights, biases []string
	for _, name := range names {
		weights, biases = append(weights, name+".weight"), append(biases, name+".bias")
	}
	return linear{l.matrix(out, in, weights...), l.vector(out, biases...), act}
}

// all loads an encoder and its scoring head.
func (l *loader) all(s *spec) {
	if _, ok := l.from.Tensor("embeddings.word_embeddings.weight"); !ok {
		l.base = s.base
	}
	h, e := s.Hidden, l.base+"embeddings."
	l.words = l.matrix(s.Vocab, h, e+"word_embeddings.weight")
	l.positions = l.matrix(s.Positions, h, e+"position_embeddings.weight")
	l.types = l.matrix(s.Types, h, e+"token_type_embeddings.weight")
	l.embedNorm = l.norm("embeddings.LayerNorm", h)
	for i := range s.NumLayers {
		p := fmt.Sprintf("encoder.layer.%d.", i)
		at := l.base + p
		l.layers = append(l.layers, layer{
			qkv:     l.linear(h, h, 0, at+"attention.self.query", at+"attention.self.key", at+"attention.self.value"),
			out:     l.linear(h, h, 0, at+"attention.output.dense"),
			mixNorm: l.norm(p+"attention.output.LayerNorm", h),
			up:      l.linear(s.Inter, h, s.act, at+"intermediate.dense"),
			down:    l.linear(h, s.Inter, 0, at+"output.dense"),
			ffNorm:  l.norm(p+"output.LayerNorm", h),
		})
	}
	switch {
	case s.labels && s.roberta:
		l.head = append(l.head, l.linear(h, h, kernels.Tanh, "classifier.dense"), l.linear(1, h, 0, "classifier.out_proj"))
	case s.labels:
		l.head = append(l.head, l.linear(h, h, kernels.Tanh, l.base+"pooler.dense"), l.linear(1, h, 0, "classifier"))
	}
	for _, name := range l.from.Names() {
		if !l.used[name] && !unused(name) {
			l.bad("surplus: %.120s", name)
		}
	}
}

// unused says whether a checkpoint may have a weight that has no effect on embeddings: the heads of pre-training.
func unused(name string) bool {
	return strings.HasSuffix(name, "position_ids") || strings.HasPrefix(name, "cls.") || strings.HasPrefix(name, "lm_head.") ||
		strings.Contains(name, "pooler.")
}

// dense loads a module that follows the pooling, from a folder of its own.
func (l *loader) dense(open func(folder string) (*checkpoint.Checkpoint, error), d denseModule, in int) (out int) {
	act, ok := denseActivations[d.Act[strings.LastIndexByte(d.Act, '.')+1:]]
	if !ok {
		l.bad("%s: activation_function %q is not supported", d.path, d.Act)
	}
	if d.In != in || d.Out < 1 {
		l.bad("%s: makes %d numbers of %d, but there are %d", d.path, d.Out, d.In, in)
	}
	ck, err := open(d.path)
	if err != nil {
		l.bad("%s: %w", path.Base(d.path), err)
		return d.Out
	}
	defer ck.Close()
	w, err := ck.Weights()
	if err != nil {
		l.bad("%s: %w", path.Base(d.path), err)
		return d.Out
	}
	defer w.Close()
	inner := *l
	inner.from, inner.used = w, map[string]bool{}
	y := linear{weight: inner.matrix(d.Out, d.In, "linear.weight"), act: act}
	if d.Bias == nil || *d.Bias {
		y.bias = inner.vector(d.Out, "linear.bias")
	}
	l.problems = inner.problems
	l.head = append(l.head, y)
	return d.Out
}

func littleEndian(values []float32) (data []byte) {
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

func dtypeOf(d checkpoint.DType) kernels.DType {
	switch d {
	case "BF16":
		return kernels.BF16
	case "F16":
		return kernels.F16
	}
	return kernels.F32
}
