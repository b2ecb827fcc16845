package sample

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// reference is the distribution that a token is drawn from, by the definitions and with sorts: what the filters leave,
// renormalized, by id.
func reference(p Params, prompt, output []int32, logits []float32) map[int32]float64 {
	x := make([]float64, len(logits))
	for id, v := range logits {
		l := float64(v + p.LogitBias[int32(id)])
		if slices.Contains(prompt, int32(id)) || slices.Contains(output, int32(id)) {
			if l > 0 {
				l /= p.RepetitionPenalty
			} else {
				l *= p.RepetitionPenalty
			}
		}
		for i, o := range output {
			if o == int32(id) {
				l -= p.FrequencyPenalty
				if !slices.Contains(output[:i], o) {
					l -= p.PresencePenalty
				}
			}
		}
		if len(output) < p.MinTokens && slices.Contains(p.MinTokensForbidden, int32(id)) {
			l = math.Inf(-1)
		}
		x[id] = float64(float32(l)) // edited logits are float32
	}
	if p.Temperature < greedyTemperature {
		return map[int32]float64{int32(slices.Index(x, slices.Max(x))): 1}
	}
	best := slices.Max(x)
	probs := map[int32]float64{}
	for id := range x {
		if w := math.Exp((x[id] - best) / p.Temperature); w > 0 {
			probs[int32(id)] = w
		}
	}
	normalize(probs)
	if p.TopK > 0 {
		leading(probs, func(id int32) float64 { return x[id] }, func(n int, _ float64) bool { return n < p.TopK })
	}
	if p.TopP < 1 {
		leading(probs, func(id int32) float64 { return x[id] }, func(_ int, sum float64) bool { return sum < p.TopP })
	}
	highest := slices.Max(slices.Collect(maps.Values(probs)))
	maps.DeleteFunc(probs, func(_ int32, prob float64) bool { return prob/highest < p.MinP-1e-12 })
	normalize(probs)
	if p.TypicalP < 1 {
		entropy := 0.0
		for _, prob := range probs {
			entropy -= prob * math.Log(prob)
		}
		info := maps.Clone(probs)
		leading(probs, func(id int32) float64 { return -math.Abs(-math.Log(info[id]) - entropy) },
			func(_ int, sum float64) bool { return sum < p.TypicalP })
	}
	return probs
}

func normalize(probs map[int32]float64) {
	total := 0.0
	for _, prob := range probs {
		total += prob
	}
	for id := range probs {
		probs[id] /= total
	}
}

// leading keeps the tokens of highest key, of equals the lowest ids, while more says so of their number and sum so far.
func leading(probs map[int32]float64, key func(int32) float64, more func(int, float64) bool) {
	ids := slices.SortedFunc(maps.Keys(probs), func(a, b int32) int {
		switch ka, kb := key(a), key(b); {
		case math.Abs(ka-kb) < 1e-9: // the same but for rounding
			return int(a - b)
		case ka > kb:
			return -1
		}
		return 1
	})
	sum := 0.0
	for n, id := range ids {
		if !more(n, sum) {
			delete(probs, id)
			continue
		}
		sum += probs[id]
	}
	normalize(probs)
}

// randomCase makes parameters, texts and logits that reach every branch: few and many tokens, ties, forbidden ones.
func randomCase(rng *rand.Rand) (p Params, prompt, output []int32, logits []float32) {
	vocab := 1 + rng.IntN(1+rng.IntN(400))
	logits = make([]float32, vocab)
	scale, ties, forbidden := math.Exp(rng.Float64()*5-2), rng.IntN(2) == 0, rng.IntN(3) == 0
	for i := range logits {
		v := rng.NormFloat64() * scale
		if ties {
			v = math.Round(v*2) / 2
		}
		if forbidden && i > 0 && rng.IntN(3) == 0 {
			v = math.Inf(-1)
		}
		logits[i] = float32(v)
	}
	id := func() int32 { return int32(rng.IntN(vocab)) }
	p = Defaults()
	p.Seed = rng.Uint64()
	sometimes := func(f func()) {
		if rng.IntN(3) == 0 {
			f()
		}
	}
	sometimes(func() { p.Temperature = []float64{0, 0.3, 1.7, 10}[rng.IntN(4)] })
	sometimes(func() { p.TopK = rng.IntN(vocab + 10) })
	sometimes(func() { p.TopP = 1 - rng.Float64() })
	sometimes(func() { p.MinP = rng.Float64() })
	sometimes(func() { p.TypicalP = 1 - rng.Float64() })
	sometimes(func() { p.RepetitionPenalty = 0.5 + rng.Float64() })
	sometimes(func() { p.FrequencyPenalty = rng.Float64()*4 - 2 })
	sometimes(func() { p.PresencePenalty = rng.Float64()*4 - 2 })
	sometimes(func() { p.LogitBias = map[int32]float32{id(): 3, id(): -2.5} })
	sometimes(func() { p.MinTokens, p.MinTokensForbidden = rng.IntN(8), []int32{int32(vocab - 1)} })
	for range rng.IntN(10) {
		prompt = append(prompt, id())
	}
	for range rng.IntN(10) {
		output = append(output, id())
	}
	return p, prompt, output, logits
}

