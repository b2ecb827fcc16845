package sched

import "pagoda/backends/native/kvcache"

// Seq is one sequence: a prompt and the output that grows behind it. Its fields are the scheduler's to write, except
// Owner.
type Seq struct {
	Tokens      []int32 // prompt, then output; Update appends
	NumPrompt   int
	MaxTokens   int // output tokens after which it is not scheduled any more
	NumComputed int // tokens whose keys and values its blocks hold
	Index       int // which of its group's N
	Adapter     uint64
	Long        bool  // it has more than Config.SwitchLen tokens, and what its blocks hold is computed for that
	State       int32 // while it runs, which of MaxNumSeqs states is its own
	Owner       any   // GroupSpec.Owner, until the caller writes another

	Scheduled       bool // it has been in a plan
	NumCachedTokens int  // prompt tokens found computed when it was first admitted
	NumPreemptions  int

	group    *group
	tenant   *tenant
	priority int
	arrival  uint64
	table    kvcache.Table

	state     state
	heapIndex int // place in tenant.waiting, -1 when not there
	planned   int // tokens of it in the plan being made
	charged   int // tokens of it counted as its tenant's service
}

type state uint8

const (
	waiting  state = iota // in its tenant's queue
	blocked               // waiting for the prompt of its group's leader
	running               // holds blocks
	finished              // gone from the scheduler
)

// group is what the sequences of one request share.
type group struct {
	seqs   []*Seq // those not finished; the first leads: the others are blocked until it has computed the prompt
	ready  bool   // the prompt was computed once, all may run
	logits bool   // GroupSpec.PromptLogits
	salt   string // GroupSpec.Salt
	// numPromptLogits is how many prompt tokens' logits were computed.
	numPromptLogits int
}

// Prompt is the part of Tokens that was given.
func (q *Seq) Prompt() []int32 { return q.Tokens[:q.NumPrompt] }

// Output is the part of Tokens that was generated.
func (q *Seq) Output() []int32 { return q.Tokens[q.NumPrompt:] }

// NumOutput is the number of tokens generated.
func (q *Seq) NumOutput() int { return len(q.Tokens) - q.NumPrompt }

// pending is how many tokens are to be computed; 0 when the sequence only waits for Finish.
func (q *Seq) pending() int {
	if n := q.NumOutput(); n > 0 && n >= q.MaxTokens {
		return 0
	}
	return len(q.Tokens) - q.NumComputed
}

// before is the order in which sequences are served. It is total: no two have the same arrival.
func (q *Seq) before(o *Seq) bool {
	if q.priority != o.priority {
		return q.priority < o.priority
	}
	if q.tenant != o.tenant && q.tenant.service != o.tenant.service {
		return q.tenant.service < o.tenant.service
	}
	return q.arrival < o.arrival
}

// wantsPromptLogits reports whether prompt rows that nobody has seen yet are still ahead.
func (q *Seq) wantsPromptLogits() bool {
	return q.group.logits && q.group.numPromptLogits < q.NumPrompt
}

// maxReused is how many leading tokens may be taken from other sequences' blocks: not the last, whose logits are
// needed, nor any whose prompt logits are.
func (q *Seq) maxReused() int {
	n := len(q.Tokens) - 1
	if q.wantsPromptLogits() {
		n = min(n, q.group.numPromptLogits)
	}
	return n
}

// newTable gives a sequence without blocks an empty table, with which it meets only those of its kind in the prefix cache.
func (s *Scheduler) newTable(q *Seq) {
	salt := q.group.salt
	if q.Long = s.cfg.isLong(len(q.Tokens)); q.Long {
		salt = "long " + salt
	} else if s.cfg.SwitchLen > 0 {
		salt = "short " + salt
	}
	q.table = kvcache.NewTable(q.Adapter, salt)
}
