package kernels

import (
	"bytes"
	"fmt"
	"testing"
)

var cacheDTypes = []DType{F32, BF16, FP8, I8}

// dtypesOf are the dtypes of cache with which a test tries its i-th case: all, or, under an emulator, one after the other.
func dtypesOf(i int) []DType {
	if testing.Short() {
		return cacheDTypes[i%len(cacheDTypes):][:1]
	}
	return cacheDTypes
}

// paged is a batch over one cache: every sequence's keys, values and queries of all its positions.
type paged struct {
	r         *rig
	o         AttentionOptions
	c         KVCache
	heads     int
	k, v, q   []Tensor // per sequence, all positions
	blocks    [][]int32
	maxBlocks int
}

// newPaged stores random sequences into blocks in random order. Unused slots hold NaN.
func newPaged(r *rig, dt DType, blockSize, heads, kvHeads, dim, valueDim int, lens ...int) *paged {
	total := 3
	for _, n := range lens {
		total += (n + blockSize - 1) / blockSize
	}
	c, err := NewKVCache(r.dev, dt, total, blockSize, kvHeads, dim, valueDim)
	r.ok(err)
	r.Cleanup(func() { r.ok(c.Close()) })
	for _, data := range [][]byte{c.K.Buf.data, c.V.Buf.data} {
		for i := range data {
			data[i] = 0xff // NaN in every dtype; of I8 the scales are
		}
	}
	p := &paged{r: r, o: AttentionOptions{Scale: 0.125}, c: c, heads: heads}
	order := r.Perm(total)
	for _, n := range lens {
		need := (n + blockSize - 1) / blockSize
		table := make([]int32, need)
		for i := range table {
			table[i] = int32(order[i])
		}
		order = order[need:]
		k, v := r.random(F32, n, kvHeads*dim), r.random(F32, n, kvHeads*valueDim)
		slots := make([]int32, n)
		for i := range slots {
			slots[i] = table[i/blockSize]*int32(blockSize) + int32(i%blockSize)
		}
		r.ok(StoreKV(r.s, c, k, v, r.ints(slots...)))
		p.k, p.v, p.q = append(p.k, k), append(p.v, v), append(p.q, r.random(F32, n, heads*dim))
		p.blocks, p.maxBlocks = append(p.blocks, table), max(p.maxBlocks, need)
	}
	return p
}

// piece is positions [from, to) of sequence seq, computed in one step.
type piece struct{ seq, from, to int }

func (p *paged) batch(pieces []piece) (q Tensor, b AttentionBatch) {
	r := p.r
	starts, lens, rows := []int32{0}, []int32{}, 0
	b.NumSeqs, b.BlockTables = len(pieces), r.raw(I32, len(pieces), p.maxBlocks, 1)
	for i, pc := range pieces {
		rows += pc.to - pc.from
		starts, lens = append(starts, int32(rows)), append(lens, int32(pc.to))
		copy(b.BlockTables.ints(i), p.blocks[pc.seq])
		b.MaxSeqLen = max(b.MaxSeqLen, pc.to)
	}
	b.QueryStarts, b.SeqLens = r.ints(starts...), r.ints(lens...)
	q = r.raw(F32, rows, p.heads*p.c.HeadDim, 7)
	for i, pc := range pieces {
		for pos := pc.from; pos < pc.to; pos++ {
			copy(q.f32(int(starts[i])+pos-pc.from), p.q[pc.seq].f32(pos))
		}
	}
	return q, b
}

// run computes the pieces in one call on a device (of the same variant) and returns the output.
func (p *paged) run(s *Stream, out DType, pieces ...piece) Tensor {
	q, b := p.batch(pieces)
	o := p.r.raw(out, q.Rows, p.heads*p.c.ValueDim, 3)
	p.r.ok(PagedAttention(s, o, q, p.c, b, p.heads, p.o))
	p.r.intact("attention", o)
	return o
}

