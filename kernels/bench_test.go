//go:build unix

package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Figures are those of a benchmark's fastest pass, beside the machine's limits measured the same way in the same
// process, because others on the machine only ever make both slower. "%mem" is of the read bandwidth, "%flop" of the
// multiply-adds that the op's dtypes allow. GOMAXPROCS in the environment sets the number of threads (not -cpu, which
// comes too late for b.Loop); PAGODA_KERNELS_VARIANT names the variant, else it is the best one.

func benchDevice(b *testing.B) *Device {
	b.Helper()
	d, err := OpenCPU(CPUOptions{Variant: os.Getenv("PAGODA_KERNELS_VARIANT")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	})
	return d
}

// limitsOf measures the limits once per variant and number of threads.
var limitsOf = func() func(b *testing.B, d *Device) Limits {
	var mu sync.Mutex // guards the map
	known := map[CPUOptions]Limits{}
	return func(b *testing.B, d *Device) Limits {
		mu.Lock()
		defer mu.Unlock()
		o := CPUOptions{Threads: d.threads, Variant: d.variant}
		l, ok := known[o]
		if !ok {
			var err error
			if l, err = MeasureLimits(o); err != nil {
				b.Logf("no limits to compare with: %v", err)
			}
			known[o] = l
		}
		return l
	}
}()

// processorTime is what the process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs op until the benchmark ends; i counts its calls. A pass is one call, or as many as take 50 microseconds.
// On one thread a long pass is given the processor time it took: others on the machine do not count, but for the
// memory and caches that they share.
func measure(b *testing.B, op func(i int) error) time.Duration {
	b.Helper()
	calls := 0
	pass := func(n int) time.Duration {
		used := processorTime(b)
		start := time.Now()
		for range n {
			if err := op(calls); err != nil {
				b.Fatal(err)
			}
			calls++
		}
		took := time.Since(start)
		if took > time.Millisecond && runtime.GOMAXPROCS(0) == 1 {
			took = min(took, processorTime(b)-used)
		}
		return took / time.Duration(n)
	}
	pass(1) // grows the scratch memory
	n, best := 1+int(50*time.Microsecond/max(pass(1), 1)), time.Duration(math.MaxInt64)
	b.ReportAllocs()
	for b.Loop() {
		best = min(best, pass(n))
	}
	b.ReportMetric(0, "ns/op") // of a loop's turn, which may be many calls
	b.ReportMetric(float64(best)/1e3, "µs/call")
	return best
}

// report gives the rates of a pass that moved bytes and did flops, and the peak that the flops could have reached.
func report(b *testing.B, d *Device, t time.Duration, bytes, flops, peak float64) {
	b.Helper()
	l := limitsOf(b, d)
	b.ReportMetric(bytes/float64(t), "GB/s")
	if l.ReadGBs > 0 {
		b.ReportMetric(100*bytes/float64(t)/l.ReadGBs, "%mem")
	}
	if flops > 0 {
		b.ReportMetric(flops/float64(t), "GFLOP/s")
	}
	if flops > 0 && peak > 0 {
		b.ReportMetric(100*flops/float64(t)/peak, "%flop")
	}
}

func benchTensor(b *testing.B, d *Device, dt DType, rows, cols int) Tensor {
	b.Helper()
	buf, err := d.Alloc(rows * cols * dt.Size())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = buf.Close() })
	t := NewTensor(buf, 0, dt, rows, cols)
	row := make([]float32, cols)
	for i := range rows {
		for j := range row {
			row[j] = rand.Float32() - 0.5
		}
		if dt != I32 {
			storeRow(t, i, row)
		}
	}
	return t
}

