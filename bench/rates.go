package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Plan is what MeasureRates measures.
type Plan struct {
	PromptLengths []int // tokens of the prompts whose prefill is measured, one prompt at a time
	Decodes       []DecodePlan
	Rounds        int // samples of each figure; all figures take turns, so that a disturbance hits all alike
	// MinSample is the shortest time of a sample: short runs are repeated until it is reached.
	MinSample time.Duration
}

// DecodePlan is a number of sequences that decode at once.
type DecodePlan struct {
	Sequences    int
	PromptTokens int
	MaxTokens    int // longest answer that fits; answers are shorter where that suffices
}

// Rates are tokens per second. Prefill[i] belongs to Plan.PromptLengths[i], Decode[i] (of all sequences together) to
// Plan.Decodes[i].
type Rates struct {
	Prefill, Decode []Rate
}

// MeasureRates measures prefill and decode. progress hears what is about to be measured.
func MeasureRates(ctx context.Context, t Target, p Plan, progress func(what string)) (Rates, error) {
	var all []*series
	for _, n := range p.PromptLengths {
		all = append(all, &series{name: fmt.Sprintf("prefill of %d tokens", n), measure: func() (int, time.Duration, error) {
			return measurePrefill(ctx, t, n)
		}})
	}
	for _, d := range p.Decodes {
		m := decoding{target: t, plan: d, tokens: min(minAnswer, d.MaxTokens)}
		all = append(all, &series{name: fmt.Sprintf("decode, %d at once", d.Sequences), measure: func() (int, time.Duration, error) {
			return m.measure(ctx)
		}})
	}
	for _, s := range all {
		progress("warming up: " + s.name)
		if _, _, err := s.measure(); err != nil {
			return Rates{}, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for round := range p.Rounds {
		for _, s := range all {
			progress(fmt.Sprintf("round %d of %d: %s", round+1, p.Rounds, s.name))
			if err := s.sample(p.MinSample); err != nil {
				return Rates{}, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	var r Rates
	for i, s := range all {
		if i < len(p.PromptLengths) {
			r.Prefill = append(r.Prefill, NewRate(s.samples))
		} else {
			r.Decode = append(r.Decode, NewRate(s.samples))
		}
	}
	return r, nil
}

// series is one figure.
type series struct {
	name    string
	measure func() (tokens int, took time.Duration, err error)
	samples []float64 // tokens per second
}

// sample measures until atLeast has passed and adds the mean.
func (s *series) sample(atLeast time.Duration) error {
	tokens, took := 0, time.Duration(0)
	for took == 0 || took < atLeast {
		n, d, err := s.measure()
		if err != nil {
			return err
		}
		tokens, took = tokens+n, took+d
	}
	s.samples = append(s.samples, float64(tokens)/took.Seconds())
	return nil
}

// measurePrefill times one prompt by the engine's own clock: from its first step to its first token.
func measurePrefill(ctx context.Context, t Target, length int) (tokens int, took time.Duration, err error) {
	a := t.Ask(ctx, length, 1)
	switch {
	case a.Err != nil:
		return 0, 0, a.Err
	case a.Prefill <= 0:
		return 0, 0, errors.New("the engine does not tell when it began and when the first token came")
	}
	return a.PromptTokens - a.CachedTokens, a.Prefill, nil
}

// minAnswer is the least number of tokens that decode is measured with.
const minAnswer = 64

// decoding measures one DecodePlan.
type decoding struct {
	target Target
	plan   DecodePlan
	tokens int // of each answer
}

// measure counts the tokens that come while all sequences decode: after the last one's first token and until the first
// one's last. On a fast model the first may end before the last begins; if that leaves less than half of the time,
// answers get longer.
func (d *decoding) measure(ctx context.Context) (tokens int, took time.Duration, err error) {
	for {
		answers, err := d.ask(ctx)
		if err != nil {
			return 0, 0, err
		}
		all, shared := windows(answers)
		if 2*shared.length() > all.length() {
			return shared.tokens(answers), shared.length(), nil
		}
		if d.tokens == d.plan.MaxTokens {
			return 0, 0, fmt.Errorf("answers of %d tokens are too short to be decoded all at the same time", d.tokens)
		}
		d.tokens = min(2*d.tokens, d.plan.MaxTokens)
	}
}

func (d *decoding) ask(ctx context.Context) ([]Answer, error) {
	answers := make([]Answer, d.plan.Sequences)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = d.target.Ask(ctx, d.plan.PromptTokens, d.tokens) })
	}
	wg.Wait()
	for _, a := range answers {
		if a.Err != nil {
			return nil, a.Err
		}
		if len(a.Pieces) < 2 {
			return nil, fmt.Errorf("an answer of %d tokens came in %d pieces", a.OutputTokens, len(a.Pieces))
		}
	}
	return answers, nil
}

// window is the time after from, up to and with to.
type window struct{ from, to time.Time }

func (w window) length() time.Duration { return w.to.Sub(w.from) }

// windows returns the time in which any answer, and that in which every answer was between its first and last piece.
// The latter is empty or negative if there was none.
func windows(answers []Answer) (any, every window) {
	for i, a := range answers {
		first, last := a.Pieces[0].At, a.Pieces[len(a.Pieces)-1].At
		if i == 0 {
			any, every = window{first, last}, window{first, last}
			continue
		}
		any = window{earlier(any.from, first), later(any.to, last)}
		every = window{later(every.from, first), earlier(every.to, last)}
	}
	return any, every
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tokens counts those that came in the window.
func (w window) tokens(answers []Answer) int {
	n := 0
	for _, a := range answers {
		for _, p := range a.Pieces {
			if p.At.After(w.from) && !p.At.After(w.to) {
				n += p.Tokens
			}
		}
	}
	return n
}
