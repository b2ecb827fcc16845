package kernels

import "fmt"

// Pairs say which elements of a head turn together.
type Pairs int

// The pairs of r = rotary/2 turns.
const (
	Halves      Pairs = iota // (i, i+r), the rotate-half form
	Interleaved              // (2i, 2i+1)
)

// RoPE turns the first rotary elements of each head by its token's position, in place: a' = a*cos - b*sin and
// b' = b*cos + a*sin for each pair (a, b).
//
//	x          F32 [num_tokens, num_heads*head_dim]
//	positions  I32 [1, num_tokens], in [0, table rows)
//	table      F32 [max_positions, rotary], cosines in the first half, sines in the second; rotary <= head_dim, even
//
// Source: Su et al. 2021, arXiv:2104.09864.
func RoPE(s *Stream, x, positions, table Tensor, numHeads int, pairs Pairs) error {
	if err := checkRoPE(x, positions, table, numHeads); err != nil {
		return fmt.Errorf("rope: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 || table.Cols == 0 {
		return nil
	}
	impl, err := s.begin("rope")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.rope(x, positions, table, numHeads, pairs)
}

func checkRoPE(x, positions, table Tensor, numHeads int) error {
	if err := checkHeads(x, numHeads); err != nil {
		return err
	}
	if err := positions.check("positions", onlyI32, 1, x.Rows); err != nil {
		return err
	}
	if err := table.check("table", onlyF32, -1, -1); err != nil {
		return err
	}
	if table.Cols%2 != 0 || table.Cols > x.Cols/numHeads {
		return fmt.Errorf("table has %d columns for heads of %d: %w", table.Cols, x.Cols/numHeads, ErrShape)
	}
	return positions.checkInts("positions", 0, table.Rows)
}
