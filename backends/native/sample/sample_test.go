package sample

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	nan = float32(math.NaN())
	inf = float32(math.Inf(1))
)

func newSampler(t testing.TB, p Params, prompt []int32, vocab, sampleIndex int) *Sampler {
	t.Helper()
	s, err := New(p, prompt, vocab, sampleIndex)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func greedy(set func(*Params)) Params {
	p := Defaults()
	p.Temperature = 0
	set(&p)
	return p
}

func TestGreedy(t *testing.T) {
	cases := []struct {
		name           string
		set            func(*Params)
		prompt, output []int32
		logits         []float32
		want           int32
		err            error
	}{
		{name: "highest", logits: []float32{1, 3, 2}, want: 1},
		{name: "lowest id of equals", logits: []float32{1, 3, 3}, want: 1},
		{name: "all equal", logits: []float32{-7, -7, -7}, want: 0},
		{name: "forbidden before", logits: []float32{-inf, -inf, -5}, want: 2},
		{name: "tiny temperature", set: func(p *Params) { p.Temperature = 9e-6 }, logits: []float32{1, 1.001, 0}, want: 1},
		{name: "NaN first", logits: []float32{nan, 3, 2}, err: ErrLogits},
		{name: "NaN last", logits: []float32{1, 3, nan}, err: ErrLogits},
		{name: "infinite", logits: []float32{1, inf, 3}, err: ErrLogits},
		{name: "nothing allowed", logits: []float32{-inf, -inf}, err: ErrNoToken},
		{name: "bias bans", set: func(p *Params) { p.LogitBias = map[int32]float32{1: -100} },
			logits: []float32{1, 30, 2}, want: 2},
		{name: "bias forces", set: func(p *Params) { p.LogitBias = map[int32]float32{0: 100} },
			logits: []float32{-40, 30, 2}, want: 0},
		{name: "bias does not lift what is forbidden", set: func(p *Params) { p.LogitBias = map[int32]float32{0: 100} },
			logits: []float32{-inf, 30, 2}, want: 1},
		{name: "repetition divides above zero", set: func(p *Params) { p.RepetitionPenalty = 2 },
			prompt: []int32{1}, logits: []float32{1.6, 3, 0}, want: 0},
		{name: "repetition multiplies below zero", set: func(p *Params) { p.RepetitionPenalty = 2 },
			output: []int32{1}, logits: []float32{-1.5, -1, -3}, want: 0},
		{name: "repetition counts a token once", set: func(p *Params) { p.RepetitionPenalty = 2 },
			prompt: []int32{1, 1}, output: []int32{1, 1}, logits: []float32{1.4, 3, 0}, want: 1},
		{name: "frequency counts each", set: func(p *Params) { p.FrequencyPenalty = 1 },
			output: []int32{1, 1, 0}, logits: []float32{2.5, 3, 1.4}, want: 0},
		{name: "presence counts once", set: func(p *Params) { p.PresencePenalty = 1 },
			output: []int32{1, 1, 0}, logits: []float32{2.5, 3, 1.4}, want: 1},
		{name: "frequency and presence spare the prompt",
			set:    func(p *Params) { p.FrequencyPenalty, p.PresencePenalty = 2, 2 },
			prompt: []int32{1, 1}, logits: []float32{2.5, 3, 1}, want: 1},
		{name: "negative penalties attract", set: func(p *Params) { p.PresencePenalty = -1 },
			output: []int32{0}, logits: []float32{2.5, 3, 1}, want: 0},
		{name: "too short to end", set: func(p *Params) { p.MinTokens, p.MinTokensForbidden = 2, []int32{1} },
			output: []int32{0}, logits: []float32{2.5, 3, 1}, want: 0},
		{name: "long enough to end", set: func(p *Params) { p.MinTokens, p.MinTokensForbidden = 2, []int32{1} },
			output: []int32{0, 0}, logits: []float32{2.5, 3, 1}, want: 1},
		{name: "bias does not end it early",
			set: func(p *Params) {
				p.MinTokens, p.MinTokensForbidden, p.LogitBias = 2, []int32{1}, map[int32]float32{1: 100}
			},
			logits: []float32{2.5, 3, 1}, want: 0},
		{name: "only the end is allowed, too early", set: func(p *Params) { p.MinTokens, p.MinTokensForbidden = 2, []int32{1} },
			logits: []float32{-inf, 3}, err: ErrNoToken},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := greedy(func(*Params) {})
			if c.set != nil {
				c.set(&p)
			}
			for _, temperature := range []float64{p.Temperature, 1} { // errors are the same when drawing
				p.Temperature = temperature
				s := newSampler(t, p, c.prompt, len(c.logits), 0)
				for _, id := range c.output {
					s.Accept(id)
				}
				row := slices.Clone(c.logits)
				r, err := s.Sample(NewScratch(nil), row)
				if !errors.Is(err, c.err) {
					t.Fatalf("at temperature %v: error %v, want %v", temperature, err, c.err)
				}
				if err == nil && temperature != 1 && r.Token != c.want {
					t.Errorf("picked %d, want %d", r.Token, c.want)
				}
				for i := range row {
					if math.Float32bits(row[i]) != math.Float32bits(c.logits[i]) {
						t.Errorf("the row was changed to %v", row)
					}
				}
			}
		})
	}
}

