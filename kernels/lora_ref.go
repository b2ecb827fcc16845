package kernels

func (refBackend) lora(out, x Tensor, runs []LoRARun) error {
	in := make([]float32, x.Cols)
	for _, r := range runs {
		w, low := make([]float32, x.Cols), make([]float64, r.A.n)
		for t := r.Start; t < r.Start+r.Len; t++ {
			loadRow(in, x, t)
			for n := range low {
				r.A.loadRow(w, n)
				low[n] = dot(in, w)
			}
			row := out.f32(t)
			for n := range row {
				row[n] += float32(float64(r.Scale) * r.B.dotRow(n, low))
			}
		}
	}
	return nil
}

// dotRow is the product of weight row n with x.
func (m *Matrix) dotRow(n int, x []float64) float64 {
	row := make([]float32, m.k)
	m.loadRow(row, n)
	sum := 0.0
	for i, v := range row {
		sum += float64(v) * x[i]
	}
	return sum
}
