package model

import (
	"fmt"

	"pagoda/kernels"
)

// Forward computes one step: stores the keys and values of the batch's tokens and computes the logits of the rows
// asked for, which Logits then returns, or with Limits.Hidden their hidden states. A bad batch is refused with ErrBatch before anything is computed.
func (w *Workspace) Forward(s *kernels.Stream, b *Batch) error {
	w.step.rows = 0 // no logits until this step has them
	if err := w.check(b); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	if err := w.stage(b); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	if err := w.decoder(s); err != nil {
		w.step.rows = 0
		return fmt.Errorf("forward: %w", err)
	}
	return nil
}

// rowSet is the rows that a part of the decoder works on: all of the batch, or once the last layer's mixer is done, after
// which rows no longer meet, only those that are wanted.
type rowSet struct {
	n           int
	x, y, h     kernels.Tensor
	mixed       kernels.Tensor
	runs        []Run
	onlyCaching bool // the caches are all that this step is for
}

func (w *Workspace) decoder(s *kernels.Stream) error {
	t, last := w.step.tokens, len(w.m.layers)-1
	rows := rowSet{n: t, x: w.x.RowRange(0, t), y: w.y.RowRange(0, t), h: w.h.RowRange(0, t), runs: w.runs}
	if err := kernels.Embed(s, rows.x, w.m.embed, w.step.ids); err != nil {
		return err
	}
	if err := scale(s, rows.x, w.m.embedScale); err != nil {
		return err
	}
	for i := range w.m.layers {
		rows.mixed = w.layers[i].mixed.RowRange(0, t)
		rows.onlyCaching = i == last && w.step.rows == 0
		if err := w.mix(s, i, rows); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		if i == last {
			var err error
			if rows, err = w.wanted(s, rows); err != nil || rows.n == 0 {
				return err
			}
		}
		if err := w.feed(s, i, rows); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	// Into y, not h: what the head sees is not rounded, at little cost.
	if err := kernels.AddRMSNorm(s, rows.y, rows.x, rows.y, w.m.finalNorm, w.m.spec.NormEps); err != nil {
		return err
	}
	if w.limits.Hidden {
		return nil
	}
	logits := w.logits.RowRange(0, rows.n)
	if err := kernels.MatMul(s, logits, rows.y, w.m.head); err != nil {
		return err
	}
	if err := scale(s, logits, w.m.spec.LogitScale); err != nil || w.m.spec.LogitSoftcap == 0 {
		return err
	}
	return kernels.Softcap(s, logits, w.m.spec.LogitSoftcap)
}

// scale multiplies, unless factor is 0, which stands for 1.
func scale(s *kernels.Stream, x kernels.Tensor, factor float32) error {
	if factor == 0 || factor == 1 {
		return nil
	}
	return kernels.Scale(s, x, factor)
}

// mix goes from the residual stream to rows.mixed.
func (w *Workspace) mix(s *kernels.Stream, i int, rows rowSet) error {
	l := &w.m.layers[i]
	h, err := w.normalised(s, rows, l.inputNorm, i > 0)
	if err != nil {
		return err
	}
	p := pass{w: w, s: s, layer: i, n: rows.n, runs: rows.runs, tmp: w.layers[i].mixer, cacheOnly: rows.onlyCaching}
	return l.mixer.mix(p, rows.mixed, h)
}

// wanted gathers the rows that are wanted.
func (w *Workspace) wanted(s *kernels.Stream, all rowSet) (rowSet, error) {
	n := w.step.rows
	if n == all.n || n == 0 {
		all.n = n
		return all, nil
	}
	rows := rowSet{n: n, x: w.lastX.RowRange(0, n), y: w.y.RowRange(0, n), h: w.h.RowRange(0, n), runs: w.lastRuns,
		mixed: w.layers[len(w.layers)-1].lastMixed.RowRange(0, n)}
	if err := kernels.Gather(s, rows.x, all.x, w.step.logitRows); err != nil {
		return rows, err
	}
	return rows, kernels.Gather(s, rows.mixed, all.mixed, w.step.logitRows)
}

// feed goes from rows.mixed to rows.y, the layer's second addition to the residual stream.
func (w *Workspace) feed(s *kernels.Stream, i int, rows rowSet) error {
	l := &w.m.layers[i]
	p := pass{w: w, s: s, layer: i, n: rows.n, runs: rows.runs, tmp: w.layers[i].ff}
	if err := p.project(rows.y, rows.mixed, &l.output); err != nil {
		return err
	}
	if err := w.added(s, rows, l.mixerNorm); err != nil {
		return err
	}
	h, err := w.normalised(s, rows, l.ffNorm, true)
	if err != nil {
		return err
	}
	if err := l.ff.feed(p, rows.y, h); err != nil {
		return err
	}
	return w.added(s, rows, l.ffOutNorm)
}

// normalised adds y to the residual stream, if there is one to add, and returns the input of a part: the stream after a
// norm, or without one the stream itself.
func (w *Workspace) normalised(s *kernels.Stream, rows rowSet, norm kernels.Tensor, add bool) (kernels.Tensor, error) {
	switch eps := w.m.spec.NormEps; {
	case norm.Rows == 0 && !add:
		return rows.x, nil
	case norm.Rows == 0:
		return rows.x, kernels.Add(s, rows.x, rows.y)
	case !add:
		return rows.h, kernels.RMSNorm(s, rows.h, rows.x, norm, eps)
	default:
		return rows.h, kernels.AddRMSNorm(s, rows.h, rows.x, rows.y, norm, eps)
	}
}

// added makes y, what a part gave, what is to be added to the residual stream.
func (w *Workspace) added(s *kernels.Stream, rows rowSet, norm kernels.Tensor) error {
	if norm.Rows > 0 {
		if err := kernels.RMSNorm(s, rows.y, rows.y, norm, w.m.spec.NormEps); err != nil {
			return err
		}
	}
	return scale(s, rows.y, w.m.spec.ResidualScale)
}
