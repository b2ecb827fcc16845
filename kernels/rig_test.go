package kernels

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// rig makes random tensors with canaries around them on one device.
type rig struct {
	*testing.T
	*rand.Rand
	dev *Device
	s   *Stream
}

// freshSeed gives other numbers on every run, and says which.
func freshSeed(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// eachVariant runs a test on every variant of this machine, with 1 to 3 threads as the fresh seed says.
func eachVariant(t *testing.T, f func(r *rig)) {
	t.Helper()
	for _, v := range Variants() {
		t.Run(v, func(t *testing.T) {
			rng := freshSeed(t)
			f(newRig(t, rng, v, 1+rng.IntN(3)))
		})
	}
}

func newRig(t *testing.T, rng *rand.Rand, variant string, threads int) *rig {
	t.Helper()
	dev, err := OpenCPU(CPUOptions{Variant: variant, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, Rand: rng, dev: dev, s: dev.NewStream()}
	t.Cleanup(func() { // registered first, so it runs after the buffers' own
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

const canary, guard = 0xa5, 64

// raw returns a view, pad elements between its rows and guards around it, all canaries.
func (r *rig) raw(dt DType, rows, cols, pad int) Tensor {
	r.Helper()
	size := rows * (cols + pad) * dt.Size()
	b, err := r.dev.Alloc(guard + size + guard)
	r.ok(err)
	r.Cleanup(func() { r.ok(b.Close()) })
	for i := range b.data {
		b.data[i] = canary
	}
	return Tensor{Buf: b, Off: guard, DType: dt, Rows: rows, Cols: cols, Stride: cols + pad}
}

// random returns a view of standard normal numbers with a random pad.
func (r *rig) random(dt DType, rows, cols int) Tensor {
	r.Helper()
	t := r.raw(dt, rows, cols, r.IntN(3)*5)
	for i := range rows {
		row := make([]float32, cols)
		for j := range row {
			row[j] = float32(r.NormFloat64())
		}
		storeRow(t, i, row)
	}
	return t
}

func (r *rig) ints(v ...int32) Tensor {
	t := r.raw(I32, 1, len(v), 0)
	copy(t.ints(0), v)
	return t
}

// clone copies a view with all that is around it.
func (r *rig) clone(t Tensor) Tensor {
	b, err := r.dev.Alloc(t.Buf.Len())
	r.ok(err)
	r.Cleanup(func() { r.ok(b.Close()) })
	r.ok(b.Write(0, t.Buf.Bytes()))
	t.Buf = b
	return t
}

// pick copies rows of t into a new contiguous tensor.
func (r *rig) pick(t Tensor, rows []int32) Tensor {
	out := r.raw(t.DType, len(rows), t.Cols, 0)
	r.ok(refBackend{}.gather(out, t, r.ints(rows...)))
	return out
}

func (r *rig) matrix(dt DType, n, k int) *Matrix {
	r.Helper()
	data := r.raw(F32, n, k, 0)
	for i := range n {
		for j := range data.f32(i) {
			data.f32(i)[j] = float32(r.NormFloat64())
		}
	}
	var p MatrixPart
	if n > 0 {
		p = MatrixPart{Data: data.Buf.data[guard : guard+n*k*4], DType: F32, Rows: n}
	}
	m, err := r.dev.PackMatrix(dt, k, p)
	r.ok(err)
	r.Cleanup(func() { r.ok(m.Close()) })
	return m
}

// values reads a tensor row by row.
func values(t Tensor) [][]float32 {
	out := make([][]float32, t.Rows)
	for i := range out {
		out[i] = make([]float32, t.Cols)
		loadRow(out[i], t, i)
	}
	return out
}

// near checks got against want, which the reference computed in its place: tol(row, col) is the allowed difference
// before rounding to the output's dtype. What lies around the view must be as it was.
func (r *rig) near(name string, got, want Tensor, tol func(i, j int) float64) {
	r.Helper()
	g, w := values(got), values(want)
	for i := range g {
		for j := range g[i] {
			a, b := float64(g[i][j]), float64(w[i][j])
			limit := tol(i, j)
			if got.DType == BF16 {
				limit += math.Abs(b) / 128 // 8 bits, and a tie may fall to either side
			}
			if !(math.Abs(a-b) <= limit) {
				r.Fatalf("%s[%d,%d] = %v, want %v within %v", name, i, j, a, b, limit)
			}
		}
	}
	r.intact(name, got)
}

// intact checks the canaries around a view of raw.
func (r *rig) intact(name string, t Tensor) {
	r.Helper()
	size := t.DType.Size()
	for at, b := range t.Buf.data {
		row, col := 0, 0
		if t.Stride > 0 {
			row, col = (at-guard)/(t.Stride*size), (at-guard)%(t.Stride*size)
		}
		inside := at >= guard && row < t.Rows && col < t.Cols*size
		if !inside && b != canary {
			r.Fatalf("%s: byte %d outside the view was written", name, at)
		}
	}
}

func (r *rig) same(name string, got, want Tensor) {
	r.Helper()
	for i := range got.Rows {
		size := got.DType.Size()
		g := got.Buf.data[got.Off+i*got.Stride*size:][:got.Cols*size]
		w := want.Buf.data[want.Off+i*want.Stride*size:][:want.Cols*size]
		if !bytes.Equal(g, w) {
			r.Fatalf("%s: row %d is not the same bit for bit", name, i)
		}
	}
}

// subsets are batches of rows out of n: single ones, random ones with repeats, all reversed.
func (r *rig) subsets(n int) [][]int32 {
	sets := [][]int32{{int32(r.IntN(n))}, {int32(n - 1)}}
	for _, size := range []int{2, 3, 5, 7, 8, 13} {
		set := make([]int32, size)
		for i := range set {
			set[i] = int32(r.IntN(n))
		}
		sets = append(sets, set)
	}
	all := make([]int32, n)
	for i := range all {
		all[i] = int32(n - 1 - i)
	}
	return append(sets, all)
}

// eachThreads runs a test for every variant on rigs of 1, 2 and 3 threads.
func eachThreads(t *testing.T, f func(rigs []*rig)) {
	t.Helper()
	for _, v := range Variants() {
		t.Run(v, func(t *testing.T) {
			rng := freshSeed(t)
			var rigs []*rig
			for threads := 1; threads <= 3; threads++ {
				rigs = append(rigs, newRig(t, rng, v, threads))
			}
			f(rigs)
		})
	}
}
