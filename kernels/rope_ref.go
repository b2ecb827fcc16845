package kernels

func (refBackend) rope(x, positions, table Tensor, numHeads int, pairs Pairs) error {
	d, half := x.Cols/numHeads, table.Cols/2
	for t, pos := range positions.ints(0) {
		cos, sin := table.f32(int(pos))[:half], table.f32(int(pos))[half:]
		for h := range numHeads {
			head := x.f32(t)[h*d:]
			for i := range half {
				first, second := i, i+half
				if pairs == Interleaved {
					first, second = 2*i, 2*i+1
				}
				a, b := float64(head[first]), float64(head[second])
				c, s := float64(cos[i]), float64(sin[i])
				head[first], head[second] = float32(a*c-b*s), float32(b*c+a*s)
			}
		}
	}
	return nil
}