// benchMatrices makes copies of a matrix.
func benchMatrices(b *testing.B, d *Device, copies int, dt DType, n, k int) []*Matrix {
	b.Helper()
	data := make([]byte, n*k*2)
	for i := 0; i < min(len(data), 1<<16); i++ {
		data[i] = byte(rand.Uint32())
		if i%2 == 1 {
			data[i] = data[i]&0x80 | 0x3c // numbers of one size: on Intel one that is subnormal takes the time of a hundred
		}
	}
	for have := 1 << 16; have < len(data); have *= 2 {
		copy(data[have:], data[:have])
	}
	ms := make([]*Matrix, copies)
	for i := range ms {
		m, err := d.PackMatrix(dt, k, MatrixPart{Data: data, DType: BF16, Rows: n})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = m.Close() })
		ms[i] = m
	}
	return ms
}

// Products of the built-in model and of Qwen3 at 0.6 and 8 billion. GB/s are of weights. Small matrices are several
// taken in turn: as much memory as the built-in model has, which a cache of some size holds; else more than any does.
func BenchmarkMatMul(b *testing.B) {
	const demo, large = 8 << 20, 256 << 20
	shapes := []struct {
		name         string
		n, k, memory int
	}{
		{"demo/gate_up", 1024, 256, demo}, {"demo/head", 2048, 256, demo},
		{"0.6B/gate_up", 6144, 1024, large}, {"0.6B/down", 1024, 3072, large},
		{"8B/qkv", 6144, 4096, large}, {"8B/down", 4096, 12288, large},
	}
	for _, s := range shapes {
		for _, types := range []struct{ x, w DType }{{BF16, BF16}, {BF16, W8}, {BF16, W4}, {F32, F32}, {F32, BF16}, {F32, F16}} {
			if types.w != types.x && types.w < W8 && s.name != "0.6B/gate_up" {
				continue
			}
			b.Run(fmt.Sprintf("%s/x=%v/w=%v", s.name, types.x, types.w), func(b *testing.B) {
				d := benchDevice(b)
				ms := benchMatrices(b, d, 1+s.memory/int(MatrixBytes(types.w, s.n, s.k)), types.w, s.n, s.k)
				for _, rows := range []int{1, 2, 4, 8, 32, 128, 512} {
					b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
						x, out, st := benchTensor(b, d, types.x, rows, s.k), benchTensor(b, d, F32, rows, s.n), d.NewStream()
						t := measure(b, func(i int) error { return MatMul(st, out, x, ms[i%len(ms)]) })
						l := limitsOf(b, d)
						peak := l.F32GFLOPs
						if types.x == BF16 && types.w == BF16 && l.BF16GFLOPs > 0 {
							peak = l.BF16GFLOPs
						} else if types.w >= W8 {
							peak = l.Int8GOPs
						}
						report(b, d, t, float64(ms[0].Bytes()), 2*float64(rows)*float64(s.n)*float64(s.k), peak)
					})
				}
			})
		}
	}
}

// BenchmarkMatMulGroups is the gate and up product of Qwen3-30B-A3B's experts, 8 of 128 for each token. GB/s are of the experts
// that some token chose.
func BenchmarkMatMulGroups(b *testing.B) {
	const experts, chosen, n, k = 128, 8, 1536, 2048
	for _, types := range []struct{ x, w DType }{{BF16, BF16}, {BF16, W8}, {BF16, W4}} {
		b.Run(fmt.Sprintf("x=%v/w=%v", types.x, types.w), func(b *testing.B) {
			d := benchDevice(b)
			ms := benchMatrices(b, d, experts, types.w, n, k)
			for _, tokens := range []int{1, 32, 512} {
				b.Run(fmt.Sprintf("tokens=%d", tokens), func(b *testing.B) {
					rows := tokens * chosen
					x, out, st := benchTensor(b, d, types.x, rows, k), benchTensor(b, d, F32, rows, n), d.NewStream()
					// Several routes, so that one token's experts are not in the caches from the call before.
					random := rand.New(rand.NewPCG(1, 2))
					routes, used := make([]Tensor, 16), 0
					for i := range routes {
						routes[i] = benchTensor(b, d, I32, 1, experts+1)
						counts := routes[i].ints(0)
						clear(counts)
						for range tokens {
							for _, e := range random.Perm(experts)[:chosen] {
								counts[e+1]++
							}
						}
						for e := range experts {
							if counts[e+1] > 0 {
								used++
							}
							counts[e+1] += counts[e]
						}
					}
					t := measure(b, func(i int) error { return MatMulGroups(st, out, x, routes[i%len(routes)], ms) })
					l := limitsOf(b, d)
					peak := l.BF16GFLOPs
					if types.w >= W8 {
						peak = l.Int8GOPs
					} else if peak == 0 {
						peak = l.F32GFLOPs
					}
					bytes := float64(ms[0].Bytes()) * float64(used) / float64(len(routes))
					report(b, d, t, bytes, 2*float64(rows)*n*k, peak)
				})
			}
		})
	}
}

