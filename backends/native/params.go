package native

import (
	"math/rand/v2"

	"pagoda/backends/native/codec"
	"pagoda/backends/native/sample"
	"pagoda/checkpoint"
	"pagoda/engine"
)

// samplingDefaults are what a request's unset fields mean for this model.
type samplingDefaults struct {
	params      sample.Params
	maxTokens   *int
	skipSpecial bool
}

// newSamplingDefaults takes them from the options, then from generation_config.json.
func newSamplingDefaults(g *checkpoint.GenerationConfig, o engine.SamplingDefaults) samplingDefaults {
	o = codec.SamplingDefaults(g, o)
	d := samplingDefaults{params: sample.Defaults(), maxTokens: o.MaxTokens, skipSpecial: o.SkipSpecial == nil || *o.SkipSpecial}
	set(&d.params.Temperature, o.Temperature)
	set(&d.params.TopP, o.TopP)
	set(&d.params.TopK, o.TopK)
	set(&d.params.MinP, o.MinP)
	set(&d.params.RepetitionPenalty, o.RepetitionPenalty)
	return d
}

func set[T any](p *T, v *T) {
	if v != nil {
		*p = *v
	}
}

// resolve makes a request's sampling parameters complete. eos are the tokens that end a choice of this request.
func (d samplingDefaults) resolve(req *engine.Request, eos []int32, vocab int) (sample.Params, *engine.Error) {
	s := &req.Sampling
	p := d.params
	set(&p.Temperature, s.Temperature)
	set(&p.TopP, s.TopP)
	set(&p.TopK, s.TopK)
	set(&p.MinP, s.MinP)
	set(&p.TypicalP, s.TypicalP)
	set(&p.RepetitionPenalty, s.RepetitionPenalty)
	p.TopK = max(p.TopK, 0)
	p.PresencePenalty, p.FrequencyPenalty = s.PresencePenalty, s.FrequencyPenalty
	p.LogitBias = s.LogitBias
	p.Seed = rand.Uint64()
	if s.Seed != nil {
		p.Seed = uint64(*s.Seed)
	}
	p.MinTokens, p.MinTokensForbidden = s.MinTokens, eos
	if n := req.Output.Logprobs; n != nil {
		p.Logprobs = *n
	}
	for id := range s.LogitBias {
		if id < 0 || int(id) >= vocab {
			return p, engine.BadField("logit_bias", "token id %d is outside the vocabulary of %d tokens", id, vocab)
		}
	}
	for _, id := range s.StopTokenIDs {
		if id < 0 || int(id) >= vocab {
			return p, engine.BadField("stop_token_ids", "token id %d is outside the vocabulary of %d tokens", id, vocab)
		}
	}
	if err := p.Validate(vocab); err != nil {
		return p, engine.Errorf(engine.Invalid, "sampling parameters: %v", err)
	}
	return p, nil
}
