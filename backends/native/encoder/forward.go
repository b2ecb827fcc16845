package encoder

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"pagoda/kernels"
)

const blockSize = 16 // tokens of a block of keys and values

// workspace holds all that a step writes, made once for the largest batch.
type workspace struct {
	s       *spec
	w       *weights
	pooling string
	tokens  int // most of a step
	seqs    int // texts, likewise
	maxLen  int

	floats *kernels.Buffer
	x, y   kernels.Tensor // F32 [tokens, hidden]
	wide   kernels.Tensor // F32 [tokens, max(3·hidden, intermediate)]
	pooled []kernels.Tensor
	kv     kernels.KVCache // of the layer at hand
	ints   *kernels.Buffer
	staged []int32
}

func newWorkspace(dev *kernels.Device, s *spec, w *weights, pooling string, tokens, seqs, maxLen int) (*workspace, error) {
	ws := &workspace{s: s, w: w, pooling: pooling, tokens: tokens, seqs: seqs, maxLen: maxLen}
	widths := []int{s.Hidden}
	for _, l := range w.head {
		widths = append(widths, l.weight.N())
	}
	wide := max(3*s.Hidden, s.Inter)
	total := tokens * (2*roundUp(s.Hidden) + roundUp(wide))
	for _, n := range widths {
		total += seqs * roundUp(n)
	}
	var err error
	if ws.floats, err = dev.Alloc(total*4 + 1024); err != nil {
		return nil, err
	}
	at := 0
	put := func(rows, cols int) kernels.Tensor {
		t := kernels.NewTensor(ws.floats, at, kernels.F32, rows, cols)
		at += roundUp(rows*cols) * 4
		return t
	}
	ws.x, ws.y, ws.wide = put(tokens, s.Hidden), put(tokens, s.Hidden), put(tokens, wide)
	for _, n := range widths {
		ws.pooled = append(ws.pooled, put(seqs, n))
	}
	blocks := tokens/blockSize + seqs
	n := 4*roundUp(tokens) + 2*roundUp(seqs+1) + seqs*(maxLen/blockSize+1) + 64
	ws.staged = make([]int32, n)
	if ws.ints, err = dev.Alloc(4 * n); err == nil {
		ws.kv, err = kernels.NewKVCache(dev, kernels.F32, blocks, blockSize, s.Heads, s.Hidden/s.Heads, s.Hidden/s.Heads)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("work buffers: %w", err), ws.close())
	}
	return ws, nil
}

// roundUp makes the next tensor start at a multiple of 64 bytes.
func roundUp(elements int) int { return (elements + 15) &^ 15 }

func (w *workspace) close() error {
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

// forward computes a vector for each text, at most seqs with at most tokens tokens together. The vectors are valid until
// the next call.
func (w *workspace) forward(s *kernels.Stream, texts []*text) ([][]float32, error) {
	ids, positions, types, slots, batch := w.stage(texts)
	if err := w.ints.Write(0, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w.staged))), 4*len(w.staged))); err != nil {
		return nil, err
	}
	n := ids.Cols
	x, y := w.x.RowRange(0, n), w.y.RowRange(0, n)
	if err := w.embed(s, x, y, ids, positions, types); err != nil {
		return nil, err
	}
	for i := range w.w.layers {
		if err := w.layer(s, &w.w.layers[i], x, y, slots, batch); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return w.finish(s, texts, x)
}

