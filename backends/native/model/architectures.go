package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pagoda/checkpoint"
)

// architectures are the kinds of checkpoint that load, by the name in config.json. An architecture completes the spec
// that the keys shared by all have begun, and reports what of its configuration is not supported.
var architectures = map[string]func(*Spec, *checkpoint.Config) []error{
	"Qwen3ForCausalLM": qwen3,
}

// llamaNames are the weight names of Llama and the many models laid out like it.
var llamaNames = names{
	embed: "model.embed_tokens", finalNorm: "model.norm", head: "lm_head", layer: "model.layers.%d.",
	inputNorm: "input_layernorm", postNorm: "post_attention_layernorm",
	qNorm: "self_attn.q_norm", kNorm: "self_attn.k_norm",
	projections: [NumTargets]string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
		"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"},
}

func qwen3(s *Spec, c *checkpoint.Config) (problems []error) {
	s.HeadNorms = true
	s.HeadDim = cmp.Or(c.HeadDim, 128)
	s.names = &llamaNames
	if c.AttentionBias {
		problems = append(problems, fmt.Errorf("attention_bias is not supported"))
	}
	if c.UseSlidingWindow && c.SlidingWindow != nil {
		problems = append(problems, fmt.Errorf("use_sliding_window is not supported"))
	}
	return problems
}

// Architectures lists those that load, by the name in config.json.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }

// UnsupportedError names an architecture that does not load.
type UnsupportedError struct {
	Architecture string
	Supported    []string // nearest first
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("architecture %q is not supported; supported are: %s", e.Architecture,
		strings.Join(e.Supported, ", "))
}

func unsupported(name string) *UnsupportedError {
	supported := Architectures()
	slices.SortStableFunc(supported, func(a, b string) int {
		return cmp.Compare(editDistance(name, a), editDistance(name, b))
	})
	return &UnsupportedError{name, supported}
}

// editDistance is Levenshtein's, in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a[:i] to each b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
