package quant

import (
	"encoding/binary"
	"math"
)

// MXFP4 are rows of Cols elements in E2M1, with a power of two for each 32 of them, as gpt-oss is published. An element is
// its code's number times 2^(scale-127), which bfloat16 holds exactly; a scale of 255 is NaN.
//
//	Blocks  [rows, Cols/32, 16]: in each byte two codes, that of the earlier element in the low half
//	Scales  [rows, Cols/32]
//
// Source: OCP Microscaling Formats (MX) Specification v1.0, §5 and §6.
type MXFP4 struct {
	Blocks, Scales []byte
	Cols           int
}

// MXFP4Block is the number of elements that share a scale.
const MXFP4Block = 32

// Widen implements Packed.
func (w MXFP4) Widen(out []byte, first, last int) {
	const bytes = MXFP4Block / 2
	var tables [256]*[256]uint32 // by scale: few occur
	for i, scale := range w.Scales[first*w.Cols/MXFP4Block : last*w.Cols/MXFP4Block] {
		if tables[scale] == nil {
			tables[scale] = mxfp4Pairs(scale)
		}
		table, to := tables[scale], out[i*2*MXFP4Block:][:2*MXFP4Block]
		for j, pair := range w.Blocks[first*w.Cols/2+i*bytes:][:bytes] {
			binary.LittleEndian.PutUint32(to[4*j:], table[pair])
		}
	}
}

// mxfp4Pairs are the two bfloat16 numbers of each byte with a scale.
func mxfp4Pairs(scale byte) *[256]uint32 {
	var numbers [16]uint32
	for code := range numbers {
		v := [8]float64{0, 0.5, 1, 1.5, 2, 3, 4, 6}[code&7]
		if code > 7 {
			v = math.Copysign(v, -1)
		}
		if v = math.Ldexp(v, int(scale)-127); scale == 255 {
			v = math.NaN()
		}
		numbers[code] = uint32(bfloat16(float32(v)))
	}
	var pairs [256]uint32
	for pair := range pairs {
		pairs[pair] = numbers[pair&15] | numbers[pair>>4]<<16
	}
	return &pairs
}