func TestPagedAttention(t *testing.T) {
	cases := []struct{ blockSize, heads, kvHeads, dim int }{
		{16, 14, 2, 64}, {16, 4, 4, 128}, {16, 6, 2, 80}, {4, 2, 1, 16}, {32, 3, 3, 20}, {7, 8, 2, 24}, {16, 70, 1, 8},
	}
	eachVariant(t, func(r *rig) {
		for i, c := range cases {
			for _, dt := range dtypesOf(i) {
				lens := []int{1, 17, 64, 150}
				if c.dim == 64 {
					lens = append(lens, 1100)
				}
				p := newPaged(r, dt, c.blockSize, c.heads, c.kvHeads, c.dim, c.dim, lens...)
				for name, pieces := range map[string][]piece{
					"prefill": {{0, 0, 1}, {1, 0, 17}, {2, 0, 64}},
					"decode":  {{3, 149, 150}, {1, 16, 17}, {0, 0, 1}},
					"mixed":   {{3, 60, 140}, {2, 63, 64}, {1, 3, 3}, {len(lens) - 1, lens[len(lens)-1] - 2, lens[len(lens)-1]}},
				} {
					for _, out := range []DType{F32, BF16} {
						q, b := p.batch(pieces)
						got := p.run(r.s, out, pieces...)
						want := r.clone(got)
						r.ok(refBackend{}.pagedAttention(want, q, p.c, b, c.heads, p.o))
						// A mean of values below 5: the errors of the scores, of exp and of the sums are each a few units.
						r.near(fmt.Sprintf("%+v %v %s to %v", c, dt, name, out), got, want, func(int, int) float64 { return 2e-5 })
					}
				}
			}
		}
	})
}

// TestAttentionOptions compares each option, and some together, with the reference: windows that end inside and at the ends of
// blocks, chunks and splits, values of another size than keys, sequences that are shorter than the window.
func TestAttentionOptions(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for i, c := range []struct {
			blockSize, heads, kvHeads, dim, vdim int
			o                                    AttentionOptions
			more                                 string
		}{
			{16, 4, 2, 64, 64, AttentionOptions{Window: 1}, ""},
			{16, 4, 2, 64, 64, AttentionOptions{Window: 64}, ""},
			{16, 14, 2, 32, 32, AttentionOptions{Window: 100}, ""},
			{16, 4, 1, 64, 64, AttentionOptions{Window: 512}, ""},
			{7, 4, 2, 20, 20, AttentionOptions{Window: 33}, ""},
			{16, 4, 2, 64, 64, AttentionOptions{Softcap: 2}, ""},
			{16, 4, 4, 16, 16, AttentionOptions{}, "sinks"},
			{16, 4, 4, 16, 16, AttentionOptions{Window: 40, Softcap: 1.5}, "sinks"},
			{16, 6, 2, 32, 32, AttentionOptions{Bidirectional: true}, ""},
			{16, 6, 2, 32, 32, AttentionOptions{Bidirectional: true, Window: 65}, ""},
			{16, 4, 4, 16, 16, AttentionOptions{Bidirectional: true, Window: 1}, ""},
			{7, 4, 1, 20, 20, AttentionOptions{Bidirectional: true, Window: 530}, ""},
			{16, 12, 12, 16, 16, AttentionOptions{Bidirectional: true}, "bias"},
			{7, 4, 2, 20, 20, AttentionOptions{Window: 100, Softcap: 2}, "bias"},
			{16, 5, 1, 144, 128, AttentionOptions{}, ""},
			{16, 3, 1, 48, 80, AttentionOptions{Window: 90}, ""},
			{7, 3, 1, 20, 12, AttentionOptions{}, "sinks"},
		} {
			for _, dt := range dtypesOf(i) {
				p := newPaged(r, dt, c.blockSize, c.heads, c.kvHeads, c.dim, c.vdim, 1, 17, 150, 1100)
				p.o = c.o
				p.o.Scale = 0.2
				switch c.more {
				case "sinks":
					p.o.Sinks = r.random(F32, 1, c.heads)
				case "bias":
					p.o.Bias = r.random(F32, c.heads, 2*1103-1)
				}
				for name, pieces := range map[string][]piece{
					"prefill": {{0, 0, 1}, {1, 0, 17}, {2, 0, 150}},
					"decode":  {{3, 1099, 1100}, {2, 149, 150}, {1, 16, 17}, {0, 0, 1}},
					"mixed":   {{3, 1000, 1100}, {2, 60, 140}, {1, 3, 3}},
				} {
					q, b := p.batch(pieces)
					got := p.run(r.s, F32, pieces...)
					want := r.clone(got)
					r.ok(refBackend{}.pagedAttention(want, q, p.c, b, c.heads, p.o))
					r.near(fmt.Sprintf("%+v %v %s", c, dt, name), got, want, func(int, int) float64 { return 4e-5 })
				}
			}
		}
	})
}

