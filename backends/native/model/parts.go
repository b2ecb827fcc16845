package model

import "pagoda/kernels"

// part is what a layer is made of, as data: a Mixer or a FeedForward. Its tensors are named without the layer's prefix.
type part interface {
	// check reports what the part cannot be.
	check(b *builder)
	// projections are the matrices that adapters may address, in the order in which load asks the loader for them.
	projections(s *Spec) []projection
	// tensors are all others.
	tensors(s *Spec) []tensor
	// scratch plans the tensors that the part writes in a step of that many tokens. Parts that do not run at the same time
	// share the memory.
	scratch(s *Spec, act kernels.DType, tokens int) []plan
}

// A Mixer describes how a layer's tokens meet: attention or what stands for it.
type Mixer interface {
	part
	// cache is what the layer keeps of each token.
	cache() cacheDims
	// output is the projection of what mix gives, [Hidden, columns of mix's out]; it is computed where mix's result is
	// wanted only. It comes after projections.
	// A mixer whose mix does not give act has a method mixes with the type that it gives.
	output(s *Spec) projection
	load(l *partLoader) mixer
}

// mixer is a Mixer's weights.
type mixer interface {
	// mix computes out, act [p.n, output's In], from h, [p.n, Hidden], and stores what the cache is to keep. Where
	// p.cacheOnly, out is not wanted.
	mix(p pass, out, h kernels.Tensor) error
}

// A FeedForward describes what a layer does with each token on its own.
type FeedForward interface {
	part
	load(l *partLoader) feedForward
}

// feedForward is a FeedForward's weights.
type feedForward interface {
	// feed computes y, F32 [p.n, Hidden], from h of the same shape.
	feed(p pass, y, h kernels.Tensor) error
}

// cacheDims are the sizes of a layer's KV cache; no heads: it has none.
type cacheDims struct{ heads, keyDim, valueDim int }

// stateful is a Mixer that keeps a state of each sequence, which is as large however long the sequence is.
type stateful interface {
	// states are the sizes of its parts, in float32 elements.
	states() []int
}

// states are the sizes of what the layer keeps of each sequence.
func (l LayerSpec) states() []int {
	if m, ok := l.Mixer.(stateful); ok {
		return m.states()
	}
	return nil
}

// plan is a tensor to allocate.
type plan struct {
	dtype      kernels.DType
	rows, cols int
}

func (p plan) bytes() int { return roundUp(p.rows*p.cols) * p.dtype.Size() }

// pass is one part's share of a step.
type pass struct {
	w         *Workspace // for its step, which is about all rows
	s         *kernels.Stream
	layer     int
	n         int              // rows
	runs      []Run            // of them that use an adapter
	tmp       []kernels.Tensor // the part's scratch
	cacheOnly bool
}

// piece is the share of rows [from, to).
func (p pass) piece(from, to int) pass {
	if p.n == to-from {
		return p
	}
	list := p.w.pieceRuns[:0]
	for _, r := range p.runs {
		if start, end := max(r.Start, from), min(r.Start+r.Len, to); start < end {
			list = append(list, Run{start - from, end - start, r.LoRA})
		}
	}
	p.n, p.runs = to-from, list
	return p
}

// project computes out = x·lᵀ + bias and adds the adapters' updates.
func (p pass) project(out, x kernels.Tensor, l *linear) error {
	if err := kernels.MatMul(p.s, out, x, l.weight); err != nil {
		return err
	}
	if l.bias.Rows > 0 {
		if err := kernels.Add(p.s, out, l.bias); err != nil {
			return err
		}
	}
	if len(p.runs) == 0 {
		return nil
	}
	at := 0
	for i, cols := range l.cols {
		list := p.w.loraRuns[:0]
		for _, r := range p.runs {
			if u := r.LoRA.Layers[p.layer][l.first+Target(i)]; u != nil {
				list = append(list, kernels.LoRARun{Start: r.Start, Len: r.Len, A: u.A, B: u.B, Scale: u.Scale})
			}
		}
		if len(list) > 0 {
			if err := kernels.LoRA(p.s, out.Columns(at, at+cols), x, list); err != nil {
				return err
			}
		}
		at += cols
	}
	return nil
}
