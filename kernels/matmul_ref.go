package kernels

import "math"

func (refBackend) matMul(out, x Tensor, m *Matrix) error {
	w, xs := make([]float32, m.k), make([]float32, x.Rows*m.k)
	for t := range x.Rows {
		loadRow(xs[t*m.k:], x, t)
		if m.dt == W8 || m.dt == W4 {
			m.roundInputs(xs[t*m.k:][:m.k])
		}
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

// inputGroup is the number of a row's inputs that are rounded with one scale for quantized weights.
func (m *Matrix) inputGroup() int {
	if m.dt == W4 {
		return m.group
	}
	return 128
}

// roundInputs rounds a row of inputs as the product with quantized weights does.
func (m *Matrix) roundInputs(x []float32) {
	for ; len(x) > 0; x = x[min(len(x), m.inputGroup()):] {
		group := x[:min(len(x), m.inputGroup())]
		most, nan := float32(0), float32(0)
		for _, f := range group {
			most = max(most, max(f, -f))
			nan += f * 0
		}
		scale, inv := most/127, 127/most
		if !(most > 1e-30) {
			scale, inv = 0, 0
		}
		for i, f := range group {
			group[i] = float32(math.RoundToEven(float64(f*inv)))*scale + nan
		}
	}
}
