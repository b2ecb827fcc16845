package kernels

import "math"

func (refBackend) siluMul(out, gateUp Tensor) error {
	row := make([]float32, out.Cols)
	for t := range out.Rows {
		gate, up := gateUp.f32(t)[:out.Cols], gateUp.f32(t)[out.Cols:]
		for i, g := range gate {
			row[i] = float32(float64(g) / (1 + math.Exp(-float64(g))) * float64(up[i]))
		}
		storeRow(out, t, row)
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
