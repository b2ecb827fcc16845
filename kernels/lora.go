package kernels

import "fmt"

// LoRARun is a run of rows that share an adapter: out[t] += Scale * (x[t]·Aᵀ)·Bᵀ for t in [Start, Start+Len).
type LoRARun struct {
	Start, Len int
	A, B       *Matrix // A [rank, in], B [out, rank]
	Scale      float32
}

// LoRA adds each run's low-rank product to its rows of out. Rows in no run stay as they are; runs must not overlap.
//
//	out  F32 [num_tokens, B.N], often a view of a fused projection's columns
//	x    F32 or BF16 [num_tokens, A.K]
//
// The product with A is float32 and is not rounded before the product with B.
// Source: Hu et al. 2021, arXiv:2106.09685.
func LoRA(s *Stream, out, x Tensor, runs []LoRARun) error {
	if err := checkLoRA(out, x, runs); err != nil {
		return fmt.Errorf("lora: %w", err)
	}
	if out.Rows == 0 || len(runs) == 0 {
		return nil
	}
	impl, err := s.begin("lora")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.lora(out, x, runs)
}

func checkLoRA(out, x Tensor, runs []LoRARun) error {
	if err := x.check("x", f32orBF16, -1, -1); err != nil {
		return err
	}
	if err := out.check("out", onlyF32, x.Rows, -1); err != nil {
		return err
	}
	for i, r := range runs {
		if r.Start < 0 || r.Len < 0 || r.Start > x.Rows || r.Len > x.Rows-r.Start {
			return fmt.Errorf("run %d is rows %d+%d of %d: %w", i, r.Start, r.Len, x.Rows, ErrIndex)
		}
		if err := r.A.check("A", x.Cols); err != nil {
			return fmt.Errorf("run %d: %w", i, err)
		}
		if err := r.B.check("B", r.A.n); err != nil {
			return fmt.Errorf("run %d: %w", i, err)
		}
		if r.B.n != out.Cols {
			return fmt.Errorf("run %d: B has N %d for %d columns of out: %w", i, r.B.n, out.Cols, ErrShape)
		}
	}
	return nil
}
