package kernels

import (
	"errors"
	"fmt"
	"math"
	"testing"
)

// sumTol bounds the error of a float32 chain of k multiply-adds: rounding errors of half a unit each add up like a
// random walk over partial sums no greater than total = sum |x||w|.
func sumTol(k int, total float64) float64 { return (4 + math.Sqrt(float64(k))) * 0x1p-24 * total }

func absDot(x, w []float32) float64 {
	sum := 0.0
	for i := range x {
		sum += math.Abs(float64(x[i]) * float64(w[i]))
	}
	return sum
}

// productTol is sumTol for every element of x times m.
func productTol(x Tensor, m *Matrix) func(i, j int) float64 {
	xs, w := values(x), make([][]float32, m.n)
	for n := range w {
		w[n] = make([]float32, m.k)
		m.loadRow(w[n], n)
	}
	return func(i, j int) float64 { return sumTol(m.k, absDot(xs[i], w[j])) + 1e-30 }
}

func TestMatMul(t *testing.T) {
	shapes := []struct{ rows, n, k int }{
		{0, 5, 3}, {1, 1, 1}, {1, 64, 2}, {1, 65, 33}, {2, 63, 64}, {3, 17, 100}, {4, 130, 129}, {5, 40, 7},
		{6, 64, 31}, {7, 200, 65}, {8, 129, 128}, {13, 97, 300}, {50, 70, 2500}, {9, 1000, 40},
	}
	eachVariant(t, func(r *rig) {
		for _, s := range shapes {
			for _, wt := range []DType{BF16, F16, F32, W8, W4} {
				for _, xt := range []DType{F32, BF16} {
					m := r.matrix(wt, s.n, s.k)
					x, out := r.random(xt, s.rows, s.k), r.raw(F32, s.rows, s.n, r.IntN(2)*3)
					r.ok(MatMul(r.s, out, x, m))
					want := r.clone(out)
					r.ok(refBackend{}.matMul(want, x, m))
					name := fmt.Sprintf("%d rows, [%d, %d], x %v, w %v", s.rows, s.n, s.k, xt, wt)
					r.near(name, out, want, productTol(x, m))
				}
			}
		}
	})
}

func TestMatMulBatchInvariance(t *testing.T) {
	shapes := []struct{ rows, n, k int }{{40, 130, 77}, {20, 64, 5000}, {150, 200, 64}}
	eachThreads(t, func(rigs []*rig) {
		for _, s := range shapes {
			for _, wt := range []DType{BF16, F16, F32, W8, W4} {
				for _, xt := range []DType{F32, BF16} {
					r := rigs[0]
					m, x := r.matrix(wt, s.n, s.k), r.random(xt, s.rows, s.k)
					all := r.raw(F32, s.rows, s.n, 0)
					r.ok(MatMul(r.s, all, x, m))
					for _, rows := range r.subsets(s.rows) {
						for _, other := range rigs {
							out := r.raw(F32, len(rows), s.n, 0)
							r.ok(MatMul(other.s, out, r.pick(x, rows), m))
							r.same(fmt.Sprintf("%v, %v x %v, %d rows, %d threads", s, xt, wt, len(rows), other.dev.threads),
								out, r.pick(all, rows))
						}
					}
				}
			}
		}
	})
}

func TestPackMatrix(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const k = 131
		for _, dt := range []DType{BF16, F16, F32} {
			var parts []MatrixPart
			var want [][]float32
			for i, src := range []DType{F32, BF16, F16, dt} {
				p := MatrixPart{DType: src, Rows: 1 + i*50}
				for range p.Rows * k {
					f := float32(r.NormFloat64() * math.Pow(2, r.Float64()*60-45)) // subnormal and infinite as F16
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
				for row := range p.Rows {
					w := make([]float32, k)
					for j := range w {
						w[j] = p.value(row*k + j)
						switch dt {
						case BF16:
							w[j] = fromBF16(toBF16(w[j]))
						case F16:
							w[j] = fromF16(toF16(w[j]))
						}
					}
					want = append(want, w)
				}
				parts = append(parts, p)
			}
			m, err := r.dev.PackMatrix(dt, k, parts...)
			r.ok(err)
			got := make([]float32, k)
			for n := range want {
				m.loadRow(got, n)
				for j := range got {
					if got[j] != want[n][j] {
						r.Fatalf("%v [%d,%d] = %v, want %v", dt, n, j, got[j], want[n][j])
					}
				}
			}
			if m.N() != len(want) || m.K() != k || m.DType() != dt || m.Bytes() != int64(m.buf.Len()) {
				r.Errorf("matrix says [%d, %d] %v, %d bytes", m.N(), m.K(), m.DType(), m.Bytes())
			}
			r.ok(m.Close())
		}
	})
}

