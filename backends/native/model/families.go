package model

import "cmp"

// llama is Llama 1 to 3.x.
func llama(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = b.attentionBias(), b.attentionBias(), b.c.MLPBias
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// qwen2 is Qwen2 and Qwen2.5.
func qwen2(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QKVBias = true
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
	b.qwenProblems()
}

func qwen3(b *builder) {
	b.begin()
	b.c.HeadDim = cmp.Or(b.c.HeadDim, 128)
	a, d := b.attention(), b.dense()
	a.QNorm, a.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
	b.qwenProblems()
}

func (b *builder) qwenProblems() {
	if or(b.c.UseSlidingWindow, false) && b.c.SlidingWindow != nil {
		b.bad("use_sliding_window is not supported")
	}
	if b.c.MLPBias {
		b.bad("mlp_bias is not supported")
	}
}

// olmo2 normalises what the parts of a layer give instead of what they get, and all of a query at once.
func olmo2(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QNorm, a.KNorm, a.WholeNorms = "self_attn.q_norm", "self_attn.k_norm", true
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	b.rotary(a, 10000)
	b.layers(func(int) LayerSpec {
		return LayerSpec{Mixer: a, MixerNorm: "post_attention_layernorm", FF: d, FFOutNorm: "post_feedforward_layernorm"}
	})
}

// smolLM3 is Llama, but for every fourth layer, which does not know positions.
func smolLM3(b *builder) {
	b.begin()
	b.TiedHead = or(b.c.TieWordEmbeddings, true)
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = b.attentionBias(), b.attentionBias(), b.c.MLPBias
	b.rotary(a, 2e6)
	still := *a
	still.Rope = NoRope
	if n := len(b.c.NoRopeLayers); n != 0 && n < b.c.NumHiddenLayers {
		b.bad("no_rope_layers has %d elements for %d layers", n, b.c.NumHiddenLayers)
		return
	}
	every := cmp.Or(b.c.NoRopeLayerInterval, 4)
	b.preNorm(func(i int) (Mixer, FeedForward) {
		turns := (i+1)%every != 0
		if len(b.c.NoRopeLayers) > 0 {
			turns = b.c.NoRopeLayers[i] != 0
		}
		if turns {
			return a, d
		}
		return &still, d
	})
}

func (b *builder) attentionBias() bool { return or(b.c.AttentionBias, false) }

// rotary gives the model one rotary table, which a uses.
func (b *builder) rotary(a *Attention, theta float64) {
	a.Rope, b.Ropes = 0, []Rope{b.rope(a.HeadDim, theta)}
}

// preNorm gives the model layers with Llama's norms.
func (b *builder) preNorm(parts func(i int) (Mixer, FeedForward)) {
	b.layers(func(i int) LayerSpec {
		m, ff := parts(i)
		return LayerSpec{InputNorm: "input_layernorm", Mixer: m, FFNorm: "post_attention_layernorm", FF: ff}
	})
}
