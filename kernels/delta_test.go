package kernels

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

// stateful are sequences of random inputs for the ops that keep states.
type stateful struct {
	r         *rig
	rule      DeltaRule
	kernel    int
	qkv, a, b []Tensor // per sequence, all positions
	w         Tensor
}

func newStateful(r *rig, rule DeltaRule, kernel int, lens ...int) *stateful {
	p := &stateful{r: r, rule: rule, kernel: kernel}
	p.rule.Decay, p.rule.Bias = r.random(F32, 1, rule.ValueHeads), r.random(F32, 1, rule.ValueHeads)
	for h, v := range p.rule.Decay.f32(0) {
		p.rule.Decay.f32(0)[h] = -float32(math.Exp(float64(v) - 2)) // some heads remember long
	}
	p.w = r.random(F32, kernel, rule.columns())
	for _, n := range lens {
		p.qkv, p.a, p.b = append(p.qkv, r.random(F32, n, rule.columns())), append(p.a, r.random(F32, n, rule.ValueHeads)),
			append(p.b, r.random(F32, n, rule.ValueHeads))
	}
	return p
}

// states are rows for that many sequences, full of NaN: what begins anew must not see it.
func (p *stateful) states(rows int) (delta, conv Tensor) {
	delta = p.r.raw(F32, rows, p.rule.ValueHeads*p.rule.KeyDim*p.rule.ValueDim, 3)
	conv = p.r.raw(F32, rows, (p.kernel-1)*p.rule.columns(), 2)
	for i := range rows {
		for _, t := range []Tensor{delta, conv} {
			for j := range t.f32(i) {
				t.f32(i)[j] = nan
			}
		}
	}
	return delta, conv
}

// ops are those of a device, or of the reference.
type ops struct {
	conv  func(x, w, states Tensor, b StateBatch) error
	delta func(out, qkv, a, b, states Tensor, r DeltaRule, batch StateBatch) error
}

func (r *rig) ops() ops {
	return ops{
		func(x, w, states Tensor, b StateBatch) error { return CausalConv(r.s, x, w, states, b) },
		func(out, qkv, a, b, states Tensor, rule DeltaRule, batch StateBatch) error {
			return GatedDelta(r.s, out, qkv, a, b, states, rule, batch)
		},
	}
}

var refOps = ops{refBackend{}.causalConv, refBackend{}.gatedDelta}

// run computes the pieces, sequence s with row rows[s], and returns what the convolution and what the rule gives.
func (p *stateful) run(o ops, delta, conv Tensor, rows []int32, pieces ...piece) (convolved, out Tensor) {
	r := p.r
	starts, lens, at, total := []int32{0}, []int32{}, []int32{}, 0
	for _, pc := range pieces {
		total += pc.to - pc.from
		starts, lens, at = append(starts, int32(total)), append(lens, int32(pc.to)), append(at, rows[pc.seq])
	}
	batch := StateBatch{r.ints(starts...), r.ints(lens...), r.ints(at...), len(pieces)}
	x, a, b := r.raw(F32, total, p.rule.columns(), 1), r.raw(F32, total, p.rule.ValueHeads, 0), r.raw(F32, total, p.rule.ValueHeads, 4)
	i := 0
	for _, pc := range pieces {
		for pos := pc.from; pos < pc.to; pos++ {
			copy(x.f32(i), p.qkv[pc.seq].f32(pos))
			copy(a.f32(i), p.a[pc.seq].f32(pos))
			copy(b.f32(i), p.b[pc.seq].f32(pos))
			i++
		}
	}
	r.ok(o.conv(x, p.w, conv, batch))
	convolved, out = r.clone(x), r.raw(F32, total, p.rule.ValueHeads*p.rule.ValueDim, 6)
	r.ok(o.delta(out, x, a, b, delta, p.rule, batch))
	for _, t := range []Tensor{x, a, b, delta, conv, out} {
		r.intact("a tensor of conv and delta", t)
	}
	return convolved, out
}

var deltaShapes = []DeltaRule{
	{KeyHeads: 2, ValueHeads: 4, KeyDim: 16, ValueDim: 16}, {KeyHeads: 1, ValueHeads: 1, KeyDim: 1, ValueDim: 1},
	{KeyHeads: 2, ValueHeads: 2, KeyDim: 33, ValueDim: 21}, {KeyHeads: 1, ValueHeads: 3, KeyDim: 20, ValueDim: 130},
	{KeyHeads: 2, ValueHeads: 4, KeyDim: 128, ValueDim: 128},
}

