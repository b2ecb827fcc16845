package sample

import (
	"math"
	"slices"
)

// maxDepth is how far below the highest logit, after temperature, a token is still considered. What lies deeper has
// e^-40 of the best's weight: a million of them together are drawn once in 10^11 times.
const maxDepth = 40

// Scratch is the working memory of samplers. One goroutine uses it at a time, for any number of them.
type Scratch struct {
	blockSums BlockSums
	cands     []cand
	edits     []edit
	best      []float32 // of each block of the row at hand, its highest logit
	sums      []float64 // see blocks; empty if they were not asked for
	sumMemory []float64
}

// BlockLen is the number of neighbouring logits that BlockSums takes together.
const BlockLen = 256

// BlockSums reads a row of logits once: best[b] becomes the highest of block b, NaN if it holds one, and sum[b], unless
// sum is empty, the sum of e^((v-best[b])*scale) over the block, 0 if all of it is -Inf. A vocabulary is large, and this is
// all that most tokens are ever looked at.
type BlockSums func(best []float32, sum []float64, logits []float32, scale float64) error

// NewScratch returns working memory; it grows to what the samplers need. read nil is plain Go.
func NewScratch(read BlockSums) *Scratch {
	if read == nil {
		read = plainBlockSums
	}
	return &Scratch{blockSums: read}
}

// cand is a token still in the race.
type cand struct {
	id     int32
	key    float32 // what it is ranked by: its logit, or how typical it is
	weight float64 // its probability but for a factor; the most likely's is 1
}

type edit struct {
	id  int32
	was float32
}

func (w *Scratch) set(logits []float32, id int32, v float32) {
	w.edits = append(w.edits, edit{id, logits[id]})
	logits[id] = v
}

// restore undoes all sets, the last first: an id may have been set more than once.
func (w *Scratch) restore(logits []float32) {
	for _, e := range slices.Backward(w.edits) {
		logits[e.id] = e.was
	}
}

// filters reports whether some tokens may not be drawn because of others.
func (s *Sampler) filters() bool {
	return s.p.TopK > 0 && s.p.TopK < s.vocab || s.p.TopP < 1 || s.p.MinP > 0 || s.p.TypicalP < 1
}

// sumScale is the factor of the exponents whose sums choose needs, 0 for none.
func (s *Sampler) sumScale() float64 {
	k := s.p.TopK
	if s.p.Temperature < greedyTemperature || k > 0 && k < s.vocab || s.filters() && s.p.TopP == 1 {
		return 0
	}
	return 1 / s.p.Temperature
}

// gather fills w.cands with the tokens that may be drawn and their weights. best is the highest logit; w has the row's
// blocks, with sums if s.sumScale asks for them.
func (s *Sampler) gather(w *Scratch, logits []float32, best float32) {
	switch k := s.p.TopK; {
	case k > 0 && k < len(logits):
		w.topK(logits, k)
		total := w.weigh(best, s.p.Temperature)
		w.topP(s.p.TopP, total)
	case s.p.TopP < 1:
		total := w.total(best, s.p.Temperature)
		depth := w.depthOf(s.p.TopP*total, logits, best, s.p.Temperature)
		w.above(logits, best, depth*s.p.Temperature)
		w.weigh(best, s.p.Temperature)
		w.topP(s.p.TopP, total)
	default:
		depth := min(maxDepth, 1e-6-math.Log(s.p.MinP))
		w.above(logits, best, depth*s.p.Temperature)
		w.weigh(best, s.p.Temperature)
	}
	if s.p.MinP > 0 {
		w.cands = slices.DeleteFunc(w.cands, func(c cand) bool { return c.weight < s.p.MinP })
	}
	if s.p.TypicalP < 1 {
		w.typical(s.p.TypicalP)
	}
}

// depthOf returns how deep below the best, after temperature, the most likely tokens that together weigh target may lie, in
// whole units. It keeps the nucleus's selection to those few.
func (w *Scratch) depthOf(target float64, logits []float32, best float32, temperature float64) float64 {
	const atMost = 1e-6 // for what rounds to the unit's end
	for _, reach := range []float64{8, 16} {
		w.above(logits, best, reach*temperature)
		w.weigh(best, temperature)
		var weights [17]float64 // by depth in whole units
		for _, c := range w.cands {
			depth := (float64(best) - float64(c.key)) / temperature // rounding lets some that lie deeper through
			weights[min(int(depth), len(weights)-1)] += c.weight
		}
		held := 0.0
		for depth := 0.0; depth < reach; depth++ {
			if held += weights[int(depth)]; held >= target {
				return depth + 1 + atMost
			}
		}
	}
	return maxDepth + atMost
}

