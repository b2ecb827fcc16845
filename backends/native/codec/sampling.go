package codec

import (
	"cmp"

	"pagoda/checkpoint"
	"pagoda/engine"
)

// SamplingDefaults completes o by a checkpoint's advice; g may be nil. do_sample false means greedy: of o whatever temperature it gives,
// of the checkpoint, as the reference library has it, unless o says otherwise.
func SamplingDefaults(g *checkpoint.GenerationConfig, o engine.SamplingDefaults) engine.SamplingDefaults {
	greedy := func(doSample *bool) bool { return doSample != nil && !*doSample }
	if greedy(o.DoSample) {
		o.Temperature = new(float64)
	}
	if g == nil {
		return o
	}
	if o.DoSample == nil && greedy(g.DoSample) {
		o.Temperature = cmp.Or(o.Temperature, new(float64))
	}
	o.Temperature = cmp.Or(o.Temperature, g.Temperature)
	o.TopP = cmp.Or(o.TopP, g.TopP)
	o.TopK = cmp.Or(o.TopK, g.TopK)
	o.MinP = cmp.Or(o.MinP, g.MinP)
	o.RepetitionPenalty = cmp.Or(o.RepetitionPenalty, g.RepetitionPenalty)
	o.MaxTokens = cmp.Or(o.MaxTokens, g.MaxNewTokens)
	return o
}
