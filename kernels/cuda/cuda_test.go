//go:build cuda

package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gorgonia.org/cu"

	"pagoda/kernels/cudrv"
)

// rig is a device with a stream, and what a test needs of random matrices.
type rig struct {
	testing.TB
	*rand.Rand
	dev *cudrv.Device
	s   *cudrv.Stream
	k   *Kernels
	a   cudrv.Args
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if err := cudrv.Available(); err != nil {
		t.Skip(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := &rig{TB: t, Rand: rand.New(rand.NewPCG(seed, 0))}
	var err error
	r.dev, err = cudrv.Open(0)
	r.ok(err)
	t.Cleanup(func() { r.ok(r.dev.Close()) })
	r.k, err = Load(r.dev)
	r.ok(err)
	t.Cleanup(func() { r.ok(r.k.Close()) })
	r.s, err = r.dev.NewStream()
	r.ok(err)
	t.Cleanup(func() { r.ok(r.s.Close()) })
	return r
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) alloc(bytes int) *cudrv.Memory {
	r.Helper()
	m, err := r.dev.Alloc(bytes)
	r.ok(err)
	r.Cleanup(func() { r.ok(m.Free()) })
	return m
}

// random returns a matrix of bfloat16 in [-1, 1), on the host and on the device.
func (r *rig) random(n int) ([]uint16, *cudrv.Memory) {
	r.Helper()
	host := make([]uint16, n)
	for i := range host {
		host[i] = uint16(math.Float32bits(r.Float32()*2-1) >> 16)
	}
	m := r.alloc(2 * n)
	r.ok(m.Write(0, bytesOf(host)))
	return host, m
}

func bytesOf(v []uint16) []byte {
	out := make([]byte, 0, 2*len(v))
	for _, x := range v {
		out = binary.LittleEndian.AppendUint16(out, x)
	}
	return out
}

func (r *rig) read(m *cudrv.Memory, n int) []uint16 {
	r.Helper()
	raw := make([]byte, 2*n)
	r.ok(m.Read(0, raw))
	out := make([]uint16, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint16(raw[2*i:])
	}
	return out
}

func float(b uint16) float64 { return float64(math.Float32frombits(uint32(b) << 16)) }

// compare holds up to `most` random elements of out to sums in float64. What float32 sums and one rounding to bfloat16
// may be off is 2^-8 of the result and 2^-20 of the sum of magnitudes.
func (r *rig) compare(out, x, w []uint16, M, N, K, most int) {
	r.Helper()
	for range min(most, M*N) {
		m, n := r.IntN(M), r.IntN(N)
		var sum, size float64
		for k := range K {
			p := float(x[m*K+k]) * float(w[n*K+k])
			sum += p
			size += math.Abs(p)
		}
		got := float(out[m*N+n])
		if !(math.Abs(got-sum) <= math.Abs(sum)/256+size/(1<<20)) {
			r.Fatalf("M %d N %d K %d: out[%d, %d] = %g, want %g", M, N, K, m, n, got, sum)
		}
	}
}

// unset fills m with NaN, so that what is not written is seen.
func (r *rig) unset(m *cudrv.Memory) {
	r.Helper()
	r.ok(r.s.Fill(m, 0xff))
}

func TestMatMulFew(t *testing.T) {
	r := newRig(t)
	shapes := [][2]int{{16, 32}, {896, 896}, {1152, 896}, {896, 4864}, {4096, 4096}, {2048, 14336}, {16 * (1 + r.IntN(300)), 32 * (1 + r.IntN(200))}}
	for _, shape := range shapes {
		N, K := shape[0], shape[1]
		w, dw := r.random(N * K)
		x, dx := r.random(MaxFewRows * K)
		dout := r.alloc(2 * MaxFewRows * N)
		var whole []uint16
		for _, M := range []int{MaxFewRows, 1, 2, 7, 8, 9, 16, 17, 1 + r.IntN(MaxFewRows)} {
			r.unset(dout)
			r.ok(r.k.MatMulFew(r.s, &r.a, dout.Ptr(), dx.Ptr(), dw.Ptr(), M, N, K))
			r.ok(r.s.Sync())
			out := r.read(dout, MaxFewRows*N)
			r.compare(out[:M*N], x, w, M, N, K, 2000)
			for i, v := range out[M*N:] {
				if v != 0xffff {
					t.Fatalf("M %d N %d K %d wrote beyond its rows, at %d", M, N, K, i)
				}
			}
			if whole == nil {
				whole = out
			}
			if !slices.Equal(out[:M*N], whole[:M*N]) {
				t.Fatalf("N %d K %d: %d rows have other results than %d", N, K, M, MaxFewRows)
			}
		}
	}
}

func TestMatMulWide(t *testing.T) {
	r := newRig(t)
	if !r.k.Wide() {
		t.Skip("the GPU has no wgmma: compute capability is not 9.0")
	}
	shapes := [][3]int{{1, 2, 8}, {128, 256, 64}, {129, 258, 72}, {33, 896, 4864}, {512, 1152, 896}, {1000, 4096, 4096}, {4500, 6016, 512},
		{1 + r.IntN(3000), 2 * (1 + r.IntN(2000)), 8 * (1 + r.IntN(500))}}
	for _, shape := range shapes {
		M, N, K := shape[0], shape[1], shape[2]
		w, dw := r.random(N * K)
		x, dx := r.random(M * K)
		dout := r.alloc(2*M*N + 512)
		weights, err := r.k.Weights(dw.Ptr(), N, K)
		r.ok(err)
		var whole []uint16
		for i, rows := range []int{M, M, M, 1, (M + 1) / 2} {
			r.unset(dout)
			if i < len(wideForms) { // all forms give the same
				r.ok(r.k.launchWide(r.s, &r.a, wideForms[i], dout.Ptr(), dx.Ptr(), weights, rows))
			} else {
				r.ok(r.k.MatMulWide(r.s, &r.a, dout.Ptr(), dx.Ptr(), weights, rows))
			}
			r.ok(r.s.Sync())
			out := r.read(dout, M*N+256)
			r.compare(out[:rows*N], x, w, rows, N, K, 4000)
			for i, v := range out[rows*N:] {
				if v != 0xffff {
					t.Fatalf("M %d N %d K %d wrote beyond its rows, at %d", rows, N, K, i)
				}
			}
			if whole == nil {
				whole = out
				for i, v := range out[:M*N] {
					if v == 0xffff {
						t.Fatalf("M %d N %d K %d: out[%d] is not written", M, N, K, i)
					}
				}
			}
			if !slices.Equal(out[:rows*N], whole[:rows*N]) {
				t.Fatalf("N %d K %d: %d rows have other results than %d", N, K, rows, M)
			}
		}
	}
}

func TestShapes(t *testing.T) {
	r := newRig(t)
	for _, s := range [][3]int{{0, 16, 32}, {33, 16, 32}, {1, 8, 32}, {1, 16, 16}, {1, 0, 32}, {1, 16, 0}} {
		if err := r.k.MatMulFew(r.s, &r.a, 0, 0, 0, s[0], s[1], s[2]); !errors.Is(err, ErrShape) {
			t.Errorf("few %v: %v", s, err)
		}
	}
	for _, s := range [][2]int{{3, 8}, {2, 4}, {0, 8}, {2, 0}} {
		if _, err := r.k.Weights(0, s[0], s[1]); !errors.Is(err, ErrShape) {
			t.Errorf("weights %v: %v", s, err)
		}
	}
}

// decode launches the products of `layers` layers of Qwen2.5-0.5B for M rows, one after the other, as a step of decoding
// does.
func decode(r *rig, layers, M int) (step func() error, launches int) {
	const hidden, kv, ffn = 896, 128, 4864
	_, x := r.random(MaxFewRows * ffn)
	out := r.alloc(2 * MaxFewRows * 2 * ffn)
	shapes := [][2]int{{hidden + 2*kv, hidden}, {hidden, hidden}, {2 * ffn, hidden}, {hidden, ffn}}
	weights := make([][]*cudrv.Memory, layers)
	for l := range weights {
		for _, s := range shapes {
			w := r.alloc(2 * s[0] * s[1])
			r.ok(r.s.Fill(w, 0))
			weights[l] = append(weights[l], w)
		}
	}
	return func() error {
		for _, ws := range weights {
			for i, s := range shapes {
				if err := r.k.MatMulFew(r.s, &r.a, out.Ptr(), x.Ptr(), ws[i].Ptr(), M, s[0], s[1]); err != nil {
					return err
				}
			}
		}
		return nil
	}, layers * len(shapes)
}

// TestGraph: a recorded step gives what the launches give, as often as it is launched, with new input.
func TestGraph(t *testing.T) {
	r := newRig(t)
	const M, N, K = 3, 1024, 2048
	w, dw := r.random(N * K)
	x, dx := r.random(M * K)
	dout := r.alloc(2 * M * N)
	r.ok(r.s.BeginCapture())
	r.ok(r.k.MatMulFew(r.s, &r.a, dout.Ptr(), dx.Ptr(), dw.Ptr(), M, N, K))
	g, err := r.s.EndCapture()
	r.ok(err)
	defer g.Close()
	for range 3 {
		r.unset(dout)
		r.ok(g.Launch(r.s))
		r.ok(r.s.Sync())
		r.compare(r.read(dout, M*N), x, w, M, N, K, 2000)
		for i := range x {
			x[i] = uint16(math.Float32bits(r.Float32()*2-1) >> 16)
		}
		r.ok(dx.Write(0, bytesOf(x)))
	}
}

// timed is the time of one call on the device, the least of some rounds, each of so many calls that a round takes a few
// milliseconds.
func (r *rig) timed(call func() error) time.Duration {
	r.Helper()
	from, err := r.dev.NewEvent()
	r.ok(err)
	to, err := r.dev.NewEvent()
	r.ok(err)
	defer from.Close()
	defer to.Close()
	round := func(n int) time.Duration {
		r.ok(from.Record(r.s))
		for range n {
			r.ok(call())
		}
		r.ok(to.Record(r.s))
		r.ok(to.Sync())
		d, err := to.Since(from)
		r.ok(err)
		return d
	}
	round(1)
	n := max(1, int(5*time.Millisecond/max(round(1), time.Microsecond)))
	best := time.Duration(math.MaxInt64)
	for range 7 {
		best = min(best, round(n)/time.Duration(n))
	}
	return best
}

// TestReport prints what docs/gpu.md holds: the limits of the machine, and each kernel beside them.
func TestReport(t *testing.T) {
	r := newRig(t)
	major, minor := r.dev.Capability()
	free, total, err := r.dev.Memory()
	r.ok(err)
	fmt.Printf("%s, compute capability %d.%d, %d multiprocessors, L2 %d MiB, shared memory of a block %d KiB, memory %d of %d MiB free, driver's CUDA %d\n",
		r.dev.Name(), major, minor, r.dev.Multiprocessors(), r.dev.L2()>>20, r.dev.SharedPerBlock()>>10, free>>20, total>>20, r.dev.DriverVersion())

	const bytes = 4 << 30
	big, sum := r.alloc(bytes), r.alloc(4)
	r.ok(r.s.Fill(big, 1))
	limit := float64(bytes) / r.timed(func() error { return r.k.readBytes(r.s, &r.a, sum.Ptr(), big.Ptr(), bytes) }).Seconds()
	fmt.Printf("reading %d MiB: %.0f GB/s\n", bytes>>20, limit/1e9)
	fill := float64(bytes) / r.timed(func() error { return r.s.Fill(big, 1) }).Seconds()
	fmt.Printf("filling %d MiB: %.0f GB/s\n", bytes>>20, fill/1e9)

	fmt.Println("\nfew rows, bfloat16 (weights in turn from 4 GiB, so that the cache has none)")
	for _, s := range []struct {
		name string
		n, k int
	}{{"0.5B qkv", 1152, 896}, {"0.5B gate up", 9728, 896}, {"0.5B down", 896, 4864}, {"8B qkv", 6144, 4096}, {"8B out", 4096, 4096}, {"8B gate up", 28672, 4096},
		{"8B down", 4096, 14336}, {"8B head", 128256, 4096}} {
		_, x := r.random(MaxFewRows * s.k)
		out := r.alloc(2 * MaxFewRows * s.n)
		one := 2 * s.n * s.k
		line := fmt.Sprintf("%-13s %6d x %5d", s.name, s.n, s.k)
		for _, M := range []int{1, 8, 16, 32} {
			at := 0
			d := r.timed(func() error {
				if at+one > bytes {
					at = 0
				}
				p := big.Ptr() + cu.DevicePtr(at)
				at += one
				return r.k.MatMulFew(r.s, &r.a, out.Ptr(), x.Ptr(), p, M, s.n, s.k)
			})
			line += fmt.Sprintf("   M %2d: %7.2f us %5.1f %%", M, float64(d)/1e3, 100*float64(one)/d.Seconds()/limit)
		}
		fmt.Println(line)
	}

	fmt.Println("\na step of 24 layers of Qwen2.5-0.5B, products only, 1 row")
	step, launches := decode(r, 24, 1)
	start := time.Now()
	const steps = 20
	for range steps {
		r.ok(step())
	}
	host := time.Since(start) / steps / time.Duration(launches)
	r.ok(r.s.Sync())
	stream := r.timed(step)
	r.ok(r.s.BeginCapture())
	r.ok(step())
	g, err := r.s.EndCapture()
	r.ok(err)
	defer g.Close()
	start = time.Now()
	for range steps {
		r.ok(g.Launch(r.s))
	}
	hostGraph := time.Since(start) / steps
	r.ok(r.s.Sync())
	graph := r.timed(func() error { return g.Launch(r.s) })
	fmt.Printf("%d launches: %v of host time each, %v the step; as a graph %v of host time, %v the step\n", launches, host, stream, hostGraph, graph)
	weightBytes := 24 * 2 * (1152*896 + 896*896 + 9728*896 + 896*4864)
	fmt.Printf("its weights at the memory's limit: %v\n", time.Duration(float64(weightBytes)/limit*1e9))

	if !r.k.Wide() {
		return
	}
	fmt.Println("\nmany rows, bfloat16, random values, by the columns of a tile; * is what is chosen")
	for _, s := range [][3]int{{64, 4096, 4096}, {128, 4096, 4096}, {256, 4096, 4096}, {512, 4096, 4096}, {512, 6144, 4096}, {512, 28672, 4096}, {512, 4096, 14336}, {2048, 6144, 4096}, {2048, 28672, 4096}, {2048, 4096, 14336}, {512, 9728, 896}, {4096, 4096, 4096}, {8192, 8192, 8192}} {
		M, N, K := s[0], s[1], s[2]
		_, x := r.random(M * K)
		_, w := r.random(N * K)
		out := r.alloc(2 * M * N)
		weights, err := r.k.Weights(w.Ptr(), N, K)
		r.ok(err)
		line := fmt.Sprintf("M %5d N %5d K %5d", M, N, K)
		for _, f := range wideForms {
			d := r.timed(func() error { return r.k.launchWide(r.s, &r.a, f, out.Ptr(), x.Ptr(), weights, M) })
			line += fmt.Sprintf("   %3d columns: %8.2f us %4.0f TFLOP/s", f.columns, float64(d)/1e3, 2*float64(M)*float64(N)*float64(K)/d.Seconds()/1e12)
			if f == wideFor(M, N, r.dev.Multiprocessors()) {
				line += " *"
			}
		}
		fmt.Println(line)
	}
}

// TestForms: forms with as many warps have the same results, and none spills; their times are printed.
func TestForms(t *testing.T) {
	r := newRig(t)
	for f, k := range r.k.few {
		if local, err := k.LocalBytes(); err != nil || local > 0 {
			t.Errorf("%+v: %d bytes of local memory, %v", f, local, err)
		}
	}
	const bytes = 1 << 30
	big := r.alloc(bytes)
	r.ok(r.s.Fill(big, 0))
	for _, shape := range [][2]int{{1152, 896}, {9728, 896}, {896, 4864}, {6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}, {48, 160},
		{16 * (1 + r.IntN(300)), 32 * (1 + r.IntN(200))}} {
		N, K := shape[0], shape[1]
		w, dw := r.random(N * K)
		x, dx := r.random(MaxFewRows * K)
		dout := r.alloc(2 * MaxFewRows * N)
		whole := map[int][]uint16{}
		for _, f := range fewForms {
			M := 8 * f.groups
			r.unset(dout)
			r.ok(r.k.launchFew(r.s, &r.a, f, dout.Ptr(), dx.Ptr(), dw.Ptr(), M, N, K))
			r.ok(r.s.Sync())
			out := r.read(dout, M*N)
			r.compare(out, x, w, M, N, K, 500)
			if whole[f.warps] == nil {
				whole[f.warps] = out
			} else if n := 8 * N; !slices.Equal(out[:n], whole[f.warps][:n]) {
				t.Errorf("%+v, N %d K %d: other results", f, N, K)
			}
			at, one := 0, 2*N*K
			d := r.timed(func() error {
				if at+one > bytes {
					at = 0
				}
				p := big.Ptr() + cu.DevicePtr(at)
				at += one
				return r.k.launchFew(r.s, &r.a, f, dout.Ptr(), dx.Ptr(), p, M, N, K)
			})
			if testing.Verbose() {
				fmt.Printf("N %6d K %6d %+v: %7.2f us %5.0f GB/s\n", N, K, f, float64(d)/1e3, float64(one)/d.Seconds()/1e9)
			}
		}
	}
}