// stage lays the texts end to end, each in blocks of its own.
func (w *workspace) stage(texts []*text) (ids, positions, types, slots kernels.Tensor, b kernels.AttentionBatch) {
	total, longest := 0, 0
	for _, t := range texts {
		total, longest = total+len(t.ids), max(longest, len(t.ids))
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
	b.QueryStarts, start = put(1, len(texts)+1)
	b.SeqLens, length = put(1, len(texts))
	width := (longest + blockSize - 1) / blockSize
	b.BlockTables, table = put(len(texts), width)
	b.NumSeqs, b.MaxSeqLen = len(texts), longest
	clear(table)
	row, block := 0, 0
	start[0] = 0
	for i, t := range texts {
		for k, token := range t.ids {
			id[row], position[row], kind[row] = token, int32(k+w.s.firstPosition()), 0
			if k >= t.second && w.s.Types > 1 {
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

func (w *workspace) embed(s *kernels.Stream, x, y, ids, positions, types kernels.Tensor) error {
	if err := kernels.Embed(s, x, w.w.words, ids); err != nil {
		return err
	}
	// In the reference's order, in which float32 sums differ: (words + types) + positions.
	for _, t := range []struct {
		m   *kernels.Matrix
		ids kernels.Tensor
	}{{w.w.types, types}, {w.w.positions, positions}} {
		if err := kernels.Embed(s, y, t.m, t.ids); err != nil {
			return err
		}
		if err := kernels.Add(s, x, y); err != nil {
			return err
		}
	}
	return w.norm(s, x, w.w.embedNorm)
}

func (w *workspace) norm(s *kernels.Stream, x kernels.Tensor, n norm) error {
	return kernels.LayerNorm(s, x, x, n.w, n.b, float32(w.s.Eps))
}

// layer is a transformer layer with the norms behind the sums.
func (w *workspace) layer(s *kernels.Stream, l *layer, x, y, slots kernels.Tensor, b kernels.AttentionBatch) error {
	n, h := x.Rows, w.s.Hidden
	qkv := w.wide.RowRange(0, n).Columns(0, 3*h)
	if err := apply(s, qkv, x, l.qkv); err != nil {
		return err
	}
	if err := kernels.StoreKV(s, w.kv, qkv.Columns(h, 2*h), qkv.Columns(2*h, 3*h), slots); err != nil {
		return err
	}
	scale := float32(1 / math.Sqrt(float64(h/w.s.Heads)))
	mixed := w.wide.RowRange(0, n).Columns(h, 2*h) // the keys are stored already
	if err := kernels.PagedAttention(s, y, qkv.Columns(0, h), w.kv, b, w.s.Heads,
		kernels.AttentionOptions{Scale: scale, Bidirectional: true}); err != nil {
		return err
	}
	if err := apply(s, mixed, y, l.out); err != nil {
		return err
	}
	if err := errors.Join(kernels.Add(s, x, mixed), w.norm(s, x, l.mixNorm)); err != nil {
		return err
	}
	ff := w.wide.RowRange(0, n).Columns(0, w.s.Inter)
	if err := apply(s, ff, x, l.up); err != nil {
		return err
	}
	if err := apply(s, y, ff, l.down); err != nil {
		return err
	}
	return errors.Join(kernels.Add(s, x, y), w.norm(s, x, l.ffNorm))
}

// apply computes out = act(x·weightᵀ + bias).
func apply(s *kernels.Stream, out, x kernels.Tensor, l linear) error {
	if err := kernels.MatMul(s, out, x, l.weight); err != nil {
		return err
	}
	if l.bias.Rows > 0 {
		if err := kernels.Add(s, out, l.bias); err != nil {
			return err
		}
	}
	if l.act == 0 {
		return nil
	}
	return kernels.Activate(s, out, l.act)
}

// finish pools the texts' tokens and puts the vectors through the head.
func (w *workspace) finish(s *kernels.Stream, texts []*text, x kernels.Tensor) ([][]float32, error) {
	if err := s.Sync(); err != nil {
		return nil, err
	}
	memory := w.floats.Bytes()
	floats := func(t kernels.Tensor, n int) []float32 {
		return unsafe.Slice((*float32)(unsafe.Pointer(&memory[t.Off])), n)
	}
	h, row := w.s.Hidden, 0
	rows, pooled := floats(x, x.Rows*h), floats(w.pooled[0], len(texts)*h)
	for i, t := range texts {
		pool(w.pooling, pooled[i*h:][:h], rows[row*h:(row+len(t.ids))*h])
		row += len(t.ids)
	}
	for i, l := range w.w.head {
		if err := apply(s, w.pooled[i+1].RowRange(0, len(texts)), w.pooled[i].RowRange(0, len(texts)), l); err != nil {
			return nil, err
		}
	}
	if err := s.Sync(); err != nil {
		return nil, err
	}
	last := w.pooled[len(w.pooled)-1]
	all := floats(last, len(texts)*last.Cols)
	out := make([][]float32, len(texts))
	for i := range out {
		out[i] = all[i*last.Cols:][:last.Cols]
	}
	return out, nil
}
