package model

import (
	"errors"
	"fmt"
	"unsafe"

	"pagoda/kernels"
)

// Workspace holds all that a step writes, made once for the largest batch, so that a step allocates nothing.
type Workspace struct {
	m      *Model
	kv     *KV
	limits Limits

	floats *kernels.Buffer // all tensors below but ints
	x      kernels.Tensor  // F32 [T, hidden] residual stream
	y      kernels.Tensor  // F32 [T, hidden] what is added to it next
	h      kernels.Tensor  // act [T, hidden] normalised: input of the next product
	qkv    kernels.Tensor  // F32 [T, (heads+2·kvHeads)·headDim]
	attn   kernels.Tensor  // act [T, heads·headDim]
	gateUp kernels.Tensor  // F32 [T, 2·inter]
	ff     kernels.Tensor  // act [T, inter]
	lastX  kernels.Tensor  // F32 [R, hidden]: x and attn of the rows whose logits are wanted
	lastA  kernels.Tensor  // act [R, heads·headDim]
	logits kernels.Tensor  // F32 [R, vocab]
	host   []float32       // logits read back, only where device memory is not the host's

	ints   *kernels.Buffer // staged inputs of the step, written at once
	staged []int32         // what goes into ints

	runs, lastRuns []Run // of this step, over all rows and over the rows of logits
	loraRuns       []kernels.LoRARun
	step           step
}

// step is what one Forward is about: views of the staged inputs.
type step struct {
	tokens, rows                     int // T and R
	ids, positions, slots, logitRows kernels.Tensor
	attention                        kernels.AttentionBatch
}

// NewWorkspace allocates for batches within the limits.
func (m *Model) NewWorkspace(kv *KV, l Limits) (*Workspace, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	w := &Workspace{m: m, kv: kv, limits: l,
		runs: make([]Run, 0, l.MaxSeqs), lastRuns: make([]Run, 0, l.MaxSeqs), loraRuns: make([]kernels.LoRARun, 0, l.MaxSeqs)}
	plan := w.tensors()
	total := 0
	for _, t := range plan {
		total += roundUp(t.rows*t.cols) * t.dtype.Size()
	}
	n := w.intsFor(l.MaxTokens, l.MaxSeqs, l.MaxLogitRows, w.blocks(int32(m.maxLen)))
	w.staged = make([]int32, n)
	var err, err2 error
	w.floats, err = m.dev.Alloc(total)
	w.ints, err2 = m.dev.Alloc(n * kernels.I32.Size())
	if err := errors.Join(err, err2); err != nil {
		return nil, errors.Join(fmt.Errorf("workspace: %w", err), w.Close())
	}
	at := 0
	for _, t := range plan {
		*t.to = kernels.NewTensor(w.floats, at, t.dtype, t.rows, t.cols)
		at += roundUp(t.rows*t.cols) * t.dtype.Size()
	}
	if w.floats.Bytes() == nil {
		w.host = make([]float32, l.MaxLogitRows*m.spec.Vocab)
	}
	return w, nil
}

type planned struct {
	to         *kernels.Tensor
	dtype      kernels.DType
	rows, cols int
}

func (w *Workspace) tensors() []planned {
	s, act, t, r := w.m.spec, w.m.dtype.activations(), w.limits.MaxTokens, w.limits.MaxLogitRows
	heads := s.Heads * s.HeadDim
	return []planned{
		{&w.x, kernels.F32, t, s.Hidden},
		{&w.y, kernels.F32, t, s.Hidden},
		{&w.h, act, t, s.Hidden},
		{&w.qkv, kernels.F32, t, heads + 2*s.KVHeads*s.HeadDim},
		{&w.attn, act, t, heads},
		{&w.gateUp, kernels.F32, t, 2 * s.Inter},
		{&w.ff, act, t, s.Inter},
		{&w.lastX, kernels.F32, r, s.Hidden},
		{&w.lastA, act, r, heads},
		{&w.logits, kernels.F32, r, s.Vocab},
	}
}

// Bytes is the memory of all buffers.
func (w *Workspace) Bytes() int64 {
	n := int64(len(w.staged)) * int64(kernels.I32.Size())
	for _, t := range w.tensors() {
		n += int64(roundUp(t.rows*t.cols)) * int64(t.dtype.Size())
	}
	return n
}

// Close frees the buffers.
func (w *Workspace) Close() error {
	var errs []error
	for _, b := range []*kernels.Buffer{w.floats, w.ints} {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	w.floats, w.ints = nil, nil
	return errors.Join(errs...)
}

// intsFor is the number of staged integers: each list starts at a multiple of 64 bytes.
func (w *Workspace) intsFor(tokens, seqs, rows, blocks int) int {
	return 3*roundUp(tokens) + roundUp(seqs+1) + roundUp(seqs) + roundUp(rows) + roundUp(seqs*blocks)
}

// stage writes the batch's integers to the device and sets up the step's views of them.
func (w *Workspace) stage(b *Batch) error {
	at := 0
	put := func(list []int32) kernels.Tensor {
		copy(w.staged[at:], list)
		t := kernels.NewTensor(w.ints, at*kernels.I32.Size(), kernels.I32, 1, len(list))
		at += roundUp(len(list))
		return t
	}
	st := &w.step
	st.tokens, st.rows = len(b.Tokens), len(b.LogitRows)
	st.ids, st.positions, st.slots = put(b.Tokens), put(b.Positions), put(b.Slots)
	st.logitRows = put(b.LogitRows)
	st.attention.QueryStarts, st.attention.SeqLens = put(b.QueryStarts), put(b.SeqLens)
	st.attention.NumSeqs, st.attention.MaxSeqLen = len(b.SeqLens), int(b.maxLen())

	width := w.blocks(b.maxLen())
	st.attention.BlockTables = kernels.NewTensor(w.ints, at*kernels.I32.Size(), kernels.I32, len(b.SeqLens), width)
	for s, length := range b.SeqLens {
		row := w.staged[at : at+width]
		clear(row[copy(row, b.BlockTables[s][:w.blocks(length)]):])
		at += width
	}
	w.runs = append(w.runs[:0], b.Runs...)
	w.lastRuns = logitRuns(w.lastRuns[:0], b.Runs, b.LogitRows)
	return w.ints.Write(0, bytesOf(w.staged[:at]))
}

// bytesOf is the memory of a list of integers; device memory has the host's byte order.
func bytesOf(list []int32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(list))), 4*len(list))
}

// Logits waits for the step and returns its rows of logits, one after another, VocabSize each, in the order of
// Batch.LogitRows. They may be changed, and are valid until the next Forward.
func (w *Workspace) Logits(s *kernels.Stream) ([]float32, error) {
	if err := s.Sync(); err != nil {
		return nil, fmt.Errorf("logits: %w", err)
	}
	n := w.step.rows * w.m.spec.Vocab
	if n == 0 {
		return nil, nil
	}
	if memory := w.floats.Bytes(); memory != nil {
		return unsafe.Slice((*float32)(unsafe.Pointer(&memory[w.logits.Off])), n), nil
	}
	out := w.host[:n]
	err := w.floats.Read(w.logits.Off, unsafe.Slice((*byte)(unsafe.Pointer(&out[0])), 4*n))
	return out, err
}
