package proxy_test

import (
	"testing"

	"pagoda/engine"
)

func TestEmbed(t *testing.T) {
	for dialect := range dialects {
		r := attach(t, dialect, 1)
		for name, inputs := range map[string][]engine.Input{"texts": {{Text: "a"}, {Text: "b"}, {Text: "c"}},
			"ids": {{Tokens: []int32{1}}, {Tokens: []int32{2}}, {Tokens: []int32{3}}}} {
			got, err := r.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Inputs: inputs})
			if err != nil || len(got.Vectors) != 3 || got.Vectors[2][0] != 2 || got.Tokens[0] != 9 {
				t.Errorf("%s, %s: %+v, %v", dialect, name, got, err)
			}
		}
		_, err := r.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Inputs: []engine.Input{{Text: "a"}, {Tokens: []int32{1}}}})
		if engine.AsError(err) == nil || engine.AsError(err).Param != "input" {
			t.Errorf("%s: texts and ids: %v", dialect, err)
		}
		_, err = r.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Inputs: []engine.Input{{Text: "a"}}, Normalize: new(true)})
		if engine.AsError(err) == nil || engine.AsError(err).Param != "normalize" {
			t.Errorf("%s: a field that the upstream lacks: %v", dialect, err)
		}
		_, err = r.Embed(t.Context(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "nobody"}, Inputs: []engine.Input{{Text: "a"}}})
		if engine.AsError(err) == nil || engine.AsError(err).Code != engine.NotFound {
			t.Errorf("%s: an unknown model: %v", dialect, err)
		}
	}
}

func TestScore(t *testing.T) {
	req := &engine.ScoreRequest{Pooling: engine.Pooling{Model: "m"}, Pairs: []engine.Pair{{First: "q", Second: "abc"}, {First: "q", Second: "a"}}}
	got, err := attach(t, "vllm", 1).Score(t.Context(), req)
	if err != nil || len(got.Scores) != 2 || got.Scores[0] != 3 || got.Scores[1] != 1 || got.Tokens[0] != 8 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := attach(t, "sglang", 1).Score(t.Context(), req); engine.AsError(err) == nil || engine.AsError(err).Code != engine.Invalid {
		t.Errorf("an upstream without the route: %v", err)
	}
}
