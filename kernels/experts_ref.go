package kernels

func (r refBackend) matMulGroups(out, x, starts Tensor, experts []*Matrix) error {
	at := starts.ints(0)
	for e, m := range experts {
		if from, to := int(at[e]), int(at[e+1]); from < to {
			if err := r.matMul(out.RowRange(from, to), x.RowRange(from, to), m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (refBackend) combine(out, x, places, weights Tensor) error {
	for t := range out.Rows {
		sums := make([]float64, out.Cols)
		for j, place := range places.ints(t) {
			w := float64(weights.f32(t)[j])
			for i, v := range x.f32(int(place)) {
				sums[i] += w * float64(v)
			}
		}
		for i, v := range sums {
			out.f32(t)[i] = float32(v)
		}
	}
	return nil
}
