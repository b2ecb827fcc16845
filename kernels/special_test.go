package kernels

import (
	"fmt"
	"math"
	"testing"
)

var (
	inf     = float32(math.Inf(1))
	nan     = float32(math.NaN())
	negZero = float32(math.Copysign(0, -1))
)

// specials are numbers that arithmetic treats apart.
var specials = []float32{0, negZero, inf, -inf, nan, 1e-40, -1e-40, 1e-45, 3e38, -3e38, 1e-20, 1}

// alike compares as the contracts promise: NaN is NaN, infinities agree, zero's sign does not matter, the rest within
// tol of the larger of the two and of floor.
func alike(got, want float32, tol, floor float64) bool {
	if got != got || want != want {
		return got != got && want != want
	}
	a, b := float64(got), float64(want)
	if math.IsInf(a, 0) || math.IsInf(b, 0) {
		return a == b
	}
	return math.Abs(a-b) <= tol*math.Max(math.Abs(b), floor)
}

func (r *rig) alike(name string, got, want Tensor, tol, floor float64) {
	r.Helper()
	g, w := values(got), values(want)
	for i := range g {
		for j := range g[i] {
			if !alike(g[i][j], w[i][j], tol, floor) {
				r.Fatalf("%s[%d,%d] = %v, want %v", name, i, j, g[i][j], w[i][j])
			}
		}
	}
	r.intact(name, got)
}

func TestSpecialValues(t *testing.T) {
	eachVariant(t, func(r *rig) {
		n := len(specials)
		x, y := r.raw(F32, n, n, 2), r.raw(F32, n, n, 0)
		for i := range n {
			for j := range n {
				x.f32(i)[j], y.f32(i)[j] = specials[i], specials[j]
			}
		}
		sum := r.clone(x)
		r.ok(Add(r.s, sum, y))
		want := r.clone(x)
		r.ok(refBackend{}.add(want, y))
		r.alike("add", sum, want, 0, 0)

		// Every pair as gate and up, but 0 times infinity, which rounding decides: 1e-45 is the least number there is.
		gateUp := r.raw(F32, n*n, 2, 0)
		for i := range n * n {
			gateUp.f32(i)[0], gateUp.f32(i)[1] = specials[i/n], specials[i%n]
		}
		out := r.raw(F32, n*n, 1, 0)
		want = r.clone(out)
		r.ok(GatedMul(r.s, out, gateUp, SiLU))
		r.ok(refBackend{}.gatedMul(want, gateUp, SiLU))
		for i := range n * n {
			g, u := gateUp.f32(i)[0], gateUp.f32(i)[1]
			if g == 1e-45 && math.Abs(float64(u)) > 1e30 || g == -inf || g < -100 && math.IsInf(float64(u), 0) {
				continue
			}
			if got := out.f32(i)[0]; !alike(got, want.f32(i)[0], 1e-6, 1e-30) {
				r.Errorf("silu(%v)*%v = %v, want %v", g, u, got, want.f32(i)[0])
			}
		}

		// A NaN or an infinity among numbers; rows of one special each; rows too small or too large to square.
		rows := r.random(F32, n+2, 37)
		for i, s := range specials {
			for j := range rows.f32(i) {
				if i%2 == 0 || j == 20 {
					rows.f32(i)[j] = s
				}
			}
		}
		w := r.random(F32, 1, 37)
		for _, dt := range []DType{F32, BF16} {
			out := r.raw(dt, rows.Rows, 37, 1)
			want := r.clone(out)
			r.ok(RMSNorm(r.s, out, rows, w, 1e-6))
			r.ok(refBackend{}.rmsNorm(want, rows, w, 1e-6))
			g, e := values(out), values(want)
			for i := range g {
				if i < n && math.Abs(float64(specials[i])) > 1e30 {
					continue // the square is infinite in float32, not in the reference
				}
				for j := range g[i] {
					if !alike(g[i][j], e[i][j], 1.0/128, 1e-30) {
						r.Fatalf("rmsnorm of row %d to %v: [%d] = %v, want %v", i, dt, j, g[i][j], e[i][j])
					}
				}
			}
		}

		// Denormals go through rope, which multiplies them by numbers near one.
		turned, table := r.clone(rows.Columns(0, 36)), ropeTable(r, 3, 36)
		turned.Cols = 36
		pos := make([]int32, turned.Rows)
		for i := range pos {
			pos[i] = int32(i % 3)
		}
		want = r.clone(turned)
		r.ok(RoPE(r.s, turned, r.ints(pos...), table, 1, Halves))
		r.ok(refBackend{}.rope(want, r.ints(pos...), table, 1, Halves))
		g, e := values(turned), values(want)
		for i := range g {
			for j := range g[i] {
				if !alike(g[i][j], e[i][j], 1e-6, 1) {
					r.Fatalf("rope[%d,%d] = %v, want %v", i, j, g[i][j], e[i][j])
				}
			}
		}
	})
}

