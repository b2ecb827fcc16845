package sched

import "slices"

// Plan is one step. It and its slices are valid until the next call of Next or Finish.
type Plan struct {
	Items     []Item // by adapter, the base first, then by arrival; empty: there is nothing to do
	NumTokens int    // sum of Items' Len
}

// NumRows is the number of tokens to compute, drafts included.
func (p Plan) NumRows() (n int) {
	for _, it := range p.Items {
		n += it.NumRows()
	}
	return n
}

// Item is the part of a step that belongs to one sequence: the tokens Seq.Tokens[Start:Start+Len] are computed, and
// behind them those of Draft, a guess at what follows, which the caller sets after MakeRoom.
type Item struct {
	Seq        *Seq
	Start, Len int
	Draft      []int32
	Blocks     []int32 // block table, covering Start+Len tokens and the draft that MakeRoom allows
	// LogitsFrom is the first of the rows whose logits are wanted, with all rows after it; Len: none. Row i is position
	// Start+i and predicts token Start+i+1.
	LogitsFrom int

	samples bool
}

// Samples reports whether row Len-1 is to pick the sequence's next token, and each row of a draft the one after it.
func (it Item) Samples() bool { return it.samples }

// NumRows is the number of tokens to compute, the draft's included.
func (it Item) NumRows() int { return it.Len + len(it.Draft) }

// Next plans a step. Until each of the plan's items was updated or its sequence finished, only MakeRoom, Add and Stats
// may be called; no sequence of the plan is finished while the step is computed.
func (s *Scheduler) Next() Plan {
	s.switchOver()
	s.giveWay()
	budget := s.cfg.MaxBatchedTokens
	numPreemptions := s.stats.NumPreemptions
	budget -= s.planDecodes()
	s.planPrefills(budget, s.stats.NumPreemptions == numPreemptions)
	return s.plan()
}

// switchOver preempts the sequences that have become long, to be computed again.
func (s *Scheduler) switchOver() {
	for _, q := range s.running {
		if !q.Long && s.cfg.isLong(len(q.Tokens)) && q.pending() > 0 {
			s.preempt(q)
		}
	}
	s.running = slices.DeleteFunc(s.running, func(q *Seq) bool { return q.state != running })
}

// giveWay preempts one sequence where the best of the waiting has no place or no blocks, though its tenant runs less than
// its share of all that run: the worst of a tenant that runs more. Both end up no further than at the share, so two
// tenants never take the place from each other in turn.
func (s *Scheduler) giveWay() {
	w := s.tenants.best()
	if w == nil || len(s.running) == 0 {
		return
	}
	share := len(s.running) / len(s.tenants.active)
	if w.tenant.numRunning >= share || s.fits(w) {
		return
	}
	var victim *Seq
	for _, q := range s.running {
		if q.tenant.numRunning > share && q.pending() > 0 && w.before(q) && (victim == nil || victim.before(q)) {
			victim = q
		}
	}
	if victim == nil {
		return
	}
	s.preempt(victim)
	s.running = slices.DeleteFunc(s.running, func(q *Seq) bool { return q == victim })
}

// fits reports whether the waiting q could be admitted.
func (s *Scheduler) fits(q *Seq) bool {
	if len(s.running) >= s.cfg.MaxNumSeqs {
		return false
	}
	s.reuse(q)
	need := s.pool.BlocksFor(len(q.Tokens)) - len(q.table.Blocks())
	s.pool.Release(&q.table)
	return need+len(s.running) <= s.pool.NumFree()
}

// planDecodes gives every running sequence with one token to compute its place, and returns their number.
func (s *Scheduler) planDecodes() int {
	for _, q := range s.running {
		if q.state == running && q.pending() == 1 && s.makeRoom(q) {
			q.planned = 1
		}
	}
	s.running = slices.DeleteFunc(s.running, func(q *Seq) bool { return q.state != running })
	n := 0
	for _, q := range s.running {
		if q.planned > 0 {
			s.charge(q)
			n++
		}
	}
	return n
}

