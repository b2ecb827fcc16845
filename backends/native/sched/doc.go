// Package sched decides which sequences run in the next step and which blocks hold their KV cache. It is a function of
// its inputs: no clock, no randomness, no lock; one goroutine owns it.
//
//	Add ──► waiting ──admit──► running ──Finish──► ended
//	           ▲                  │
//	           └─────preempt──────┘            Finish ends a sequence in any state
//
// A step is planned in two passes over a budget of MaxBatchedTokens:
//
//  1. Every running sequence with one token to compute (a decode) gets its place. If it needs a block and none is free,
//     a running sequence is preempted: its blocks are released and it waits again, its tokens kept, to be recomputed.
//  2. What remains goes to prefill chunks, one at a time to the best of the running and the waiting sequences. A waiting
//     one is admitted only if the blocks of all its present tokens are free, and takes them at once. The best that does
//     not fit holds back those behind it.
//
// Best is: lower Priority, then the tenant with less service, then the earlier arrival. The victim of a preemption is
// the worst by the same order. Service counts the tokens computed for a tenant, each position of a sequence once; a
// tenant that comes back after having had nothing to do is lifted to the least service among the active ones, so that
// idling saves nothing up (the virtual token counter of Sheng et al., arXiv:2401.00588).
//
// A caller that guesses what a sequence says next may have the guess, a draft, computed behind its last token: MakeRoom
// gives drafts what the plan has left, and Update takes the picked tokens, one more than were guessed right. Blocks that
// only wrong guesses needed are free again after the step; their places in the others are written over.
//
// Before planning, where all places or blocks are taken and the best of the waiting belongs to a tenant that runs less than
// its share, an equal part of the sequences that run, one sequence of a tenant that runs more is preempted for it. So a
// tenant with many long sequences holds up nobody for longer than some steps.
//
// A sequence that grows beyond SwitchLen is preempted too, and computed again from its beginning; drafts end there.
//
// Where the model keeps States, a running sequence has one of MaxNumSeqs to itself. A preempted one begins again with
// another; what others have computed is of no use to it, so each sample of a group computes the prompt.
//
// Progress: only a decode asks for a block after admission. It either gets one, and then yields a token in this step,
// or is preempted itself, and has then yielded a token since it was admitted. So between two tokens there are finitely
// many steps, however small the pool. Add refuses a sequence that would not fit into the empty pool.
package sched
