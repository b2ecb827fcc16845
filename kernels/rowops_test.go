package kernels

import (
	"fmt"
	"math"
	"testing"
)

// Tolerances of the ops without long sums: a few roundings of half a unit, relative to the largest term.
const unit = 0x1p-23

func relTol(want Tensor, units float64) func(i, j int) float64 {
	w := values(want)
	return func(i, j int) float64 { return units*unit*math.Abs(float64(w[i][j])) + 1e-30 }
}

var rowShapes = []struct{ rows, cols int }{{0, 7}, {1, 1}, {1, 896}, {2, 15}, {3, 16}, {5, 17}, {9, 64}, {31, 33}, {70, 1000}}

func TestRMSNorm(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, s := range rowShapes {
			for _, dt := range []DType{F32, BF16} {
				name := fmt.Sprintf("%v to %v", s, dt)
				x, y, w := r.random(F32, s.rows, s.cols), r.random(F32, s.rows, s.cols), r.random(F32, 1, s.cols)
				out := r.raw(dt, s.rows, s.cols, 3)
				want := r.clone(out)
				r.ok(RMSNorm(r.s, out, x, w, 1e-6))
				r.ok(refBackend{}.rmsNorm(want, x, w, 1e-6))
				r.near(name, out, want, relTol(want, 8)) // the mean square loses less than its chain is long
				r.intact(name, x)

				sum := r.clone(x)
				r.ok(AddRMSNorm(r.s, out, x, y, w, 1e-6))
				r.ok(refBackend{}.addRMSNorm(want, sum, y, w, 1e-6))
				r.near(name+" after add", out, want, relTol(want, 8))
				r.same(name+" sum", x, sum)
				r.intact(name+" sum", x)

				if dt == F32 { // in place
					copied := r.clone(x)
					r.ok(RMSNorm(r.s, x, x, w, 1e-6))
					r.ok(refBackend{}.rmsNorm(copied, copied, w, 1e-6))
					r.near(name+" in place", x, copied, relTol(copied, 8))
				}
			}
		}
	})
}

func TestHeadRMSNorm(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, s := range []struct{ rows, heads, dim int }{{0, 2, 4}, {1, 1, 1}, {2, 3, 16}, {17, 2, 33}, {40, 14, 64}, {3, 2, 128}} {
			x, w := r.random(F32, s.rows, s.heads*s.dim), r.random(F32, 1, s.dim)
			want := r.clone(x)
			r.ok(HeadRMSNorm(r.s, x, w, s.heads, 1e-5))
			r.ok(refBackend{}.headRMSNorm(want, w, s.heads, 1e-5))
			r.near(fmt.Sprint(s), x, want, relTol(want, 8))
		}
	})
}

// ropeTable is what a model would build.
func ropeTable(r *rig, maxPos, rotary int) Tensor {
	t := r.raw(F32, maxPos, rotary, 0)
	for p := range maxPos {
		for i := range rotary / 2 {
			a := float64(p) * math.Pow(10000, -2*float64(i)/float64(rotary))
			t.f32(p)[i], t.f32(p)[rotary/2+i] = float32(math.Cos(a)), float32(math.Sin(a))
		}
	}
	return t
}

func TestRoPE(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, s := range []struct{ rows, heads, dim, rotary int }{
			{0, 1, 4, 4}, {1, 1, 2, 2}, {3, 2, 64, 64}, {20, 3, 80, 40}, {5, 2, 10, 6}, {60, 14, 64, 64}, {4, 1, 8, 0},
		} {
			x, table := r.random(F32, s.rows, s.heads*s.dim), ropeTable(r, 50, s.rotary)
			pos := make([]int32, s.rows)
			for i := range pos {
				pos[i] = int32(r.IntN(50))
			}
			for _, pairs := range []Pairs{Halves, Interleaved} {
				want := r.clone(x)
				r.ok(RoPE(r.s, x, r.ints(pos...), table, s.heads, pairs))
				r.ok(refBackend{}.rope(want, r.ints(pos...), table, s.heads, pairs))
				r.near(fmt.Sprint(s, pairs), x, want, func(int, int) float64 { return 3 * unit * 5 }) // terms below 5 cancel
			}
		}
	})
}

// gateError is the error of an activation relative to its input, where it may be much larger than its output.
var gateError = map[Activation]float64{GELU: 2e-7, GELUTanh: 2e-7, SiLU: 1e-7, ClampedSwiGLU: 1e-7}

