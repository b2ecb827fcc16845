package model

import (
	"errors"
	"fmt"

	"pagoda/kernels"
)

// Model is a decoder's weights in device memory.
type Model struct {
	dev     *kernels.Device
	spec    *Spec
	options Options
	dtype   DType // resolved
	maxLen  int

	embed      *kernels.Matrix
	head       *kernels.Matrix // embed itself if the head is tied
	layers     []layer
	finalNorm  kernels.Tensor
	embedScale float32          // 0: none
	ropes      []kernels.Tensor // [Spec.ropeRows(maxLen), Rope.Dim], cosines then sines

	matrices      []*kernels.Matrix // all there are
	small         *kernels.Buffer   // all other weights and the rope tables
	bytes, mapped int64             // of the weights in memory, and of those in mapped files
	idle          int64             // of both, experts that one token does not choose
}

// layer is a decoder layer's weights. Norm weights are F32 [1, n], without rows where there is none.
type layer struct {
	inputNorm, mixerNorm, ffNorm, ffOutNorm kernels.Tensor

	mixer  mixer
	output linear
	ff     feedForward
}

// linear is one product with the matrices of one or several projections, side by side, and what is added to it.
type linear struct {
	weight *kernels.Matrix
	bias   kernels.Tensor // F32 [1, out], or no rows
	first  Target         // of the first projection
	cols   []int          // of each projection's result
}

// Spec is what the model was loaded by.
func (m *Model) Spec() *Spec { return m.spec }

// DType is what the model computes in, never Auto.
func (m *Model) DType() DType { return m.dtype }

// MaxLen is the most tokens that a sequence may have.
func (m *Model) MaxLen() int { return m.maxLen }

// SwitchLen is a number of tokens beyond which all keys of a sequence are others than before, so that one that grows beyond
// must be computed again from its beginning, as Batch.Long; 0: there is none.
func (m *Model) SwitchLen() int { return m.spec.switchLen(m.maxLen) }

// VocabSize is the number of logits of a row. The tokenizer may know fewer tokens: the rest are padding and must not
// be sampled.
func (m *Model) VocabSize() int { return m.spec.Vocab }

// Bytes is the memory of the weights, without those that are used from mapped files.
func (m *Model) Bytes() int64 { return m.bytes }

// StepBytes is how many of them a step of one token reads that computes logits: all but an embedding that is not the output
// matrix too, and the experts that the token does not choose.
func (m *Model) StepBytes() int64 {
	n := m.bytes + m.mapped - m.idle
	if m.embed != m.head {
		n -= m.embed.Bytes()
	}
	return n
}

// Weights says what the weights are kept as.
func (m *Model) Weights() string {
	if m.options.Bits != 0 {
		return fmt.Sprintf("int%d", m.options.Bits)
	}
	return string(m.dtype)
}

// Close frees the weights.
func (m *Model) Close() error {
	var errs []error
	for _, matrix := range m.matrices {
		errs = append(errs, matrix.Close())
	}
	if m.small != nil {
		errs = append(errs, m.small.Close())
	}
	*m = Model{}
	return errors.Join(errs...)
}
