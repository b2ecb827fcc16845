package kernels

import "fmt"

// Activation is a function of single elements.
type Activation int

// The activations.
const (
	SiLU          Activation = 1 + iota // x*sigmoid(x)
	GELU                                // x*Phi(x), Phi the normal distribution's
	GELUTanh                            // x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715*x³)))
	ReLU                                // max(x, 0)
	Tanh                                // of Activate only
	ClampedSwiGLU                       // of GatedMul only, see there
	Sigmoid                             // 1/(1 + exp(-x)); of GatedMul only
	softcap
	times
)

// GatedMul computes out[t,i] = act(g)*u with g = gateUp[t,i] and u = gateUp[t,I+i]. ClampedSwiGLU, which gpt-oss has, is
// (clamp(u, -7, 7) + 1) * y*sigmoid(1.702*y) with y = min(g, 7).
//
//	out     F32 or BF16 [num_tokens, I]
//	gateUp  F32 [num_tokens, 2*I]
func GatedMul(s *Stream, out, gateUp Tensor, act Activation) error {
	err := gateUp.check("gateUp", onlyF32, -1, 2*out.Cols)
	if err == nil {
		err = out.check("out", f32orBF16, gateUp.Rows, -1)
	}
	if err == nil && (act < SiLU || act > Sigmoid || act == Tanh) {
		err = fmt.Errorf("activation %d: %w", act, ErrShape)
	}
	if err != nil {
		return fmt.Errorf("gated mul: %w", err)
	}
	if out.Rows == 0 || out.Cols == 0 {
		return nil
	}
	impl, err := s.begin("gated mul")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.gatedMul(out, gateUp, act)
}

// Activate replaces each element of x, F32, by act of it.
func Activate(s *Stream, x Tensor, act Activation) error {
	if act < SiLU || act > Tanh {
		return fmt.Errorf("activate: activation %d: %w", act, ErrShape)
	}
	return activate(s, "activate", x, act, 0)
}

// Scale multiplies each element of x, F32, by a factor.
func Scale(s *Stream, x Tensor, factor float32) error { return activate(s, "scale", x, times, factor) }

// Softcap replaces each element of x, F32, by limit*tanh(x/limit). limit is positive.
func Softcap(s *Stream, x Tensor, limit float32) error {
	if !(limit > 0) {
		return fmt.Errorf("softcap at %g: %w", limit, ErrShape)
	}
	return activate(s, "softcap", x, softcap, limit)
}

func activate(s *Stream, op string, x Tensor, act Activation, limit float32) error {
	if err := x.check("x", onlyF32, -1, -1); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
	}
	impl, err := s.begin(op)
	if err != nil {
		return err
	}
	defer s.end()
	return impl.activate(x, act, limit)
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
