package kernels

import (
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

	// Shared: every token has one more expert, whose rows follow those of all others, in the tokens' order. Places and Weights
	// have a last column for it. Its weight is 1, or the sigmoid of SharedGate, F32 [num_tokens, 1], if that is given.
	Shared     bool
	SharedGate Tensor
}

// chosen is how many experts a token chooses, where it has that many in all.
func (r Routing) chosen(all int) int {
	if r.Shared {
		return all - 1
	}
	return all
}

// Routes is the outcome: each token's experts, as rows to be gathered by expert.
//
//	Rows     I32 [1, num_tokens*k]  the token of each row, rows of one expert together, in the tokens' order
//	Starts   I32 [1, E+1]           expert e has the rows Starts[e] to Starts[e+1]
//	Places   I32 [num_tokens, k]    the row of each of a token's experts, the best first; k+1 with a shared one
//	Weights  F32 as many
type Routes struct{ Rows, Starts, Places, Weights Tensor }

// Route chooses k experts for each token, k being the columns of Places but for a shared one's: those with the largest
// scores, of equal ones the first. logits is F32 [num_tokens, E]; of a token whose logits are not all finite the choice is
// arbitrary, of NaN alone the weights are NaN.
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
	experts, tokens, all := logits.Cols, logits.Rows, to.Places.Cols
	k := r.chosen(all)
	if k < 1 || k > experts {
		return fmt.Errorf("%d of %d experts: %w", k, experts, ErrShape)
	}
	if err := to.Places.check("places", onlyI32, tokens, all); err != nil {
		return err
	}
	if err := to.Weights.check("weights", onlyF32, tokens, all); err != nil {
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
	if r.SharedGate.Cols > 0 {
		if err := r.SharedGate.check("shared gate", onlyF32, tokens, 1); err != nil {
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
	tokens, k, starts := logits.Rows, r.chosen(to.Places.Cols), to.Starts.ints(0)
	clear(starts)
	c := newChooser(r, logits.Cols, k)
	for t := range tokens {
		chosen := c.choose(logits.f32(t))
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
	for t := range tokens {
		places := to.Places.ints(t)
		for j, e := range places[:k] {
			places[j], rows[next[e]] = next[e], int32(t)
			next[e]++
		}
		if !r.Shared {
			continue
		}
		weight := &to.Weights.f32(t)[k]
		if places[k], *weight = int32(tokens*k+t), 1; r.SharedGate.Cols > 0 {
			*weight = float32(sigmoid(float64(r.SharedGate.f32(t)[0])))
		}
	}
}

// chooser holds what one token's choice needs.
type chooser struct {
	Routing
	scores, values []float64 // of each expert; values are what it is chosen by
	experts        []int32   // chosen

	sums         []float64 // of each group's best
	best, groups []int32   // of a group, and those chosen
}

func newChooser(r Routing, experts, k int) *chooser {
	c := &chooser{Routing: r, scores: make([]float64, experts), values: make([]float64, experts), experts: make([]int32, k)}
	if r.Groups > 1 {
		c.sums, c.best, c.groups = make([]float64, r.Groups), make([]int32, r.GroupBest), make([]int32, r.ChosenGroups)
	}
	return c
}

// choose returns the k best experts of a token, until the next call.
func (c *chooser) choose(logits []float32) []int32 {
	most, sum := math.Inf(-1), 0.0
	for _, x := range logits {
		most = max(most, float64(x))
	}
	for e, x := range logits {
		switch c.Scores {
		case SoftmaxScores:
			c.scores[e] = math.Exp(float64(x) - most)
			sum += c.scores[e]
		case SigmoidScores:
			c.scores[e] = sigmoid(float64(x))
		default:
			c.scores[e] = float64(x)
		}
	}
	for e := range c.scores {
		if c.Scores == SoftmaxScores {
			c.scores[e] /= sum
		}
		if c.values[e] = c.scores[e]; c.Bias.Rows > 0 {
			c.values[e] += float64(c.Bias.f32(0)[e])
		}
	}
	if c.Groups > 1 {
		c.leaveGroups()
	}
	largest(c.experts, c.values)
	return c.experts
}

// leaveGroups makes sure that no expert is chosen from other groups than the best.
func (c *chooser) leaveGroups() {
	size := len(c.values) / c.Groups
	for g := range c.sums {
		in := c.values[g*size : (g+1)*size]
		largest(c.best, in)
		c.sums[g] = 0
		for _, i := range c.best {
			c.sums[g] += in[i]
		}
	}
	largest(c.groups, c.sums)
	for e := range c.values {
		if !slices.Contains(c.groups, int32(e/size)) {
			c.values[e] = math.Inf(-1)
		}
	}
}

// largest finds the places of the largest values, of equal ones the first, in descending order.
func largest(to []int32, values []float64) {
	n := 0
	for i, v := range values {
		at := n
		for at > 0 && v > values[to[at-1]] {
			at--
		}
		if at == len(to) {
			continue
		}
		n = min(n+1, len(to))
		copy(to[at+1:n], to[at:n-1])
		to[at] = int32(i)
	}
}

// weigh writes the weights of the chosen.
func (c *chooser) weigh(to []float32, chosen []int32) {
	weight := func(e int32) float64 {
		if c.Scores == LogitScores {
			return math.Exp(c.scores[e] - c.scores[chosen[0]])
		}
		return c.scores[e]
	}
	sum := 1.0
	if c.Normalize || c.Scores == LogitScores {
		sum = 0
		for _, e := range chosen {
			sum += weight(e)
		}
	}
	for j, e := range chosen {
		to[j] = float32(weight(e) / sum * float64(c.Scale))
	}
}
