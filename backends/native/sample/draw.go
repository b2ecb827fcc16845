package sample

// draw returns the candidate at u, in [0,1), of their cumulative distribution.
func (w *Scratch) draw(u float64) int32 {
	rest := u * w.weight()
	var id int32 // with a rest left by rounding, the last that has any weight
	for _, c := range w.cands {
		if c.weight == 0 {
			continue
		}
		id = c.id
		if rest -= c.weight; rest < 0 {
			break
		}
	}
	return id
}

// drawAny is draw for when nothing was filtered: it finds the block and then walks through it. w has the row's sums.
func (w *Scratch) drawAny(logits []float32, best int32, temperature, u float64) int32 {
	rest := u * w.total(logits[best], temperature)
	for b, sum := range w.sums {
		sum *= w.below(b, logits[best], temperature)
		if rest >= sum {
			rest -= sum
			continue
		}
		from := b * BlockLen
		for i, v := range logits[from:min(from+BlockLen, len(logits))] {
			if rest -= exp((float64(v) - float64(logits[best])) * (expUnit / temperature)); rest < 0 {
				return int32(from + i)
			}
		}
	}
	return best // rounding left a rest
}
