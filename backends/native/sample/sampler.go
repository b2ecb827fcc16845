package sample

import (
	"errors"
	"fmt"
	"math"
)

var (
	// ErrLogits says that a row holds NaN or +Inf.
	ErrLogits = errors.New("sample: the model's logits are not finite")
	// ErrNoToken says that every token is forbidden: all logits are -Inf.
	ErrNoToken = errors.New("sample: no token is allowed")
)

// Sampler picks the tokens of one sequence.
type Sampler struct {
	p           Params
	vocab       int
	sampleIndex int
	numOutput   int

	// Tokens that penalties apply to, each once, and where in seen a token is. Empty without penalties.
	seen   []seenToken
	seenAt map[int32]int
}

type seenToken struct {
	id        int32
	numOutput int32 // times in the output; 0: only in the prompt
}

// Result is a picked token. Logprob and Top are there if Params.Logprobs asks for them.
type Result struct {
	Token   int32
	Logprob float64
	Top     []TokenLogprob // the most likely first; of equals the lowest id
}

// TokenLogprob is a token and its log-probability.
type TokenLogprob struct {
	Token   int32
	Logprob float64
}

// New returns a sampler for the sampleIndex-th sequence of a request whose logits are vocab wide.
func New(p Params, prompt []int32, vocab, sampleIndex int) (*Sampler, error) {
	if err := p.Validate(vocab); err != nil {
		return nil, err
	}
	s := &Sampler{p: p, vocab: vocab, sampleIndex: sampleIndex}
	if !s.penalizes() {
		return s, nil
	}
	s.seenAt = map[int32]int{}
	if p.RepetitionPenalty != 1 {
		for _, id := range prompt {
			if id < 0 || int(id) >= vocab {
				return nil, fmt.Errorf("sample: prompt has token %d of %d", id, vocab)
			}
			s.see(id)
		}
	}
	return s, nil
}

func (s *Sampler) penalizes() bool {
	return s.p.RepetitionPenalty != 1 || s.p.FrequencyPenalty != 0 || s.p.PresencePenalty != 0
}

func (s *Sampler) see(id int32) *seenToken {
	at, ok := s.seenAt[id]
	if !ok {
		at = len(s.seen)
		s.seenAt[id] = at
		s.seen = append(s.seen, seenToken{id: id})
	}
	return &s.seen[at]
}

// Accept notes the sequence's next output token, picked by Sample or not. It must be one of the vocabulary.
func (s *Sampler) Accept(token int32) {
	s.numOutput++
	if s.penalizes() {
		s.see(token).numOutput++
	}
}

// Sample picks the next token from a row of logits. Neither the sampler nor, on return, the row is changed. The error
// is ErrLogits, ErrNoToken, or that the row has the wrong length.
func (s *Sampler) Sample(w *Scratch, logits []float32) (Result, error) {
	if len(logits) != s.vocab {
		return Result{}, fmt.Errorf("sample: %d logits for a vocabulary of %d", len(logits), s.vocab)
	}
	s.edit(w, logits)
	token, err := s.pick(w, logits)
	w.restore(logits)
	if err != nil {
		return Result{}, err
	}
	r := Result{Token: token}
	if s.p.Logprobs >= 0 {
		r.Logprob, r.Top, err = w.Logprobs(logits, token, s.p.Logprobs)
	}
	return r, err
}

// edit applies bias, penalties and the minimum length in place, remembering in w what was there.
func (s *Sampler) edit(w *Scratch, logits []float32) {
	w.edits = w.edits[:0]
	for id, bias := range s.p.LogitBias {
		w.set(logits, id, logits[id]+bias)
	}
	for _, t := range s.seen {
		w.set(logits, t.id, s.penalize(float64(logits[t.id]), t.numOutput))
	}
	if s.numOutput < s.p.MinTokens {
		for _, id := range s.p.MinTokensForbidden {
			w.set(logits, id, float32(math.Inf(-1)))
		}
	}
}

func (s *Sampler) penalize(logit float64, numOutput int32) float32 {
	if logit > 0 {
		logit /= s.p.RepetitionPenalty
	} else {
		logit *= s.p.RepetitionPenalty
	}
	if numOutput > 0 {
		logit -= s.p.FrequencyPenalty*float64(numOutput) + s.p.PresencePenalty
	}
	return float32(logit)
}

func (s *Sampler) pick(w *Scratch, logits []float32) (int32, error) {
	best, err := w.blocks(logits, s.sumScale())
	if err != nil || s.p.Temperature < greedyTemperature {
		return best, err
	}
	u := uniform(s.p.Seed, s.sampleIndex, s.numOutput)
	if !s.filters() {
		return w.drawAny(logits, best, s.p.Temperature, u), nil
	}
	s.gather(w, logits, logits[best])
	return w.draw(u), nil
}