func TestLayerNorm(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, s := range rowShapes {
			for _, dt := range []DType{F32, BF16} {
				x, w, b, out := r.random(F32, s.rows, s.cols), r.random(F32, 1, s.cols), r.random(F32, 1, s.cols), r.raw(dt, s.rows, s.cols, 1)
				want := r.clone(out)
				r.ok(LayerNorm(r.s, out, x, w, b, 1e-5))
				r.ok(refBackend{}.layerNorm(want, x, w, b, 1e-5))
				tol := relTol(want, 20)
				// Terms of some units cancel; a row of one or two alike is divided by the root of eps.
				r.near(fmt.Sprintf("layernorm %v %v", s, dt), out, want, func(i, j int) float64 { return tol(i, j) + 2e-4 })
				r.intact("layernorm", out)
			}
		}
	})
}

func TestElementwise(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, s := range rowShapes {
			for _, dt := range []DType{F32, BF16} {
				name := fmt.Sprintf("%v %v", s, dt)
				gateUp, out := r.random(F32, s.rows, 2*s.cols), r.raw(dt, s.rows, s.cols, 1)
				for i := range s.rows {
					for j, g := range gateUp.f32(i)[:s.cols] {
						gateUp.f32(i)[j] = g * float32(math.Pow(10, float64(r.IntN(4))-1)) // up to hundreds
					}
				}
				for _, act := range []Activation{SiLU, GELU, GELUTanh, ReLU, ClampedSwiGLU, Sigmoid} {
					want := r.clone(out)
					r.ok(GatedMul(r.s, out, gateUp, act))
					r.ok(refBackend{}.gatedMul(want, gateUp, act))
					w := relTol(want, 6)
					// Below -88 the exponential is bounded, which leaves at most 1e-35 where the truth is less; GELU's error is
					// of the gate's size, not of the result's.
					r.near(fmt.Sprint("gated ", act, name), out, want, func(i, j int) float64 {
						g, u := math.Abs(float64(gateUp.f32(i)[j])), math.Abs(float64(gateUp.f32(i)[s.cols+j]))
						return w(i, j) + 1e-34 + gateError[act]*min(g, 6)*(u+1)
					})
				}
				want := r.clone(out)
				x := r.random(dt, max(s.rows, 1), s.cols)
				rows := make([]int32, s.rows)
				for i := range rows {
					rows[i] = int32(r.IntN(x.Rows))
				}
				r.ok(Gather(r.s, out, x, r.ints(rows...)))
				r.ok(refBackend{}.gather(want, x, r.ints(rows...)))
				r.same("gather "+name, out, want)
				r.intact("gather "+name, out)
			}
			for _, act := range []Activation{SiLU, GELU, GELUTanh, ReLU, Tanh, softcap, times} {
				x := r.random(F32, s.rows, s.cols)
				if act == softcap {
					r.ok(Scale(r.s, x, 20))
				}
				want := r.clone(x)
				switch act {
				case softcap:
					r.ok(Softcap(r.s, x, 30))
				case times:
					r.ok(Scale(r.s, x, 30))
				default:
					r.ok(Activate(r.s, x, act))
				}
				r.ok(refBackend{}.activate(want, act, 30))
				w := relTol(want, 6)
				r.near(fmt.Sprint("activate ", act, s), x, want, func(i, j int) float64 { return w(i, j) + 6*gateError[act] })
				r.intact("activate", x)
			}
			for _, yRows := range []int{s.rows, 1} {
				x, y := r.random(F32, s.rows, s.cols), r.random(F32, yRows, s.cols)
				want := r.clone(x)
				r.ok(Add(r.s, x, y))
				r.ok(refBackend{}.add(want, y))
				r.same("add", x, want)
				r.intact("add", x)
			}
		}
	})
}

func TestSiLUMulSpecial(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachVariant(t, func(r *rig) {
		in := r.raw(F32, 1, 12, 0)
		copy(in.f32(0), []float32{0, 200, -200, inf, nan, 1, 1, 1, 1, 1, 1, nan})
		out := r.raw(F32, 1, 6, 0)
		r.ok(GatedMul(r.s, out, in, SiLU))
		for i, want := range []float32{0, 200, 0, inf, nan, nan} {
			got := out.f32(0)[i]
			if !(math.Abs(float64(got-want)) <= 1e-30) && got != want && !(got != got && want != want) {
				r.Errorf("silu(%v)*%v = %v, want %v", in.f32(0)[i], in.f32(0)[6+i], got, want)
			}
		}
	})
}

func TestEmbed(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, dt := range []DType{BF16, F16, F32, W8, W4} {
			m := r.matrix(dt, 150, 37)
			for _, rows := range []int{0, 1, 200} {
				ids := make([]int32, rows)
				for i := range ids {
					ids[i] = int32(r.IntN(150))
				}
				out := r.raw(F32, rows, 37, 2)
				want := r.clone(out)
				r.ok(Embed(r.s, out, m, r.ints(ids...)))
				r.ok(refBackend{}.embed(want, m, r.ints(ids...)))
				r.same(dt.String(), out, want)
				r.intact(dt.String(), out)
			}
		}
	})
}

