package model

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Batch is what one step computes: the newest tokens of S sequences, T in all, flat. Prefill chunks and decodes mix.
type Batch struct {
	Tokens      []int32   // [T]
	Positions   []int32   // [T] place of each token in its sequence
	Slots       []int32   // [T] where its keys and values go: block·blockSize + place in it; -1: nowhere
	QueryStarts []int32   // [S+1] sequence s has the rows QueryStarts[s] to QueryStarts[s+1]
	SeqLens     []int32   // [S] tokens of the sequence in the cache after this step
	BlockTables [][]int32 // [S] the sequence's blocks in order, enough for SeqLens[s]
	States      []int32   // [S] row of the sequence's state, none twice; nil where the model keeps none (Spec.StateBytes)
	Long        []bool    // [S] where Model.SwitchLen is not 0: the sequence has more tokens, and had all along; nil: none
	Runs        []Run     // rows that use an adapter, ascending and apart; all others use the base
	LogitRows   []int32   // rows whose logits, or hidden states, are wanted, strictly ascending
}

// Limits bound a batch; buffers are made for them.
type Limits struct {
	MaxTokens, MaxSeqs, MaxLogitRows int

	Hidden bool // steps end with the final norm: there are hidden states, no logits
}

func (l Limits) check() error {
	if l.MaxTokens < 1 || l.MaxSeqs < 1 || l.MaxLogitRows < 1 || l.MaxLogitRows > l.MaxTokens {
		return fmt.Errorf("workspace for %d tokens, %d sequences, %d rows of logits", l.MaxTokens, l.MaxSeqs, l.MaxLogitRows)
	}
	return nil
}

// ErrBatch is the cause of every refusal of a batch: nothing was computed.
var ErrBatch = errors.New("bad batch")

func badBatch(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBatch, fmt.Errorf(format, args...))
}

// check refuses what would read or write outside a buffer.
func (w *Workspace) check(b *Batch) error {
	if err := w.checkSizes(b); err != nil {
		return err
	}
	if err := w.checkRows(b); err != nil {
		return err
	}
	for s := range b.SeqLens {
		if err := w.checkSequence(b, s); err != nil {
			return err
		}
	}
	if err := w.checkStates(b); err != nil {
		return err
	}
	return w.checkRuns(b)
}

// checkStates refuses rows that do not exist or that two sequences would write at once.
func (w *Workspace) checkStates(b *Batch) error {
	if w.kv.numStates == 0 {
		return nil
	}
	clear(w.taken)
	for s, row := range b.States {
		if row < 0 || int(row) >= w.kv.numStates || w.taken[row] {
			return badBatch("sequence %d: state %d of %d, or another's", s, row, w.kv.numStates)
		}
		w.taken[row] = true
	}
	return nil
}

func (w *Workspace) checkSizes(b *Batch) error {
	t, s, r := len(b.Tokens), len(b.SeqLens), len(b.LogitRows)
	switch {
	case t < 1 || t > w.limits.MaxTokens:
		return badBatch("%d tokens, limit %d", t, w.limits.MaxTokens)
	case s < 1 || s > w.limits.MaxSeqs || len(b.Runs) > w.limits.MaxSeqs:
		return badBatch("%d sequences, %d runs, limit %d", s, len(b.Runs), w.limits.MaxSeqs)
	case r > w.limits.MaxLogitRows:
		return badBatch("%d rows of logits, limit %d", r, w.limits.MaxLogitRows)
	case len(b.Positions) != t || len(b.Slots) != t || len(b.QueryStarts) != s+1 || len(b.BlockTables) != s:
		return badBatch("%d tokens with %d positions and %d slots, %d sequences with %d starts and %d block tables",
			t, len(b.Positions), len(b.Slots), s, len(b.QueryStarts), len(b.BlockTables))
	case w.kv.numStates > 0 && len(b.States) != s:
		return badBatch("%d sequences with %d states", s, len(b.States))
	case b.Long != nil && len(b.Long) != s:
		return badBatch("%d sequences, %d of them long or not", s, len(b.Long))
	case b.QueryStarts[0] != 0 || int(b.QueryStarts[s]) != t:
		return badBatch("rows %d to %d of %d", b.QueryStarts[0], b.QueryStarts[s], t)
	}
	return nil
}

func (w *Workspace) checkRows(b *Batch) error {
	slots := int32(w.kv.numBlocks * w.kv.blockSize)
	for i, token := range b.Tokens {
		if token < 0 || int(token) >= w.m.spec.Vocab {
			return badBatch("token %d of a vocabulary of %d", token, w.m.spec.Vocab)
		}
		if p := b.Positions[i]; p < 0 || int(p) >= w.m.maxLen {
			return badBatch("position %d, limit %d", p, w.m.maxLen)
		}
		if slot := b.Slots[i]; slot < -1 || slot >= slots {
			return badBatch("slot %d of %d", slot, slots)
		}
	}
	last := int32(-1)
	for _, row := range b.LogitRows {
		if row <= last || int(row) >= len(b.Tokens) {
			return badBatch("logits of row %d after row %d of %d", row, last, len(b.Tokens))
		}
		last = row
	}
	return nil
}

func (w *Workspace) checkSequence(b *Batch, s int) error {
	rows, length := b.QueryStarts[s+1]-b.QueryStarts[s], b.SeqLens[s]
	if rows < 1 || length < rows || int(length) > w.m.maxLen {
		return badBatch("sequence %d: %d new of %d tokens, limit %d", s, rows, length, w.m.maxLen)
	}
	blocks := w.blocks(length)
	if len(b.BlockTables[s]) < blocks {
		return badBatch("sequence %d: %d blocks for %d tokens", s, len(b.BlockTables[s]), length)
	}
	for _, block := range b.BlockTables[s][:blocks] {
		if block < 0 || int(block) >= w.kv.numBlocks {
			return badBatch("sequence %d: block %d of %d", s, block, w.kv.numBlocks)
		}
	}
	return nil
}

func (w *Workspace) checkRuns(b *Batch) error {
	end := 0
	for _, r := range b.Runs {
		if r.Start < end || r.Len < 1 || r.Len > len(b.Tokens)-r.Start {
			return badBatch("adapter run of rows %d+%d after row %d of %d", r.Start, r.Len, end, len(b.Tokens))
		}
		if r.LoRA == nil || len(r.LoRA.Layers) != len(w.m.spec.Layers) {
			return badBatch("adapter run without an adapter of this model")
		}
		end = r.Start + r.Len
	}
	return nil
}

// blocks is the number of blocks that hold length tokens.
func (w *Workspace) blocks(length int32) int {
	return (int(length) + w.kv.blockSize - 1) / w.kv.blockSize
}

// logitRuns are the runs over the rows of logits instead of all rows, appended to list.
func logitRuns(list []Run, runs []Run, logitRows []int32) []Run {
	from := func(row int) int {
		return sort.Search(len(logitRows), func(i int) bool { return int(logitRows[i]) >= row })
	}
	for _, r := range runs {
		if start, end := from(r.Start), from(r.Start+r.Len); start < end {
			list = append(list, Run{start, end - start, r.LoRA})
		}
	}
	return list
}

// maxLen is the length of the longest sequence.
func (b *Batch) maxLen() int32 { return slices.Max(b.SeqLens) }
