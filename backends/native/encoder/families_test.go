package encoder

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestBucket: where transformers' MPNetEncoder.relative_position_bucket begins another bucket.
func TestBucket(t *testing.T) {
	for _, c := range []struct{ from, to, want int }{
		{-600, -91, 15}, {-90, -64, 14}, {-63, -46, 13}, {-45, -32, 12}, {-31, -23, 11}, {-22, -16, 10}, {-15, -12, 9}, {-11, -8, 8},
		{-7, -7, 7}, {-1, -1, 1}, {0, 0, 0}, {1, 1, 17}, {7, 7, 23}, {8, 11, 24}, {12, 15, 25}, {16, 22, 26}, {23, 31, 27}, {32, 45, 28},
		{46, 63, 29}, {64, 90, 30}, {91, 600, 31},
	} {
		for d := c.from; d <= c.to; d++ {
			if got := bucket(d, 32); got != c.want {
				t.Errorf("bucket(%d) is %d, want %d", d, got, c.want)
			}
		}
	}
}

func keys(pairs ...string) map[string]jsontext.Value {
	out := map[string]jsontext.Value{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = jsontext.Value(pairs[i+1])
	}
	return out
}

// TestModernBERTWords: configurations of older versions of transformers say the same in other words.
func TestModernBERTWords(t *testing.T) {
	e, g := open(t, "modernbert", Options{PoolingType: poolMean, Overrides: keys("layer_types", "null", "rope_parameters", "null",
		"global_attn_every_n_layers", "3", "global_rope_theta", "160000.0", "local_rope_theta", "10000.0")})
	wantVectors(t, "older", embed(t, e, g.Texts...), g.Pooled[poolMean], 1e-4)
}

// TestPretrained: the heads of pre-training may be there.
func TestPretrained(t *testing.T) {
	for arch, names := range map[string][]string{
		"BertForMaskedLM":       {"cls.predictions.bias", "bert.pooler.dense.weight"},
		"XLMRobertaForMaskedLM": {"lm_head.dense.weight"},
		"MPNetForMaskedLM":      {"lm_head.bias", "mpnet.pooler.dense.bias"},
		"DistilBertForMaskedLM": {"vocab_layer_norm.weight", "vocab_projector.bias"},
		"ModernBertForMaskedLM": {"head.norm.weight", "decoder.bias"},
	} {
		s := &spec{family: architectures[arch].family}
		for _, name := range append(names, s.base+"embeddings.position_ids") {
			if !s.isUnused(name) {
				t.Errorf("%s: %s", arch, name)
			}
		}
		if name := s.base + s.words + ".bias"; s.isUnused(name) {
			t.Errorf("%s: %s", arch, name)
		}
	}
}

// TestMemory: an encoder that does not fit is refused before it is loaded, and what is counted is what is taken.
func TestMemory(t *testing.T) {
	for _, name := range []string{"bert", "mpnet-score", "modernbert"} {
		e, _ := open(t, name, Options{})
		need := e.dev.Allocated() - int64(e.work.floats.Len()) // that of what follows the pooling
		for bytes, fits := range map[int64]bool{need: true, need - 1: false} {
			got, err := New(Options{Dir: "testdata/" + name, Name: "m", MemoryBytes: bytes})
			if (err == nil) != fits || err != nil && !strings.Contains(err.Error(), "MiB more than there is") {
				t.Errorf("%s with %d bytes: %v", name, bytes, err)
			}
			if err == nil && got.Close(t.Context()) != nil {
				t.Errorf("%s was not closed", name)
			}
		}
	}
}

func TestRefusesConfigurations(t *testing.T) {
	for _, c := range []struct {
		dir, want string
		keys      map[string]jsontext.Value
	}{
		{"modernbert", `rope_type "yarn" is not supported`, keys("rope_parameters", `{"full_attention":{"rope_type":"yarn"}}`)},
		{"modernbert", "rope_parameters: they must be those of full_attention", keys("rope_parameters", `{"rope_theta":3}`)},
		{"modernbert", `layer_types: "linear" is neither`, keys("layer_types", `["linear","full_attention","full_attention","full_attention"]`)},
		{"modernbert", "layer_types has 1 elements for 4 layers", keys("layer_types", `["full_attention"]`)},
		{"modernbert", "rope_theta is -1 and 10000", keys("rope_parameters", `{"full_attention":{"rope_theta":-1}}`)},
		{"modernbert", `hidden_activation "odd" is none of`, keys("hidden_activation", `"odd"`)},
		{"modernbert", "norm_eps 7 is not", keys("norm_eps", "7")},
		{"modernbert", "local_attention is 0", keys("local_attention", "0")},
		{"modernbert-score", `classifier_pooling "max" is neither`, keys("classifier_pooling", `"max"`)},
		{"modernbert-score", `classifier_activation "odd" is none of`, keys("classifier_activation", `"odd"`)},
		{"distilbert", "dim 32 is no multiple of n_heads 5", keys("n_heads", "5")},
		{"mpnet", "relative_attention_num_buckets is 3, must be at least 4", keys("relative_attention_num_buckets", "3")},
		{"mpnet", "shape of encoder.relative_attention_bias.weight: [32 4], want [16 4]", keys("relative_attention_num_buckets", "16")},
		{"bert", `position_embedding_type "relative_key" is not supported`, keys("position_embedding_type", `"relative_key"`)},
		{"bert", "missing: encoder.layer.2.attention.self.query.weight", keys("num_hidden_layers", "3")},
		{"bert", "surplus: encoder.layer.1.", keys("num_hidden_layers", "1")},
	} {
		e, err := New(Options{Dir: "testdata/" + c.dir, Name: "m", Overrides: c.keys})
		if err == nil {
			t.Errorf("%s: no error, want %q", c.dir, c.want)
			_ = e.Close(t.Context())
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
