package kernels

import "math"

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// of is the activation's value.
func (a Activation) of(x, limit float64) float64 {
	switch a {
	case SiLU:
		return x * sigmoid(x)
	case GELU:
		return x / 2 * math.Erfc(-x/math.Sqrt2)
	case GELUTanh:
		return x * sigmoid(2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))
	case ReLU:
		return max(x, 0)
	case Tanh:
		return math.Tanh(x)
	case Sigmoid:
		return sigmoid(x)
	case softcap:
		return limit * math.Tanh(x/limit)
	}
	return x * limit // times
}

func (refBackend) gatedMul(out, gateUp Tensor, act Activation) error {
	row := make([]float32, out.Cols)
	for t := range out.Rows {
		gate, up := gateUp.f32(t)[:out.Cols], gateUp.f32(t)[out.Cols:]
		for i := range row {
			g, u := float64(gate[i]), float64(up[i])
			if act == ClampedSwiGLU {
				y := min(g, 7)
				row[i] = float32((max(-7, min(u, 7)) + 1) * y * sigmoid(1.702*y))
			} else {
				row[i] = float32(act.of(g, 0) * u)
			}
		}
		storeRow(out, t, row)
	}
	return nil
}

func (refBackend) activate(x Tensor, act Activation, limit float32) error {
	for t := range x.Rows {
		for i, v := range x.f32(t) {
			x.f32(t)[i] = float32(act.of(float64(v), float64(limit)))
		}
	}
	return nil
}

func (refBackend) add(x, y Tensor) error {
	for t := range x.Rows {
		row, other := x.f32(t), y.f32(min(t, y.Rows-1))
		for i := range row {
			row[i] += other[i]
		}
	}
	return nil
}

func (refBackend) gather(out, x, rows Tensor) error {
	for r, from := range rows.ints(0) {
		if x.DType == F32 {
			copy(out.f32(r), x.f32(int(from)))
		} else {
			copy(out.bits16(r), x.bits16(int(from)))
		}
	}
	return nil
}
