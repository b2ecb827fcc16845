package kernels

import "math"

// gatedDelta keeps sums in float64, but rounds the state after each token: what is kept between steps is float32.
func (refBackend) gatedDelta(out, qkv, a, b, states Tensor, r DeltaRule, batch StateBatch) error {
	keys, repeat := r.KeyHeads*r.KeyDim, r.ValueHeads/r.KeyHeads
	batch.each(states, func(from, to int, state []float32) {
		for t := from; t < to; t++ {
			row := qkv.f32(t)
			for h := range r.KeyHeads {
				unitLength(row[h*r.KeyDim:][:r.KeyDim], 1/math.Sqrt(float64(r.KeyDim)))
				unitLength(row[keys+h*r.KeyDim:][:r.KeyDim], 1)
			}
			for h := range r.ValueHeads {
				decay := math.Exp(float64(r.Decay.f32(0)[h]) * softplus(float64(a.f32(t)[h])+float64(r.Bias.f32(0)[h])))
				beta := sigmoid(float64(b.f32(t)[h]))
				a.f32(t)[h], b.f32(t)[h] = float32(decay), float32(beta)
				q, k := row[h/repeat*r.KeyDim:][:r.KeyDim], row[keys+h/repeat*r.KeyDim:][:r.KeyDim]
				v, o := row[2*keys+h*r.ValueDim:][:r.ValueDim], out.f32(t)[h*r.ValueDim:][:r.ValueDim]
				deltaToken(o, state[h*r.KeyDim*r.ValueDim:], q, k, v, decay, beta)
			}
		}
	})
	return nil
}

func deltaToken(out, state, q, k, v []float32, decay, beta float64) {
	for j := range v {
		known := 0.0
		for i := range k {
			known += float64(k[i]) * decay * float64(state[i*len(v)+j])
		}
		change, sum := beta*(float64(v[j])-known), 0.0
		for i := range k {
			at := decay*float64(state[i*len(v)+j]) + float64(k[i])*change
			state[i*len(v)+j] = float32(at)
			sum += float64(q[i]) * at
		}
		out[j] = float32(sum)
	}
}

func unitLength(x []float32, scale float64) {
	scale /= math.Sqrt(dot(x, x) + l2Eps)
	for i, v := range x {
		x[i] = float32(float64(v) * scale)
	}
}

func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func (refBackend) gatedRMSNorm(out, x, z, w Tensor, numHeads int, eps float32) error {
	d, row := x.Cols/numHeads, make([]float32, x.Cols)
	for t := range x.Rows {
		for h := range numHeads {
			head, gate := x.f32(t)[h*d:][:d], z.f32(t)[h*d:][:d]
			inv := 1 / math.Sqrt(dot(head, head)/float64(d)+float64(eps))
			for i, v := range head {
				row[h*d+i] = float32(float64(v) * inv * float64(w.f32(0)[i]) * SiLU.of(float64(gate[i]), 0))
			}
		}
		storeRow(out, t, row)
	}
	return nil
}