// Every op on rows gives the same bits alone and in any batch, on any number of threads.
func TestRowOpsBatchInvariance(t *testing.T) {
	const rows, cols, heads = 150, 320, 5
	eachThreads(t, func(rigs []*rig) {
		r := rigs[0]
		x, y, w, wh := r.random(F32, rows, cols), r.random(F32, rows, cols), r.random(F32, 1, cols), r.random(F32, 1, cols/heads)
		table := ropeTable(r, rows, cols/heads)
		positions := make([]int32, rows)
		for i := range positions {
			positions[i] = int32(i)
		}
		ops := []struct {
			name string
			run  func(o *rig, x, y Tensor, positions []int32) Tensor
		}{
			{"rmsnorm", func(o *rig, x, _ Tensor, _ []int32) Tensor {
				out := r.raw(BF16, x.Rows, cols, 0)
				r.ok(RMSNorm(o.s, out, x, w, 1e-6))
				return out
			}},
			{"add rmsnorm", func(o *rig, x, y Tensor, _ []int32) Tensor {
				out := r.raw(F32, x.Rows, cols, 0)
				r.ok(AddRMSNorm(o.s, out, x, y, w, 1e-6))
				return out
			}},
			{"head rmsnorm", func(o *rig, x, _ Tensor, _ []int32) Tensor {
				r.ok(HeadRMSNorm(o.s, x, wh, heads, 1e-6))
				return x
			}},
			{"rope", func(o *rig, x, _ Tensor, p []int32) Tensor {
				r.ok(RoPE(o.s, x, r.ints(p...), table, heads, Halves))
				return x
			}},
			{"silu mul", func(o *rig, x, _ Tensor, _ []int32) Tensor {
				out := r.raw(F32, x.Rows, cols/2, 0)
				r.ok(GatedMul(o.s, out, x, SiLU))
				return out
			}},
			{"add", func(o *rig, x, y Tensor, _ []int32) Tensor {
				r.ok(Add(o.s, x, y))
				return x
			}},
		}
		for _, op := range ops {
			all := op.run(r, r.clone(x), y, positions)
			for _, set := range r.subsets(rows) {
				for _, other := range rigs {
					out := op.run(other, r.pick(x, set), r.pick(y, set), set)
					r.same(fmt.Sprintf("%s of %d rows, %d threads", op.name, len(set), other.dev.threads), out, r.pick(all, set))
				}
			}
		}
	})
}

func TestLoRA(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, dt := range []DType{BF16, F16, F32} {
			for _, xt := range []DType{F32, BF16} {
				const rows, in, outCols = 90, 77, 100
				x, out := r.random(xt, rows, in), r.random(F32, rows, outCols)
				runs := []LoRARun{
					{Start: 1, Len: 3, A: r.matrix(dt, 8, in), B: r.matrix(dt, outCols, 8), Scale: 2},
					{Start: 4, Len: 0, A: r.matrix(dt, 1, in), B: r.matrix(dt, outCols, 1), Scale: 1},
					{Start: 5, Len: 70, A: r.matrix(F32, 65, in), B: r.matrix(BF16, outCols, 65), Scale: 0.5},
					{Start: 80, Len: 1, A: r.matrix(dt, 16, in), B: r.matrix(dt, outCols, 16), Scale: -1},
				}
				want := r.clone(out)
				r.ok(LoRA(r.s, out, x, runs))
				r.ok(refBackend{}.lora(want, x, runs))
				// Products of two sums of about sqrt(in) and sqrt(rank): values below 1000, errors of both chains.
				r.near(fmt.Sprintf("%v x %v", xt, dt), out, want, func(int, int) float64 { return 4 * sumTol(in, 1000) })
				r.ok(LoRA(r.s, out, x, nil))
			}
		}
	})
}

func TestLoRABatchInvariance(t *testing.T) {
	const rows, in, outCols = 80, 130, 70
	eachThreads(t, func(rigs []*rig) {
		r := rigs[0]
		for _, xt := range []DType{F32, BF16} {
			a, b := r.matrix(BF16, 16, in), r.matrix(BF16, outCols, 16)
			a2, b2 := r.matrix(F32, 8, in), r.matrix(F16, outCols, 8)
			x, base := r.random(xt, rows, in), r.random(F32, rows, outCols)
			all := r.clone(base)
			r.ok(LoRA(r.s, all, x, []LoRARun{{0, rows, a, b, 2}}))
			for _, set := range r.subsets(rows) {
				for _, other := range rigs {
					n := len(set)
					both := append(append([]int32{}, set...), set...) // a second adapter on the same rows, after
					out := r.pick(base, both)
					r.ok(LoRA(other.s, out, r.pick(x, both), []LoRARun{{n, n, a2, b2, 1}, {0, n, a, b, 2}}))
					r.same(fmt.Sprintf("%d rows of %v", n, xt), out.RowRange(0, n), r.pick(all, set))
				}
			}
		}
	})
}
