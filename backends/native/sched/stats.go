package sched

import (
	"cmp"
	"fmt"
	"slices"

	"pagoda/backends/native/kvcache"
)

// Stats is the state of a scheduler in numbers.
type Stats struct {
	NumRunning       int
	NumWaiting       int
	NumWaitingTokens int // at most so many tokens are still to be computed for the waiting sequences

	NumBlocks       int
	NumUsedBlocks   int // held by running sequences
	NumCachedBlocks int // held by none, but still found in the prefix cache: free if need be

	NumPreemptions    int64
	PrefixQueryTokens int64 // tokens of sequences looked up in the prefix cache when first admitted
	PrefixHitTokens   int64 // those of them found
}

// AdapterStats counts the sequences of one adapter.
type AdapterStats struct {
	Adapter                uint64
	NumRunning, NumWaiting int
}

// Stats returns the present numbers. It costs nothing.
func (s *Scheduler) Stats() Stats {
	st := s.stats
	st.NumBlocks = s.pool.NumBlocks()
	st.NumUsedBlocks = s.pool.NumUsed()
	st.NumCachedBlocks = s.pool.NumCached()
	return st
}

// Adapters appends to list the running and waiting sequences of every adapter that has any, the base first.
func (s *Scheduler) Adapters(list []AdapterStats) []AdapterStats {
	from := len(list)
	for _, a := range s.adapters {
		list = append(list, a)
	}
	slices.SortFunc(list[from:], func(a, b AdapterStats) int { return cmp.Compare(a.Adapter, b.Adapter) })
	return list
}

// countWaiting adds n, which is 1 or -1, to the numbers of waiting sequences like q.
func (s *Scheduler) countWaiting(q *Seq, n int) {
	s.stats.NumWaiting += n
	s.stats.NumWaitingTokens += n * (q.NumPrompt + q.MaxTokens)
	s.countAdapter(q, 0, n)
}

func (s *Scheduler) countRunning(q *Seq, n int) {
	s.stats.NumRunning += n
	q.tenant.numRunning += n
	s.countAdapter(q, n, 0)
}

// countPrefix counts the first look-up of q in the prefix cache, if there was one.
func (s *Scheduler) countPrefix(q *Seq) {
	if s.cfg.PrefixCache && !q.wantsPromptLogits() {
		s.stats.PrefixQueryTokens += int64(len(q.Tokens))
		s.stats.PrefixHitTokens += int64(q.NumCachedTokens)
	}
}

func (s *Scheduler) countAdapter(q *Seq, numRunning, numWaiting int) {
	a := s.adapters[q.Adapter]
	a.Adapter = q.Adapter
	a.NumRunning += numRunning
	a.NumWaiting += numWaiting
	if a.NumRunning == 0 && a.NumWaiting == 0 {
		delete(s.adapters, q.Adapter)
		return
	}
	s.adapters[q.Adapter] = a
}

// CheckIntegrity verifies the scheduler's invariants and its pool's. It takes time proportional to all they hold.
func (s *Scheduler) CheckIntegrity() error {
	var tables []*kvcache.Table
	owners := make([]int, s.cfg.MaxNumSeqs) // of each state
	for _, state := range s.states {
		owners[state]++
	}
	for i, q := range s.running {
		if q.state != running || i > 0 && compareRunning(s.running[i-1], q) >= 0 {
			return fmt.Errorf("sched: running sequence %d (state %d) is out of place", i, q.state)
		}
		if q.NumComputed > len(q.Tokens) || len(q.table.Blocks()) < s.pool.BlocksFor(q.NumComputed) {
			return fmt.Errorf("sched: %d of %d tokens computed in %d blocks",
				q.NumComputed, len(q.Tokens), len(q.table.Blocks()))
		}
		tables = append(tables, &q.table)
		owners[q.State]++
	}
	for state, n := range owners {
		if n != 1 {
			return fmt.Errorf("sched: state %d is that of %d running sequences or free twice", state, n)
		}
	}
	if len(s.running) > s.cfg.MaxNumSeqs || len(s.running) != s.stats.NumRunning {
		return fmt.Errorf("sched: %d sequences run, counted as %d, at most %d",
			len(s.running), s.stats.NumRunning, s.cfg.MaxNumSeqs)
	}
	if err := s.checkWaiting(); err != nil {
		return err
	}
	return s.pool.CheckIntegrity(tables)
}

// checkWaiting verifies the queues, through the groups' sequences, which are all that are not finished.
func (s *Scheduler) checkWaiting() error {
	numSeqs, numQueued, numIdle, numRunning := 0, 0, 0, 0
	groups := map[*group]bool{}
	for _, t := range s.tenants.byName {
		if t.numSeqs == 0 {
			numIdle++
		}
		numSeqs += t.numSeqs
		numQueued += len(t.waiting)
		numRunning += t.numRunning
		for i, q := range t.waiting {
			if q.state != waiting || q.heapIndex != i || q.tenant != t || len(q.table.Blocks()) > 0 {
				return fmt.Errorf("sched: sequence %d of tenant %q (state %d) should not wait there", i, t.name, q.state)
			}
			groups[q.group] = true
		}
	}
	if numIdle != s.tenants.numIdle || numIdle+len(s.tenants.active) != len(s.tenants.byName) {
		return fmt.Errorf("sched: %d tenants, %d active, %d idle, counted as %d",
			len(s.tenants.byName), len(s.tenants.active), numIdle, s.tenants.numIdle)
	}
	if numRunning != s.stats.NumRunning {
		return fmt.Errorf("sched: %d sequences run, counted as %d of the tenants", s.stats.NumRunning, numRunning)
	}
	for _, q := range s.running {
		groups[q.group] = true
	}
	numBlocked := 0
	for g := range groups {
		for _, q := range g.seqs {
			if q.state != blocked {
				continue
			}
			numBlocked++
			if g.ready {
				return fmt.Errorf("sched: sequence %d is blocked though its group's prompt is computed", q.Index)
			}
		}
	}
	if numQueued+numBlocked != s.stats.NumWaiting || numSeqs != s.stats.NumWaiting+s.stats.NumRunning {
		return fmt.Errorf("sched: %d queued and %d blocked counted as %d waiting; %d sequences in all, %d running",
			numQueued, numBlocked, s.stats.NumWaiting, numSeqs, s.stats.NumRunning)
	}
	return nil
}
