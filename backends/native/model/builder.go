package model

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pagoda/checkpoint"
)

// builder is a spec in the making.
type builder struct {
	*Spec
	c        *checkpoint.Config
	problems []error
}

// bad adds a problem, once.
func (b *builder) bad(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if !slices.ContainsFunc(b.problems, func(p error) bool { return p.Error() == err.Error() }) {
		b.problems = append(b.problems, err)
	}
}

// begin reads the keys that mean the same in all architectures.
func (b *builder) begin() {
	c := b.c
	b.Stored = DType(cmp.Or(c.TorchDType, c.DType, string(Auto)))
	if b.Stored != "float64" { // which is computed as float32
		if _, err := ParseDType(string(b.Stored)); err != nil {
			b.problems = append(b.problems, fmt.Errorf("torch_dtype: %w", err))
		}
	}
	b.Vocab, b.Hidden, b.MaxLen = c.VocabSize, c.HiddenSize, c.MaxPositionEmbeddings
	b.LongestLen = b.MaxLen
	b.NormEps, b.TiedHead = float32(c.RMSNormEps), or(c.TieWordEmbeddings, false)
	if c.Bidirectional || !or(c.IsCausal, true) {
		b.bad("tokens that see those after them (use_bidirectional_attention, is_causal) generate nothing: the model is an embedder")
	}
	b.quantization()
}

// layers gives the model as many layers as its configuration says.
func (b *builder) layers(layer func(i int) LayerSpec) {
	n := b.c.NumHiddenLayers
	if !b.between("num_hidden_layers", n, 1<<10) {
		return
	}
	for i := range n {
		b.Layers = append(b.Layers, layer(i))
	}
}

// oneOf is which of several keys that mean the same the configuration has, or all of them.
func (b *builder) oneOf(keys ...string) string {
	for _, key := range keys {
		if raw := b.c.Raw[key]; raw != nil && string(raw) != "null" {
			return key
		}
	}
	return strings.Join(keys, " or ")
}

// between reports a size that is not 1 to most, so that no product of sizes overflows.
func (b *builder) between(key string, value, most int) bool {
	if raw := string(b.c.Raw[key]); value == 0 && (raw == "" || raw == "null") {
		b.bad("%s is missing", key)
		return false
	}
	if value < 1 || value > most {
		b.bad("%s is %d, must be 1 to %d", key, value, most)
		return false
	}
	return true
}

// window reads how many tokens a layer with a window sees; 0: all. Absent is what it is where the configuration has no
// such key.
func (b *builder) window(absent int) int {
	if !b.has("sliding_window") {
		return absent
	}
	switch n := b.c.SlidingWindow; {
	case n == nil:
		return 0
	case *n < 1 || *n > maxLen:
		b.bad("sliding_window is %d, must be 1 to %d", *n, maxLen)
		return 0
	default:
		return *n
	}
}

// pattern reads how many layers there are to one that sees all.
func (b *builder) pattern(absent int) int {
	const key = "sliding_window_pattern"
	n := int(b.c.SlidingWindowPattern)
	if raw := string(b.c.Raw[key]); raw == "" || raw == "null" || !b.between(key, n, 1<<10) {
		return absent
	}
	return n
}

// slides says whether layer i has a window: layer_types does, or else usually.
func (b *builder) slides(i int, usually bool) bool {
	types := b.c.LayerTypes
	switch {
	case types == nil:
		return usually
	case len(types) != b.c.NumHiddenLayers:
		b.bad("layer_types has %d elements for %d layers", len(types), b.c.NumHiddenLayers)
	case types[i] == "sliding_attention":
		return true
	case types[i] != "full_attention":
		b.bad("layer_types: %q is not supported", types[i])
	}
	return false
}

// has says whether the configuration has a key, if only with null.
func (b *builder) has(key string) bool { return b.c.Raw[key] != nil }

// key is a number that null turns off, and that has a value where the configuration does not have the key.
func (b *builder) key(key string, value *float64, absent float64) float64 {
	if !b.has(key) {
		return absent
	}
	return or(value, 0)
}

// positive are the keys that are read as absent where they are 0, which therefore must not be.
var positive = []string{"embedding_multiplier", "head_dim", "kv_lora_rank", "no_rope_layer_interval", "num_key_value_heads",
	"original_max_position_embeddings", "qk_nope_head_dim", "qk_rope_head_dim", "query_pre_attn_scalar", "residual_multiplier",
	"rope_local_base_freq", "rope_theta", "v_head_dim"}

func (b *builder) check() {
	for _, key := range positive {
		raw := b.c.Raw[key]
		if n, err := strconv.ParseFloat(string(raw), 64); err == nil && n <= 0 {
			b.bad("%s is %s, must be positive", key, raw)
		}
	}
	b.between("vocab_size", b.Vocab, 1<<24)
	b.between("hidden_size", b.Hidden, 1<<17)
	b.between("max_position_embeddings", b.MaxLen, maxLen)
	if !(b.NormEps > 0 && b.NormEps < 1) {
		b.bad("rms_norm_eps %g is not between 0 and 1", b.NormEps)
	}
	for key, scale := range map[string]float64{"embedding_multiplier": b.EmbedScale, "residual_multiplier": float64(b.ResidualScale),
		"logits_scaling": float64(b.LogitScale), "final_logit_softcapping": float64(b.LogitSoftcap)} {
		if !(scale >= 0 && scale < 1e6) {
			b.bad("%s makes a factor of %g, must be 0 to 1e6", key, scale)
		}
	}
	for _, l := range b.Layers {
		l.Mixer.check(b)
		l.FF.check(b)
	}
}

// or is what p points to, or what stands for it where the configuration does not say.
func or[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}
