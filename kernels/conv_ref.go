package kernels

// each calls f for every sequence that has new tokens, with its rows [from, to) and its row of states, zeroed if these
// tokens are its first.
func (b StateBatch) each(states Tensor, f func(from, to int, state []float32)) {
	starts, lens, rows := b.QueryStarts.ints(0), b.SeqLens.ints(0), b.Rows.ints(0)
	for s, n := range lens {
		from, to := int(starts[s]), int(starts[s+1])
		if from == to {
			continue
		}
		var state []float32
		if states.Cols > 0 {
			state = states.f32(int(rows[s]))
		}
		if to-from == int(n) {
			clear(state)
		}
		f(from, to, state)
	}
}

func (refBackend) causalConv(x, w, states Tensor, b StateBatch) error {
	before, n := w.Rows-1, x.Cols
	b.each(states, func(from, to int, state []float32) {
		for t := from; t < to; t++ {
			row := x.f32(t)
			for c, newest := range row {
				sum := float64(w.f32(before)[c]) * float64(newest)
				for j := range before {
					sum += float64(w.f32(j)[c]) * float64(state[j*n+c])
				}
				for j := range before {
					if j+1 < before {
						state[j*n+c] = state[(j+1)*n+c]
					} else {
						state[j*n+c] = newest
					}
				}
				row[c] = float32(SiLU.of(sum, 0))
			}
		}
	})
	return nil
}

func (refBackend) pickGroups(out, x Tensor, groups, from int) error {
	n, size := out.Cols/groups, x.Cols/groups
	for t := range out.Rows {
		for g := range groups {
			copy(out.f32(t)[g*n:][:n], x.f32(t)[g*size+from:])
		}
	}
	return nil
}
