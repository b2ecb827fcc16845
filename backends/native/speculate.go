package native

import (
	"time"

	"pagoda/backends/native/draft"
	"pagoda/backends/native/sched"
)

// maxSpeculativeTokens bounds Options.NumSpeculativeTokens.
const maxSpeculativeTokens = 64

// drafter guesses what sequences say next.
type drafter interface {
	// prepare learns the items' texts. What it takes is not counted as the cost of a draft.
	prepare(plan sched.Plan, most []int) error
	// draft sets the Draft of each of the plan's items to at most most[i] tokens, where it knows any.
	draft(plan sched.Plan, most []int) error
	// forget frees what is kept for a choice that has ended.
	forget(c *choice)
}

// speculator has the drafter guess as much as is worth its time. It belongs to the loop.
//
// A row of a step's batch that holds a wrong guess costs time, one that holds a right guess saves a whole step of its
// sequence. Both are counted in the time that one token of the sequence takes without guesses: a right guess saves 1, a
// row costs stepCost.ofGuess, which nears 0 where reading the weights is what takes the time and 1 where many rows
// do. By that measure each sequence guesses as far ahead as the next token gains more than the draft so far, and
// spends no more than it has saved before and a fiftieth of its time, guess.learn keeps the account. So a text that cannot
// be guessed is slower by a fiftieth and one token's time at most.
type speculator struct {
	drafter drafter
	cost    stepCost
	most    []int // by item of the plan, reused
}

// draft sets the drafts of the plan's items. After an error there are none.
func (s *speculator) draft(sc *sched.Scheduler, plan sched.Plan) error {
	numSampling, numWanting := 0, 0
	for _, it := range plan.Items {
		if it.Samples() {
			numSampling++
		}
	}
	cost := s.cost.ofGuess(numSampling)
	s.most = s.most[:0]
	for _, it := range plan.Items {
		n := 0
		if g := it.Seq.Owner.(*choice).guess; g != nil && it.Samples() {
			n = g.length(cost)
		}
		if n > 0 {
			numWanting++
		}
		s.most = append(s.most, n)
	}
	if numWanting == 0 {
		return nil
	}
	sc.MakeRoom(plan, s.most)
	if err := s.guarded(plan); err != nil {
		for i := range plan.Items {
			plan.Items[i].Draft = nil
			plan.Items[i].Seq.Owner.(*choice).guess = nil
		}
		return err
	}
	return nil
}

func (s *speculator) guarded(plan sched.Plan) (err error) {
	defer recovered(&err)
	if err := s.drafter.prepare(plan, s.most); err != nil {
		return err
	}
	start := time.Now()
	if err := s.drafter.draft(plan, s.most); err != nil {
		return err
	}
	s.cost.addDrafts(plan, time.Since(start))
	return nil
}

// guess is what is known about guessing one sequence's text.
type guess struct {
	limit  int     // tokens of a draft
	rate   float64 // how often a token is guessed right, where those before it in the draft were
	credit float64 // what may be lost, in times of a token
	cost   float64 // of a token guessed, as of the last step

	lookup *draft.Lookup // of prompt and output, for lookupDrafter; nil with another
	buffer []int32       // the last draft's memory
}

const (
	firstRate    = 0.6  // a guess at guess.rate
	rateWeight   = 0.15 // of the latest token in guess.rate
	firstCredit  = 1
	mostCredit   = 4
	creditGrowth = 0.02 // per token
)

func newGuess(limit int) *guess {
	return &guess{limit: limit, rate: firstRate, credit: firstCredit}
}

// length is how many tokens to guess where each costs so much.
func (g *guess) length(cost float64) int {
	g.cost = cost
	most := max(0, min(g.limit, int(g.credit/cost)))
	// The k-th token is right with rate^k. The draft so far makes a step yield so many tokens for the time of 1+cost·k;
	// one more pays if it yields more for its cost. A single token may always be tried: rates change.
	tokens, right := 1.0, g.rate
	for k := range most {
		if k > 0 && right*(1+cost*float64(k)) <= cost*tokens {
			return k
		}
		tokens += right
		right *= g.rate
	}
	return most
}

