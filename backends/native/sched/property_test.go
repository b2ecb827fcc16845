package sched

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// machine stands in for runner and model: it carries plans out on a KV cache that remembers which text each slot was
// computed for, and checks every plan against what the sequences are owed.
type machine struct {
	*Scheduler
	states   []uint64 // textID of what each state was computed from
	kv       []uint64 // per slot, textID of the prefix that ends there
	requests []*request
	live     []*Seq
	numIdle  int // steps since the last token or end of a sequence
	// guess, if set, is how many tokens to draft behind an item, and how many of them are to be right.
	guess                   func() (wanted, right int)
	numDrafted, numAccepted int
}

// request is what a group was asked for and has been given.
type request struct {
	spec       GroupSpec
	logitsSeen []bool // prompt rows delivered
}

func newMachine(c Config) (*machine, error) {
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	return &machine{Scheduler: s, states: make([]uint64, c.MaxNumSeqs), kv: make([]uint64, c.NumBlocks*c.BlockSize)}, nil
}

// textID identifies all that keys and values at a position depend on, and what must not be shared.
func textID(spec *GroupSpec, long bool, tokens []int32) uint64 {
	h := uint64(14695981039346656037)
	add := func(x uint64) { h = (h ^ x) * 1099511628211 }
	add(spec.Adapter)
	if long {
		add(1)
	}
	for _, b := range []byte(spec.Salt) {
		add(uint64(b))
	}
	for _, t := range tokens {
		add(uint64(t) + 1)
	}
	return h
}

// nextToken is the model: a function of the text.
func nextToken(spec *GroupSpec, tokens []int32) int32 {
	return int32(textID(spec, false, tokens) >> 7 % 3)
}

func (m *machine) add(spec GroupSpec) error {
	r := &request{spec: spec, logitsSeen: make([]bool, len(spec.Prompt))}
	r.spec.Owner = r
	waiting := m.Stats().NumWaiting
	seqs, err := m.Add(r.spec)
	switch {
	case errors.Is(err, ErrFull) && waiting+spec.N <= m.cfg.MaxWaiting:
		return fmt.Errorf("full with %d waiting and %d more", waiting, spec.N)
	case errors.Is(err, ErrTooLong) && len(spec.Prompt)+spec.MaxTokens <= min(m.cfg.MaxLen, len(m.kv)):
		return fmt.Errorf("refused, though it fits: %w", err)
	case errors.Is(err, ErrFull) || errors.Is(err, ErrTooLong):
		return nil
	case err != nil:
		return err
	}
	m.requests = append(m.requests, r)
	m.live = append(m.live, seqs...)
	return nil
}

func (m *machine) finish(q *Seq) {
	m.Finish(q)
	m.numIdle = 0
	m.live = slices.DeleteFunc(m.live, func(o *Seq) bool { return o == q })
}

// step carries out one plan; the items that fail says so of are finished in place of updated.
func (m *machine) step(fail func() bool) error {
	plan := m.Next()
	if err := m.checkPlan(plan); err != nil {
		return err
	}
	if m.guess != nil {
		if err := m.draft(plan); err != nil {
			return err
		}
	}
	writers := map[int]*Seq{}
	for _, it := range plan.Items {
		if err := m.compute(it, writers); err != nil {
			return fmt.Errorf("%d tokens from %d in blocks %v: %w", it.Len, it.Start, it.Blocks, err)
		}
	}
	if m.numIdle++; len(m.live) == 0 {
		m.numIdle = 0
	}
	for _, it := range plan.Items {
		q, r := it.Seq, it.Seq.Owner.(*request)
		if fail() {
			m.finish(q)
			continue
		}
		if err := takeLogits(it); err != nil {
			return err
		}
		tokens := picked(it, func(tokens []int32) int32 { return nextToken(&r.spec, tokens) })
		m.numDrafted += len(it.Draft)
		m.numAccepted += max(0, len(tokens)-1)
		m.Update(it, tokens...)
		if it.Samples() {
			m.numIdle = 0
		}
		if q.NumComputed >= q.NumPrompt && q.NumOutput() >= q.MaxTokens {
			if err := m.checkOutput(q); err != nil {
				return err
			}
			m.finish(q)
		}
	}
	return m.checkProgress(plan)
}