func TestGatedDelta(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for i, rule := range deltaShapes {
			p := newStateful(r, rule, []int{4, 1, 2, 8, 4}[i], 1, 30, 90)
			rows := []int32{3, 0, 2}
			delta, conv := p.states(4)
			wantDelta, wantConv := r.clone(delta), r.clone(conv)
			for _, pieces := range [][]piece{
				{{0, 0, 1}, {1, 0, 9}, {2, 0, 50}}, {{2, 50, 51}, {1, 9, 10}}, {{1, 10, 30}, {2, 51, 51}}, {{2, 51, 90}},
			} {
				convolved, out := p.run(r.ops(), delta, conv, rows, pieces...)
				wantConvolved, want := p.run(refOps, wantDelta, wantConv, rows, pieces...)
				name := fmt.Sprintf("%+v %v", rule, pieces)
				r.near("conv "+name, convolved, wantConvolved, func(int, int) float64 { return 4e-6 }) // values below 20
				// The rule forgets errors as it forgets values: what is left are those of the newest sums of key_dim terms.
				r.near("delta "+name, out, want, func(int, int) float64 { return 2e-5 })
			}
			for _, row := range rows {
				at := []int32{row}
				r.same("conv's states", r.pick(conv, at), r.pick(wantConv, at))
				r.near("delta's states", r.pick(delta, at), r.pick(wantDelta, at), func(int, int) float64 { return 2e-5 })
			}
			for _, v := range append(delta.f32(1), conv.f32(1)...) {
				if v == v {
					r.Fatalf("%+v: the row of no sequence was written", rule)
				}
			}
		}
	})
}

// TestGatedDeltaFormula holds the reference against the rule as the paper has it, with matrices: S becomes
// exp(g)*(I - beta*k*kᵀ)*S + beta*k*vᵀ.
func TestGatedDeltaFormula(t *testing.T) {
	r := newRig(t, freshSeed(t), "ref", 1)
	rule := DeltaRule{KeyHeads: 2, ValueHeads: 4, KeyDim: 5, ValueDim: 3}
	const n, kernel = 40, 4
	p := newStateful(r, rule, kernel, n)
	delta, conv := p.states(1)
	convolved, out := p.run(r.ops(), delta, conv, []int32{0}, piece{0, 0, n})
	for pos := range n {
		for c := range rule.columns() {
			sum := 0.0
			for j := range kernel {
				if from := pos - kernel + 1 + j; from >= 0 {
					sum += float64(p.w.f32(j)[c]) * float64(p.qkv[0].f32(from)[c])
				}
			}
			if want := sum / (1 + math.Exp(-sum)); !(math.Abs(float64(convolved.f32(pos)[c])-want) <= 1e-6) {
				t.Fatalf("token %d, channel %d: convolved to %v, want %v", pos, c, convolved.f32(pos)[c], want)
			}
		}
	}
	unit := func(x []float32) []float64 {
		sum, y := 1e-6, make([]float64, len(x))
		for _, v := range x {
			sum += float64(v) * float64(v)
		}
		for i, v := range x {
			y[i] = float64(v) / math.Sqrt(sum)
		}
		return y
	}
	for h := range rule.ValueHeads {
		state := [5][3]float64{}
		for pos := range n {
			x := convolved.f32(pos)
			q, k := unit(x[h/2*5:][:5]), unit(x[10+h/2*5:][:5])
			v := x[20+h*3:][:3]
			g := float64(p.rule.Decay.f32(0)[h]) * math.Log(1+math.Exp(float64(p.a[0].f32(pos)[h])+float64(p.rule.Bias.f32(0)[h])))
			beta := 1 / (1 + math.Exp(-float64(p.b[0].f32(pos)[h])))
			next := [5][3]float64{}
			for i := range 5 {
				for j := range 3 {
					for m := range 5 {
						transition := -beta * k[i] * k[m]
						if i == m {
							transition++
						}
						next[i][j] += math.Exp(g) * transition * state[m][j]
					}
					next[i][j] += beta * k[i] * float64(v[j])
				}
			}
			state = next
			for j := range 3 {
				want := 0.0
				for i := range 5 {
					want += q[i] / math.Sqrt(5) * state[i][j]
				}
				if got := float64(out.f32(pos)[h*3+j]); !(math.Abs(got-want) <= 1e-5) {
					t.Fatalf("head %d, token %d: %v, want %v", h, pos, got, want)
				}
			}
		}
	}
}

