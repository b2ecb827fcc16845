package kernels

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

// The reference is what all variants are held to, so it is held to the formulas of the contracts, written out from the
// numbers that went in, without its layouts or helpers.
func TestReferenceAgainstFormulas(t *testing.T) {
	r := newRig(t, freshSeed(t), "ref", 1)
	const tokens, hidden, heads, kvHeads, dim, blockSize, length = 5, 12, 4, 2, 6, 4, 11
	near := func(name string, got float32, want float64) {
		t.Helper()
		if !(math.Abs(float64(got)-want) <= 1e-5*(1+math.Abs(want))) {
			t.Fatalf("%s = %v, want %v", name, got, want)
		}
	}
	x := r.random(F32, tokens, hidden)

	const n = 70
	data, w := make([]byte, 0, n*hidden*4), make([][]float64, n)
	for i := range w {
		for range hidden {
			f := float32(r.NormFloat64())
			w[i] = append(w[i], float64(f))
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
		}
	}
	m, err := r.dev.PackMatrix(F32, hidden, MatrixPart{data[:30*hidden*4], F32, 30}, MatrixPart{data[30*hidden*4:], F32, 40})
	r.ok(err)
	defer m.Close() //nolint:errcheck // the device's Close tells
	out, ids := r.raw(F32, tokens, n, 0), r.ints(69, 0, 29, 30, 64)
	r.ok(MatMul(r.s, out, x, m))
	embedded := r.raw(F32, tokens, hidden, 0)
	r.ok(Embed(r.s, embedded, m, ids))
	for i := range tokens {
		for j := range n {
			sum := 0.0
			for k := range hidden {
				sum += float64(x.f32(i)[k]) * w[j][k]
			}
			near(fmt.Sprintf("matmul[%d,%d]", i, j), out.f32(i)[j], sum)
		}
		for k := range hidden {
			near("embed", embedded.f32(i)[k], w[ids.ints(0)[i]][k])
		}
	}

	weight, normed := r.random(F32, 1, hidden), r.raw(F32, tokens, hidden, 0)
	r.ok(RMSNorm(r.s, normed, x, weight, 1e-3))
	for i := range tokens {
		square := 0.0
		for _, v := range x.f32(i) {
			square += float64(v) * float64(v) / hidden
		}
		for k, v := range x.f32(i) {
			near("rmsnorm", normed.f32(i)[k], float64(v)/math.Sqrt(square+1e-3)*float64(weight.f32(0)[k]))
		}
	}

	act := r.raw(F32, tokens, hidden/2, 0)
	r.ok(GatedMul(r.s, act, x, SiLU))
	for i := range tokens {
		for k := range hidden / 2 {
			g, u := float64(x.f32(i)[k]), float64(x.f32(i)[hidden/2+k])
			near("silu mul", act.f32(i)[k], g/(1+math.Exp(-g))*u)
		}
	}

	// A turn by position*theta, head by head.
	turned, table, positions := r.clone(x), r.raw(F32, 9, 4, 0), r.ints(0, 8, 3, 1, 1)
	thetas := []float64{0.9, 0.2}
	for p := range 9 {
		for i, theta := range thetas {
			table.f32(p)[i], table.f32(p)[2+i] = float32(math.Cos(float64(p)*theta)), float32(math.Sin(float64(p)*theta))
		}
	}
	r.ok(RoPE(r.s, turned, positions, table, hidden/dim, Halves))
	for i, p := range positions.ints(0) {
		for h := range hidden / dim {
			from, to := x.f32(i)[h*dim:], turned.f32(i)[h*dim:]
			for k, theta := range thetas {
				sin, cos := math.Sincos(float64(p) * theta)
				near("rope a", to[k], float64(from[k])*cos-float64(from[k+2])*sin)
				near("rope b", to[k+2], float64(from[k+2])*cos+float64(from[k])*sin)
			}
			near("rope rest", to[4], float64(from[4]))
		}
	}

	// One sequence of 11 tokens in blocks out of order, its last five as queries.
	c, err := NewKVCache(r.dev, F32, 5, blockSize, kvHeads, dim, dim)
	r.ok(err)
	defer c.Close() //nolint:errcheck // the device's Close tells
	blocks := []int32{3, 0, 4}
	k, v, q := r.random(F32, length, kvHeads*dim), r.random(F32, length, kvHeads*dim), r.random(F32, tokens, heads*dim)
	slots := make([]int32, length)
	for p := range slots {
		slots[p] = blocks[p/blockSize]*blockSize + int32(p%blockSize)
	}
	r.ok(StoreKV(r.s, c, k, v, r.ints(slots...)))
	attended := r.raw(F32, tokens, heads*dim, 0)
	batch := AttentionBatch{r.ints(0, tokens), r.ints(length), r.ints(blocks...), 1, length}
	r.ok(PagedAttention(r.s, attended, q, c, batch, heads, AttentionOptions{Scale: 0.4}))
	for i := range tokens {
		for h := range heads {
			total, acc := 0.0, make([]float64, dim)
			for p := range length - tokens + i + 1 {
				score := 0.0
				for e := range dim {
					score += float64(q.f32(i)[h*dim+e]) * float64(k.f32(p)[h/2*dim+e])
				}
				total += math.Exp(0.4 * float64(float32(score)))
				for e := range dim {
					acc[e] += math.Exp(0.4*float64(float32(score))) * float64(v.f32(p)[h/2*dim+e])
				}
			}
			for e := range dim {
				near(fmt.Sprintf("attention[%d,%d,%d]", i, h, e), attended.f32(i)[h*dim+e], acc[e]/total)
			}
		}
	}

	// A rank of one, where the update is an outer product.
	a, b := r.matrix(F32, 1, hidden), r.matrix(F32, 7, 1)
	low, av, bv := r.clone(r.random(F32, tokens, 7)), make([]float32, hidden), make([]float32, 1)
	before := r.clone(low)
	r.ok(LoRA(r.s, low, x, []LoRARun{{1, 3, a, b, 0.5}}))
	a.loadRow(av, 0)
	for i := range tokens {
		for j := range 7 {
			b.loadRow(bv, j)
			want := float64(before.f32(i)[j])
			for e := range hidden {
				if i >= 1 && i < 4 {
					want += 0.5 * float64(x.f32(i)[e]) * float64(av[e]) * float64(bv[0])
				}
			}
			near("lora", low.f32(i)[j], want)
		}
	}
}