// makeRoom extends q's blocks over all its tokens, preempting others if it must. It reports false if q was itself the
// one to give way.
func (s *Scheduler) makeRoom(q *Seq) bool {
	for !s.pool.Grow(&q.table, len(q.Tokens)) {
		victim := q
		for _, o := range s.running {
			if o.state == running && victim.before(o) {
				victim = o
			}
		}
		s.preempt(victim)
		if victim == q {
			return false
		}
	}
	return true
}

// preempt takes q's blocks away and lets it wait again. The caller removes it from s.running.
func (s *Scheduler) preempt(q *Seq) {
	s.pool.Release(&q.table)
	s.newTable(q)
	s.states = append(s.states, q.State)
	q.NumComputed, q.planned = 0, 0
	q.NumPreemptions++
	s.stats.NumPreemptions++
	s.countRunning(q, -1)
	s.countWaiting(q, 1)
	s.enqueue(q)
}

// planPrefills spends the budget on the prefill chunks of running and, if admit, of waiting sequences.
func (s *Scheduler) planPrefills(budget int, admit bool) {
	logits := s.cfg.MaxPromptLogits
	for budget > 0 && logits > 0 {
		best := s.bestPrefill()
		if admit && len(s.running) < s.cfg.MaxNumSeqs {
			if w := s.tenants.best(); w != nil && (best == nil || w.before(best)) {
				if admit = s.admit(w); !admit {
					continue
				}
				best = w
			}
		}
		if best == nil {
			return
		}
		best.planned = min(best.pending(), budget)
		if best.wantsPromptLogits() {
			best.planned = min(best.planned, logits)
			logits -= best.planned
		}
		budget -= best.planned
		s.charge(best)
	}
}

// bestPrefill is the running sequence to compute next of those not in the plan, or nil.
func (s *Scheduler) bestPrefill() *Seq {
	var best *Seq
	for _, q := range s.running {
		if q.planned == 0 && q.pending() > 0 && (best == nil || q.before(best)) {
			best = q
		}
	}
	return best
}

// admit moves the waiting q to the running sequences, with blocks for all its tokens, or reports that too few are free.
// It leaves one free block per running sequence, lest the next decodes preempt it.
func (s *Scheduler) admit(q *Seq) bool {
	numReused := s.reuse(q)
	need := s.pool.BlocksFor(len(q.Tokens)) - len(q.table.Blocks())
	if need+len(s.running) > s.pool.NumFree() {
		s.pool.Release(&q.table)
		return false
	}
	s.pool.Grow(&q.table, len(q.Tokens))
	q.tenant.remove(q)
	q.state = running
	q.State, s.states = s.states[len(s.states)-1], s.states[:len(s.states)-1]
	q.NumComputed = numReused
	if !q.Scheduled {
		q.Scheduled = true
		q.NumCachedTokens = numReused
		s.countPrefix(q)
	}
	q.charged = max(q.charged, numReused)
	s.countWaiting(q, -1)
	s.countRunning(q, 1)
	i, _ := slices.BinarySearchFunc(s.running, q, compareRunning)
	s.running = slices.Insert(s.running, i, q)
	return true
}

