package kernels

import "fmt"

// SiLUMul computes out[t,i] = g*sigmoid(g)*u with g = gateUp[t,i] and u = gateUp[t,I+i].
//
//	out     F32 or BF16 [num_tokens, I]
//	gateUp  F32 [num_tokens, 2*I]
func SiLUMul(s *Stream, out, gateUp Tensor) error {
	err := gateUp.check("gateUp", onlyF32, -1, 2*out.Cols)
	if err == nil {
		err = out.check("out", f32orBF16, gateUp.Rows, -1)
	}
	if err != nil {
		return fmt.Errorf("silu mul: %w", err)
	}
	if out.Rows == 0 || out.Cols == 0 {
		return nil
	}
	impl, err := s.begin("silu mul")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.siluMul(out, gateUp)
}

// Add computes x += y, both F32 of one shape. y may have one row, which is then added to every row of x (a bias).
func Add(s *Stream, x, y Tensor) error {
	rows := x.Rows
	if y.Rows == 1 {
		rows = 1
	}
	err := x.check("x", onlyF32, -1, -1)
	if err == nil {
		err = y.check("y", onlyF32, rows, x.Cols)
	}
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
	}
	impl, err := s.begin("add")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.add(x, y)
}

// Gather computes out[r,:] = x[rows[r],:].
//
//	out, x  F32 or BF16, both the same, one number of columns; must not overlap
//	rows    I32 [1, out rows], in [0, x rows)
func Gather(s *Stream, out, x, rows Tensor) error {
	if err := checkGather(out, x, rows); err != nil {
		return fmt.Errorf("gather: %w", err)
	}
	if out.Rows == 0 || out.Cols == 0 {
		return nil
	}
	impl, err := s.begin("gather")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.gather(out, x, rows)
}

func checkGather(out, x, rows Tensor) error {
	if err := x.check("x", f32orBF16, -1, -1); err != nil {
		return err
	}
	if err := out.check("out", f32orBF16, -1, x.Cols); err != nil {
		return err
	}
	if out.DType != x.DType {
		return fmt.Errorf("out is %v, x is %v: %w", out.DType, x.DType, ErrDType)
	}
	if err := rows.check("rows", onlyI32, 1, out.Rows); err != nil {
		return err
	}
	return rows.checkInts("rows", 0, x.Rows)
}