// GB/s are of keys and values.
func BenchmarkAttention(b *testing.B) {
	models := []struct {
		name                string
		heads, kvHeads, dim int
	}{{"demo", 8, 2, 32}, {"0.6B", 16, 8, 128}, {"8B", 32, 8, 128}}
	const memory = 512 << 20 // of all layers: more than caches hold
	for _, m := range models {
		for _, s := range []struct {
			name                  string
			seqs, queries, seqLen int
		}{
			{"decode/1x1024", 1, 1, 1024}, {"decode/8x1024", 8, 1, 1024}, {"decode/1x8192", 1, 1, 8192}, {"decode/8x8192", 8, 1, 8192},
			{"prefill/512", 1, 512, 512}, {"prefill/512at8192", 1, 512, 8192},
		} {
			for _, dt := range cacheDTypes {
				b.Run(fmt.Sprintf("%s/%s/%v", m.name, s.name, dt), func(b *testing.B) {
					d := benchDevice(b)
					blocks := s.seqLen / 16 * s.seqs
					one := KVCacheBytes(dt, blocks, 16, m.kvHeads, m.dim, m.dim)
					layers := make([]KVCache, 1+memory/one)
					for i := range layers {
						c, err := NewKVCache(d, dt, blocks, 16, m.kvHeads, m.dim, m.dim)
						if err != nil {
							b.Fatal(err)
						}
						b.Cleanup(func() { _ = c.Close() })
						for j := 0; j < c.K.Buf.Len(); j += 4096 { // so that there is memory behind the address
							copy(c.K.Buf.data[j:], "<<<<") // a normal number in every dtype
							copy(c.V.Buf.data[j:], "<<<<")
						}
						layers[i] = c
					}
					q := benchTensor(b, d, F32, s.seqs*s.queries, m.heads*m.dim)
					out := benchTensor(b, d, BF16, s.seqs*s.queries, m.heads*m.dim)
					starts, lens := benchTensor(b, d, I32, 1, s.seqs+1), benchTensor(b, d, I32, 1, s.seqs)
					tables := benchTensor(b, d, I32, s.seqs, s.seqLen/16)
					for i := range s.seqs {
						starts.ints(0)[i+1], lens.ints(0)[i] = int32((i+1)*s.queries), int32(s.seqLen)
						for j := range tables.ints(i) {
							tables.ints(i)[j] = int32(j*s.seqs + i)
						}
					}
					batch := AttentionBatch{QueryStarts: starts, SeqLens: lens, BlockTables: tables, NumSeqs: s.seqs, MaxSeqLen: s.seqLen}
					st := d.NewStream()
					t := measure(b, func(i int) error {
						return PagedAttention(st, out, q, layers[i%len(layers)], batch, m.heads, AttentionOptions{Scale: 0.125})
					})
					seen := float64(s.seqs*s.queries) * (float64(s.seqLen) - float64(s.queries-1)/2)
					report(b, d, t, float64(one), 4*seen*float64(m.heads*m.dim), limitsOf(b, d).F32GFLOPs)
				})
			}
		}
	}
}

