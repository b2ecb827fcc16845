package sample

import (
	"fmt"
	"math"
	"slices"
)

// Logprobs returns the log-probability of the chosen token, and the k most likely tokens with theirs, the most likely
// first and of equals the lowest id, under the distribution that is the softmax of logits. A token whose logit is -Inf
// has -Inf. Prompt tokens get theirs from the row before them.
func (w *Scratch) Logprobs(logits []float32, chosen int32, k int) (float64, []TokenLogprob, error) {
	if chosen < 0 || int(chosen) >= len(logits) {
		return 0, nil, fmt.Errorf("sample: token %d of %d", chosen, len(logits))
	}
	at, err := w.blocks(logits, 1)
	if err != nil {
		return 0, nil, err
	}
	best := logits[at]
	norm := float64(best) + math.Log(w.total(best, 1))
	return float64(logits[chosen]) - norm, w.top(logits, k, norm), nil
}

func (w *Scratch) top(logits []float32, k int, norm float64) []TokenLogprob {
	if k <= 0 {
		return nil
	}
	w.topK(logits, min(k, len(logits)))
	slices.SortFunc(w.cands, func(a, b cand) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	top := make([]TokenLogprob, len(w.cands))
	for i, c := range w.cands {
		top[i] = TokenLogprob{c.id, float64(c.key) - norm}
	}
	return top
}
