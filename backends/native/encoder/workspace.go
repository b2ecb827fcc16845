package encoder

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"pagoda/kernels"
)

const blockSize = 16 // tokens of a block of keys and values

// trunk turns the tokens of texts into hidden states, a vector each.
type trunk interface {
	// begin makes room for a text; false: there is none until others end.
	begin(t *text) bool
	// end gives a text's room back.
	end(t *text)
	// forward computes pieces of texts that have room, laid end to end, and returns the hidden states of the rows that are
	// wanted, ascending, one after another. They are valid until the next call.
	forward(s *kernels.Stream, pieces []piece, rows []int32) ([]float32, error)
	close() error
}

// workspace computes steps: the trunk, the pooling and the head behind it.
type workspace struct {
	trunk   trunk
	hidden  int
	head    []linear
	pooling string
	tokens  int  // most of a step
	seqs    int  // texts, likewise
	whole   bool // texts are not computed in pieces

	floats *kernels.Buffer
	pooled []kernels.Tensor // F32 [seqs, hidden], and what each part of the head makes of it
	rows   []int32
}

// addHead allocates what the head writes.
func (w *workspace) addHead(dev *kernels.Device, head []linear) error {
	w.head = head
	widths := []int{w.hidden}
	for _, l := range head {
		widths = append(widths, l.weight.N())
	}
	total := 0
	for _, n := range widths {
		total += roundUp(w.seqs * n)
	}
	var err error
	if w.floats, err = dev.Alloc(total * 4); err != nil {
		return fmt.Errorf("work buffers: %w", err)
	}
	at := 0
	for _, n := range widths {
		w.pooled = append(w.pooled, kernels.NewTensor(w.floats, at, kernels.F32, w.seqs, n))
		at += roundUp(w.seqs*n) * 4
	}
	return nil
}

func (w *workspace) close() error {
	var errs []error
	if w.trunk != nil {
		errs = append(errs, w.trunk.close())
	}
	if w.floats != nil {
		errs = append(errs, w.floats.Close())
	}
	return errors.Join(errs...)
}

// forward computes pieces, at most seqs with at most tokens tokens together. Texts that end with them have their vector then.
func (w *workspace) forward(s *kernels.Stream, pieces []piece) error {
	states, err := w.trunk.forward(s, pieces, w.wanted(pieces))
	if err != nil {
		return err
	}
	h := w.hidden
	var ended []*text
	for _, p := range pieces {
		from, to := p.wanted(w.pooling)
		n := (to - from) * h
		p.t.pool(w.pooling, states[:n], h)
		if states = states[n:]; p.end == len(p.t.ids) {
			p.t.out, ended = p.t.vector(), append(ended, p.t)
		}
	}
	return w.finish(s, ended)
}

// wanted are the rows whose hidden states go into vectors.
func (w *workspace) wanted(pieces []piece) []int32 {
	w.rows = w.rows[:0]
	first := 0
	for _, p := range pieces {
		from, to := p.wanted(w.pooling)
		for place := from; place < to; place++ {
			w.rows = append(w.rows, int32(first+place-p.t.done))
		}
		first += p.end - p.t.done
	}
	return w.rows
}

// finish puts vectors through the head.
func (w *workspace) finish(s *kernels.Stream, ended []*text) error {
	if len(w.head) == 0 || len(ended) == 0 {
		return nil
	}
	n := len(ended)
	in := floats(w.floats, w.pooled[0].RowRange(0, n))
	for i, t := range ended {
		copy(in[i*w.hidden:], t.out)
	}
	for i, l := range w.head {
		if err := apply(s, w.pooled[i+1].RowRange(0, n), w.pooled[i].RowRange(0, n), l); err != nil {
			return err
		}
	}
	if err := s.Sync(); err != nil {
		return err
	}
	last := w.pooled[len(w.head)].RowRange(0, n)
	for i, t := range ended {
		t.out = slices.Clone(floats(w.floats, last.RowRange(i, i+1)))
	}
	return nil
}

// floats is the memory of a whole tensor.
func floats(b *kernels.Buffer, t kernels.Tensor) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&b.Bytes()[t.Off])), t.Rows*t.Cols)
}

// roundUp makes the next tensor start at a multiple of 64 bytes.
func roundUp(elements int) int { return (elements + 15) &^ 15 }
