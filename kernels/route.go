package kernels

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Scores are what a router's logits become before experts are chosen by them.
type Scores int

// The scores.
const (
	SoftmaxScores Scores = iota // softmax over all experts
	SigmoidScores               // of each on its own
	LogitScores                 // the logits; the weights are a softmax over those chosen
)

// Routing says how experts are chosen for a token and weighted.
type Routing struct {
	Scores    Scores
	Bias      Tensor // zero: none; F32 [1, E]: added to the scores for the choice, not for the weights
	Normalize bool   // the weights of the chosen are divided by their sum
	Scale     float32

	// Experts may be in groups of neighbours, of which only the best may be chosen from: those with the largest sum of their
	// GroupBest best scores, with the bias. Groups 0 or 1: no such thing.
	Groups, ChosenGroups, GroupBest int
}

// Routes is the outcome: each token's experts, as rows to be gathered by expert.
//
//	Rows     I32 [1, num_tokens*k]  the token of each row, rows of one expert together, in the tokens' order
//	Starts   I32 [1, E+1]           expert e has the rows Starts[e] to Starts[e+1]
//	Places   I32 [num_tokens, k]    the row of each of a token's experts, the best first
//	Weights  F32 [num_tokens, k]
type Routes struct{ Rows, Starts, Places, Weights Tensor }

// Route chooses k experts for each token, k being the columns of Places: those with the largest scores, of equal ones the
// first. logits is F32 [num_tokens, E]; where they are not finite the choice is arbitrary and the weights are NaN.
//
// Sources: Jiang et al. 2024, arXiv:2401.04088 (softmax); DeepSeek-AI 2024, arXiv:2405.04434 (groups), arXiv:2412.19437
// (sigmoid with a bias).
func Route(s *Stream, to Routes, logits Tensor, r Routing) error {
	if err := checkRoute(to, logits, r); err != nil {
		return fmt.Errorf("route: %w", err)
	}
	if _, err := s.begin("route"); err != nil {
		return err
	}
	defer s.end()
	route(to, logits, r)
	return nil
}

func checkRoute(to Routes, logits Tensor, r Routing) error {
	if err := logits.check("logits", onlyF32, -1, -1); err != nil {
		return err
	}
	experts, tokens, k := logits.Cols, logits.Rows, to.Places.Cols
	if k < 1 || k > experts {
		return fmt.Errorf("%d of %d experts: %w", k, experts, ErrShape)
	}
	if err := to.Places.check("places", onlyI32, tokens, k); err != nil {
		return err
	}
	if err := to.Weights.check("weights", onlyF32, tokens, k); err != nil {
		return err
	}
	if err := to.Rows.check("rows", onlyI32, 1, tokens*k); err != nil {
		return err
	}
	if err := to.Starts.check("starts", onlyI32, 1, experts+1); err != nil {
		return err
	}
	if r.Bias.Rows > 0 {
		if err := r.Bias.check("bias", onlyF32, 1, experts); err != nil {
			return err
		}
	}
	if r.Groups > 1 {
		size := experts / r.Groups
		if experts%r.Groups != 0 || r.ChosenGroups < 1 || r.ChosenGroups > r.Groups || r.GroupBest < 1 || r.GroupBest > size ||
			k > r.ChosenGroups*size {
			return fmt.Errorf("%d experts in %d groups, of which %d are chosen by their %d best: %w", experts, r.Groups,
				r.ChosenGroups, r.GroupBest, ErrShape)
		}
	}
	return nil
}

// route is the work: a few operations for each expert of a token, which no vector makes worth another implementation.
func route(to Routes, logits Tensor, r Routing) {
	k, starts := to.Places.Cols, to.Starts.ints(0)
	clear(starts)
	c := chooser{Routing: r, scores: make([]float64, logits.Cols), order: make([]int32, logits.Cols)}
	for t := range logits.Rows {
		chosen := c.choose(logits.f32(t), k)
		copy(to.Places.ints(t), chosen) // experts, for now
		c.weigh(to.Weights.f32(t), chosen)
		for _, e := range chosen {
			starts[e+1]++
		}
	}
	next := make([]int32, logits.Cols)
	for e := range next {
		next[e] = starts[e]
		starts[e+1] += starts[e]
	}
	rows := to.Rows.ints(0)
	for t := range logits.Rows {
		for j, e := range to.Places.ints(t) {
			to.Places.ints(t)[j], rows[next[e]] = next[e], int32(t)
			next[e]++
		}
	}
}

// chooser holds what one token's choice needs.
type chooser struct {
	Routing
	scores []float64 // without the bias
	order  []int32
}

// choose returns the k best experts of a token.
func (c *chooser) choose(logits []float32, k int) []int32 {
	most, sum := math.Inf(-1), 0.0
	for _, x := range logits {
		most = max(most, float64(x))
	}
	for e, x := range logits {
		switch c.order[e] = int32(e); c.Scores {
		case SoftmaxScores:
			c.scores[e] = math.Exp(float64(x) - most)
			sum += c.scores[e]
		case SigmoidScores:
			c.scores[e] = 1 / (1 + math.Exp(-float64(x)))
		default:
			c.scores[e] = float64(x)
		}
	}
	for e := range c.scores {
		if c.Scores == SoftmaxScores {
			c.scores[e] /= sum
		}
	}
	allowed := c.groups()
	value := func(e int32) float64 {
		if allowed != nil && !allowed[int(e)/(len(c.scores)/c.Groups)] {
			return math.Inf(-1)
		}
		return c.biased(e)
	}
	slices.SortStableFunc(c.order, func(a, b int32) int { return cmp.Compare(value(b), value(a)) })
	return c.order[:k]
}

func (c *chooser) biased(e int32) float64 {
	if c.Bias.Rows > 0 {
		return c.scores[e] + float64(c.Bias.f32(0)[e])
	}
	return c.scores[e]
}

// groups says which groups may be chosen from; nil: there are none.
func (c *chooser) groups() []bool {
	if c.Groups <= 1 {
		return nil
	}
	size := len(c.scores) / c.Groups
	sums, order := make([]float64, c.Groups), make([]int, c.Groups)
	for g := range sums {
		best := make([]float64, size)
		for i := range best {
			best[i] = c.biased(int32(g*size + i))
		}
		slices.SortFunc(best, func(a, b float64) int { return cmp.Compare(b, a) })
		for _, v := range best[:c.GroupBest] {
			sums[g] += v
		}
		order[g] = g
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(sums[b], sums[a]) })
	allowed := make([]bool, c.Groups)
	for _, g := range order[:c.ChosenGroups] {
		allowed[g] = true
	}
	return allowed
}

// weigh writes the weights of the chosen.
func (c *chooser) weigh(to []float32, chosen []int32) {
	sum := 0.0
	for j, e := range chosen {
		w := c.scores[e]
		if c.Scores == LogitScores {
			w = math.Exp(w - c.scores[chosen[0]])
		}
		to[j] = float32(w)
		sum += w
	}
	for j, e := range chosen {
		w := c.scores[e]
		if c.Scores == LogitScores {
			w = math.Exp(w-c.scores[chosen[0]]) / sum
		} else if c.Normalize {
			w /= sum
		}
		to[j] = float32(w * float64(c.Scale))
	}
}