// Rounding to bfloat16 is to nearest, ties to even, for every kind of number: RMSNorm of a single column is x/|x|*w.
func TestRoundingToBF16(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const n = 4099
		x, w, wide, out := r.raw(F32, 1, n, 0), r.raw(F32, 1, n, 0), r.raw(F32, 1, n, 0), r.raw(BF16, 1, n, 0)
		for i := range n {
			x.f32(0)[i] = 1
			w.f32(0)[i] = math.Float32frombits(r.Uint32())
			if i%3 == 0 { // ties
				w.f32(0)[i] = math.Float32frombits(r.Uint32()&0xffff0000 | 0x8000)
			}
		}
		copy(w.f32(0), specials)
		r.ok(RMSNorm(r.s, wide, x, w, 0))
		r.ok(RMSNorm(r.s, out, x, w, 0))
		for i := range n {
			if f, got := wide.f32(0)[i], out.bits16(0)[i]; got != toBF16(f) {
				r.Fatalf("%v (%#x) to %#x, want %#x", f, math.Float32bits(f), got, toBF16(f))
			}
		}
	})
}

// What one row holds stays in its row, and what one weight row holds in its column.
func TestMatMulSpecial(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const rows, n, k = 9, 70, 67
		for _, types := range []struct{ x, w DType }{{F32, F32}, {BF16, BF16}, {F32, BF16}, {F32, F16}} {
			x, data := r.random(types.x, rows, k), r.random(F32, n, k)
			row := make([]float32, k)
			loadRow(row, x, 4)
			row[11], row[12] = nan, inf
			storeRow(x, 4, row)
			data.f32(33)[66], data.f32(69)[0] = inf, nan
			for j := range row { // a row of zeros of both signs, and of denormals
				row[j] = negZero
				if j%2 == 0 {
					row[j] = 0
				}
			}
			storeRow(x, 2, row)
			for j := range row {
				row[j] = 1e-39
			}
			storeRow(x, 7, row)
			var flat []byte
			for i := range n {
				start := data.Off + i*data.Stride*4
				flat = append(flat, data.Buf.data[start:start+k*4]...)
			}
			m, err := r.dev.PackMatrix(types.w, k, MatrixPart{flat, F32, n})
			r.ok(err)
			out := r.raw(F32, rows, n, 1)
			want := r.clone(out)
			r.ok(MatMul(r.s, out, x, m))
			r.ok(refBackend{}.matMul(want, x, m))
			// Dot products flush denormals: sums of 67 terms of a few 1e-39 may be zero, and one of them times infinity NaN.
			if types.x == BF16 && types.w == BF16 {
				out.f32(7)[33], want.f32(7)[33] = 0, 0
			}
			r.alike(fmt.Sprintf("%v x %v", types.x, types.w), out, want, 1e-5, 10) // terms below 10 cancel
			r.ok(m.Close())
		}
	})
}

// A sequence of NaN and infinity, as a broken model would make, leaves the others of its batch as they are, and extreme
// scores make weights of zero and one.
func TestAttentionSpecial(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, dt := range cacheDTypes {
			p := newPaged(r, dt, 16, 4, 2, 32, 32, 40, 40, 40)
			alone := p.run(r.s, F32, piece{0, 30, 40})
			one := p.run(r.s, F32, piece{0, 39, 40})
			for pos := range 40 {
				// The second: NaN and infinity. The third: keys of 400 at position 7 alone, so that its score is beyond all others.
				k, v := r.raw(F32, 2, 64, 0), r.raw(F32, 2, 64, 0)
				for i := range 64 {
					k.f32(0)[i], v.f32(0)[i] = []float32{nan, inf, -inf}[i%3], nan
					k.f32(1)[i], v.f32(1)[i] = 0, p.v[2].f32(pos)[i]
					if pos == 7 {
						k.f32(1)[i] = 400
					}
				}
				slot := func(seq int) int32 { return p.blocks[seq][pos/16]*16 + int32(pos%16) }
				r.ok(StoreKV(r.s, p.c, k, v, r.ints(slot(1), slot(2))))
				p.q[1].f32(pos)[0] = nan
				for i := range p.q[2].f32(pos) {
					p.q[2].f32(pos)[i] = 1e4
				}
			}
			mixed := p.run(r.s, F32, piece{1, 0, 40}, piece{0, 30, 40}, piece{2, 0, 40})
			r.same("prefill beside NaN", mixed.RowRange(40, 50), alone)
			r.same("decode beside NaN", p.run(r.s, F32, piece{1, 39, 40}, piece{0, 39, 40}).RowRange(1, 2), one)
			if v := mixed.f32(39)[0]; v == v {
				r.Errorf("%v: the broken sequence gives %v, want NaN", dt, v)
			}
			for _, out := range []Tensor{mixed.RowRange(50, 90), p.run(r.s, F32, piece{2, 39, 40})} {
				for i := range out.Rows {
					if i < 7 && out.Rows > 1 {
						continue
					}
					for e, got := range out.f32(i) {
						_, values := p.c.load(p.blocks[2], e/64, 8)
						if want := values[7*32+e%32]; got != want {
							r.Fatalf("%v: row %d [%d] = %v, want the value at position 7, %v", dt, i, e, got, want)
						}
					}
				}
			}
		}
	})
}

