package kernels

import (
	"fmt"
	"math"
)

// LayerNorm computes out[t,h] = (x[t,h] - mean_h(x[t,h])) / sqrt(variance_h(x[t,h]) + eps) * w[h] + b[h].
//
//	out   F32 or BF16 [num_tokens, hidden]   may be x if F32
//	x     F32 [num_tokens, hidden]
//	w, b  F32 [1, hidden]
//	eps   added to the variance, inside the root
//
// Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450.
func LayerNorm(s *Stream, out, x, w, b Tensor, eps float32) error {
	err := checkRMSNorm(out, x, w)
	if err == nil {
		err = b.check("b", onlyF32, 1, x.Cols)
	}
	if err != nil {
		return fmt.Errorf("layernorm: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
	}
	impl, err := s.begin("layernorm")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.layerNorm(out, x, w, b, eps)
}

func (refBackend) layerNorm(out, x, w, b Tensor, eps float32) error {
	row := make([]float32, x.Cols)
	for t := range x.Rows {
		mean, variance, n := 0.0, 0.0, float64(x.Cols)
		for _, v := range x.f32(t) {
			mean += float64(v) / n
		}
		for _, v := range x.f32(t) {
			variance += (float64(v) - mean) * (float64(v) - mean) / n
		}
		inv := 1 / math.Sqrt(variance+float64(eps))
		for i, v := range x.f32(t) {
			row[i] = float32((float64(v)-mean)*inv*float64(w.f32(0)[i]) + float64(b.f32(0)[i]))
		}
		storeRow(out, t, row)
	}
	return nil
}
