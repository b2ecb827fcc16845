package sample

import "slices"

// draw returns the candidate at u, in [0,1), of their cumulative distribution.
func (w *Scratch) draw(u float64) int32 {
	rest := u * w.total()
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

// drawChunk is how many logits share one sum in drawAny.
const drawChunk = 1024

// drawAny is draw for when nothing was filtered: it sums up the vocabulary in chunks and then walks through one.
func (w *Scratch) drawAny(logits []float32, best int32, temperature, u float64) int32 {
	scale := 1 / temperature
	w.sums = w.sums[:0]
	total := 0.0
	for chunk := range slices.Chunk(logits, drawChunk) {
		sum := sumExp(chunk, logits[best], scale)
		w.sums = append(w.sums, sum)
		total += sum
	}
	rest := u * total
	for i, sum := range w.sums {
		if rest >= sum {
			rest -= sum
			continue
		}
		from := i * drawChunk
		for j := from; j < min(from+drawChunk, len(logits)); j++ {
			if rest -= sumExp(logits[j:j+1], logits[best], scale); rest < 0 {
				return int32(j)
			}
		}
	}
	return best // rounding left a rest
}
