package model

import (
	"cmp"
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

	floats *kernels.Buffer // all tensors below
	x      kernels.Tensor  // F32 [T, hidden] residual stream
	y      kernels.Tensor  // F32 [T, hidden] what is added to it next
	h      kernels.Tensor  // act [T, hidden] normalised: input of the next product
	lastX  kernels.Tensor  // F32 [R, hidden] x of the rows that are wanted
	logits kernels.Tensor  // F32 [R, vocab], no rows where hidden states are wanted
	layers []layerTensors
	host   []float32 // results read back, only where device memory is not the host's

	ints   *kernels.Buffer // staged inputs of the step, written at once
	staged []int32         // what goes into ints

	taken []bool // states of the batch at hand, where the model keeps any

	runs, lastRuns []Run // of this step, over all rows and over those that are wanted
	pieceRuns      []Run // see pass.piece
	loraRuns       []kernels.LoRARun
	step           step
}

// layerTensors are what a layer's parts write. Layers share the memory.
type layerTensors struct {
	mixed, lastMixed kernels.Tensor   // act, or what the mixer mixes, [T or R, the output projection's in]
	mixer, ff        []kernels.Tensor // scratch
}

// step is what one Forward is about: views of the staged inputs.
type step struct {
	tokens, rows          int // T and R
	ids, slots, logitRows kernels.Tensor
	positions             kernels.Tensor // rows of the rotary tables
	attention             kernels.AttentionBatch
	states                kernels.StateBatch
}

// NewWorkspace allocates for batches within the limits.
func (m *Model) NewWorkspace(kv *KV, l Limits) (*Workspace, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	w := &Workspace{m: m, kv: kv, limits: l,
		runs: make([]Run, 0, l.MaxSeqs), lastRuns: make([]Run, 0, l.MaxSeqs), pieceRuns: make([]Run, 0, l.MaxSeqs),
		loraRuns: make([]kernels.LoRARun, 0, l.MaxSeqs)}
	w.taken = make([]bool, kv.numStates)
	total, n := w.lay(), w.numInts()
	w.staged = make([]int32, n)
	var err, err2 error
	w.floats, err = m.dev.Alloc(total)
	w.ints, err2 = m.dev.Alloc(n * kernels.I32.Size())
	if err := errors.Join(err, err2); err != nil {
		return nil, errors.Join(fmt.Errorf("workspace: %w", err), w.Close())
	}
	w.lay()
	if w.floats.Bytes() == nil {
		w.host = make([]float32, l.MaxLogitRows*max(m.spec.Hidden, w.logits.Cols))
	}
	return w, nil
}

// WorkBytes is the memory of a Workspace of a Model with these options, to be known before it is loaded.
func (s *Spec) WorkBytes(o Options, l Limits, blockSize int) int64 {
	m := &Model{spec: s.grown(o.Grow), dtype: s.resolve(o.DType), maxLen: cmp.Or(o.MaxLen, s.MaxLen)}
	w := &Workspace{m: m, kv: &KV{blockSize: blockSize}, limits: l}
	return int64(w.lay() + w.numInts()*kernels.I32.Size())
}