// draft sets random drafts, after checking that they stay within the step's limits and cost nobody anything.
func (m *machine) draft(plan Plan) error {
	before := m.Stats()
	want, right := make([]int, len(plan.Items)), make([]int, len(plan.Items))
	for i := range want {
		want[i], right[i] = m.guess()
	}
	wished := slices.Clone(want)
	m.MakeRoom(plan, want)
	numTokens, numRows := plan.NumTokens, 0
	for i := range plan.Items {
		it := &plan.Items[i]
		q, r := it.Seq, it.Seq.Owner.(*request)
		switch {
		case want[i] < 0 || want[i] > wished[i]:
			return fmt.Errorf("%d draft tokens allowed, %d wished", want[i], wished[i])
		case want[i] > 0 && !it.Samples():
			return errors.New("a draft behind a prompt that is not complete")
		case want[i] > 0 && q.NumOutput()+1+want[i] > q.MaxTokens:
			return errors.New("a draft beyond the last token")
		case len(it.Blocks)*m.cfg.BlockSize < it.Start+it.Len+want[i]:
			return errors.New("a draft without blocks")
		}
		text := slices.Clone(q.Tokens)
		for k := range want[i] {
			t := nextToken(&r.spec, text)
			if k >= right[i] {
				t = 3 // never said
			}
			text = append(text, t)
		}
		it.Draft = text[len(q.Tokens):]
		if want[i] > 0 && m.numDrafted%2 == 0 { // the drafter may have less to say
			it.Draft = it.Draft[:want[i]-1]
		}
		numTokens += want[i]
		numRows += it.Len - it.LogitsFrom + want[i]
	}
	after := m.Stats()
	if after.NumPreemptions != before.NumPreemptions || after.NumRunning != before.NumRunning {
		return errors.New("a draft cost a sequence its place")
	}
	if numTokens > m.cfg.MaxBatchedTokens || numRows > m.cfg.MaxNumSeqs+m.cfg.MaxPromptLogits {
		return fmt.Errorf("%d tokens with drafts, %d rows of logits", numTokens, numRows)
	}
	return nil
}

func (m *machine) checkPlan(plan Plan) error {
	numTokens := 0
	seen := map[*Seq]bool{}
	for i, it := range plan.Items {
		numTokens += it.Len
		switch q := it.Seq; {
		case seen[q]:
			return errors.New("a sequence is planned twice")
		case !slices.Contains(m.live, q):
			return errors.New("a finished sequence is planned")
		case it.Len < 1 || it.Start != q.NumComputed || it.Start+it.Len > len(q.Tokens):
			return fmt.Errorf("%d tokens from %d are planned with %d of %d computed",
				it.Len, it.Start, q.NumComputed, len(q.Tokens))
		case it.Samples() != (it.Start+it.Len == len(q.Tokens) && q.MaxTokens > 0):
			return errors.New("wrong row is to be sampled")
		case it.Samples() && it.LogitsFrom >= it.Len:
			return errors.New("no logits to sample from")
		case i > 0 && plan.Items[i-1].Seq.Adapter > q.Adapter:
			return errors.New("adapters are not adjacent")
		}
		seen[it.Seq] = true
	}
	if numTokens != plan.NumTokens || numTokens > m.cfg.MaxBatchedTokens || len(plan.Items) > m.cfg.MaxNumSeqs {
		return fmt.Errorf("%d tokens of %d sequences, said to be %d", numTokens, len(plan.Items), plan.NumTokens)
	}
	return nil
}

