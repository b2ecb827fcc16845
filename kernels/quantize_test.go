package kernels

import (
	"bytes"
	"math"
	"testing"
)

var quantized = []DType{W8, W4}

// Every variant packs to the same bytes as the reference, whatever the parts are stored as.
func TestPackQuantized(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, k := range []int{1, 7, 8, 64, 131, 200, 1000} {
			for _, dt := range quantized {
				var parts []MatrixPart
				for i, src := range []DType{F32, BF16, F16} {
					p := MatrixPart{DType: src, Rows: 1 + i*40}
					for range p.Rows * k {
						f := float32(r.NormFloat64() * 0.05)
						switch src {
						case F32:
							b := math.Float32bits(f)
							p.Data = append(p.Data, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
						case BF16:
							p.Data = append(p.Data, byte(toBF16(f)), byte(toBF16(f)>>8))
						case F16:
							p.Data = append(p.Data, byte(toF16(f)), byte(toF16(f)>>8))
						}
					}
					parts = append(parts, p)
				}
				m, err := r.dev.PackMatrix(dt, k, parts...)
				r.ok(err)
				ref, err := newRig(t, nil, "ref", 1).dev.PackMatrix(dt, k, parts...)
				r.ok(err)
				if !bytes.Equal(m.buf.data, ref.buf.data) {
					r.Errorf("%v of [%d, %d] differs from the reference", dt, m.n, k)
				}
				if m.Bytes() != MatrixBytes(dt, m.n, k) || m.DType() != dt {
					r.Errorf("%v of [%d, %d] says %d bytes of %v, want %d", dt, m.n, k, m.Bytes(), m.DType(), MatrixBytes(dt, m.n, k))
				}
				r.ok(m.Close())
				r.ok(ref.Close())
			}
		}
	})
}

// A weight is off by half a step at most; of W4 the side that is not the larger one ends a step earlier.
func TestQuantizedWeights(t *testing.T) {
	r := newRig(t, freshSeed(t), "ref", 1)
	const n, k = 70, 300
	data := r.raw(F32, n, k, 0)
	for i := range n {
		for j := range k {
			data.f32(i)[j] = float32(r.NormFloat64() * math.Exp(r.NormFloat64()))
		}
	}
	part := MatrixPart{Data: data.Buf.data[guard : guard+n*k*4], DType: F32, Rows: n}
	for _, dt := range quantized {
		m, err := r.dev.PackMatrix(dt, k, part)
		r.ok(err)
		got := make([]float32, k)
		for i := range n {
			m.loadRow(got, i)
			for j := range got {
				code, scale := m.quantized(i, j)
				step, w := math.Abs(float64(scale)), float64(data.f32(i)[j])
				limit := step / 2 * 1.0001
				if dt == W4 && (code == 7 || code == -8) {
					limit = step
				}
				if !(math.Abs(float64(got[j])-w) <= limit) || dt == W4 && (code < -8 || code > 7) || code < -128 || code > 127 {
					t.Fatalf("%v [%d,%d] is %v (%d times %v), want %v", dt, i, j, got[j], code, scale, w)
				}
			}
		}
		r.ok(m.Close())
	}
}

// Products are near those of the weights and inputs as they were before rounding.
func TestQuantizedProducts(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const rows, n, k = 9, 100, 512
		exact, x := r.matrix(F32, n, k), r.random(F32, rows, k)
		data := make([]byte, 0, n*k*4)
		row := make([]float32, k)
		for i := range n {
			exact.loadRow(row, i)
			for _, f := range row {
				b := math.Float32bits(f)
				data = append(data, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
			}
		}
		for _, c := range []struct {
			dt   DType
			most float64 // root of the mean square error, against that of the products
		}{{W8, 0.012}, {W4, 0.12}} {
			m, err := r.dev.PackMatrix(c.dt, k, MatrixPart{Data: data, DType: F32, Rows: n})
			r.ok(err)
			out, want := r.raw(F32, rows, n, 0), r.raw(F32, rows, n, 0)
			r.ok(MatMul(r.s, out, x, m))
			r.ok(refBackend{}.matMul(want, x, exact))
			wrong, all := 0.0, 0.0
			for i := range rows {
				for j := range n {
					w := float64(want.f32(i)[j])
					wrong += (float64(out.f32(i)[j]) - w) * (float64(out.f32(i)[j]) - w)
					all += w * w
				}
			}
			if e := math.Sqrt(wrong / all); !(e <= c.most) {
				r.Errorf("%v: products are off by %.2g of their size, want at most %v", c.dt, e, c.most)
			}
			r.ok(m.Close())
		}
	})
}

// What is not finite shows in all outputs that depend on it, and in no other; zeros and the smallest numbers are zero.
func TestQuantizedSpecialValues(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const rows, n, k = 5, 70, 150
		for _, dt := range quantized {
			x := r.random(F32, rows, k)
			x.f32(1)[k-1], x.f32(2)[3] = inf, nan
			for j := range k {
				x.f32(3)[j] = 1e-40 * float32(j%2)
			}
			data := r.raw(F32, n, k, 0)
			for i := range n {
				for j := range k {
					data.f32(i)[j] = float32(r.NormFloat64())
				}
			}
			data.f32(7)[140], data.f32(69)[0] = nan, -inf
			clear(data.f32(8))
			m, err := r.dev.PackMatrix(dt, k, MatrixPart{Data: data.Buf.data[guard : guard+n*k*4], DType: F32, Rows: n})
			r.ok(err)
			out := r.raw(F32, rows, n, 0)
			r.ok(MatMul(r.s, out, x, m))
			for i := range rows {
				for j := range n {
					f := out.f32(i)[j]
					bad := i == 1 || i == 2 || j == 7 || j == 69
					if bad != (f != f) || !bad && (i == 3 || j == 8) && f != 0 || !bad && math.IsInf(float64(f), 0) {
						r.Fatalf("%v: out[%d,%d] is %v", dt, i, j, f)
					}
				}
			}
			r.ok(m.Close())
		}
	})
}
