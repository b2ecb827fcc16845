package sample

import (
	"math/rand/v2"
	"testing"
)

// row is like a model's: most of a large vocabulary far below a few likely tokens.
func row(seed uint64, vocab int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0))
	logits := make([]float32, vocab)
	for i := range logits {
		logits[i] = float32(rng.NormFloat64() * 2.5)
	}
	for range 20 {
		logits[rng.IntN(vocab)] = float32(8 + rng.Float64()*8)
	}
	return logits
}

func BenchmarkSample(b *testing.B) {
	const vocab = 151936
	logits := row(1, vocab)
	prompt := make([]int32, 1000)
	for i := range prompt {
		prompt[i] = int32(i * 7)
	}
	for _, c := range []struct {
		name string
		set  func(*Params)
	}{
		{"greedy", func(p *Params) { p.Temperature = 0 }},
		{"greedy+logprobs20", func(p *Params) { p.Temperature, p.Logprobs = 0, 20 }},
		{"greedy+penalties", func(p *Params) { p.Temperature, p.RepetitionPenalty = 0, 1.1 }},
		{"temperature", func(p *Params) {}},
		{"top_p", func(p *Params) { p.TopP = 0.95 }},
		{"top_p+temperature2", func(p *Params) { p.TopP, p.Temperature = 0.95, 2 }},
		{"min_p", func(p *Params) { p.MinP = 0.05 }},
		{"top_k", func(p *Params) { p.TopK = 50 }},
		{"top_k5000", func(p *Params) { p.TopK = 5000 }},
		{"temperature+top_p+top_k", func(p *Params) { p.Temperature, p.TopP, p.TopK = 0.7, 0.8, 20 }},
		{"typical", func(p *Params) { p.TypicalP = 0.9 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := Defaults()
			p.Seed = 3
			c.set(&p)
			s, err := New(p, prompt, vocab, 0)
			if err != nil {
				b.Fatal(err)
			}
			w := NewScratch(nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Sample(w, logits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