// A query's result must not depend on how its prompt was cut, on what else is in the batch, on where its blocks lie,
// or on the number of threads.
func TestPagedAttentionBatchInvariance(t *testing.T) {
	eachThreads(t, func(rigs []*rig) {
		for i, c := range []struct {
			heads, kvHeads, dim, vdim, n int
			o                            AttentionOptions
		}{
			{14, 2, 64, 64, 600, AttentionOptions{Scale: 0.125}}, {8, 2, 32, 32, 300, AttentionOptions{Scale: 0.125}},
			{4, 4, 40, 40, 200, AttentionOptions{Scale: 0.125}}, {6, 1, 48, 32, 650, AttentionOptions{Scale: 0.2, Window: 70}},
			{4, 2, 32, 32, 600, AttentionOptions{Scale: 0.2, Window: 521, Softcap: 3}},
		} {
			if rigs[0].dev.variant == "ref" {
				c.n = 100
			}
			if testing.Short() { // under an emulator
				c.heads, c.kvHeads = c.heads/c.kvHeads, 1
			}
			for _, dt := range dtypesOf(i) {
				r := rigs[0]
				p := newPaged(r, dt, 16, c.heads, c.kvHeads, c.dim, c.vdim, c.n, 130, 5)
				p.o = c.o
				if c.o.Softcap > 0 {
					p.o.Sinks = r.random(F32, 1, c.heads)
				}
				whole := p.run(r.s, F32, piece{0, 0, c.n})
				for _, other := range rigs {
					for _, step := range []int{1, 1 + r.IntN(70), 64} {
						from := 0
						if step == 1 || testing.Short() {
							from = c.n - 90 // one by one, and under an emulator, is slow: the end only, over the border of a split
						}
						for at := from; at < c.n; at += step {
							end := min(at+step, c.n)
							pieces := []piece{{0, at, end}}
							if r.IntN(2) == 0 {
								pieces = append(pieces, piece{1, 129, 130}, piece{2, 0, 5})
							}
							out := p.run(other.s, F32, pieces...)
							r.same(fmt.Sprintf("%d/%d heads of %d/%d, %+v %v positions %d to %d, %d threads", c.heads, c.kvHeads, c.dim, c.vdim, c.o, dt, at, end, other.dev.threads),
								out.RowRange(0, end-at), whole.RowRange(at, end))
						}
					}
				}
				// The same sequence in other blocks, of another size.
				moved := &paged{}
				*moved = *newPaged(r, dt, 8, c.heads, c.kvHeads, c.dim, c.vdim, c.n)
				moved.o = p.o
				moved.q = p.q
				slots := make([]int32, c.n)
				for i := range slots {
					slots[i] = moved.blocks[0][i/8]*8 + int32(i%8)
				}
				r.ok(StoreKV(r.s, moved.c, p.k[0], p.v[0], r.ints(slots...)))
				r.same("other blocks", moved.run(r.s, F32, piece{0, 0, c.n}), whole)
			}
		}
	})
}

func TestStoreKV(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, dt := range cacheDTypes {
			for _, s := range []struct{ rows, heads, dim, vdim, blockSize int }{
				{0, 1, 4, 4, 16}, {1, 2, 64, 64, 16}, {60, 3, 20, 20, 7}, {40, 1, 128, 128, 16}, {33, 2, 24, 16, 16},
			} {
				c, err := NewKVCache(r.dev, dt, 20, s.blockSize, s.heads, s.dim, s.vdim)
				r.ok(err)
				k, v := r.random(F32, s.rows, s.heads*s.dim), r.random(F32, s.rows, s.heads*s.vdim)
				slots := make([]int32, s.rows)
				for i, slot := range r.Perm(20 * s.blockSize)[:s.rows] {
					slots[i] = int32(slot)
				}
				if s.rows > 5 {
					slots[3] = -1
				}
				want := c
				want.K, want.V = r.clone(c.K), r.clone(c.V)
				want.KScales.Buf, want.VScales.Buf = want.K.Buf, want.V.Buf
				r.ok(StoreKV(r.s, c, k, v, r.ints(slots...)))
				r.ok(refBackend{}.storeKV(want, k, v, r.ints(slots...)))
				if !bytes.Equal(c.K.Buf.data, want.K.Buf.data) || !bytes.Equal(c.V.Buf.data, want.V.Buf.data) {
					r.Fatalf("%v %+v: not what the reference stores", dt, s)
				}
				if n := KVCacheBytes(dt, 20, s.blockSize, s.heads, s.dim, s.vdim); n != int64(c.K.Buf.Len()+c.V.Buf.Len()) {
					r.Errorf("cache of %d bytes, KVCacheBytes says %d", c.K.Buf.Len()+c.V.Buf.Len(), n)
				}
				r.ok(c.Close())
			}
		}
	})
}
