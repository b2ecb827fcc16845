package quant

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// bits of E4M3, as a number: written out anew.
func number(code byte) float64 {
	sign := 1.0
	if code&0x80 != 0 {
		sign = -1
	}
	exponent, fraction := float64(code>>3&15), float64(code&7)/8
	switch {
	case code&0x7f == 0x7f:
		return math.NaN()
	case exponent == 0:
		return sign * fraction * math.Pow(2, -6)
	}
	return sign * (1 + fraction) * math.Pow(2, exponent-7)
}

func widened(w Packed, rows, cols, pieces int) []float64 {
	out := make([]byte, 2*rows*cols)
	for i := range pieces {
		first, last := i*rows/pieces, (i+1)*rows/pieces
		w.Widen(out[2*first*cols:], first, last)
	}
	values := make([]float64, rows*cols)
	for i := range values {
		values[i] = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(out[2*i:])) << 16))
	}
	return values
}

// nearest reports a number that is not the bfloat16 which is nearest to want.
func nearest(t *testing.T, i int, got, want float64) {
	t.Helper()
	if math.IsNaN(want) {
		if !math.IsNaN(got) {
			t.Fatalf("element %d: %g, want NaN", i, got)
		}
		return
	}
	if !(math.Abs(got-want) <= math.Abs(want)*math.Pow(2, -7.99)) { // half a unit of 8 bits, and what float32 rounds
		t.Fatalf("element %d: %g, want %g", i, got, want)
	}
}

// TestFP8: every tile has its scale, those at the edges too, whatever rows are asked for at once.
func TestFP8(t *testing.T) {
	r := rand.New(rand.NewPCG(1, rand.Uint64()))
	for _, c := range []struct{ matrices, rows, cols, tileRows, tileCols int }{
		{1, 256, 256, 128, 128}, {1, 200, 136, 128, 128}, {3, 5, 7, 2, 3}, {2, 4, 9, 1, 9}, {2, 4, 9, 4, 9}, {1, 1, 1, 128, 128},
	} {
		w := FP8{Rows: c.rows, Cols: c.cols, TileRows: c.tileRows, TileCols: c.tileCols, Codes: make([]byte, c.matrices*c.rows*c.cols)}
		down, across := (c.rows+c.tileRows-1)/c.tileRows, (c.cols+c.tileCols-1)/c.tileCols
		for range c.matrices * down * across {
			w.Scales = append(w.Scales, float32(math.Exp(4*r.NormFloat64())))
		}
		for i := range w.Codes {
			w.Codes[i] = byte(r.Uint32())
		}
		for _, pieces := range []int{1, 2, c.matrices * c.rows} {
			for i, got := range widened(w, c.matrices*c.rows, c.cols, pieces) {
				matrix, row, col := i/c.cols/c.rows, i/c.cols%c.rows, i%c.cols
				scale := w.Scales[(matrix*down+row/c.tileRows)*across+col/c.tileCols]
				nearest(t, i, got, number(w.Codes[i])*float64(scale))
			}
		}
	}
}

// TestE4M3 holds single codes to numbers of the paper's table.
func TestE4M3(t *testing.T) {
	for code, want := range map[byte]float32{0: 0, 1: 1.0 / 512, 7: 7.0 / 512, 8: 1.0 / 64, 0x1d: 0.1015625, 0x38: 1, 0x58: 16, 0x59: 18,
		0x7e: 448, 0xaa: -0.3125, 0xfe: -448} {
		if e4m3[code] != want {
			t.Errorf("code %#x: %g, want %g", code, e4m3[code], want)
		}
	}
}

// TestMXFP4: all codes with all scales, which are exact.
func TestMXFP4(t *testing.T) {
	const rows, cols = 256, 96
	w := MXFP4{Cols: cols, Blocks: make([]byte, rows*cols/2), Scales: make([]byte, rows*cols/32)}
	for i := range w.Blocks {
		w.Blocks[i] = byte(rand.Uint32())
	}
	for i := range w.Scales {
		w.Scales[i] = byte(i / (cols / 32))
	}
	numbers := []float64{0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6}
	for _, pieces := range []int{1, 7} {
		for i, got := range widened(w, rows, cols, pieces) {
			code := w.Blocks[i/2] >> (4 * (i % 2)) & 15
			scale := w.Scales[i/32]
			want := numbers[code] * math.Pow(2, float64(scale)-127)
			switch {
			case scale == 255:
				want = math.NaN()
			case want > math.MaxFloat32 || want < -math.MaxFloat32:
				want = math.Inf(int(math.Copysign(1, want)))
			}
			if got != want && !(math.IsNaN(want) && math.IsNaN(got)) {
				t.Fatalf("element %d, code %d, scale %d: %g, want %g", i, code, scale, got, want)
			}
		}
	}
}

func TestBFloat16(t *testing.T) {
	for v, want := range map[float32]uint16{0: 0, 1: 0x3f80, -1: 0xbf80, 1 + 1.0/256: 0x3f80, 1 + 3.0/256: 0x3f82, 1.00390637: 0x3f81,
		math.MaxFloat32: 0x7f80, float32(math.Inf(-1)): 0xff80} {
		if got := bfloat16(v); got != want {
			t.Errorf("%g: %#x, want %#x", v, got, want)
		}
	}
	if got := bfloat16(math.Float32frombits(0x7f800001)); got&0x7f80 != 0x7f80 || got&0x7f == 0 {
		t.Errorf("NaN: %#x", got)
	}
}

func BenchmarkWiden(b *testing.B) {
	const rows, cols = 512, 4096
	out := make([]byte, 2*rows*cols)
	scales := make([]float32, rows/128*cols/128)
	for name, w := range map[string]Packed{
		"fp8":   FP8{Codes: make([]byte, rows*cols), Scales: scales, Rows: rows, Cols: cols, TileRows: 128, TileCols: 128},
		"mxfp4": MXFP4{Blocks: make([]byte, rows*cols/2), Scales: make([]byte, rows*cols/32), Cols: cols},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(out)))
			for b.Loop() {
				w.Widen(out, 0, rows)
			}
		})
	}
}
