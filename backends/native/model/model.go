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

	embed     *kernels.Matrix
	head      *kernels.Matrix // embed itself if the head is tied
	layers    []layer
	finalNorm kernels.Tensor
	rope      kernels.Tensor // [maxLen, headDim], cosines then sines

	small         *kernels.Buffer // norm weights and the rope table
	bytes, mapped int64           // of the weights in memory, and of those in mapped files
}

// layer is a decoder layer's weights. Norm weights are F32 [1, n].
type layer struct {
	inputNorm, postNorm  kernels.Tensor
	qNorm, kNorm         kernels.Tensor // only with Spec.HeadNorms
	qkv, o, gateUp, down linear         // qkv and gateUp hold their parts' rows one after another
}

// linear is a matrix [out, in] and what is added to its products, F32 [1, out], or nothing (no rows).
type linear struct {
	weight *kernels.Matrix
	bias   kernels.Tensor
}

// Spec is what the model was loaded by.
func (m *Model) Spec() *Spec { return m.spec }

// DType is what the model computes in, never Auto.
func (m *Model) DType() DType { return m.dtype }

// MaxLen is the most tokens that a sequence may have.
func (m *Model) MaxLen() int { return m.maxLen }

// VocabSize is the number of logits of a row. The tokenizer may know fewer tokens: the rest are padding and must not
// be sampled.
func (m *Model) VocabSize() int { return m.spec.Vocab }

// Bytes is the memory of the weights, without those that are used from mapped files.
func (m *Model) Bytes() int64 { return m.bytes }

// StepBytes is how many of them a step reads that computes logits: all but an embedding that is not the output matrix too.
func (m *Model) StepBytes() int64 {
	if m.embed == m.head {
		return m.bytes + m.mapped
	}
	return m.bytes + m.mapped - m.embed.Bytes()
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
	free := func(list ...*kernels.Matrix) {
		for _, matrix := range list {
			if matrix != nil {
				errs = append(errs, matrix.Close())
			}
		}
	}
	if m.head != m.embed {
		free(m.head)
	}
	free(m.embed)
	for _, l := range m.layers {
		free(l.qkv.weight, l.o.weight, l.gateUp.weight, l.down.weight)
	}
	if m.small != nil {
		errs = append(errs, m.small.Close())
	}
	*m = Model{}
	return errors.Join(errs...)
}