// A token's result must not depend on how its prompt was cut, on what else is in the batch, on which row its state has,
// or on the number of threads.
func TestGatedDeltaBatchInvariance(t *testing.T) {
	eachThreads(t, func(rigs []*rig) {
		r := rigs[0]
		for _, rule := range []DeltaRule{deltaShapes[0], deltaShapes[2], deltaShapes[3]} {
			const n = 120
			p := newStateful(r, rule, 4, n, 70, 5)
			delta, conv := p.states(1)
			convolved, whole := p.run(r.ops(), delta, conv, []int32{0}, piece{0, 0, n})
			for _, other := range rigs {
				for _, step := range []int{1, 1 + r.IntN(30), 64} {
					deltas, convs := p.states(5)
					rows := []int32{4, 1, 2}
					p.run(other.ops(), deltas, convs, rows, piece{1, 0, 69})
					for at := 0; at < n; at += step {
						end := min(at+step, n)
						pieces := []piece{{0, at, end}}
						if r.IntN(2) == 0 {
							pieces = []piece{{2, 0, 5}, {0, at, end}}
						}
						c, out := p.run(other.ops(), deltas, convs, rows, pieces...)
						skip := out.Rows - (end - at)
						name := fmt.Sprintf("%+v positions %d to %d, %d threads", rule, at, end, other.dev.threads)
						r.same("delta "+name, out.RowRange(skip, out.Rows), whole.RowRange(at, end))
						r.same("conv "+name, c.RowRange(skip, c.Rows), convolved.RowRange(at, end))
					}
					r.same("state", deltas.RowRange(4, 5), delta)
					r.same("conv's state", convs.RowRange(4, 5), conv)
				}
			}
		}
	})
}

func TestGatedRMSNorm(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, s := range []struct{ rows, heads, dim int }{{0, 2, 4}, {1, 1, 1}, {2, 3, 16}, {17, 2, 33}, {40, 14, 64}, {3, 2, 128}} {
			for _, dt := range []DType{F32, BF16} {
				x, z, w := r.random(F32, s.rows, s.heads*s.dim), r.random(F32, s.rows, s.heads*s.dim), r.random(F32, 1, s.dim)
				out := r.raw(dt, s.rows, s.heads*s.dim, 2)
				want := r.clone(out)
				r.ok(GatedRMSNorm(r.s, out, x, z, w, s.heads, 1e-5))
				r.ok(refBackend{}.gatedRMSNorm(want, x, z, w, s.heads, 1e-5))
				r.near(fmt.Sprint(s, dt), out, want, relTol(want, 12))
				for i := range s.rows { // alone, and in place
					one, in := r.pick(x, []int32{int32(i)}), r.pick(out, []int32{int32(i)})
					if dt == F32 {
						r.ok(GatedRMSNorm(r.s, one, one, z.RowRange(i, i+1), w, s.heads, 1e-5))
						r.same("alone", one, in)
					}
				}
			}
		}
	})
}

func TestPickGroups(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, s := range []struct{ rows, groups, size, n, from int }{
			{0, 1, 1, 1, 0}, {1, 1, 5, 2, 3}, {19, 3, 10, 4, 5}, {70, 4, 96, 32, 64}, {3, 2, 6, 6, 0},
		} {
			x, out := r.random(F32, s.rows, s.groups*s.size), r.raw(F32, s.rows, s.groups*s.n, 3)
			r.ok(PickGroups(r.s, out, x, s.groups, s.from))
			for i := range s.rows {
				for g := range s.groups {
					for e := range s.n {
						if got, want := out.f32(i)[g*s.n+e], x.f32(i)[g*s.size+s.from+e]; got != want {
							r.Fatalf("%+v: row %d, group %d, element %d is %v, want %v", s, i, g, e, got, want)
						}
					}
				}
			}
			r.intact("pick groups", out)
		}
	})
}