func compareRunning(a, b *Seq) int {
	switch {
	case a.Adapter < b.Adapter || a.Adapter == b.Adapter && a.arrival < b.arrival:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// reuse fills q's empty block table with what others have computed, and returns how many tokens that is: anything found
// in the prefix cache or, without one, the prompt's full blocks from a sequence of its group. With States it is nothing.
func (s *Scheduler) reuse(q *Seq) int {
	if s.cfg.States {
		return 0
	}
	if s.cfg.PrefixCache {
		return s.pool.Match(&q.table, q.Tokens, q.maxReused())
	}
	donor := q.donor()
	if donor == nil {
		return 0
	}
	numBlocks := min(q.maxReused(), q.NumPrompt) / s.cfg.BlockSize
	s.pool.Share(&q.table, &donor.table, numBlocks)
	return numBlocks * s.cfg.BlockSize
}

// donor is a sequence of q's group whose blocks hold the whole prompt, or nil.
func (q *Seq) donor() *Seq {
	for _, o := range q.group.seqs {
		if o != q && o.state == running && o.Long == q.Long && o.NumComputed >= o.NumPrompt {
			return o
		}
	}
	return nil
}

// charge counts the planned tokens as service, unless they were counted before a preemption.
func (s *Scheduler) charge(q *Seq) {
	if end := q.NumComputed + q.planned; end > q.charged {
		q.tenant.service += int64(end - q.charged)
		q.charged = end
	}
}

// plan writes the items of all sequences that have tokens planned.
func (s *Scheduler) plan() Plan {
	p := Plan{Items: s.items[:0]}
	for _, q := range s.running {
		if q.planned == 0 {
			continue
		}
		it := Item{Seq: q, Start: q.NumComputed, Len: q.planned, Blocks: q.table.Blocks()}
		it.LogitsFrom = it.Len
		if it.samples = it.Start+it.Len == len(q.Tokens) && q.MaxTokens > 0; it.samples {
			it.LogitsFrom--
		}
		if q.wantsPromptLogits() {
			it.LogitsFrom = min(it.LogitsFrom, max(q.group.numPromptLogits-it.Start, 0))
		}
		p.NumTokens += it.Len
		p.Items = append(p.Items, it)
		q.planned = 0
	}
	s.items = p.Items
	return p
}

// MakeRoom lowers want[i] to the number of draft tokens that may follow the i-th item of the plan, and extends its
// blocks over them. Only items that sample may have a draft. It must fit into what the step has left of its tokens and
// rows of logits, shared evenly, and into free blocks: nobody is preempted for a guess, and no chunk gets smaller.
func (s *Scheduler) MakeRoom(p Plan, want []int) {
	left := s.cfg.MaxBatchedTokens - p.NumTokens
	rows, numWanting := s.cfg.MaxNumSeqs+s.cfg.MaxPromptLogits, 0
	for i, it := range p.Items {
		rows -= it.Len - it.LogitsFrom
		if !it.samples || it.LogitsFrom != it.Len-1 || s.cfg.States {
			want[i] = 0
		}
		if want[i] > 0 {
			numWanting++
		}
	}
	left = min(left, rows)
	for i := range p.Items {
		if want[i] == 0 {
			continue
		}
		it := &p.Items[i]
		q := it.Seq
		roomInBlocks := (len(it.Blocks)+s.pool.NumFree())*s.cfg.BlockSize - len(q.Tokens)
		want[i] = min(want[i], q.MaxTokens-q.NumOutput()-1, (left+numWanting-1)/numWanting, roomInBlocks)
		if s.cfg.SwitchLen > 0 && !q.Long {
			want[i] = min(want[i], s.cfg.SwitchLen-len(q.Tokens))
		}
		s.pool.Grow(&q.table, len(q.Tokens)+want[i])
		it.Blocks = q.table.Blocks()
		left -= want[i]
		numWanting--
	}
}

// Update notes that an item of the last plan was computed, and appends the tokens picked from its rows, if it Samples:
// one from row Len-1, and one from each row of the draft whose tokens were all picked before it. Items that failed are
// not updated but finished.
func (s *Scheduler) Update(it Item, picked ...int32) {
	q, g := it.Seq, it.Seq.group
	if q.state != running {
		return
	}
	numAccepted := max(0, len(picked)-1)
	q.NumComputed = it.Start + it.Len + numAccepted
	s.charge(q)
	s.pool.Shrink(&q.table, len(q.Tokens)+numAccepted)
	q.Tokens = append(q.Tokens, picked...)
	s.pool.Register(&q.table, q.Tokens[:q.NumComputed])
	if g.logits {
		g.numPromptLogits = min(max(g.numPromptLogits, q.NumComputed), q.NumPrompt)
	}
	if !g.ready && q.NumComputed >= q.NumPrompt {
		g.ready = true
		for _, o := range g.seqs {
			if o.state == blocked {
				s.enqueue(o)
			}
		}
	}
}
