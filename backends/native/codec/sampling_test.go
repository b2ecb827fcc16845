package codec

import (
	"reflect"
	"testing"

	"pagoda/checkpoint"
	"pagoda/engine"
)

// TestSamplingDefaults: what is said counts before a checkpoint's advice, which is greedy where it samples not.
func TestSamplingDefaults(t *testing.T) {
	advice := &checkpoint.GenerationConfig{DoSample: new(true), Temperature: new(0.6), TopP: new(0.95), TopK: new(20), MinP: new(0.1),
		RepetitionPenalty: new(1.05), MaxNewTokens: new(100)}
	greedy := &checkpoint.GenerationConfig{DoSample: new(false), Temperature: new(0.6)}
	said := engine.SamplingDefaults{DoSample: new(true), Temperature: new(0.9), TopP: new(0.5), TopK: new(1), RepetitionPenalty: new(1.5),
		MaxTokens: new(7), SkipSpecial: new(false)}
	withMinP := said
	withMinP.MinP = new(0.1)
	for name, c := range map[string]struct {
		g    *checkpoint.GenerationConfig
		o    engine.SamplingDefaults
		want engine.SamplingDefaults
	}{
		"nothing": {nil, engine.SamplingDefaults{}, engine.SamplingDefaults{}},
		"said":    {advice, said, withMinP},
		"advice": {advice, engine.SamplingDefaults{}, engine.SamplingDefaults{Temperature: new(0.6), TopP: new(0.95), TopK: new(20), MinP: new(0.1),
			RepetitionPenalty: new(1.05), MaxTokens: new(100)}},
		"greedy": {greedy, engine.SamplingDefaults{}, engine.SamplingDefaults{Temperature: new(0.0)}},
		"greedy said": {advice, engine.SamplingDefaults{DoSample: new(false), Temperature: new(0.9)}, engine.SamplingDefaults{DoSample: new(false),
			Temperature: new(0.0), TopP: new(0.95), TopK: new(20), MinP: new(0.1), RepetitionPenalty: new(1.05), MaxTokens: new(100)}},
		"sampling said":     {greedy, engine.SamplingDefaults{DoSample: new(true)}, engine.SamplingDefaults{DoSample: new(true), Temperature: new(0.6)}},
		"said after greedy": {greedy, engine.SamplingDefaults{Temperature: new(0.9)}, engine.SamplingDefaults{Temperature: new(0.9)}},
	} {
		if got := SamplingDefaults(c.g, c.o); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