// topP keeps the most likely candidates that together reach p of the total weight.
func (w *Scratch) topP(p, total float64) {
	if p < 1 {
		w.cands = w.cands[:nucleus(w.cands, p*total)]
	}
}

// above makes all logits less than depth below the best candidates.
func (w *Scratch) above(logits []float32, best float32, depth float64) {
	w.cands = w.cands[:0]
	t := math.Nextafter32(float32(float64(best)-depth), float32(math.Inf(-1))) // at most -Inf: that is a forbidden token
	for b, most := range w.best {
		if !(most > t) {
			continue
		}
		from := b * BlockLen
		for i, v := range logits[from:min(from+BlockLen, len(logits))] {
			if v > t {
				w.cands = append(w.cands, cand{id: int32(from + i), key: v})
			}
		}
	}
}

// topK makes the k highest logits candidates, of equals the lowest ids, in no order.
func (w *Scratch) topK(logits []float32, k int) {
	c := w.cands[:0]
	limit := 2*k + 64
	t := float32(math.Inf(-1)) // logits at most this are out
	for b, most := range w.best {
		if !(most > t) {
			continue
		}
		from := b * BlockLen
		for i, v := range logits[from:min(from+BlockLen, len(logits))] {
			if !(v > t) {
				continue
			}
			c = append(c, cand{id: int32(from + i), key: v, weight: 1})
			if len(c) == limit {
				c = c[:nucleus(c, float64(k))]
				t = c[0].key
				for _, o := range c {
					t = min(t, o.key)
				}
			}
		}
	}
	w.cands = c[:nucleus(c, float64(k))]
}

// weigh sets the candidates' weights and returns their sum.
func (w *Scratch) weigh(best float32, temperature float64) float64 {
	scale, total := expUnit/temperature, 0.0
	for i := range w.cands {
		c := &w.cands[i]
		c.weight = exp((float64(c.key) - float64(best)) * scale)
		total += c.weight
	}
	return total
}

// typical keeps the candidates whose information is closest to the expected one and that together reach mass p.
func (w *Scratch) typical(p float64) {
	total := w.weight()
	entropy := 0.0
	for _, c := range w.cands {
		if c.weight > 0 {
			entropy -= c.weight / total * math.Log(c.weight/total)
		}
	}
	for i := range w.cands {
		c := &w.cands[i]
		c.key = -float32(math.Abs(math.Log(c.weight/total) + entropy))
	}
	w.cands = w.cands[:nucleus(w.cands, p*total)]
}

// weight is that of all candidates.
func (w *Scratch) weight() float64 {
	total := 0.0
	for _, c := range w.cands {
		total += c.weight
	}
	return total
}

// before ranks candidates: higher keys first, then lower ids. No two are equal.
func (c cand) before(o cand) bool {
	return c.key > o.key || c.key == o.key && c.id < o.id
}

// nucleus reorders c so that its n highest-ranked come first, with n the smallest whose weights sum to target or more,
// and returns n; all of c if their sum falls short. It is a quickselect that goes by weight instead of count, and takes
// time proportional to len(c) on the average.
func nucleus(c []cand, target float64) int {
	lo, hi := 0, len(c) // c[:lo] is in and weighs less than target, c[hi:] is out
	for lo < hi {
		mid, sum := partition(c[lo:hi])
		mid += lo
		switch {
		case sum >= target:
			hi = mid
		case sum+c[mid].weight >= target:
			return mid + 1
		default:
			target -= sum + c[mid].weight
			lo = mid + 1
		}
	}
	return lo
}

// partition moves what ranks before a pivot to the front. It returns the pivot's place and the weight in front of it.
func partition(c []cand) (mid int, sum float64) {
	last, n := len(c)-1, uint64(len(c))
	h := mix(n + golden) // scattered places, so that no ordinary order of the keys is a bad one
	p := median(c, int(h%n), int(h>>20%n), int(h>>40%n))
	pivot := c[p]
	c[p], c[last] = c[last], pivot
	for i, o := range c[:last] {
		if o.before(pivot) {
			c[i], c[mid] = c[mid], o
			mid++
			sum += o.weight
		}
	}
	c[mid], c[last] = c[last], c[mid]
	return mid, sum
}

// median returns which of i, j and k ranks between the others.
func median(c []cand, i, j, k int) int {
	if c[j].before(c[i]) {
		i, j = j, i
	}
	switch {
	case c[k].before(c[i]):
		return i
	case c[k].before(c[j]):
		return k
	}
	return j
}
