package kernels

func (refBackend) rope(x, positions, table Tensor, numHeads int) error {
	d, half := x.Cols/numHeads, table.Cols/2
	for t, pos := range positions.ints(0) {
		cos, sin := table.f32(int(pos))[:half], table.f32(int(pos))[half:]
		for h := range numHeads {
			head := x.f32(t)[h*d:]
			for i := range half {
				a, b := float64(head[i]), float64(head[i+half])
				c, s := float64(cos[i]), float64(sin[i])
				head[i], head[i+half] = float32(a*c-b*s), float32(b*c+a*s)
			}
		}
	}
	return nil
}
