package kernels

func (refBackend) matMul(out, x Tensor, m *Matrix) error {
	w, xs := make([]float32, m.k), make([]float32, x.Rows*m.k)
	for t := range x.Rows {
		loadRow(xs[t*m.k:], x, t)
	}
	for n := range m.n {
		m.loadRow(w, n)
		for t := range x.Rows {
			out.f32(t)[n] = float32(dot(xs[t*m.k:][:m.k], w))
		}
	}
	return nil
}

func dot(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}
