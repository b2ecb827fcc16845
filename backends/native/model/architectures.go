package model

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pagoda/checkpoint"
)

// architectures are the kinds of checkpoint that load, by the name in config.json. An architecture completes the spec
// that the keys shared by all have begun, and reports what of its configuration is not supported.
var architectures = map[string]func(*Spec, *checkpoint.Config) []error{
	"LlamaForCausalLM": llama,
	"Qwen2ForCausalLM": qwen2,
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

// llama is Llama 1 to 3.x.
func llama(s *Spec, c *checkpoint.Config) []error {
	s.names = &llamaNames
	s.QKVBias, s.OBias, s.MLPBias = c.AttentionBias, c.AttentionBias, c.MLPBias
	return s.headDimFromHidden()
}

// qwen2 is Qwen2 and Qwen2.5.
func qwen2(s *Spec, c *checkpoint.Config) []error {
	s.names = &llamaNames
	s.QKVBias = true
	return append(s.headDimFromHidden(), qwenProblems(c)...)
}

func qwen3(s *Spec, c *checkpoint.Config) []error {
	s.names = &llamaNames
	s.HeadNorms = true
	s.HeadDim = cmp.Or(s.HeadDim, 128)
	s.QKVBias, s.OBias = c.AttentionBias, c.AttentionBias
	return qwenProblems(c)
}

func qwenProblems(c *checkpoint.Config) (problems []error) {
	if c.UseSlidingWindow && c.SlidingWindow != nil {
		problems = append(problems, errors.New("use_sliding_window is not supported"))
	}
	if c.MLPBias {
		problems = append(problems, errors.New("mlp_bias is not supported"))
	}
	return problems
}

// headDimFromHidden shares the hidden size among the heads where head_dim is absent.
func (s *Spec) headDimFromHidden() []error {
	if s.HeadDim != 0 || s.Heads < 1 { // check reports the latter
		return nil
	}
	if s.Hidden%s.Heads != 0 {
		return []error{fmt.Errorf("hidden_size %d is no multiple of num_attention_heads %d, and head_dim is absent",
			s.Hidden, s.Heads)}
	}
	s.HeadDim = s.Hidden / s.Heads
	return nil
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
