package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// architectures are the kinds of checkpoint that load, by the name in config.json: each describes itself to the builder
// and reports what of its configuration is not supported.
var architectures = map[string]func(*builder){
	"LlamaForCausalLM": llama,
	"Qwen2ForCausalLM": qwen2,
	"Qwen3ForCausalLM": qwen3,
}

// llama is Llama 1 to 3.x.
func llama(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = b.c.AttentionBias, b.c.AttentionBias, b.c.MLPBias
	b.preNorm(a, d)
}

// qwen2 is Qwen2 and Qwen2.5.
func qwen2(b *builder) {
	b.begin()
	a := b.attention()
	a.QKVBias = true
	b.preNorm(a, b.dense())
	b.qwenProblems()
}

func qwen3(b *builder) {
	b.begin()
	b.c.HeadDim = cmp.Or(b.c.HeadDim, 128)
	a := b.attention()
	a.QNorm, a.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	a.QKVBias, a.OBias = b.c.AttentionBias, b.c.AttentionBias
	b.preNorm(a, b.dense())
	b.qwenProblems()
}

func (b *builder) qwenProblems() {
	if b.c.UseSlidingWindow && b.c.SlidingWindow != nil {
		b.bad("use_sliding_window is not supported")
	}
	if b.c.MLPBias {
		b.bad("mlp_bias is not supported")
	}
}

// preNorm gives the model layers that are all alike, with Llama's norms, and one rotary table.
func (b *builder) preNorm(a *Attention, ff FeedForward) {
	b.Ropes = []Rope{b.rope(a.HeadDim)}
	b.layers(func(int) LayerSpec {
		return LayerSpec{InputNorm: "input_layernorm", Mixer: a, FFNorm: "post_attention_layernorm", FF: ff}
	})
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
