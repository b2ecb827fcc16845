package kernels

import "fmt"

// MatMul computes out[t,n] = sum_k x[t,k] * w[n,k].
//
//	out  F32 [num_tokens, N]          may be a view; must not overlap x
//	x    F32 or BF16 [num_tokens, K]
//	m    [N, K]
//
// With W8 and W4 weights the inputs of a row are rounded to int8 in groups (of 128; of W4Group): group g becomes q*s with
// s = max|x|/127; then out[t,n] = sum_g s[t,g] * scale[n,g] * sum_k q[t,k]*code[n,k], the inner sums exact, the outer ones
// float32. An input or weight that is not finite makes the outputs that depend on it NaN; groups below 1e-30 count as zero.
//
// Sums are float32, over k in one order that does not depend on num_tokens. BF16 inputs with BF16 weights may use
// instructions that add products in pairs and flush subnormals to zero; all else widens to float32 first.
func MatMul(s *Stream, out, x Tensor, m *Matrix) error {
	if err := checkMatMul(out, x, m); err != nil {
		return fmt.Errorf("matmul: %w", err)
	}
	if x.Rows == 0 {
		return nil
	}
	impl, err := s.begin("matmul")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.matMul(out, x, m)
}

func checkMatMul(out, x Tensor, m *Matrix) error {
	if err := m.check("weights", -1); err != nil {
		return err
	}
	if err := x.check("x", f32orBF16, -1, m.k); err != nil {
		return err
	}
	return out.check("out", onlyF32, x.Rows, m.n)
}
