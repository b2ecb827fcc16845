package encoder

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"pagoda/kernels"
)

// bidirectional is the trunk of an encoder: tokens see all of their text, which is computed whole.
type bidirectional struct {
	s *spec
	*weights

	floats *kernels.Buffer
	x, y   kernels.Tensor  // F32 [tokens, hidden]
	wide   kernels.Tensor  // F32 [tokens, max(3·hidden, intermediate)], with gates three times the latter
	kv     kernels.KVCache // of the layer at hand
	ints   *kernels.Buffer
	staged []int32
	picked []float32 // rows that are wanted, where they are not all
}

// sizes are what an encoder's work buffers hold.
type sizes struct {
	tokens, wide int // F32 [tokens, hidden] twice and [tokens, wide]
	ints         int
	blocks       int // of keys and values
}

// sizes are those for the steps of w, with texts of up to maxLen tokens.
func (s *spec) sizes(w *workspace, maxLen int) sizes {
	wide := max(3*s.Hidden, s.Inter)
	if s.gated {
		wide = max(wide, 3*s.Inter)
	}
	return sizes{w.tokens, wide, 4*roundUp(w.tokens) + 2*roundUp(w.seqs+1) + roundUp(w.seqs*(maxLen/blockSize+1)), w.tokens/blockSize + w.seqs}
}

func (z sizes) floats(s *spec) int { return 2*roundUp(z.tokens*s.Hidden) + roundUp(z.tokens*z.wide) }

func (z sizes) bytes(s *spec) int64 {
	head := s.Hidden / s.Heads
	return 4*int64(z.floats(s)+z.ints) + kernels.KVCacheBytes(kernels.F32, z.blocks, blockSize, s.Heads, head, head)
}

func newBidirectional(dev *kernels.Device, s *spec, w *weights, z sizes) (*bidirectional, error) {
	b := &bidirectional{s: s, weights: w}
	var err error
	if b.floats, err = dev.Alloc(4 * z.floats(s)); err != nil {
		return nil, fmt.Errorf("work buffers: %w", err)
	}
	at := 0
	put := func(cols int) kernels.Tensor {
		t := kernels.NewTensor(b.floats, at, kernels.F32, z.tokens, cols)
		at += roundUp(z.tokens*cols) * 4
		return t
	}
	b.x, b.y, b.wide = put(s.Hidden), put(s.Hidden), put(z.wide)
	b.staged = make([]int32, z.ints)
	if b.ints, err = dev.Alloc(4 * z.ints); err == nil {
		b.kv, err = kernels.NewKVCache(dev, kernels.F32, z.blocks, blockSize, s.Heads, s.Hidden/s.Heads, s.Hidden/s.Heads)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("work buffers: %w", err), b.close())
	}
	return b, nil
}

func (w *bidirectional) begin(*text) bool { return true }
func (w *bidirectional) end(*text)        {}

func (w *bidirectional) close() error {
	var errs []error
	if w.kv.K.Buf != nil {
		errs = append(errs, w.kv.Close())
	}
	for _, b := range []*kernels.Buffer{w.floats, w.ints} {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	return errors.Join(errs...)
}

func (w *bidirectional) forward(s *kernels.Stream, pieces []piece, rows []int32) ([]float32, error) {
	ids, positions, types, slots, batch := w.stage(pieces)
	if err := w.ints.Write(0, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w.staged))), 4*len(w.staged))); err != nil {
		return nil, err
	}
	x, y := w.x.RowRange(0, ids.Cols), w.y.RowRange(0, ids.Cols)
	if err := w.embed(s, x, y, ids, positions, types); err != nil {
		return nil, err
	}
	for i := range w.layers {
		if err := w.layer(s, &w.layers[i], x, y, positions, slots, batch); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	if err := w.final.apply(s, x, x); err != nil {
		return nil, err
	}
	if err := s.Sync(); err != nil {
		return nil, err
	}
	return w.pick(floats(w.floats, x), rows), nil
}

// pick returns the rows of x that are wanted.
func (w *bidirectional) pick(x []float32, rows []int32) []float32 {
	h := w.s.Hidden
	if len(rows)*h == len(x) {
		return x
	}
	w.picked = w.picked[:0]
	for _, row := range rows {
		w.picked = append(w.picked, x[int(row)*h:][:h]...)
	}
	return w.picked
}

// stage lays the texts end to end, each in blocks of its own.
func (w *bidirectional) stage(pieces []piece) (ids, positions, types, slots kernels.Tensor, b kernels.AttentionBatch) {
	total, longest := 0, 0
	for _, p := range pieces {
		total, longest = total+len(p.t.ids), max(longest, len(p.t.ids))
	}
	at := 0
	put := func(rows, cols int) (kernels.Tensor, []int32) {
		t := kernels.NewTensor(w.ints, 4*at, kernels.I32, rows, cols)
		list := w.staged[at : at+rows*cols]
		at += roundUp(rows * cols)
		return t, list
	}
	var id, position, kind, slot, start, length, table []int32
	ids, id = put(1, total)
	positions, position = put(1, total)
	types, kind = put(1, total)
	slots, slot = put(1, total)
	b.QueryStarts, start = put(1, len(pieces)+1)
	b.SeqLens, length = put(1, len(pieces))
	width := (longest + blockSize - 1) / blockSize
	b.BlockTables, table = put(len(pieces), width)
	b.NumSeqs, b.MaxSeqLen = len(pieces), longest
	clear(table)
	row, block := 0, 0
	start[0] = 0
	for i, p := range pieces {
		t := p.t
		for k, token := range t.ids {
			id[row], position[row], kind[row] = token, int32(k+w.s.firstPosition()), 0
			if k >= t.second && w.types != nil && w.s.Types > 1 {
				kind[row] = 1
			}
			slot[row] = int32((block+k/blockSize)*blockSize + k%blockSize)
			row++
		}
		start[i+1], length[i] = int32(row), int32(len(t.ids))
		for k := range (len(t.ids) + blockSize - 1) / blockSize {
			table[i*width+k] = int32(block)
			block++
		}
	}
	return ids, positions, types, slots, b
}

