package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// Growth adds rows to the embedding and the output matrix, for tokens that the checkpoint does not have. A new row is the
// mean of rows of the same matrix: what LlamaFactory starts training from, but without its noise, so that the same
// checkpoint always gives the same answers.
type Growth struct {
	Vocab int             // rows in all; no fewer than the checkpoint's
	From  map[int][]int32 // by new row the checkpoint's rows that are averaged; those that are not here take all
}

// grown is s with the rows that g adds.
func (s *Spec) grown(g *Growth) *Spec {
	if g == nil {
		return s
	}
	c := *s
	c.Vocab = g.Vocab
	return &c
}

func (g *Growth) check(s *Spec) error {
	if g.Vocab < s.Vocab || g.Vocab > 1<<24 {
		return fmt.Errorf("a vocabulary of %d tokens, where the checkpoint has %d", g.Vocab, s.Vocab)
	}
	for row, from := range g.From {
		for _, id := range from {
			if id < 0 || int(id) >= s.Vocab || len(from) == 0 {
				return fmt.Errorf("row %d is to be a mean of row %d, of %d", row, id, s.Vocab)
			}
		}
	}
	return nil
}

// rows are the new rows of a matrix, in its type.
func (g *Growth) rows(t checkpoint.Tensor) kernels.MatrixPart {
	old, width := t.Shape[0], t.Shape[1]
	size := width * t.DType.Size()
	mean := func(n int, row func(i int) int) []byte {
		sum := make([]float64, width)
		for i := range n {
			at := row(i) * size
			for j, v := range (checkpoint.Tensor{DType: t.DType, Data: t.Data[at : at+size]}).Floats() {
				sum[j] += float64(v)
			}
		}
		out := make([]byte, 0, size)
		for _, v := range sum {
			out = appendFloat(out, t.DType, float32(v/float64(n)))
		}
		return out
	}
	all := mean(old, func(i int) int { return i })
	var data []byte
	for row := old; row < g.Vocab; row++ {
		if from := g.From[row]; len(from) > 0 {
			data = append(data, mean(len(from), func(i int) int { return int(from[i]) })...)
		} else {
			data = append(data, all...)
		}
	}
	return kernels.MatrixPart{Data: data, DType: kernelDType(t.DType), Rows: g.Vocab - old}
}

// appendFloat appends v, rounded to nearest even, in the form of a tensor's elements.
func appendFloat(out []byte, d checkpoint.DType, v float32) []byte {
	switch d {
	case "BF16":
		bits := math.Float32bits(v)
		return binary.LittleEndian.AppendUint16(out, uint16((bits+0x7fff+bits>>16&1)>>16))
	case "F16":
		return binary.LittleEndian.AppendUint16(out, toFloat16(v))
	}
	return binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
}

// toFloat16 rounds a finite number to IEEE 754 binary16.
func toFloat16(v float32) uint16 {
	sign := uint16(math.Float32bits(v) >> 16 & 0x8000)
	a := math.Abs(float64(v))
	if a >= 65520 {
		return sign | 0x7c00
	}
	// The number of units of the last place: 2⁻²⁴ for subnormal numbers, else 2⁻¹⁰ of the exponent's power of two.
	_, exp := math.Frexp(a)
	unit := max(exp-11, -24)
	n := uint16(math.RoundToEven(math.Ldexp(a, -unit)))
	return sign | uint16(unit+24)<<10 + n
}