// The ops on rows: one row for the cost of a call, many for their share of a prefill. GB/s are of what is read and
// written; the activations of 512 rows fit the caches, as in a model.
func BenchmarkRows(b *testing.B) {
	const hidden, ff, heads, kvHeads, dim = 1024, 3072, 16, 8, 128
	for _, rows := range []int{1, 8, 512} {
		d := benchDevice(b)
		st := d.NewStream()
		x, y, w := benchTensor(b, d, F32, rows, hidden), benchTensor(b, d, F32, rows, hidden), benchTensor(b, d, F32, 1, hidden)
		out, act := benchTensor(b, d, BF16, rows, hidden), benchTensor(b, d, BF16, rows, ff)
		gateUp := benchTensor(b, d, F32, rows, 2*ff)
		q, k := benchTensor(b, d, F32, rows, heads*dim), benchTensor(b, d, F32, rows, kvHeads*dim)
		wh, table := benchTensor(b, d, F32, 1, dim), benchTensor(b, d, F32, 1024, dim)
		index := benchTensor(b, d, I32, 1, rows)
		for i := range index.ints(0) {
			index.ints(0)[i] = int32(i)
		}
		cache, err := NewKVCache(d, F32, 32, 16, kvHeads, dim, dim)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cache.Close() })
		embedding := benchMatrices(b, d, 1, BF16, 2048, hidden)[0]
		lora := []LoRARun{{0, rows, benchMatrices(b, d, 1, BF16, 16, hidden)[0], benchMatrices(b, d, 1, BF16, ff*2, 16)[0], 2}}
		xb := benchTensor(b, d, BF16, rows, hidden)
		for _, op := range []struct {
			name  string
			bytes int // per row
			run   func() error
		}{
			{"add", 12 * hidden, func() error { return Add(st, x, y) }},
			{"rmsnorm", 6 * hidden, func() error { return RMSNorm(st, out, x, w, 1e-6) }},
			{"add rmsnorm", 14 * hidden, func() error { return AddRMSNorm(st, out, x, y, w, 1e-6) }},
			{"head rmsnorm", 8 * heads * dim, func() error { return HeadRMSNorm(st, q, wh, heads, 1e-6) }},
			{"rope", 8 * heads * dim, func() error { return RoPE(st, q, index, table, heads, Halves) }},
			{"silu mul", 10 * ff, func() error { return GatedMul(st, act, gateUp, SiLU) }},
			{"store kv", 16 * kvHeads * dim, func() error { return StoreKV(st, cache, k, k, index) }},
			{"embed", 6 * hidden, func() error { return Embed(st, x, embedding, index) }},
			{"gather", 4 * hidden, func() error { return Gather(st, out, xb, index) }},
			{"lora", 2*hidden + 16*ff, func() error { return LoRA(st, gateUp, xb, lora) }},
		} {
			b.Run(fmt.Sprintf("%s/rows=%d", op.name, rows), func(b *testing.B) {
				t := measure(b, func(int) error { return op.run() })
				report(b, d, t, float64(rows*op.bytes), 0, 0)
			})
		}
	}
}

func BenchmarkPack(b *testing.B) {
	d := benchDevice(b)
	const n, k = 32 << 10, 1024
	data := make([]byte, n*k*2)
	t := measure(b, func(int) error {
		m, err := d.PackMatrix(BF16, k, MatrixPart{Data: data, DType: BF16, Rows: n})
		if err == nil {
			err = m.Close()
		}
		return err
	})
	report(b, d, t, n*k*4, 0, 0)
}

// BenchmarkLimits reports what the machine can do.
func BenchmarkLimits(b *testing.B) {
	d := benchDevice(b)
	l := limitsOf(b, d)
	for b.Loop() { // measured above, once
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(l.Threads), "threads")
	b.ReportMetric(l.ReadGBs, "GB/s")
	b.ReportMetric(l.F32GFLOPs, "f32-GFLOP/s")
	b.ReportMetric(l.BF16GFLOPs, "bf16-GFLOP/s")
	b.ReportMetric(l.Int8GOPs, "int8-GOP/s")
}
