package kernels

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// The variant to measure is PAGODA_KERNELS_VARIANT, else the best one.
func benchDevice(b *testing.B, threads int) *Device {
	b.Helper()
	d, err := OpenCPU(CPUOptions{Threads: threads, Variant: os.Getenv("PAGODA_KERNELS_VARIANT")})
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

func benchMatrix(b *testing.B, d *Device, dt DType, n, k int) *Matrix {
	b.Helper()
	data := make([]byte, n*k*2)
	for i := range data {
		data[i] = byte(rand.Uint32()) & 0x3f // small finite numbers
	}
	m, err := d.PackMatrix(dt, k, MatrixPart{Data: data, DType: BF16, Rows: n})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	return m
}

// The products of Qwen2.5-0.5B. GB/s are of weights; several copies of a small matrix are taken in turn, so that they
// come from memory as in a model.
func BenchmarkMatMul(b *testing.B) {
	shapes := []struct {
		name string
		n, k int
	}{{"qkv", 1152, 896}, {"o", 896, 896}, {"gate_up", 2 * 4864, 896}, {"down", 896, 4864}, {"head", 151936, 896}}
	for _, types := range []struct{ x, w DType }{{BF16, BF16}, {F32, BF16}, {F32, F32}, {BF16, F16}} {
		for _, s := range shapes {
			for _, rows := range []int{1, 2, 4, 8, 16, 32, 128, 512} {
				b.Run(fmt.Sprintf("x=%v/w=%v/%s/rows=%d", types.x, types.w, s.name, rows), func(b *testing.B) {
					d := benchDevice(b, 0)
					copies := 1
					if rows <= 32 {
						copies = 1 + (96<<20)/(s.n*s.k*types.w.Size())
					}
					var ms []*Matrix
					for range copies {
						ms = append(ms, benchMatrix(b, d, types.w, s.n, s.k))
					}
					x, out, st := benchTensor(b, d, types.x, rows, s.k), benchTensor(b, d, F32, rows, s.n), d.NewStream()
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						if err := MatMul(st, out, x, ms[i%copies]); err != nil {
							b.Fatal(err)
						}
						i++
					}
					seconds := b.Elapsed().Seconds() / float64(b.N)
					b.ReportMetric(float64(ms[0].Bytes())/1e9/seconds, "GB/s")
					b.ReportMetric(2*float64(rows*s.n*s.k)/1e9/seconds, "GFLOP/s")
				})
			}
		}
	}
}

func BenchmarkAttention(b *testing.B) {
	for _, s := range []struct {
		name            string
		queries, seqLen int
	}{{"decode/1k", 1, 1024}, {"decode/8k", 1, 8192}, {"prefill/512", 512, 512}, {"prefill/512at8k", 512, 8192}} {
		for _, dt := range []DType{BF16, F32} {
			b.Run(fmt.Sprintf("%s/%v", s.name, dt), func(b *testing.B) {
				const heads, kvHeads, dim = 14, 2, 64
				d := benchDevice(b, 0)
				blocks := s.seqLen / 16
				layers := make([]KVCache, 1+(64<<20)/int(KVCacheBytes(dt, blocks, 16, kvHeads, dim)))
				for i := range layers {
					c, err := NewKVCache(d, dt, blocks, 16, kvHeads, dim)
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { _ = c.Close() })
					for j := range c.K.Buf.data {
						c.K.Buf.data[j], c.V.Buf.data[j] = 0x3c, 0x3c
					}
					layers[i] = c
				}
				q, out := benchTensor(b, d, F32, s.queries, heads*dim), benchTensor(b, d, BF16, s.queries, heads*dim)
				meta := benchTensor(b, d, I32, 1, blocks+8)
				ints := meta.ints(0)
				copy(ints, []int32{0, int32(s.queries), int32(s.seqLen)})
				for i := range blocks {
					ints[8+i] = int32(i)
				}
				batch := AttentionBatch{QueryStarts: meta.Columns(0, 2), SeqLens: meta.Columns(2, 3),
					BlockTables: meta.Columns(8, 8+blocks), NumSeqs: 1, MaxSeqLen: s.seqLen}
				st := d.NewStream()
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if err := PagedAttention(st, out, q, layers[i%len(layers)], batch, heads, 0.125); err != nil {
						b.Fatal(err)
					}
					i++
				}
				seconds := b.Elapsed().Seconds() / float64(b.N)
				b.ReportMetric(float64(KVCacheBytes(dt, blocks, 16, kvHeads, dim))/1e9/seconds, "GB/s")
				seen := float64(s.queries) * (float64(s.seqLen) - float64(s.queries-1)/2)
				b.ReportMetric(4*seen*heads*dim/1e9/seconds, "GFLOP/s")
			})
		}
	}
}

// The small ops of one decode step, for the cost of a call.
func BenchmarkSmall(b *testing.B) {
	d := benchDevice(b, 0)
	st := d.NewStream()
	x, w, out := benchTensor(b, d, F32, 1, 896), benchTensor(b, d, F32, 1, 896), benchTensor(b, d, BF16, 1, 896)
	gateUp, act := benchTensor(b, d, F32, 1, 2*4864), benchTensor(b, d, BF16, 1, 4864)
	for _, op := range []struct {
		name string
		run  func() error
	}{
		{"add", func() error { return Add(st, x, w) }},
		{"rmsnorm", func() error { return RMSNorm(st, out, x, w, 1e-6) }},
		{"silu mul", func() error { return SiLUMul(st, act, gateUp) }},
	} {
		b.Run(op.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := op.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	d := benchDevice(b, 0)
	const n, k = 32 << 10, 896
	data := make([]byte, n*k*2)
	b.SetBytes(n * k * 2)
	for b.Loop() {
		m, err := d.PackMatrix(BF16, k, MatrixPart{Data: data, DType: BF16, Rows: n})
		if err != nil {
			b.Fatal(err)
		}
		_ = m.Close()
	}
}

// BenchmarkLimits reports what the machine can do, to compare the others of the same run with.
func BenchmarkLimits(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprint("threads=", threads), func(b *testing.B) {
			var l Limits
			for b.Loop() {
				var err error
				if l, err = MeasureLimits(threads); err != nil {
					b.Skip(err)
				}
			}
			b.ReportMetric(l.ReadGBs, "GB/s")
			b.ReportMetric(l.F32GFLOPs, "f32-GFLOP/s")
			b.ReportMetric(l.BF16GFLOPs, "bf16-GFLOP/s")
		})
	}
}
