package kernels

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// TestMatMulGroups: what a row gets is what MatMul gives it, bit for bit, for every dtype and any number of rows per matrix.
func TestMatMulGroups(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, c := range []struct {
			n, k int
			rows []int
		}{
			{70, 67, []int{0, 0, 0}}, {64, 128, []int{1}}, {200, 96, []int{1, 0, 1, 0, 1, 1}}, {130, 70, []int{3, 0, 60, 7, 0}},
			{64, 64, []int{0, 110, 0}},
		} {
			for _, types := range []struct{ x, w DType }{{F32, F32}, {BF16, BF16}, {F32, BF16}, {F32, F16}, {BF16, W8}, {F32, W4}} {
				var experts []*Matrix
				starts, total := []int32{0}, 0
				for _, rows := range c.rows {
					experts = append(experts, r.matrix(types.w, c.n, c.k))
					total += rows
					starts = append(starts, int32(total))
				}
				x, out := r.random(types.x, total, c.k), r.raw(F32, total, c.n, 3)
				want := r.clone(out)
				r.ok(MatMulGroups(r.s, out, x, r.ints(starts...), experts))
				for e, m := range experts {
					if from, to := int(starts[e]), int(starts[e+1]); from < to {
						r.ok(MatMul(r.s, want.RowRange(from, to), x.RowRange(from, to), m))
					}
				}
				r.same(fmt.Sprint(c, types), out, want)
				r.intact("matmul groups", out)
			}
		}
	})
}

func TestCombine(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for _, c := range []struct{ tokens, k, n, rows int }{{0, 2, 5, 3}, {1, 1, 1, 1}, {7, 3, 70, 21}, {40, 8, 33, 100}} {
			x, out, weights := r.random(F32, c.rows, c.n), r.raw(F32, c.tokens, c.n, 2), r.random(F32, c.tokens, c.k)
			places := r.raw(I32, c.tokens, c.k, 0)
			for i := range c.tokens {
				for j := range c.k {
					places.ints(i)[j] = int32(r.IntN(c.rows))
				}
			}
			want := r.clone(out)
			r.ok(Combine(r.s, out, x, places, weights))
			r.ok(refBackend{}.combine(want, x, places, weights))
			r.near(fmt.Sprint("combine ", c), out, want, func(int, int) float64 { return float64(c.k) * 25 * unit }) // terms below 25
		}
	})
}

func TestAddGroups(t *testing.T) {
	eachVariant(t, func(r *rig) {
		x, b := r.random(F32, 9, 37), r.random(F32, 4, 37)
		want := r.clone(x)
		r.ok(AddGroups(r.s, x, r.ints(0, 2, 2, 8, 9), b))
		for i, e := range []int{0, 0, 2, 2, 2, 2, 2, 2, 3} {
			for j := range want.f32(i) {
				want.f32(i)[j] += b.f32(e)[j]
			}
		}
		r.same("add groups", x, want)
		r.intact("add groups", x)
	})
}

// routes are buffers for tokens with k of E experts.
func (r *rig) routes(tokens, k, experts int) Routes {
	return Routes{r.raw(I32, 1, tokens*k, 0), r.raw(I32, 1, experts+1, 0), r.raw(I32, tokens, k, 0), r.raw(F32, tokens, k, 0)}
}

