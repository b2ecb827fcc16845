package kernels

import "fmt"

// AttentionBatch describes the sequences of a step. All are I32 tensors of one row but BlockTables.
//
//	QueryStarts [1, S+1]    rows QueryStarts[s] to QueryStarts[s+1] of q are sequence s's newest tokens, in order
//	SeqLens     [1, S]      tokens of sequence s in the cache, the new ones (already stored) included
//	BlockTables [S, B]      block ids of sequence s in order
type AttentionBatch struct {
	QueryStarts, SeqLens, BlockTables Tensor
	NumSeqs                           int
	MaxSeqLen                         int
}

// AttentionOptions say how queries attend. Only Scale must be set.
type AttentionOptions struct {
	Scale         float32 // multiplies the products of queries and keys
	Softcap       float32 // 0: none; else scores become cap*tanh(score/cap)
	Window        int     // 0: all; else a query sees the positions that are less than that away
	Sinks         Tensor  // zero: none; F32 [1, num_heads]: a score per head that counts in the softmax's sum and has no value
	Bias          Tensor  // zero: none; F32 [num_heads, 2n-1]: column n-1+d is added to scores of positions d after the query's
	Bidirectional bool    // a query sees positions after its own too
}

// PagedAttention computes attention of each query over its own sequence's cached keys and values:
// out[t,h] = sum_p softmax_p(scale * q[t,h]·K[p,h']) * V[p,h'] over positions p up to the query's own (unless the options
// say otherwise), where h' = h / (numHeads/numKVHeads).
//
//	out  F32 or BF16 [num_tokens, num_heads*value_dim]   must not overlap q
//	q    F32 [num_tokens, num_heads*head_dim]
//	c    the keys and values of the new tokens are stored already
//
// Positions are taken in splits at fixed places, so a query's result does not depend on how its prompt was cut into
// steps. Rows of out that belong to no sequence stay as they are.
//
// Source: Kwon et al. 2023, arXiv:2309.06180 (paging); Milakov and Gimelshein 2018, arXiv:1805.02867 (online softmax); Xiao et
// al. 2023, arXiv:2309.17453 (sinks, here one learnt score per head as in gpt-oss); Raffel et al. 2019, arXiv:1910.10683 (bias).
func PagedAttention(s *Stream, out, q Tensor, c KVCache, b AttentionBatch, numHeads int, o AttentionOptions) error {
	if err := checkPagedAttention(out, q, c, b, numHeads, o); err != nil {
		return fmt.Errorf("paged attention: %w", err)
	}
	if q.Rows == 0 || b.NumSeqs == 0 {
		return nil
	}
	impl, err := s.begin("paged attention")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.pagedAttention(out, q, c, b, numHeads, o)
}

func checkPagedAttention(out, q Tensor, c KVCache, b AttentionBatch, numHeads int, o AttentionOptions) error {
	if err := c.check(); err != nil {
		return err
	}
	if numHeads < 1 || numHeads%c.NumKVHeads != 0 {
		return fmt.Errorf("%d heads over %d kv heads: %w", numHeads, c.NumKVHeads, ErrShape)
	}
	if err := q.check("q", onlyF32, -1, numHeads*c.HeadDim); err != nil {
		return err
	}
	if err := out.check("out", f32orBF16, q.Rows, numHeads*c.ValueDim); err != nil {
		return err
	}
	if err := o.check(numHeads, b.MaxSeqLen); err != nil {
		return err
	}
	return b.check(q.Rows, c)
}

func (o AttentionOptions) check(numHeads, maxSeqLen int) error {
	if o.Window < 0 || !(o.Softcap >= 0) {
		return fmt.Errorf("window %d, softcap %g: %w", o.Window, o.Softcap, ErrShape)
	}
	if o.Bias.Rows > 0 {
		if err := o.Bias.check("bias", onlyF32, numHeads, -1); err != nil {
			return err
		}
		if o.Bias.Cols%2 == 0 || o.Bias.Cols < 2*maxSeqLen-1 {
			return fmt.Errorf("bias has %d columns for %d positions: %w", o.Bias.Cols, maxSeqLen, ErrShape)
		}
	}
	if o.Sinks.Rows == 0 {
		return nil
	}
	return o.Sinks.check("sinks", onlyF32, 1, numHeads)
}

// check reports whether every sequence has its queries among numQueries rows and its blocks inside the cache.
func (b AttentionBatch) check(numQueries int, c KVCache) error {
	if b.NumSeqs < 0 {
		return fmt.Errorf("%d sequences: %w", b.NumSeqs, ErrShape)
	}
	if b.NumSeqs == 0 {
		return nil
	}
	if err := b.QueryStarts.check("query starts", onlyI32, 1, b.NumSeqs+1); err != nil {
		return err
	}
	if err := b.SeqLens.check("sequence lengths", onlyI32, 1, b.NumSeqs); err != nil {
		return err
	}
	if err := b.BlockTables.check("block tables", onlyI32, b.NumSeqs, -1); err != nil {
		return err
	}
	if err := b.QueryStarts.checkInts("query starts", 0, numQueries+1); err != nil {
		return err
	}
	if err := b.SeqLens.checkInts("sequence lengths", 0, b.MaxSeqLen+1); err != nil {
		return err
	}
	starts, lens, numBlocks := b.QueryStarts.ints(0), b.SeqLens.ints(0), c.K.Rows/c.BlockSize
	for s, n := range lens {
		queries := int(starts[s+1]) - int(starts[s])
		if queries < 0 || queries > int(n) {
			return fmt.Errorf("sequence %d has %d queries of %d tokens: %w", s, queries, n, ErrShape)
		}
		need := (int(n) + c.BlockSize - 1) / c.BlockSize
		if need > b.BlockTables.Cols {
			return fmt.Errorf("sequence %d of %d tokens has %d blocks: %w", s, n, b.BlockTables.Cols, ErrShape)
		}
		for i, id := range b.BlockTables.ints(s)[:need] {
			if id < 0 || int(id) >= numBlocks {
				return fmt.Errorf("block %d of sequence %d is %d of %d: %w", i, s, id, numBlocks, ErrIndex)
			}
		}
	}
	return nil
}
