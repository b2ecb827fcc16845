// Package quant reads the forms in which checkpoints have quantized weights, in plain Go. A form is a small type over a
// checkpoint's bytes that widens rows to bfloat16, as the library that made it does.
package quant

import (
	"encoding/binary"
	"math"
)

// Packed are the rows of one or several matrices, one after another, in a quantized form.
type Packed interface {
	// Widen writes rows first to last, last not included, to out as bfloat16, little endian.
	Widen(out []byte, first, last int)
}

// bfloat16 is the nearest to v, ties to even; NaN stays NaN.
func bfloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// put writes the elements that codes stand for.
func put(out, codes []byte, values *[256]uint16) {
	for ; len(codes) >= 4; codes, out = codes[4:], out[8:] {
		binary.LittleEndian.PutUint64(out, uint64(values[codes[0]])|uint64(values[codes[1]])<<16|
			uint64(values[codes[2]])<<32|uint64(values[codes[3]])<<48)
	}
	for i, c := range codes {
		binary.LittleEndian.PutUint16(out[2*i:], values[c])
	}
}