// TestRoute holds the choice to the definitions, written out over all experts of a token.
func TestRoute(t *testing.T) {
	r := newRig(t, freshSeed(t), Variants()[0], 1)
	const tokens, experts, k = 30, 16, 3
	bias := r.random(F32, 1, experts)
	for name, o := range map[string]Routing{
		"mixtral":         {Scores: SoftmaxScores, Normalize: true, Scale: 1},
		"olmoe":           {Scores: SoftmaxScores, Scale: 1},
		"gpt-oss":         {Scores: LogitScores, Scale: 1},
		"deepseek v2":     {Scores: SoftmaxScores, Scale: 16, Groups: 4, ChosenGroups: 2, GroupBest: 1},
		"deepseek v3":     {Scores: SigmoidScores, Bias: bias, Normalize: true, Scale: 2.5, Groups: 8, ChosenGroups: 3, GroupBest: 2},
		"without groups":  {Scores: SigmoidScores, Bias: bias, Normalize: true, Scale: 2.5, Groups: 1, ChosenGroups: 1},
		"group of a kind": {Scores: SigmoidScores, Normalize: true, Scale: 1, Groups: 4, ChosenGroups: 4, GroupBest: 2},
	} {
		t.Run(name, func(t *testing.T) {
			logits, to := r.random(F32, tokens, experts), r.routes(tokens, k, experts)
			r.ok(Route(r.s, to, logits, o))
			seen := map[int32]bool{}
			for i := range tokens {
				scores, biased := make([]float64, experts), make([]float64, experts)
				sum := 0.0
				for _, x := range logits.f32(i) {
					sum += math.Exp(float64(x))
				}
				for e, x := range logits.f32(i) {
					scores[e] = map[Scores]float64{SoftmaxScores: math.Exp(float64(x)) / sum, SigmoidScores: 1 / (1 + math.Exp(-float64(x))),
						LogitScores: float64(x)}[o.Scores]
					biased[e] = scores[e]
					if o.Bias.Rows > 0 {
						biased[e] += float64(bias.f32(0)[e])
					}
				}
				if o.Groups > 1 { // leave out what is in a group with too many better ones
					size := experts / o.Groups
					value := func(g int) (v float64) {
						in := slices.Sorted(slices.Values(biased[g*size : (g+1)*size]))
						for _, x := range in[size-o.GroupBest:] {
							v += x
						}
						return v
					}
					values := make([]float64, o.Groups)
					for g := range values {
						values[g] = value(g)
					}
					for g := range values {
						better := 0
						for _, v := range values {
							if v > values[g] {
								better++
							}
						}
						for e := g * size; better >= o.ChosenGroups && e < (g+1)*size; e++ {
							biased[e] = math.Inf(-1)
						}
					}
				}
				total, chosen := 0.0, make([]int, k)
				for j, row := range to.Places.ints(i) {
					e := slices.IndexFunc(to.Starts.ints(0), func(s int32) bool { return s > row }) - 1
					better := 0
					for _, v := range biased {
						if v > biased[e] {
							better++
						}
					}
					if better != j {
						t.Fatalf("token %d: choice %d is expert %d, which %d are better than", i, j, e, better)
					}
					if to.Rows.ints(0)[row] != int32(i) || seen[row] {
						t.Fatalf("row %d belongs to token %d, place %d says %d", row, to.Rows.ints(0)[row], j, i)
					}
					seen[row] = true
					if chosen[j] = e; o.Scores == LogitScores {
						scores[e] = math.Exp(scores[e])
					}
					total += scores[e]
				}
				for j, e := range chosen {
					want := scores[e] * float64(o.Scale)
					if o.Normalize || o.Scores == LogitScores {
						want /= total
					}
					if got := to.Weights.f32(i)[j]; !(math.Abs(float64(got)-want) <= 1e-6*want) {
						t.Fatalf("token %d: weight %d is %g, want %g", i, j, got, want)
					}
				}
			}
			if n := to.Starts.ints(0)[experts]; n != tokens*k {
				t.Errorf("%d rows", n)
			}
		})
	}
}

// TestRouteTies: of equal scores the first expert is taken, and rows of an expert keep the tokens' order; those of a shared
// expert come last.
func TestRouteTies(t *testing.T) {
	r := newRig(t, freshSeed(t), Variants()[0], 1)
	logits, to := r.raw(F32, 3, 4, 0), r.routes(3, 2, 4)
	for i := range 3 {
		clear(logits.f32(i))
	}
	r.ok(Route(r.s, to, logits, Routing{Scale: 1}))
	if !slices.Equal(to.Rows.ints(0), []int32{0, 1, 2, 0, 1, 2}) || !slices.Equal(to.Starts.ints(0), []int32{0, 3, 6, 6, 6}) {
		t.Errorf("rows %v, starts %v", to.Rows.ints(0), to.Starts.ints(0))
	}
	shared, gate := r.routes(3, 3, 4), r.random(F32, 3, 1)
	shared.Rows = to.Rows
	for _, o := range []Routing{{Scale: 1, Shared: true}, {Scale: 1, Shared: true, SharedGate: gate}} {
		r.ok(Route(r.s, shared, logits, o))
		for i, want := range [][]int32{{0, 3, 6}, {1, 4, 7}, {2, 5, 8}} {
			weight := 1.0
			if o.SharedGate.Rows > 0 {
				weight = 1 / (1 + math.Exp(-float64(gate.f32(i)[0])))
			}
			if got := shared.Weights.f32(i)[2]; !slices.Equal(shared.Places.ints(i), want) || !(math.Abs(float64(got)-weight) <= 1e-7) {
				t.Errorf("token %d with a shared expert has rows %v, want %v; its weight is %g, want %g", i, shared.Places.ints(i),
					want, got, weight)
			}
		}
	}
	none := r.routes(0, 2, 4)
	r.ok(Route(r.s, none, r.raw(F32, 0, 4, 0), Routing{Scale: 1}))
	if !slices.Equal(none.Starts.ints(0), []int32{0, 0, 0, 0, 0}) {
		t.Errorf("starts without tokens: %v", none.Starts.ints(0))
	}
}