func (w *bidirectional) embed(s *kernels.Stream, x, y, ids, positions, types kernels.Tensor) error {
	if err := kernels.Embed(s, x, w.words, ids); err != nil {
		return err
	}
	// In the reference's order, in which float32 sums differ: (words + types) + positions.
	for _, t := range []struct {
		m   *kernels.Matrix
		ids kernels.Tensor
	}{{w.types, types}, {w.positions, positions}} {
		if t.m == nil {
			continue
		}
		if err := kernels.Embed(s, y, t.m, t.ids); err != nil {
			return err
		}
		if err := kernels.Add(s, x, y); err != nil {
			return err
		}
	}
	return w.embedNorm.apply(s, x, x)
}

// layer is a transformer layer: x += mixer(x), x += feed-forward(x), with the norms behind the sums or before their parts.
func (w *bidirectional) layer(s *kernels.Stream, l *layer, x, y, positions, slots kernels.Tensor, b kernels.AttentionBatch) error {
	n, h := x.Rows, w.s.Hidden
	in, err := w.before(s, l.mixNorm, x, y)
	if err != nil {
		return err
	}
	qkv := w.wide.RowRange(0, n).Columns(0, 3*h)
	if err := apply(s, qkv, in, l.qkv); err != nil {
		return err
	}
	if l.rotary.Rows > 0 {
		if err := kernels.RoPE(s, qkv.Columns(0, 2*h), positions, l.rotary, 2*w.s.Heads, kernels.Halves); err != nil {
			return err
		}
	}
	if err := kernels.StoreKV(s, w.kv, qkv.Columns(h, 2*h), qkv.Columns(2*h, 3*h), slots); err != nil {
		return err
	}
	mixed := w.wide.RowRange(0, n).Columns(h, 2*h) // the keys are stored already
	if err := kernels.PagedAttention(s, y, qkv.Columns(0, h), w.kv, b, w.s.Heads, kernels.AttentionOptions{
		Scale: float32(1 / math.Sqrt(float64(h/w.s.Heads))), Window: l.window, Bias: w.distances, Bidirectional: true}); err != nil {
		return err
	}
	if err := apply(s, mixed, y, l.out); err != nil {
		return err
	}
	if err := w.add(s, x, mixed, l.mixNorm); err != nil {
		return err
	}
	if in, err = w.before(s, l.ffNorm, x, y); err != nil {
		return err
	}
	if err := w.feedForward(s, l, y, in); err != nil {
		return err
	}
	return w.add(s, x, y, l.ffNorm)
}

// before is what a part of a layer gets: x, or in y the norm of it.
func (w *bidirectional) before(s *kernels.Stream, n norm, x, y kernels.Tensor) (kernels.Tensor, error) {
	if !w.s.preNorm || n.w.Rows == 0 {
		return x, nil
	}
	return y, n.apply(s, y, x)
}

// add adds what a part of a layer made.
func (w *bidirectional) add(s *kernels.Stream, x, made kernels.Tensor, n norm) error {
	if err := kernels.Add(s, x, made); err != nil || w.s.preNorm {
		return err
	}
	return n.apply(s, x, x)
}

func (w *bidirectional) feedForward(s *kernels.Stream, l *layer, out, in kernels.Tensor) error {
	n := w.s.Inter
	wide := w.wide.RowRange(0, in.Rows)
	ff := wide.Columns(0, n)
	if !w.s.gated {
		if err := apply(s, ff, in, l.up); err != nil {
			return err
		}
		return apply(s, out, ff, l.down)
	}
	both := wide.Columns(n, 3*n)
	if err := apply(s, both, in, l.up); err != nil {
		return err
	}
	if err := kernels.GatedMul(s, ff, both, w.s.act); err != nil {
		return err
	}
	return apply(s, out, ff, l.down)
}

// apply computes out = norm(x); out may be x.
func (n norm) apply(s *kernels.Stream, out, x kernels.Tensor) error {
	if n.w.Rows == 0 {
		return nil
	}
	return kernels.LayerNorm(s, out, x, n.w, n.b, n.eps)
}

// apply computes out = norm(act(x·weightᵀ + bias)).
func apply(s *kernels.Stream, out, x kernels.Tensor, l linear) error {
	if err := kernels.MatMul(s, out, x, l.weight); err != nil {
		return err
	}
	if l.bias.Rows > 0 {
		if err := kernels.Add(s, out, l.bias); err != nil {
			return err
		}
	}
	if l.act != 0 {
		if err := kernels.Activate(s, out, l.act); err != nil {
			return err
		}
	}
	return l.norm.apply(s, out, out)
}
