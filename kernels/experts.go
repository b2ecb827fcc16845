package kernels

import "fmt"

// MatMulGroups is MatMul with one matrix of several for each run of rows: rows starts[e] to starts[e+1] of out are those of x
// times experts[e].
//
//	out      F32 [num_rows, N]; must not overlap x
//	x        F32 or BF16 [num_rows, K]
//	starts   I32 [1, E+1], ascending from 0 to num_rows
//	experts  E matrices [N, K] of one dtype
//
// A row's result is that of MatMul bit for bit. Matrices without rows are not read.
func MatMulGroups(s *Stream, out, x, starts Tensor, experts []*Matrix) error {
	if err := checkMatMulGroups(out, x, starts, experts); err != nil {
		return fmt.Errorf("matmul groups: %w", err)
	}
	if x.Rows == 0 {
		return nil
	}
	impl, err := s.begin("matmul groups")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.matMulGroups(out, x, starts, experts)
}

func checkMatMulGroups(out, x, starts Tensor, experts []*Matrix) error {
	if len(experts) == 0 {
		return fmt.Errorf("no matrices: %w", ErrShape)
	}
	for e, m := range experts {
		if err := checkMatMul(out, x, m); err != nil {
			return fmt.Errorf("expert %d: %w", e, err)
		}
		if m.dt != experts[0].dt {
			return fmt.Errorf("expert %d is %v, the first is %v: %w", e, m.dt, experts[0].dt, ErrDType)
		}
	}
	return checkStarts(starts, len(experts), x.Rows)
}

func checkStarts(starts Tensor, groups, rows int) error {
	if err := starts.check("starts", onlyI32, 1, groups+1); err != nil {
		return err
	}
	at := starts.ints(0)
	if at[0] != 0 || int(at[groups]) != rows {
		return fmt.Errorf("groups are rows %d to %d of %d: %w", at[0], at[groups], rows, ErrIndex)
	}
	for e := range groups {
		if at[e] > at[e+1] {
			return fmt.Errorf("group %d is rows %d to %d: %w", e, at[e], at[e+1], ErrIndex)
		}
	}
	return nil
}

// AddGroups adds to each row of x, F32 [num_rows, N], the row of b, F32 [E, N], of the row's group.
func AddGroups(s *Stream, x, starts, b Tensor) error {
	err := x.check("x", onlyF32, -1, -1)
	if err == nil {
		err = b.check("b", onlyF32, -1, x.Cols)
	}
	if err == nil {
		err = checkStarts(starts, b.Rows, x.Rows)
	}
	if err != nil {
		return fmt.Errorf("add groups: %w", err)
	}
	impl, err := s.begin("add groups")
	if err != nil {
		return err
	}
	defer s.end()
	at := starts.ints(0)
	for e := range b.Rows {
		if from, to := int(at[e]), int(at[e+1]); from < to {
			if err := impl.add(x.RowRange(from, to), b.RowRange(e, e+1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Combine computes out[t,:] = sum_j weights[t,j] * x[places[t,j],:], in the order of j.
//
//	out      F32 [num_tokens, N]; must not overlap x
//	x        F32 [num_rows, N]
//	places   I32 [num_tokens, k], in [0, num_rows)
//	weights  F32 [num_tokens, k]
func Combine(s *Stream, out, x, places, weights Tensor) error {
	if err := checkCombine(out, x, places, weights); err != nil {
		return fmt.Errorf("combine: %w", err)
	}
	if out.Rows == 0 || out.Cols == 0 {
		return nil
	}
	impl, err := s.begin("combine")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.combine(out, x, places, weights)
}

func checkCombine(out, x, places, weights Tensor) error {
	if err := x.check("x", onlyF32, -1, -1); err != nil {
		return err
	}
	if err := out.check("out", onlyF32, -1, x.Cols); err != nil {
		return err
	}
	if err := weights.check("weights", onlyF32, out.Rows, -1); err != nil {
		return err
	}
	if err := places.check("places", onlyI32, out.Rows, weights.Cols); err != nil {
		return err
	}
	for t := range places.Rows {
		for j, place := range places.ints(t) {
			if place < 0 || int(place) >= x.Rows {
				return fmt.Errorf("places[%d,%d] is %d of %d rows: %w", t, j, place, x.Rows, ErrIndex)
			}
		}
	}
	return nil
}
