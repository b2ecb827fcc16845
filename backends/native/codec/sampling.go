package codec

import (
	"pagoda/checkpoint"
	"pagoda/engine"
)

// SamplingDefaults completes o by a checkpoint's advice; g may be nil. do_sample false means greedy there, as the reference library
// has it, unless o gives a temperature.
func SamplingDefaults(g *checkpoint.GenerationConfig, o engine.SamplingDefaults) engine.SamplingDefaults {
	if g == nil {
		return o
	}
	if g.DoSample != nil && !*g.DoSample {
		fill(&o.Temperature, new(float64))
	}
	fill(&o.Temperature, g.Temperature)
	fill(&o.TopP, g.TopP)
	fill(&o.TopK, g.TopK)
	fill(&o.MinP, g.MinP)
	fill(&o.RepetitionPenalty, g.RepetitionPenalty)
	fill(&o.MaxTokens, g.MaxNewTokens)
	return o
}

func fill[T any](p **T, value *T) {
	if *p == nil {
		*p = value
	}
}