// Every kind of number is rounded as the reference does it, and the reference to the nearest of all codes.
func TestRoundingToFP8(t *testing.T) {
	nearest := func(f float32) uint8 {
		best, least := uint8(0), math.Inf(1)
		for code := range uint8(0x7f) {
			if d := math.Abs(math.Abs(float64(f)) - float64(fromFP8(code))); d < least || d == least && code%2 == 0 {
				best, least = code, d
			}
		}
		if math.Abs(float64(f)) > 448 {
			best = 0x7e
		}
		if f != f {
			best = 0x7f
		}
		return best | uint8(math.Float32bits(f)>>24&0x80)
	}
	for code := range 256 {
		exp, frac := code>>3&15, float64(code&7)
		want := (8 + frac) * math.Pow(2, float64(exp-10))
		if exp == 0 {
			want = frac / 512
		}
		got := float64(fromFP8(uint8(code)))
		if code&0x7f == 0x7f && got == got || code&0x7f != 0x7f && (math.Abs(got) != want || math.Signbit(got) != (code >= 128)) {
			t.Fatalf("code %#x is %v, want %v", code, got, want)
		}
	}
	eachVariant(t, func(r *rig) {
		const n = 1000
		x := r.raw(F32, 1, n, 0)
		for i := range n {
			x.f32(0)[i] = math.Float32frombits(r.Uint32()) // any number
			if i%4 > 0 {
				x.f32(0)[i] = math.Float32frombits(r.Uint32()&0x807fffff | uint32(111+r.IntN(30))<<23) // 2^-16 to 2^14
			}
			if i%4 > 1 { // a code, or the middle between two
				code := uint8(r.IntN(0x7e))
				x.f32(0)[i] = (fromFP8(code) + fromFP8(code+uint8(i%2))) / 2
			}
		}
		copy(x.f32(0), specials)
		c, err := NewKVCache(r.dev, FP8, 1, 1, 1, n, n)
		r.ok(err)
		r.ok(StoreKV(r.s, c, x, x, r.ints(0)))
		for i, f := range x.f32(0) {
			if k, v := c.K.Buf.data[i], c.V.Buf.data[i]; k != nearest(f) || v != k {
				r.Errorf("%v (%#x) to %#x and %#x, want %#x", f, math.Float32bits(f), k, v, nearest(f))
			}
		}
		r.ok(c.Close())
	})
}

// An element of I8 is off by half a unit at most, a 254th of the head's largest; a head that is not finite is NaN, one
// of tiny numbers zero; and no head heeds another.
func TestRoundingToI8(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const heads, dim = 9, 37
		x := r.random(F32, 1, heads*dim)
		for h, factor := range []float32{1, 1e30, 1e-30, 1e-42, 0, 1e-45} {
			for i := range dim {
				x.f32(0)[h*dim+i] *= factor
			}
		}
		x.f32(0)[6*dim+3], x.f32(0)[7*dim+4] = nan, -inf
		c, err := NewKVCache(r.dev, I8, 3, 4, heads, dim, dim)
		r.ok(err)
		r.ok(StoreKV(r.s, c, x, x, r.ints(6)))
		for h := range heads {
			row := x.f32(0)[h*dim:][:dim]
			keys, values := c.load([]int32{1}, h, 3)
			most := 0.0
			for _, f := range row {
				most = max(most, math.Abs(float64(f)))
			}
			for i, f := range row {
				for _, got := range []float32{keys[2*dim+i], values[2*dim+i]} {
					broken, bound := h == 6 || h == 7, most/254*1.00001+1e-43 // the last: a subnormal scale has few bits
					if broken && got == got || !broken && !(math.Abs(float64(got)-float64(f)) <= bound) {
						r.Fatalf("head %d: %v became %v, largest %v", h, f, got, most)
					}
				}
			}
		}
		r.ok(c.Close())
	})
}
