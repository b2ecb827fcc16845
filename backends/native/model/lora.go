package model

import "pagoda/kernels"

// LoRA is an adapter's matrices in device memory: the decoder adds Scale·(x·Aᵀ)·Bᵀ to each projection that has them.
// Package adapter makes and owns them.
type LoRA struct {
	Layers []LoRALayer // one per layer of the decoder
}

// LoRALayer holds a layer's updates by target, nil where the adapter has none.
type LoRALayer []*LowRank

// NewLoRA is an adapter that changes nothing yet.
func (s *Spec) NewLoRA() *LoRA {
	a := &LoRA{Layers: make([]LoRALayer, len(s.Layers))}
	for i, l := range s.Layers {
		a.Layers[i] = make(LoRALayer, len(l.projections(s)))
	}
	return a
}

// LowRank is one update: A is [rank, in], B [out, rank].
type LowRank struct {
	A, B  *kernels.Matrix
	Scale float32
}

// AdapterDType is the type in which adapter matrices are packed.
func (m *Model) AdapterDType() kernels.DType { return m.spec.AdapterDType(m.options) }

// AdapterDType is the type in which the matrices of adapters of a Model with these options are packed.
func (s *Spec) AdapterDType(o Options) kernels.DType { return s.resolve(o.DType).activations() }

// Run is a range of a batch's rows that use an adapter.
type Run struct {
	Start, Len int
	LoRA       *LoRA
}
