package kernels

import "fmt"

// RMSNorm computes out[t,h] = x[t,h] / sqrt(mean_h(x[t,h]²) + eps) * w[h].
//
//	out  F32 or BF16 [num_tokens, hidden]   may be x if F32
//	x    F32 [num_tokens, hidden]
//	w    F32 [1, hidden]
//	eps  added to the mean square, inside the root
//
// Source: Zhang and Sennrich 2019, arXiv:1910.07467.
func RMSNorm(s *Stream, out, x, w Tensor, eps float32) error {
	if err := checkRMSNorm(out, x, w); err != nil {
		return fmt.Errorf("rmsnorm: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
	}
	impl, err := s.begin("rmsnorm")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.rmsNorm(out, x, w, eps)
}

func checkRMSNorm(out, x, w Tensor) error {
	if err := x.check("x", onlyF32, -1, -1); err != nil {
		return err
	}
	if err := w.check("w", onlyF32, 1, x.Cols); err != nil {
		return err
	}
	return out.check("out", f32orBF16, x.Rows, x.Cols)
}

// AddRMSNorm adds y to x in place (the residual stream) and then is RMSNorm of x. y has x's shape; out must
// not be x, but may be y if F32.
func AddRMSNorm(s *Stream, out, x, y, w Tensor, eps float32) error {
	err := checkRMSNorm(out, x, w)
	if err == nil {
		err = y.check("y", onlyF32, x.Rows, x.Cols)
	}
	if err != nil {
		return fmt.Errorf("add rmsnorm: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
	}
	impl, err := s.begin("add rmsnorm")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.addRMSNorm(out, x, y, w, eps)
}

// HeadRMSNorm is RMSNorm of each head on its own, in place (query and key norms).
//
//	x  F32 [num_tokens, num_heads*head_dim]
//	w  F32 [1, head_dim]
func HeadRMSNorm(s *Stream, x, w Tensor, numHeads int, eps float32) error {
	if err := checkHeads(x, numHeads); err != nil {
		return fmt.Errorf("head rmsnorm: %w", err)
	}
	if err := w.check("w", onlyF32, 1, x.Cols/numHeads); err != nil {
		return fmt.Errorf("head rmsnorm: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
	}
	impl, err := s.begin("head rmsnorm")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.headRMSNorm(x, w, numHeads, eps)
}

// checkHeads reports whether x is F32 and its columns divide into heads.
func checkHeads(x Tensor, numHeads int) error {
	if err := x.check("x", onlyF32, -1, -1); err != nil {
		return err
	}
	if numHeads < 1 || x.Cols%numHeads != 0 {
		return fmt.Errorf("%d columns of x for %d heads: %w", x.Cols, numHeads, ErrShape)
	}
	return nil
}
