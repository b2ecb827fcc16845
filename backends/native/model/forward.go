package model

import (
	"fmt"

	"pagoda/kernels"
)

// Forward computes one step: stores the keys and values of the batch's tokens and computes the logits of the rows
// asked for, which Logits then returns. A bad batch is refused with ErrBatch before anything is computed.
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

// rowSet is the rows that a part of the decoder works on: all of the batch, or after the last layer's attention, where
// rows no longer meet, only those whose logits are wanted.
type rowSet struct {
	n    int
	x    kernels.Tensor
	attn kernels.Tensor
	runs []Run
}

func (w *Workspace) decoder(s *kernels.Stream) error {
	t := w.step.tokens
	rows := rowSet{t, w.x.RowRange(0, t), w.attn.RowRange(0, t), w.runs}
	if err := kernels.Embed(s, rows.x, w.m.embed, w.step.ids); err != nil {
		return err
	}
	for i := range w.m.layers {
		if err := w.attention(s, i, rows); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		if i == len(w.m.layers)-1 {
			var err error
			if rows, err = w.wanted(s, rows); err != nil || rows.n == 0 {
				return err
			}
		}
		if err := w.mlp(s, i, rows); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	h := w.y.RowRange(0, rows.n) // not w.h: what the head sees is not rounded, at little cost
	if err := w.addNorm(s, h, rows, w.m.finalNorm); err != nil {
		return err
	}
	return kernels.MatMul(s, w.logits.RowRange(0, rows.n), h, w.m.head)
}

// addNorm adds y to the residual stream and normalises it into h.
func (w *Workspace) addNorm(s *kernels.Stream, h kernels.Tensor, rows rowSet, weight kernels.Tensor) error {
	return kernels.AddRMSNorm(s, h, rows.x, w.y.RowRange(0, rows.n), weight, w.m.spec.NormEps)
}

// attention goes from the residual stream to rows.attn, the heads' outputs.
func (w *Workspace) attention(s *kernels.Stream, i int, rows rowSet) error {
	spec, l, c := w.m.spec, &w.m.layers[i], w.kv.layers[i]
	h, qkv := w.h.RowRange(0, rows.n), w.qkv.RowRange(0, rows.n)
	var err error
	if i == 0 { // nothing to add yet
		err = kernels.RMSNorm(s, h, rows.x, l.inputNorm, spec.NormEps)
	} else {
		err = w.addNorm(s, h, rows, l.inputNorm)
	}
	if err != nil {
		return err
	}
	if err := w.project(s, i, qkv, h, l.qkv, rows, Q, K, V); err != nil {
		return err
	}
	endQ := spec.Heads * spec.HeadDim
	endK := endQ + spec.KVHeads*spec.HeadDim
	q, k, v := qkv.Columns(0, endQ), qkv.Columns(endQ, endK), qkv.Columns(endK, qkv.Cols)
	if spec.HeadNorms {
		if err := kernels.HeadRMSNorm(s, q, l.qNorm, spec.Heads, spec.NormEps); err != nil {
			return err
		}
		if err := kernels.HeadRMSNorm(s, k, l.kNorm, spec.KVHeads, spec.NormEps); err != nil {
			return err
		}
	}
	qk := qkv.Columns(0, endK) // q and k lie side by side and turn alike
	if err := kernels.RoPE(s, qk, w.step.positions, w.m.rope, spec.Heads+spec.KVHeads); err != nil {
		return err
	}
	if err := kernels.StoreKV(s, c, k, v, w.step.slots); err != nil {
		return err
	}
	if i == len(w.m.layers)-1 && w.step.rows == 0 {
		return nil // the cache was all that this step was for
	}
	return kernels.PagedAttention(s, rows.attn, q, c, w.step.attention, spec.Heads, spec.attentionScale())
}

// wanted gathers the rows whose logits are wanted.
func (w *Workspace) wanted(s *kernels.Stream, all rowSet) (rowSet, error) {
	n := w.step.rows
	if n == all.n || n == 0 {
		all.n = n
		return all, nil
	}
	rows := rowSet{n, w.lastX.RowRange(0, n), w.lastA.RowRange(0, n), w.lastRuns}
	if err := kernels.Gather(s, rows.x, all.x, w.step.logitRows); err != nil {
		return rows, err
	}
	return rows, kernels.Gather(s, rows.attn, all.attn, w.step.logitRows)
}

// mlp goes from the heads' outputs to y, the layer's second addition to the residual stream.
func (w *Workspace) mlp(s *kernels.Stream, i int, rows rowSet) error {
	l, y, h := &w.m.layers[i], w.y.RowRange(0, rows.n), w.h.RowRange(0, rows.n)
	if err := w.project(s, i, y, rows.attn, l.o, rows, O); err != nil {
		return err
	}
	if err := w.addNorm(s, h, rows, l.postNorm); err != nil {
		return err
	}
	gateUp, ff := w.gateUp.RowRange(0, rows.n), w.ff.RowRange(0, rows.n)
	if err := w.project(s, i, gateUp, h, l.gateUp, rows, Gate, Up); err != nil {
		return err
	}
	if err := kernels.SiLUMul(s, ff, gateUp); err != nil {
		return err
	}
	return w.project(s, i, y, ff, l.down, rows, Down)
}

// project computes out = x·lᵀ + bias and adds the adapters' updates. The targets are the parts of l, side by side in
// out.
func (w *Workspace) project(s *kernels.Stream, i int, out, x kernels.Tensor, l linear, rows rowSet,
	targets ...Target) error {
	if err := kernels.MatMul(s, out, x, l.weight); err != nil {
		return err
	}
	if l.bias.Rows > 0 {
		if err := kernels.Add(s, out, l.bias); err != nil {
			return err
		}
	}
	if len(rows.runs) == 0 {
		return nil
	}
	at := 0
	for _, target := range targets {
		cols, _ := w.m.spec.projection(target)
		w.loraRuns = w.loraRuns[:0]
		for _, r := range rows.runs {
			if u := r.LoRA.Layers[i][target]; u != nil {
				w.loraRuns = append(w.loraRuns, kernels.LoRARun{Start: r.Start, Len: r.Len, A: u.A, B: u.B, Scale: u.Scale})
			}
		}
		if len(w.loraRuns) > 0 {
			if err := kernels.LoRA(s, out.Columns(at, at+cols), x, w.loraRuns); err != nil {
				return err
			}
		}
		at += cols
	}
	return nil
}
