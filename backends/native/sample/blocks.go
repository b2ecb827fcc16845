package sample

import (
	"math"
	"slices"
)

// blocks looks at all of a row and returns the highest logit's id, of equals the lowest. Afterwards w.best and, unless scale
// is 0, w.sums tell of its blocks.
func (w *Scratch) blocks(logits []float32, scale float64) (int32, error) {
	n := (len(logits) + BlockLen - 1) / BlockLen
	w.best = slices.Grow(w.best[:0], n)[:n]
	w.sums = nil
	if scale > 0 {
		w.sumMemory = slices.Grow(w.sumMemory[:0], n)[:n]
		w.sums = w.sumMemory
	}
	if err := w.blockSums(w.best, w.sums, logits, scale); err != nil {
		return 0, err
	}
	b, err := argmax(w.best)
	if err != nil {
		return 0, err
	}
	from := int(b) * BlockLen
	at := slices.Index(logits[from:min(from+BlockLen, len(logits))], w.best[b])
	return int32(from + at), nil
}

// total is the sum of e^((v-best)/temperature) over the row that blocks has looked at with that temperature.
func (w *Scratch) total(best float32, temperature float64) float64 {
	total := 0.0
	for b, sum := range w.sums {
		total += sum * w.below(b, best, temperature)
	}
	return total
}

// below is what a block's sum is to be multiplied with where the best of all stands for the best of the block.
func (w *Scratch) below(b int, best float32, temperature float64) float64 {
	return exp((float64(w.best[b]) - float64(best)) * (expUnit / temperature))
}

// argmax returns the highest's place, of equals the lowest. A NaN anywhere is found: no comparison with it holds.
func argmax(logits []float32) (int32, error) {
	best, at := float32(math.Inf(-1)), -1
	for i, v := range logits {
		if !(v <= best) {
			best, at = v, i
			if v != v {
				return 0, ErrLogits
			}
		}
	}
	switch {
	case at < 0:
		return 0, ErrNoToken
	case best > math.MaxFloat32:
		return 0, ErrLogits
	}
	return int32(at), nil
}

// plainBlockSums is BlockSums without help.
func plainBlockSums(best []float32, sum []float64, logits []float32, scale float64) error {
	b := 0
	for block := range slices.Chunk(logits, BlockLen) {
		best[b] = slices.Max(block)
		if len(sum) > 0 {
			sum[b] = 0
			if best[b] > float32(math.Inf(-1)) {
				sum[b] = sumExp(block, best[b], scale)
			}
		}
		b++
	}
	return nil
}