func TestWrongLength(t *testing.T) {
	s := newSampler(t, Defaults(), nil, 3, 0)
	if _, err := s.Sample(NewScratch(nil), make([]float32, 4)); err == nil {
		t.Error("4 logits for a vocabulary of 3 were accepted")
	}
}

// What is drawn depends on seed, sample index and position, and on nothing else.
func TestSeed(t *testing.T) {
	const vocab, n = 1000, 30
	logits := make([]float32, vocab)
	draws := func(seed uint64, sampleIndex int, w *Scratch) (ids []int32) {
		p := Defaults()
		p.Seed = seed
		s := newSampler(t, p, nil, vocab, sampleIndex)
		for range n {
			for range 2 { // sampling again without accepting changes nothing
				r, err := s.Sample(w, logits)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, r.Token)
			}
			if ids[len(ids)-1] != ids[len(ids)-2] {
				t.Fatal("sampling twice gave two tokens")
			}
			s.Accept(ids[len(ids)-1])
		}
		return ids
	}
	w := NewScratch(nil)
	first := draws(1, 0, w)
	if !slices.Equal(first, draws(1, 0, NewScratch(nil))) {
		t.Error("the same seed gave other tokens")
	}
	for name, other := range map[string][]int32{
		"seed 2": draws(2, 0, w), "seed 0": draws(0, 0, w), "sample 1": draws(1, 1, w),
	} {
		same := 0
		for i := range other {
			if other[i] == first[i] {
				same++
			}
		}
		if same > 4 {
			t.Errorf("%s gave %d of %d tokens as seed 1, sample 0 did", name, same, len(other))
		}
	}
	// A sampler that is made anew with the tokens so far goes on as the old one would have.
	p := Defaults()
	p.Seed = 1
	s := newSampler(t, p, nil, vocab, 0)
	for i := range n / 2 {
		s.Accept(first[2*i])
	}
	if r, err := s.Sample(w, logits); err != nil || r.Token != first[n] {
		t.Errorf("went on with %d (%v), want %d", r.Token, err, first[n])
	}
}

func TestUniform(t *testing.T) {
	const n, buckets = 100000, 50
	for name, f := range map[string]func(i int) float64{
		"positions": func(i int) float64 { return uniform(0, 0, i) },
		"samples":   func(i int) float64 { return uniform(0, i, 0) },
		"seeds":     func(i int) float64 { return uniform(uint64(i), 0, 0) },
	} {
		var counts [buckets]float64
		for i := range n {
			u := f(i)
			if !(u >= 0 && u < 1) {
				t.Fatalf("%s: %v is not in [0,1)", name, u)
			}
			counts[int(u*buckets)]++
		}
		chi2 := 0.0
		for _, c := range counts {
			chi2 += (c - n/buckets) * (c - n/buckets) / (n / buckets)
		}
		if !(chi2 < 110) { // 49 degrees of freedom: significance 1e-6
			t.Errorf("%s: chi-square is %v", name, chi2)
		}
	}
}

// Log-probabilities are those of the model, whatever sampling does to the row.
func TestLogprobs(t *testing.T) {
	for i := range uint64(300) {
		rng := rand.New(rand.NewPCG(i, 9))
		p, prompt, output, logits := randomCase(rng)
		p.MinTokens = 0
		p.Logprobs = rng.IntN(25)
		s := newSampler(t, p, prompt, len(logits), 0)
		for _, id := range output {
			s.Accept(id)
		}
		r, err := s.Sample(NewScratch(nil), logits)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		ids := make([]int32, 0, len(logits))
		for id, v := range logits {
			sum += math.Exp(float64(v))
			if v > -inf {
				ids = append(ids, int32(id))
			}
		}
		slices.SortStableFunc(ids, func(a, b int32) int {
			switch {
			case logits[a] > logits[b]:
				return -1
			case logits[a] < logits[b]:
				return 1
			}
			return 0
		})
		check := func(id int32, got float64) {
			t.Helper()
			if want := float64(logits[id]) - math.Log(sum); !(math.Abs(got-want) <= 1e-8) {
				t.Fatalf("case %d: log-probability of %d is %v, want %v", i, id, got, want)
			}
		}
		check(r.Token, r.Logprob)
		if want := min(p.Logprobs, len(ids)); len(r.Top) != want {
			t.Fatalf("case %d: %d most likely tokens, want %d", i, len(r.Top), want)
		}
		for j, top := range r.Top {
			if top.Token != ids[j] {
				t.Fatalf("case %d: %d is most likely token %d, want %d", i, top.Token, j, ids[j])
			}
			check(top.Token, top.Logprob)
		}
	}
}