// compute writes the item's slots, after checking that those before hold the sequence's own text.
func (m *machine) compute(it Item, writers map[int]*Seq) error {
	q, r := it.Seq, it.Seq.Owner.(*request)
	if len(it.Blocks)*m.cfg.BlockSize < it.Start+it.Len {
		return errors.New("too few blocks")
	}
	slot := func(i int) int { return int(it.Blocks[i/m.cfg.BlockSize])*m.cfg.BlockSize + i%m.cfg.BlockSize }
	for i := range it.Start {
		if m.kv[slot(i)] != textID(&r.spec, q.Long, q.Tokens[:i+1]) {
			return fmt.Errorf("position %d holds another text", i)
		}
		if writers[slot(i)] != nil {
			return fmt.Errorf("position %d is written by another sequence in the same step", i)
		}
	}
	if n := len(q.Tokens) + len(it.Draft); q.Long != (m.cfg.SwitchLen > 0 && n > m.cfg.SwitchLen) {
		return fmt.Errorf("%d tokens are computed as if they were long: %v", n, q.Long)
	}
	text := slices.Concat(q.Tokens[:it.Start+it.Len], it.Draft)
	if m.cfg.States {
		if it.Start > 0 && m.states[q.State] != textID(&r.spec, q.Long, text[:it.Start]) {
			return fmt.Errorf("the state at position %d is of another text", it.Start)
		}
		if len(it.Draft) > 0 {
			return errors.New("a draft, which a state could not forget")
		}
		m.states[q.State] = textID(&r.spec, q.Long, text)
	}
	for i := it.Start; i < len(text); i++ {
		if writers[slot(i)] != nil {
			return fmt.Errorf("position %d is written twice", i)
		}
		writers[slot(i)] = q
		m.kv[slot(i)] = textID(&r.spec, q.Long, text[:i+1])
	}
	for _, o := range m.running {
		for i := it.Start / m.cfg.BlockSize; o != q && i < len(it.Blocks); i++ {
			if slices.Contains(o.table.Blocks(), it.Blocks[i]) {
				return fmt.Errorf("block %d is written while another sequence holds it", it.Blocks[i])
			}
		}
	}
	return nil
}

// takeLogits notes the prompt rows whose logits are wanted.
func takeLogits(it Item) error {
	q, r := it.Seq, it.Seq.Owner.(*request)
	if !r.spec.PromptLogits {
		return nil
	}
	for i := it.Start + it.LogitsFrom; i < min(it.Start+it.Len, q.NumPrompt); i++ {
		if r.logitsSeen[i] && i < q.NumPrompt-1 { // the last row comes again for every sample
			return fmt.Errorf("prompt logits of position %d come twice", i)
		}
		r.logitsSeen[i] = true
	}
	return nil
}

func (m *machine) checkOutput(q *Seq) error {
	r := q.Owner.(*request)
	tokens := slices.Clone(r.spec.Prompt)
	for range r.spec.MaxTokens {
		tokens = append(tokens, nextToken(&r.spec, tokens))
	}
	if !slices.Equal(q.Tokens, tokens) {
		return fmt.Errorf("output is %v, want %v", q.Tokens, tokens)
	}
	if r.spec.PromptLogits && slices.Contains(r.logitsSeen, false) {
		return fmt.Errorf("prompt logits came for %v only", r.logitsSeen)
	}
	return nil
}

// checkProgress fails when nothing is done though there is work, or when work goes round in circles: without a token
// sampled every step computes something that is not lost again.
func (m *machine) checkProgress(plan Plan) error {
	if len(m.live) > 0 && len(plan.Items) == 0 {
		return fmt.Errorf("nothing is planned with %d sequences unfinished", len(m.live))
	}
	most := 1
	for _, q := range m.live {
		most += len(q.Tokens)
	}
	if m.numIdle > most {
		return fmt.Errorf("no token for %d steps", m.numIdle)
	}
	return m.CheckIntegrity()
}

// checkEmpty fails when something is left of finished sequences.
func (m *machine) checkEmpty() error {
	st := m.Stats()
	if !m.Idle() || st.NumUsedBlocks != 0 || st.NumRunning != 0 || st.NumWaiting != 0 || st.NumWaitingTokens != 0 ||
		len(m.Adapters(nil)) != 0 {
		return fmt.Errorf("all are finished and there is left: %+v, adapters %v", st, m.Adapters(nil))
	}
	return m.CheckIntegrity()
}