// NaN in one sequence stays in it, and goes when another takes over its state.
func TestStatesKeepNaNApart(t *testing.T) {
	eachVariant(t, func(r *rig) {
		p := newStateful(r, deltaShapes[0], 4, 12, 12)
		alone, aloneConv := p.states(1)
		_, want := p.run(r.ops(), alone, aloneConv, []int32{0, 0}, piece{1, 0, 12})
		p.qkv[0].f32(3)[40] = nan
		delta, conv := p.states(2)
		_, out := p.run(r.ops(), delta, conv, []int32{0, 1}, piece{0, 0, 12}, piece{1, 0, 12})
		r.same("beside NaN", out.RowRange(12, 24), want)
		found := false
		for _, v := range out.f32(3) {
			found = found || v != v
		}
		if !found {
			r.Error("no NaN comes of NaN")
		}
		_, out = p.run(r.ops(), delta, conv, []int32{0, 0}, piece{1, 0, 12})
		r.same("after NaN", out, want)
	})
}

func TestStateOpsRefuse(t *testing.T) {
	r := newRig(t, freshSeed(t), Variants()[0], 1)
	rule := DeltaRule{KeyHeads: 1, ValueHeads: 2, KeyDim: 4, ValueDim: 4, Decay: r.random(F32, 1, 2), Bias: r.random(F32, 1, 2)}
	const rows = 3
	x, w, out := r.random(F32, rows, 16), r.random(F32, 4, 16), r.raw(F32, rows, 8, 0)
	a, b, states, convs := r.random(F32, rows, 2), r.random(F32, rows, 2), r.random(F32, 2, 32), r.random(F32, 2, 48)
	batch := StateBatch{r.ints(0, 3), r.ints(5), r.ints(1), 1}
	change := func(f func(b *StateBatch)) StateBatch {
		c := batch
		f(&c)
		return c
	}
	for _, c := range []struct {
		says string
		err  error
		run  func() error
	}{
		{"state rows[0] is 2, outside", ErrIndex, func() error {
			return CausalConv(r.s, x, w, convs, change(func(b *StateBatch) { b.Rows = r.ints(2) }))
		}},
		{"query starts[1] is 4, outside", ErrIndex, func() error {
			return CausalConv(r.s, x, w, convs, change(func(b *StateBatch) { b.QueryStarts = r.ints(0, 4) }))
		}},
		{"sequence 0 has 3 new of 2 tokens", ErrShape, func() error {
			return CausalConv(r.s, x, w, convs, change(func(b *StateBatch) { b.SeqLens = r.ints(2) }))
		}},
		{"states is [2, 32]", ErrShape, func() error { return CausalConv(r.s, x, w, states, batch) }},
		{"a kernel of 9", ErrShape, func() error { return CausalConv(r.s, x, r.random(F32, 9, 16), convs, batch) }},
		{"-1 sequences", ErrShape, func() error {
			return CausalConv(r.s, x, w, convs, change(func(b *StateBatch) { b.NumSeqs = -1 }))
		}},
		{"qkv is [3, 8]", ErrShape, func() error { return GatedDelta(r.s, out, out, a, b, states, rule, batch) }},
		{"3 value heads of 4 over 2 key heads", ErrShape, func() error {
			return GatedDelta(r.s, out, x, a, b, states, DeltaRule{KeyHeads: 2, ValueHeads: 3, KeyDim: 4, ValueDim: 4}, batch)
		}},
		{"decay is dtype(0)", ErrDType, func() error {
			return GatedDelta(r.s, out, x, a, b, states, DeltaRule{KeyHeads: 1, ValueHeads: 2, KeyDim: 4, ValueDim: 4}, batch)
		}},
		{"states is [2, 48]", ErrShape, func() error { return GatedDelta(r.s, out, x, a, b, convs, rule, batch) }},
		{"a is [3, 8]", ErrShape, func() error { return GatedDelta(r.s, out, x, out, b, states, rule, batch) }},
		{"state rows[0] is -1", ErrIndex, func() error {
			return GatedDelta(r.s, out, x, a, b, states, rule, change(func(b *StateBatch) { b.Rows = r.ints(-1) }))
		}},
		{"w is [1, 8]", ErrShape, func() error { return GatedRMSNorm(r.s, x, x, x, out.RowRange(0, 1), 1, 0) }},
		{"z is [3, 8]", ErrShape, func() error { return GatedRMSNorm(r.s, x, x, out, x.RowRange(0, 1), 1, 0) }},
		{"8 of 16 columns in 2 groups, from 5", ErrShape, func() error { return PickGroups(r.s, out, x, 2, 5) }},
		{"8 of 16 columns in 3 groups", ErrShape, func() error { return PickGroups(r.s, out, x, 3, 0) }},
	} {
		if err := c.run(); !errors.Is(err, c.err) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("got %v, want %q", err, c.says)
		}
	}
	r.intact("out", out)
}