func TestLogprobsErrors(t *testing.T) {
	w := NewScratch(nil)
	for name, c := range map[string]struct {
		logits []float32
		chosen int32
	}{
		"NaN":          {[]float32{1, nan}, 0},
		"infinite":     {[]float32{1, inf}, 0},
		"all -Inf":     {[]float32{-inf, -inf}, 0},
		"no such":      {[]float32{1, 2}, 2},
		"negative":     {[]float32{1, 2}, -1},
		"empty logits": {nil, 0},
	} {
		if _, _, err := w.Logprobs(c.logits, c.chosen, 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got, _, err := w.Logprobs([]float32{1, -inf}, 1, 0); err != nil || !math.IsInf(got, -1) {
		t.Errorf("a forbidden token has log-probability %v (%v)", got, err)
	}
}

func TestValidate(t *testing.T) {
	nan := math.NaN()
	for name, set := range map[string]func(*Params){
		"temperature":        func(p *Params) { p.Temperature = -1 },
		"temperature is NaN": func(p *Params) { p.Temperature = nan },
		"top_k":              func(p *Params) { p.TopK = -2 },
		"top_p":              func(p *Params) { p.TopP = 0 },
		"top_p is 1.1":       func(p *Params) { p.TopP = 1.1 },
		"top_p is NaN":       func(p *Params) { p.TopP = nan },
		"min_p":              func(p *Params) { p.MinP = -0.1 },
		"typical_p":          func(p *Params) { p.TypicalP = 0 },
		"repetition_penalty": func(p *Params) { p.RepetitionPenalty = 0 },
		"presence_penalty":   func(p *Params) { p.PresencePenalty = nan },
		"frequency_penalty":  func(p *Params) { p.FrequencyPenalty = math.Inf(1) },
		"min_tokens":         func(p *Params) { p.MinTokens = -1 },
		"min_tokens forbids": func(p *Params) { p.MinTokensForbidden = []int32{10} },
		"logit_bias has":     func(p *Params) { p.LogitBias = map[int32]float32{-1: 1} },
		"logit_bias of":      func(p *Params) { p.LogitBias = map[int32]float32{1: inf} },
		"logprobs":           func(p *Params) { p.Logprobs = -2 },
	} {
		p := Defaults()
		set(&p)
		if _, err := New(p, nil, 10, 0); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	p := Defaults()
	if err := p.Validate(10); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	p.RepetitionPenalty = 1.1
	if _, err := New(p, []int32{3, 10}, 10, 0); err == nil {
		t.Error("a prompt with token 10 of 10 was accepted")
	}
	p.TopP, p.MinP = 0, 2
	if err := p.Validate(10); err == nil || !strings.Contains(err.Error(), "top_p") || !strings.Contains(err.Error(), "min_p") {
		t.Errorf("two problems, reported as %v", err)
	}
}

func TestExp(t *testing.T) {
	for x := 0.0; x > -710; x -= 0.01371 {
		got, want := exp(x*expUnit), math.Exp(x)
		if x < -700 {
			want = 0
		}
		if !(math.Abs(got-want) <= 1e-9*want) {
			t.Fatalf("e^%v is %v, want %v", x, got, want)
		}
	}
	if got := exp(math.Inf(-1)); got != 0 {
		t.Errorf("e^-Inf is %v", got)
	}
}

// The selection must not degrade on sorted, reversed or equal keys.
func TestNucleusOnSortedKeys(t *testing.T) {
	const n = 1 << 16
	for name, key := range map[string]func(i int) float32{
		"ascending":  func(i int) float32 { return float32(i) },
		"descending": func(i int) float32 { return float32(-i) },
		"equal":      func(int) float32 { return 1 },
		"organ pipe": func(i int) float32 { return float32(min(i, n-i)) },
	} {
		c := make([]cand, n)
		for i := range c {
			c[i] = cand{id: int32(i), key: key(i), weight: 1}
		}
		want := slices.Clone(c)
		slices.SortFunc(want, func(a, b cand) int {
			if a.before(b) {
				return -1
			}
			return 1
		})
		got := c[:nucleus(c, 1000)]
		slices.SortFunc(got, func(a, b cand) int {
			if a.before(b) {
				return -1
			}
			return 1
		})
		if !slices.Equal(got, want[:1000]) {
			t.Errorf("%s: kept %d, not the 1000 that rank first", name, len(got))
		}
	}
}
