package kernels

import "fmt"

// StateBatch says where the sequences of a step keep their states: what layers without a KV cache remember of a sequence,
// one row of a tensor for each. All are I32 tensors of one row.
//
//	QueryStarts [1, S+1]  rows QueryStarts[s] to QueryStarts[s+1] of a step's tensors are sequence s's newest tokens, in order
//	SeqLens     [1, S]    tokens of sequence s, the new ones included: if it has no others, its state begins with zeros,
//	                      whatever the row holds
//	Rows        [1, S]    the row of sequence s's state; none twice
type StateBatch struct {
	QueryStarts, SeqLens, Rows Tensor
	NumSeqs                    int
}

// check reports whether every sequence has its tokens among numTokens rows and its state inside the tensor.
func (b StateBatch) check(numTokens int, states Tensor) error {
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
	if err := b.Rows.check("state rows", onlyI32, 1, b.NumSeqs); err != nil {
		return err
	}
	if err := b.QueryStarts.checkInts("query starts", 0, numTokens+1); err != nil {
		return err
	}
	if err := b.Rows.checkInts("state rows", 0, states.Rows); err != nil {
		return err
	}
	starts := b.QueryStarts.ints(0)
	for s, n := range b.SeqLens.ints(0) {
		if tokens := starts[s+1] - starts[s]; tokens < 0 || tokens > n {
			return fmt.Errorf("sequence %d has %d new of %d tokens: %w", s, tokens, n, ErrShape)
		}
	}
	return nil
}

// maxConvKernel bounds the inputs that a convolution sees.
const maxConvKernel = 8

// CausalConv replaces each channel of each token by a weighted sum of it and the tokens before it in its sequence, and
// that by its SiLU: x[t,c] = silu(sum_j w[j,c]*x[t-K+1+j,c]), x being 0 before the sequence's first token.
//
//	x       F32 [num_tokens, channels]
//	w       F32 [K, channels], K 1 to 8, the newest token's last
//	states  F32 [rows, (K-1)*channels]: the last K-1 inputs of a sequence, the oldest first; updated
//
// Rows of x that belong to no sequence stay as they are.
func CausalConv(s *Stream, x, w, states Tensor, b StateBatch) error {
	if err := checkCausalConv(x, w, states, b); err != nil {
		return fmt.Errorf("causal conv: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 || b.NumSeqs == 0 {
		return nil
	}
	impl, err := s.begin("causal conv")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.causalConv(x, w, states, b)
}

func checkCausalConv(x, w, states Tensor, b StateBatch) error {
	if err := x.check("x", onlyF32, -1, -1); err != nil {
		return err
	}
	if err := w.check("w", onlyF32, -1, x.Cols); err != nil {
		return err
	}
	if w.Rows < 1 || w.Rows > maxConvKernel {
		return fmt.Errorf("a kernel of %d, must be 1 to %d: %w", w.Rows, maxConvKernel, ErrShape)
	}
	if err := states.check("states", onlyF32, -1, (w.Rows-1)*x.Cols); err != nil {
		return err
	}
	return b.check(x.Rows, states)
}

// PickGroups copies a part of each of a row's groups, so that the parts lie side by side: with x's columns in groups of
// equal size, out[t,g*n+i] is the element from+i of group g of x[t], n being out's columns per group.
//
//	out, x  F32, one number of rows; must not overlap
func PickGroups(s *Stream, out, x Tensor, groups, from int) error {
	if err := checkPickGroups(out, x, groups, from); err != nil {
		return fmt.Errorf("pick groups: %w", err)
	}
	if out.Rows == 0 || out.Cols == 0 {
		return nil
	}
	impl, err := s.begin("pick groups")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.pickGroups(out, x, groups, from)
}

func checkPickGroups(out, x Tensor, groups, from int) error {
	if err := x.check("x", onlyF32, -1, -1); err != nil {
		return err
	}
	if err := out.check("out", onlyF32, x.Rows, -1); err != nil {
		return err
	}
	if groups < 1 || x.Cols%groups != 0 || out.Cols%groups != 0 || from < 0 || from > (x.Cols-out.Cols)/groups {
		return fmt.Errorf("%d of %d columns in %d groups, from %d: %w", out.Cols, x.Cols, groups, from, ErrShape)
	}
	return nil
}