// TestAgainstReference compares the distributions themselves, on random cases.
func TestAgainstReference(t *testing.T) {
	w := NewScratch(nil)
	for i := range uint64(3000) {
		p, prompt, output, logits := randomCase(rand.New(rand.NewPCG(i, 7)))
		if len(output) < p.MinTokens && len(logits) == 1 {
			continue // nothing is allowed; another test
		}
		s := newSampler(t, p, prompt, len(logits), 0)
		for _, o := range output {
			s.Accept(o)
		}
		want := reference(p, prompt, output, logits)
		got := distribution(t, s, w, logits)
		if err := compare(got, want); err != nil {
			t.Fatalf("case %d: %+v, %d tokens, prompt %v, output %v: %v", i, p, len(logits), prompt, output, err)
		}
		r, err := s.Sample(w, logits)
		if err != nil || want[r.Token] == 0 {
			t.Fatalf("case %d: picked %d, which is not among %v (%v)", i, r.Token, want, err)
		}
	}
}

// distribution is what s draws from next.
func distribution(t *testing.T, s *Sampler, w *Scratch, logits []float32) map[int32]float64 {
	t.Helper()
	logits = slices.Clone(logits)
	s.edit(w, logits)
	best, err := w.blocks(logits, s.sumScale())
	if err != nil {
		t.Fatal(err)
	}
	if s.p.Temperature < greedyTemperature {
		return map[int32]float64{best: 1}
	}
	s.gather(w, logits, logits[best])
	probs := map[int32]float64{}
	for _, c := range w.cands {
		probs[c.id] += c.weight // a token listed twice would weigh too much
	}
	normalize(probs)
	return probs
}

func compare(got, want map[int32]float64) error {
	for id := range got {
		if _, ok := want[id]; !ok {
			return fmt.Errorf("token %d (probability %g) should have been dropped", id, got[id])
		}
	}
	for id, prob := range want {
		if !(math.Abs(got[id]-prob) <= 1e-8) {
			return fmt.Errorf("token %d has probability %g, want %g", id, got[id], prob)
		}
	}
	return nil
}

// TestDraws counts what is drawn at many positions, and compares the counts with the reference's probabilities by a
// chi-square test at a significance of about 1e-6.
func TestDraws(t *testing.T) {
	const n = 20000
	logits := []float32{2, 1.5, 1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, float32(math.Inf(-1))}
	for name, set := range map[string]func(*Params){
		"as it is":    func(p *Params) {},
		"temperature": func(p *Params) { p.Temperature = 0.6 },
		"flat":        func(p *Params) { p.Temperature = 1e6 },
		"top_k":       func(p *Params) { p.TopK = 4 },
		"top_p":       func(p *Params) { p.TopP = 0.85 },
		"min_p":       func(p *Params) { p.MinP = 0.1 },
		"typical_p":   func(p *Params) { p.TypicalP = 0.7 },
		"all":         func(p *Params) { p.Temperature, p.TopK, p.TopP, p.MinP, p.TypicalP = 1.3, 8, 0.95, 0.05, 0.9 },
	} {
		t.Run(name, func(t *testing.T) {
			p := Defaults()
			p.Seed = 42
			set(&p)
			s, w := newSampler(t, p, nil, len(logits), 0), NewScratch(nil)
			counts := map[int32]float64{}
			for range n {
				r, err := s.Sample(w, logits)
				if err != nil {
					t.Fatal(err)
				}
				counts[r.Token]++
				s.Accept(r.Token)
			}
			want := reference(p, nil, nil, logits)
			chi2 := 0.0
			for id, prob := range want {
				chi2 += (counts[id] - n*prob) * (counts[id] - n*prob) / (n * prob)
				delete(counts, id)
			}
			if len(counts) > 0 {
				t.Errorf("drew tokens that were dropped: %v", counts)
			}
			// Wilson and Hilferty's approximation of the quantile at 4.75 standard deviations.
			df := float64(max(len(want)-1, 1))
			limit := df * math.Pow(1-2/(9*df)+4.75*math.Sqrt(2/(9*df)), 3)
			if !(chi2 <= limit) {
				t.Errorf("chi-square is %.1f with %v degrees of freedom, limit %.1f", chi2, df, limit)
			}
		})
	}
}

// The unfiltered path walks chunks of a large vocabulary; it must agree with the cumulative distribution at any u.
func TestDrawAny(t *testing.T) {
	logits := row(5, 5*BlockLen+17)
	logits[100], logits[BlockLen] = float32(math.Inf(-1)), float32(math.Inf(-1))
	w := NewScratch(nil)
	best, err := w.blocks(logits, 1)
	if err != nil {
		t.Fatal(err)
	}
	probs := reference(Defaults(), nil, nil, logits)
	for i := range 2000 {
		u := (float64(i) + 0.5) / 2000
		got := w.drawAny(logits, best, 1, u)
		below := 0.0
		for id := range got {
			below += probs[id]
		}
		if !(below <= u+1e-8 && u <= below+probs[got]+1e-8) {
			t.Fatalf("at %v drew %d, which begins at %v and has %v", u, got, below, probs[got])
		}
	}
	for _, u := range []float64{0, math.Nextafter(1, 0)} {
		if got := w.drawAny(logits, best, 1, u); probs[got] == 0 {
			t.Errorf("at %v drew %d, which has no probability", u, got)
		}
	}
}