// A mapped matrix gives the bits of a packed one.
func TestMapMatrix(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const k = 75
		for _, dt := range []DType{BF16, F16, F32} {
			var parts []MatrixPart
			for _, rows := range []int{3, 0, 70, 1, 90} {
				stored := r.raw(F32, rows*k*dt.Size()+1, 1, 0) // room at an odd address
				p := MatrixPart{Data: stored.Buf.data[guard+1:][:rows*k*dt.Size()], DType: dt, Rows: rows}
				for i := range rows * k {
					f := float32(r.NormFloat64())
					b := uint64(math.Float32bits(f))
					switch dt {
					case BF16:
						b = uint64(toBF16(f))
					case F16:
						b = uint64(toF16(f))
					}
					for j := range dt.Size() {
						p.Data[i*dt.Size()+j] = byte(b >> (8 * j))
					}
				}
				parts = append(parts, p)
			}
			packed, err := r.dev.PackMatrix(dt, k, parts...)
			r.ok(err)
			mapped, err := r.dev.MapMatrix(dt, k, parts...)
			r.ok(err)
			if mapped.Bytes() != int64(164*k*dt.Size()) || mapped.N() != 164 || mapped.K() != k || mapped.DType() != dt {
				r.Errorf("mapped matrix says [%d, %d] %v, %d bytes", mapped.N(), mapped.K(), mapped.DType(), mapped.Bytes())
			}
			for _, rows := range []int{1, 5, 9, 60} {
				for _, xt := range []DType{F32, BF16} {
					x, want, got := r.random(xt, rows, k), r.raw(F32, rows, 164, 0), r.raw(F32, rows, 164, 0)
					r.ok(MatMul(r.s, want, x, packed))
					r.ok(MatMul(r.s, got, x, mapped))
					r.same(fmt.Sprintf("%v, %d rows", dt, rows), got, want)
				}
			}
			ids, want, got := r.ints(0, 163, 2, 3, 73), r.raw(F32, 5, k, 0), r.raw(F32, 5, k, 0)
			r.ok(Embed(r.s, want, packed, ids))
			r.ok(Embed(r.s, got, mapped, ids))
			r.same("embed", got, want)
			r.ok(errors.Join(packed.Close(), mapped.Close()))
			if _, err := r.dev.MapMatrix(W8, k, parts...); !errors.Is(err, ErrDType) {
				r.Errorf("mapped as int8: %v", err)
			}
			if _, err := r.dev.MapMatrix(dt, k+1, parts...); !errors.Is(err, ErrShape) {
				r.Errorf("mapped with a wrong K: %v", err)
			}
		}
	})
}

func TestPackMatrixErrors(t *testing.T) {
	r := newRig(t, nil, "ref", 1)
	for _, c := range []struct {
		name string
		dt   DType
		k    int
		part MatrixPart
		want error
	}{
		{"to I32", I32, 2, MatrixPart{make([]byte, 8), F32, 1}, ErrDType},
		{"from I32", F32, 2, MatrixPart{make([]byte, 8), I32, 1}, ErrDType},
		{"short", F32, 2, MatrixPart{make([]byte, 7), F32, 1}, ErrShape},
		{"long", BF16, 2, MatrixPart{make([]byte, 6), BF16, 1}, ErrShape},
		{"no rows", BF16, 2, MatrixPart{nil, BF16, 0}, ErrShape},
		{"negative rows", BF16, 2, MatrixPart{nil, BF16, -1}, ErrShape},
		{"no k", BF16, 0, MatrixPart{nil, BF16, 1}, ErrShape},
	} {
		if _, err := r.dev.PackMatrix(c.dt, c.k, c.part); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if n := r.dev.Allocated(); n != 0 {
		t.Errorf("%d bytes left", n)
	}
}

func TestFloat16(t *testing.T) {
	for h := range 1 << 16 {
		f := fromF16(uint16(h))
		if back := toF16(f); f == f && back != uint16(h) {
			t.Fatalf("float16 %#x is %v, back %#x", h, f, back)
		}
		b := fromBF16(uint16(h))
		if back := toBF16(b); b == b && back != uint16(h) {
			t.Fatalf("bfloat16 %#x is %v, back %#x", h, b, back)
		}
	}
	for _, c := range []struct {
		in   float32
		want uint16
	}{{1 + 0x1p-11, 0x3c00}, {1 + 3*0x1p-11, 0x3c02}, {65519, 0x7bff}, {65520, 0x7c00}, {0x1p-25, 0}, {3 * 0x1p-26, 1}} {
		if got := toF16(c.in); got != c.want {
			t.Errorf("toF16(%v) = %#x, want %#x", c.in, got, c.want)
		}
	}
	nan := float32(math.NaN())
	if f := fromBF16(toBF16(nan)); f == f {
		t.Error("bfloat16 lost NaN")
	}
	if f := fromF16(toF16(nan)); f == f {
		t.Error("float16 lost NaN")
	}
}