// learn takes what came of a step: the first accepted of drafted tokens were right, and picked tokens came of it in all.
func (g *guess) learn(drafted, accepted, picked int) {
	g.credit += creditGrowth*float64(picked) + float64(accepted) - g.cost*float64(drafted)
	g.credit = min(g.credit, mostCredit)
	for range accepted {
		g.rate += rateWeight * (1 - g.rate)
	}
	if accepted < drafted && picked > accepted { // else the answer ended there
		g.rate -= rateWeight * g.rate
	}
}

// stepCost is what steps cost: a straight line over their rows, fitted to the latest steps.
type stepCost struct {
	weight, rows, seconds, rows2, rowSeconds float64 // sums over steps, the older the lighter
	drafting                                 float64 // seconds to guess a token, a moving average
}

const (
	stepDecay = 0.98 // what the step before counts
	// One row more costs firstSlope of a step of one row, until steps of different sizes tell better: so much does
	// a model of 0.6 B parameters take on two cores. It counts as much as rows that vary by slopeTrust.
	firstSlope, slopeTrust = 0.12, 0.1
	lowestCost             = 0.01
)

// addStep takes a step's time. Steps with prefill are another matter: with many rows, each costs less.
func (c *stepCost) addStep(plan sched.Plan, took time.Duration) {
	if plan.NumTokens != len(plan.Items) {
		return
	}
	n, seconds := float64(plan.NumRows()), took.Seconds()
	if c.weight > 5 {
		seconds = min(seconds, 3*c.seconds/c.weight) // another program's doing
	}
	add := func(sum *float64, x float64) { *sum = *sum*stepDecay + x }
	add(&c.weight, 1)
	add(&c.rows, n)
	add(&c.seconds, seconds)
	add(&c.rows2, n*n)
	add(&c.rowSeconds, n*seconds)
}

// addDrafts takes the time that the plan's drafts took.
func (c *stepCost) addDrafts(plan sched.Plan, took time.Duration) {
	n := plan.NumRows() - plan.NumTokens
	if n == 0 {
		return
	}
	each := took.Seconds() / float64(n)
	if c.drafting == 0 {
		c.drafting = each
	}
	c.drafting += 0.1 * (min(each, 3*c.drafting) - c.drafting)
}

// ofGuess is what one token guessed costs in a step of n sequences, as a share of what each of their own tokens does.
func (c *stepCost) ofGuess(n int) float64 {
	if c.weight == 0 {
		return firstSlope
	}
	meanRows, meanSeconds := c.rows/c.weight, c.seconds/c.weight
	variance := c.rows2/c.weight - meanRows*meanRows
	covariance := c.rowSeconds/c.weight - meanRows*meanSeconds
	first := firstSlope * meanSeconds / (1 + firstSlope*(meanRows-1))
	slope := (covariance + slopeTrust*first) / (variance + slopeTrust)
	slope = min(max(slope, 0), meanSeconds/meanRows)
	step := meanSeconds + slope*(float64(n)-meanRows)
	return max((slope+c.drafting)*float64(n)/step, lowestCost)
}

// lookupDrafter guesses that a text repeats itself.
type lookupDrafter struct{}

func (lookupDrafter) prepare(plan sched.Plan, most []int) error {
	for i, it := range plan.Items {
		if most[i] > 0 {
			l := it.Seq.Owner.(*choice).guess.lookup
			l.Add(it.Seq.Tokens[l.Len():]...)
		}
	}
	return nil
}

func (lookupDrafter) draft(plan sched.Plan, most []int) error {
	for i := range plan.Items {
		it := &plan.Items[i]
		if most[i] == 0 {
			continue
		}
		g := it.Seq.Owner.(*choice).guess
		g.buffer = g.lookup.Draft(g.buffer[:0], most[i])
		it.Draft = g.buffer
	}
	return nil
}

func (lookupDrafter) forget(*choice) {}
