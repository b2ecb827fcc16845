package sample

import (
	"errors"
	"fmt"
	"math"
)

// greedyTemperature is where a temperature means greedy; below it divisions would overflow.
const greedyTemperature = 1e-5

// Params says how one sequence is sampled. Every field holds its final value; Defaults has the neutral ones.
type Params struct {
	Temperature       float64 // below 1e-5: greedy
	TopK              int     // keep the k most likely; 0 or -1: off
	TopP              float64 // (0,1]: keep the most likely that together reach it; 1: off
	MinP              float64 // [0,1]: drop what is less likely than this times the most likely; 0: off
	TypicalP          float64 // (0,1]: keep the most typical that together reach it; 1: off. arXiv:2202.00666
	RepetitionPenalty float64 // > 0, on tokens of prompt and output; 1: off. arXiv:1909.05858
	PresencePenalty   float64 // on tokens of the output; 0: off
	FrequencyPenalty  float64 // the same, times how often they are there
	LogitBias         map[int32]float32
	Seed              uint64

	MinTokens          int     // before so many output tokens,
	MinTokensForbidden []int32 // these, which would end it, are not picked

	Logprobs int // -1: none; 0: of the picked token; k: and of the k most likely
}

// Defaults are parameters that sample from the model's distribution as it is.
func Defaults() Params {
	return Params{Temperature: 1, TopP: 1, TypicalP: 1, RepetitionPenalty: 1, Logprobs: -1}
}

// Validate reports all problems at once. vocab is the number of logits.
func (p *Params) Validate(vocab int) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	isID := func(id int32) bool { return id >= 0 && int(id) < vocab }
	finite := func(x float64) bool { return math.Abs(x) <= math.MaxFloat32 } // false for NaN

	check(p.Temperature >= 0 && finite(p.Temperature), "temperature is %v", p.Temperature)
	check(p.TopK >= -1, "top_k is %d", p.TopK)
	check(p.TopP > 0 && p.TopP <= 1, "top_p is %v", p.TopP)
	check(p.MinP >= 0 && p.MinP <= 1, "min_p is %v", p.MinP)
	check(p.TypicalP > 0 && p.TypicalP <= 1, "typical_p is %v", p.TypicalP)
	check(p.RepetitionPenalty > 0 && finite(p.RepetitionPenalty), "repetition_penalty is %v", p.RepetitionPenalty)
	check(finite(p.PresencePenalty), "presence_penalty is %v", p.PresencePenalty)
	check(finite(p.FrequencyPenalty), "frequency_penalty is %v", p.FrequencyPenalty)
	check(p.MinTokens >= 0, "min_tokens is %d", p.MinTokens)
	check(p.Logprobs >= -1, "logprobs is %d", p.Logprobs)
	for id, bias := range p.LogitBias {
		check(isID(id), "logit_bias has token %d of %d", id, vocab)
		check(finite(float64(bias)), "logit_bias of token %d is %v", id, bias)
	}
	for _, id := range p.MinTokensForbidden {
		check(isID(id), "min_tokens forbids token %d of %d", id, vocab)
	}
	if len(errs) > 0 {
		return fmt.Errorf("sample: %w", errors.Join(errs...))
	}
	return nil
}
