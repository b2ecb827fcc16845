package kernels

import "fmt"

// SumBlock is the number of neighbours that BlockSums takes together.
const SumBlock = 256

// BlockSums reads a row once and says of each block of SumBlock elements, the last perhaps shorter,
//
//	max[b]  the largest element; NaN if any is
//	sum[b]  Σ e^((x-max[b])·scale), 0 if max[b] is -Inf; of no meaning if it is NaN or +Inf
//
// All lie in the host's memory; max has one element for each block, and so has sum, or none: then only maxima are found.
// scale is positive and finite. The exponentials are within 1e-9 of themselves, and what is below e^-690 counts as 0.
// Sums are float64, in an order that depends on nothing but the element's place. Errors: ErrShape, ErrIndex.
func BlockSums(s *Stream, max []float32, sum []float64, row []float32, scale float64) error {
	blocks := (len(row) + SumBlock - 1) / SumBlock
	if len(max) != blocks || len(sum) != blocks && len(sum) != 0 {
		return fmt.Errorf("block sums: %d maxima and %d sums for %d blocks: %w", len(max), len(sum), blocks, ErrShape)
	}
	if len(sum) > 0 && !(scale > 0 && scale <= 1e9) {
		return fmt.Errorf("block sums: scale is %v: %w", scale, ErrIndex)
	}
	if blocks == 0 {
		return nil
	}
	impl, err := s.begin("block sums")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.blockSums(max, sum, row, scale)
}