// lay lays all tensors out in floats and returns how many bytes that takes; floats may be nil for that.
func (w *Workspace) lay() (bytes int) {
	s, act, t, r := w.m.spec, w.m.dtype.activations(), w.limits.MaxTokens, w.limits.MaxLogitRows
	at := 0
	put := func(p plan) kernels.Tensor {
		tensor := kernels.NewTensor(w.floats, at, p.dtype, p.rows, p.cols)
		at += p.bytes()
		bytes = max(bytes, at)
		return tensor
	}
	w.x, w.y = put(plan{kernels.F32, t, s.Hidden}), put(plan{kernels.F32, t, s.Hidden})
	w.h = put(plan{act, t, s.Hidden})
	w.lastX = put(plan{kernels.F32, r, s.Hidden})
	if !w.limits.Hidden {
		w.logits = put(plan{kernels.F32, r, s.Vocab})
	}
	w.layers = make([]layerTensors, len(s.Layers))
	begin := at
	for i, l := range s.Layers {
		to, width := &w.layers[i], l.Mixer.output(s).in
		at = begin
		mixed := act
		if m, ok := l.Mixer.(interface{ mixes() kernels.DType }); ok {
			mixed = m.mixes()
		}
		to.mixed, to.lastMixed = put(plan{mixed, t, width}), put(plan{mixed, r, width})
		shared := at // the feed-forward runs when the mixer is done
		for _, p := range l.Mixer.scratch(s, act, t) {
			to.mixer = append(to.mixer, put(p))
		}
		at = shared
		for _, p := range l.FF.scratch(s, act, t) {
			to.ff = append(to.ff, put(p))
		}
	}
	return bytes
}

// Bytes is the memory of all buffers.
func (w *Workspace) Bytes() int64 {
	return int64(len(w.staged)*kernels.I32.Size() + w.floats.Len())
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

// numInts is the number of staged integers at most: each list starts at a multiple of 64 bytes.
func (w *Workspace) numInts() int {
	l := w.limits
	return 3*roundUp(l.MaxTokens) + roundUp(l.MaxSeqs+1) + 2*roundUp(l.MaxSeqs) + roundUp(l.MaxLogitRows) +
		roundUp(l.MaxSeqs*w.blocks(int32(w.m.maxLen)))
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
	st.ids, st.slots, st.logitRows = put(b.Tokens), put(b.Slots), put(b.LogitRows)
	positions := w.staged[at:]
	st.positions = put(b.Positions)
	w.m.toRopeRows(positions, b)
	st.attention.QueryStarts, st.attention.SeqLens = put(b.QueryStarts), put(b.SeqLens)
	if w.kv.numStates > 0 {
		st.states = kernels.StateBatch{QueryStarts: st.attention.QueryStarts, SeqLens: st.attention.SeqLens,
			Rows: put(b.States), NumSeqs: len(b.SeqLens)}
	}
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

// toRopeRows makes positions those of the rows in the rotary tables, where sequences of different lengths have different
// ones.
func (m *Model) toRopeRows(positions []int32, b *Batch) {
	switchLen := int32(m.SwitchLen())
	if switchLen == 0 {
		return
	}
	for s := range b.SeqLens {
		long := b.Long != nil && b.Long[s]
		for i := b.QueryStarts[s]; i < b.QueryStarts[s+1]; i++ {
			if long || positions[i] >= switchLen {
				positions[i] += switchLen
			}
		}
	}
}

// bytesOf is the memory of a list of integers; device memory has the host's byte order.
func bytesOf(list []int32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(list))), 4*len(list))
}

// Logits waits for the step and returns its rows of logits, one after another, VocabSize each, in the order of
// Batch.LogitRows. They may be changed, and are valid until the next Forward. With Limits.Hidden there are none.
func (w *Workspace) Logits(s *kernels.Stream) ([]float32, error) {
	return w.result(s, "logits", w.logits)
}

// Hidden waits for the step and returns what the final norm made of the rows in Batch.LogitRows, one after another, Hidden
// each. They are valid until the next Forward.
func (w *Workspace) Hidden(s *kernels.Stream) ([]float32, error) {
	return w.result(s, "hidden states", w.y)
}

func (w *Workspace) result(s *kernels.Stream, what string, t kernels.Tensor) ([]float32, error) {
	if err := s.Sync(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	n := w.step.rows * t.Cols
	if n == 0 {
		return nil, nil
	}
	if memory := w.floats.Bytes(); memory != nil {
		return unsafe.Slice((*float32)(unsafe.Pointer(&memory[t.Off])), n), nil
	}
	out := w.host[:n]
	err := w.floats.Read(t.Off, unsafe.Slice((*byte)(unsafe.Pointer(&out[0])), 4*n))
	return out, err
}
