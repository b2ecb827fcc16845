package quant

import "math"

// FP8 are matrices of one shape [Rows, Cols] in E4M3, with a scale for each tile: the checkpoints of DeepSeek V3 and
// Qwen3-FP8 have tiles of 128 x 128, others one tile for a row or for a matrix. An element is its code's number times its
// tile's scale, in float32, rounded to bfloat16.
//
//	Codes   [matrices, Rows, Cols]
//	Scales  [matrices, ceil(Rows/TileRows), ceil(Cols/TileCols)]
//
// Source: Micikevicius et al. 2022, arXiv:2209.05433 (E4M3: no infinities, 448 is the largest number); DeepSeek-AI 2024,
// arXiv:2412.19437, §3.3 (tiles).
type FP8 struct {
	Codes              []byte
	Scales             []float32
	Rows, Cols         int
	TileRows, TileCols int
}

// Widen implements Packed.
func (w FP8) Widen(out []byte, first, last int) {
	across, down := ceil(w.Cols, w.TileCols), ceil(w.Rows, w.TileRows)
	var values [256]uint16
	for first < last {
		matrix, row := first/w.Rows, first%w.Rows
		tile := row / w.TileRows
		end := first + min(last-first, min((tile+1)*w.TileRows, w.Rows)-row) // of the rows that share the tile's scales
		for t := range across {
			scale := w.Scales[(matrix*down+tile)*across+t]
			for c, v := range e4m3 {
				values[c] = bfloat16(v * scale)
			}
			left, right := t*w.TileCols, min((t+1)*w.TileCols, w.Cols)
			for r := first; r < end; r++ {
				put(out[2*((r-first)*w.Cols+left):], w.Codes[r*w.Cols+left:r*w.Cols+right], &values)
			}
		}
		out = out[2*(end-first)*w.Cols:]
		first = end
	}
}

func ceil(n, size int) int { return (n + size - 1) / size }

// e4m3 are the numbers of the codes: a sign, four bits of exponent with a bias of 7, three of fraction.
var e4m3 = func() (table [256]float32) {
	for c := range table {
		exponent, fraction := c>>3&15, float64(c&7)
		v := math.Ldexp(8+fraction, exponent-10)
		switch {
		case exponent == 0:
			v = math.Ldexp(fraction, -9)
		case c&0x7f == 0x7f:
			v = math.NaN()
		}
		if c > 0x7f {
			v = -v
		}
		table[c] = float32(v)
	}
	return table
}()
