package kernels

import "math"

func (refBackend) rmsNorm(out, x, w Tensor, eps float32) error {
	row := make([]float32, x.Cols)
	for t := range x.Rows {
		copy(row, x.f32(t))
		normalize(row, w.f32(0), eps)
		storeRow(out, t, row)
	}
	return nil
}

func (r refBackend) addRMSNorm(out, x, y, w Tensor, eps float32) error {
	if err := r.add(x, y); err != nil {
		return err
	}
	return r.rmsNorm(out, x, w, eps)
}

func (refBackend) headRMSNorm(x, w Tensor, numHeads int, eps float32) error {
	d := x.Cols / numHeads
	for t := range x.Rows {
		for h := range numHeads {
			normalize(x.f32(t)[h*d:][:d], w.f32(0), eps)
		}
	}
	return nil
}

func normalize(x, w []float32, eps float32) {
	inv := 1 / math.Sqrt(dot(x, x)/float64(len(x))+float64(eps))
	for i, v := range x {
		x[i] = float32(float64(v) * inv * float64(w[i]))
	}
}