// random drives a machine; pick returns a number from 0 to n-1.
type random struct {
	*machine
	pick func(n int) int
}

func (r *random) config() Config {
	c := Config{
		MaxNumSeqs: 1 + r.pick(6), MaxWaiting: 1 + r.pick(20), BlockSize: 1 + r.pick(5), NumBlocks: 1 + r.pick(30),
		MaxLen: 2 + r.pick(80), MaxPromptLogits: 1 + r.pick(20), PrefixCache: r.pick(2) == 0,
	}
	c.MaxBatchedTokens = c.MaxNumSeqs + r.pick(20)
	c.SwitchLen = max(0, r.pick(60)-30)
	c.States = !c.PrefixCache && r.pick(2) == 0
	return c
}

// spec has few different tokens, adapters and salts, so that prefixes meet often.
func (r *random) spec() GroupSpec {
	spec := GroupSpec{
		Prompt: make([]int32, 1+r.pick(24)), N: []int{1, 1, 1, 2, 4}[r.pick(5)], MaxTokens: r.pick(40),
		Adapter: []uint64{0, 0, 1, 2}[r.pick(4)], Salt: []string{"", "", "s"}[r.pick(3)],
		Tenant: []string{"x", "y", "z"}[r.pick(3)], Priority: r.pick(6) / 4, PromptLogits: r.pick(4) == 0,
	}
	for i := r.pick(len(spec.Prompt) + 1); i < len(spec.Prompt); i++ {
		spec.Prompt[i] = int32(r.pick(2))
	}
	return spec
}

func (r *random) act() error {
	switch r.pick(10) {
	case 0, 1, 2:
		return r.add(r.spec())
	case 3:
		if len(r.live) > 0 {
			q := r.live[r.pick(len(r.live))]
			r.finish(q)
			r.Finish(q) // a second time does nothing
		}
		return r.CheckIntegrity()
	case 4:
		return r.step(func() bool { return r.pick(4) == 0 })
	}
	return r.step(never)
}

// run plays numActions random requests, cancellations, steps and failing steps on a tiny pool, and then lets all that
// is left run to its end.
func (r *random) run(numActions int) error {
	var err error
	if r.machine, err = newMachine(r.config()); err != nil {
		return err
	}
	if r.pick(3) > 0 {
		r.guess = func() (int, int) { return r.pick(9), r.pick(9) }
	}
	for range numActions {
		if err := r.act(); err != nil {
			return err
		}
	}
	for len(r.live) > 0 {
		if err := r.step(never); err != nil {
			return err
		}
	}
	return r.checkEmpty()
}

// TestRandom looks for small failures: rapid shrinks them.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := random{pick: func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }}
		if err := r.run(rapid.IntRange(0, 60).Draw(t, "actions")); err != nil {
			t.Fatalf("%+v: %v", r.cfg, err)
		}
	})
}

// TestLongRandom looks for rare ones: each run fills the machine.
func TestLongRandom(t *testing.T) {
	var total Stats
	numDrafted, numAccepted := 0, 0
	for seed := range uint64(200) {
		r := random{pick: rand.New(rand.NewPCG(seed, 1)).IntN}
		if err := r.run(300); err != nil {
			t.Fatalf("seed %d, %+v: %v", seed, r.cfg, err)
		}
		total.NumPreemptions += r.stats.NumPreemptions
		total.PrefixHitTokens += r.stats.PrefixHitTokens
		numDrafted += r.numDrafted
		numAccepted += r.numAccepted
	}
	if total.NumPreemptions < 500 || total.PrefixHitTokens < 5000 || numAccepted < 5000 || numDrafted-numAccepted < 5000 {
		t.Errorf("too little happened: %+v, %d of %d guesses right", total, numAccepted, numDrafted)
	}
}
