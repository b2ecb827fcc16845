package sched

import (
	"fmt"
	"slices"

	"pagoda/backends/native/kvcache"
)

// Scheduler holds all sequences of an engine and their blocks. See the package comment for its rules.
type Scheduler struct {
	cfg     Config
	pool    *kvcache.Pool
	tenants tenants
	running []*Seq  // by adapter, then arrival
	items   []Item  // of the last plan, reused
	states  []int32 // those of no running sequence; the last one is taken next

	numArrivals uint64
	stats       Stats
	adapters    map[uint64]AdapterStats
}

// New returns an empty scheduler.
func New(c Config) (*Scheduler, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	pool, err := kvcache.New(c.NumBlocks, c.BlockSize, c.PrefixCache)
	if err != nil {
		return nil, fmt.Errorf("sched: %w", err)
	}
	states := make([]int32, c.MaxNumSeqs)
	for i := range states {
		states[i] = int32(c.MaxNumSeqs - 1 - i)
	}
	return &Scheduler{
		cfg: c, pool: pool, states: states,
		tenants:  tenants{byName: map[string]*tenant{}},
		adapters: map[uint64]AdapterStats{},
	}, nil
}

// reservedOutput is how many output tokens a sequence has memory for from the start.
const reservedOutput = 1024

// Add puts a request's sequences into the queue. It fails with ErrFull or a *TooLongError.
func (s *Scheduler) Add(spec GroupSpec) ([]*Seq, error) {
	if len(spec.Prompt) == 0 || spec.N < 1 || spec.MaxTokens < 0 {
		return nil, fmt.Errorf("sched: %d sequences of %d prompt and %d output tokens",
			spec.N, len(spec.Prompt), spec.MaxTokens)
	}
	if limit := s.maxTokens(spec.MaxTokens); len(spec.Prompt) > limit || spec.MaxTokens > limit-len(spec.Prompt) {
		return nil, &TooLongError{NumPrompt: len(spec.Prompt), MaxTokens: spec.MaxTokens, Limit: limit}
	}
	if spec.N > s.cfg.MaxWaiting-s.stats.NumWaiting {
		return nil, ErrFull
	}
	g := &group{logits: spec.PromptLogits, salt: spec.Salt}
	t := s.tenants.join(spec.Tenant, spec.N)
	seqs := make([]*Seq, spec.N)
	size := len(spec.Prompt) + min(spec.MaxTokens, reservedOutput)
	for i := range seqs {
		s.numArrivals++
		seqs[i] = &Seq{
			Tokens: append(make([]int32, 0, size), spec.Prompt...), NumPrompt: len(spec.Prompt), MaxTokens: spec.MaxTokens,
			Index: i, Adapter: spec.Adapter, Owner: spec.Owner,
			group: g, tenant: t, priority: spec.Priority, arrival: s.numArrivals,
			heapIndex: -1,
		}
		s.newTable(seqs[i])
		s.countWaiting(seqs[i], 1)
	}
	g.seqs = slices.Clone(seqs)
	s.enqueue(seqs[0])
	for _, q := range seqs[1:] {
		q.state = blocked
	}
	return seqs, nil
}

// maxTokens is the longest sequence of numOutput output tokens that can run to its end, alone if need be. The last
// output token's keys and values are never computed, so it needs no place in a block.
func (s *Scheduler) maxTokens(numOutput int) int {
	return min(s.cfg.MaxLen, s.cfg.NumBlocks*s.cfg.BlockSize+min(numOutput, 1))
}

func (s *Scheduler) enqueue(q *Seq) {
	q.state = waiting
	q.tenant.push(q)
}

// Finish ends a sequence in any state: it is complete, cancelled or failed. Its blocks are free at once; the full ones
// whose tokens are computed stay cached. It does nothing on a finished sequence. A plan that holds the sequence must
// have been carried out before.
func (s *Scheduler) Finish(q *Seq) {
	switch q.state {
	case finished:
		return
	case waiting:
		q.tenant.remove(q)
		s.countWaiting(q, -1)
	case blocked:
		s.countWaiting(q, -1)
	case running:
		s.states = append(s.states, q.State)
		s.pool.Release(&q.table)
		s.running = slices.DeleteFunc(s.running, func(o *Seq) bool { return o == q })
		s.countRunning(q, -1)
	}
	q.state = finished
	s.tenants.leave(q.tenant)
	g := q.group
	g.seqs = slices.DeleteFunc(g.seqs, func(o *Seq) bool { return o == q })
	if !g.ready && len(g.seqs) > 0 && g.seqs[0].state == blocked {
		s.enqueue(g.seqs[0]) // the leader is gone before the prompt was computed
	}
}

// Idle reports whether every sequence is finished.
func (s *Scheduler) Idle() bool { return len(s.tenants.active) == 0 }
