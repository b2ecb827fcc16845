package encoder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// linear is x·weightᵀ + bias, then act (0: nothing), then the norm.
type linear struct {
	weight *kernels.Matrix
	bias   kernels.Tensor // F32 [1, out], or no rows
	act    kernels.Activation
	norm   norm
}

// norm is a layer norm, or nothing.
type norm struct {
	w, b kernels.Tensor // F32 [1, n], or no rows
	eps  float32
}

type layer struct {
	qkv, out, up, down linear
	mixNorm, ffNorm    norm
	rotary             kernels.Tensor // F32 [positions, head], or no rows
	window             int            // 0: none
}

// weights are an encoder's in device memory.
type weights struct {
	words            *kernels.Matrix
	positions, types *kernels.Matrix // nil: none
	embedNorm, final norm
	distances        kernels.Tensor // added to scores, see kernels.AttentionOptions.Bias; or no rows
	layers           []layer
	head             []linear // what follows the pooling

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
	dtype    kernels.DType // of matrices
	dry      bool          // nothing is loaded, only looked for and counted
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
	if l.bytes += kernels.MatrixBytes(l.dtype, rows*len(names), k); l.dry {
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
	return l.f32(values, 1)
}

// f32 makes values a tensor of that many rows.
func (l *loader) f32(values []float32, rows int) kernels.Tensor {
	if len(l.problems) > 0 {
		return kernels.Tensor{}
	}
	if l.bytes += int64(4 * len(values)); l.dry {
		return kernels.Tensor{}
	}
	data := littleEndian(values)
	b, err := l.dev.Alloc(len(data))
	if err != nil {
		l.bad("work buffers: %w", err)
		return kernels.Tensor{}
	}
	l.small = append(l.small, b)
	if err := b.Write(0, data); err != nil {
		l.bad("work buffers: %w", err)
	}
	return kernels.NewTensor(b, 0, kernels.F32, rows, len(values)/rows)
}

// norm loads a layer norm; "" is none.
func (l *loader) norm(s *spec, name string) norm {
	if name == "" {
		return norm{}
	}
	y := norm{w: l.vector(s.Hidden, name+".weight"), eps: float32(s.Eps)}
	if s.NormBias {
		y.b = l.vector(s.Hidden, name+".bias")
	} else {
		y.b = l.f32(make([]float32, s.Hidden), 1)
	}
	return y
}

// linear loads projections [out, in] side by side.
func (l *loader) linear(out, in int, bias bool, names ...string) (y linear) {
	var weights, biases []string
	for _, name := range names {
		weights, biases = append(weights, name+".weight"), append(biases, name+".bias")
	}
	y.weight = l.matrix(out, in, weights...)
	if bias {
		y.bias = l.vector(out, biases...)
	}
	return y
}

// all loads an encoder for texts of up to maxLen tokens, and its scoring head.
func (l *loader) all(s *spec, maxLen int) {
	base := s.base
	if _, ok := l.from.Tensor(s.words + ".weight"); ok {
		base = ""
	}
	h := s.Hidden
	l.words = l.matrix(s.Vocab, h, base+s.words+".weight")
	if s.positions != "" {
		l.positions = l.matrix(s.Positions, h, base+s.positions+".weight")
	}
	if s.types {
		l.types = l.matrix(s.Types, h, base+"embeddings.token_type_embeddings.weight")
	}
	l.embedNorm = l.norm(s, base+s.embedNorm)
	if s.relative != "" {
		l.distances = l.relative(s, base+s.relative+".weight", maxLen)
	}
	ropes := map[float64]kernels.Tensor{}
	for i := range s.NumLayers {
		l.layers = append(l.layers, l.layer(s, base, i, maxLen, ropes))
	}
	if s.final != "" {
		l.final = l.norm(s, base+s.final)
	}
	if s.labels {
		l.scoring(s, base)
	}
	for _, name := range l.from.Names() {
		if !l.used[name] && !s.isUnused(name) {
			l.bad("surplus: %.120s", name)
		}
	}
}

func (l *loader) layer(s *spec, base string, i, maxLen int, ropes map[float64]kernels.Tensor) (y layer) {
	at := base + fmt.Sprintf(s.layer, i)
	h, inner := s.Hidden, s.Inter
	if s.gated {
		inner *= 2
	}
	var qkv []string
	for _, name := range s.qkv {
		qkv = append(qkv, at+name)
	}
	y = layer{
		qkv:    l.linear(3*h/len(qkv), h, s.AttentionBias, qkv...),
		out:    l.linear(h, h, s.AttentionBias, at+s.out),
		up:     l.linear(inner, h, s.MLPBias, at+s.up),
		down:   l.linear(h, s.Inter, s.MLPBias, at+s.down),
		ffNorm: l.norm(s, at+s.ffNorm),
	}
	if !s.gated {
		y.up.act = s.act
	}
	if i > 0 || !s.preNorm { // before the first layer is the embedding's
		y.mixNorm = l.norm(s, at+s.mixNorm)
	}
	if s.rotaries == nil {
		return y
	}
	r := s.rotaries[i]
	if _, ok := ropes[r.theta]; !ok {
		dim := h / s.Heads
		ropes[r.theta] = l.f32(model.Rope{Dim: dim, Theta: r.theta}.Table(maxLen), maxLen)
	}
	y.rotary, y.window = ropes[r.theta], r.window
	return y
}

// relative makes biases by bucket, F32 [buckets, heads], ones by distance.
func (l *loader) relative(s *spec, name string, maxLen int) kernels.Tensor {
	t, ok := l.tensor(name, s.Buckets, s.Heads)
	if !ok {
		return kernels.Tensor{}
	}
	from, cols := t.Floats(), 2*maxLen-1
	values := make([]float32, s.Heads*cols)
	for d := range cols {
		b := bucket(d-(maxLen-1), s.Buckets)
		for head := range s.Heads {
			values[head*cols+d] = from[b*s.Heads+head]
		}
	}
	return l.f32(values, s.Heads)
}

// bucket is the bucket of a key that comes d positions after a query: one for each small distance, then wider and wider ones
// up to 128, half of them for keys that come before. Source: Raffel et al. 2019, arXiv:1910.10683.
func bucket(d, buckets int) int {
	half := buckets / 2
	first, n := 0, -d
	if d > 0 {
		first, n = half, d
	}
	exact := half / 2
	if n < exact {
		return first + n
	}
	// In float32, as in the reference.
	share := float32(math.Log(float64(float32(n)/float32(exact)))) / float32(math.Log(128/float64(exact)))
	return first + min(half-1, exact+int(share*float32(half-exact)))
}

// scoring loads the head that scores.
func (l *loader) scoring(s *spec, base string) {
	name := s.head[0]
	if rest, ok := strings.CutPrefix(name, s.base); ok {
		name = base + rest
	}
	first := l.linear(s.Hidden, s.Hidden, s.HeadBias, name)
	first.act, first.norm = s.headAct, l.norm(s, s.headNorm)
	l.head = append(l.head, first, l.linear(1, s.Hidden, true, s.head[1]))
}

// isUnused says whether a checkpoint may have a weight that has no effect on embeddings, such as the heads of pre-training.
func (s *spec) isUnused(name string) bool {
	return strings.HasSuffix(name, "position_ids") || slices.ContainsFunc(s.unused, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
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
	y := inner.linear(d.Out, d.In, d.Bias == nil || *d.Bias, "linear")
	y.act = act
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
