package model

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"

	"pagoda/checkpoint"
)

// llama is Llama 1 to 3.x.
func llama(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = b.attentionBias(), b.attentionBias(), b.c.MLPBias
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// mistral is Llama with a window, in the first release.
func mistral(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.Window = b.window(4096)
	if b.c.LayerTypes != nil {
		b.bad("layer_types is not supported")
	}
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// ministral has a window in the layers that the configuration names.
func ministral(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	b.rotary(a, 10000)
	near := *a
	near.Window = b.window(4096)
	pick := b.either(a, &near, func(int) bool { return true })
	b.preNorm(func(i int) (Mixer, FeedForward) { return pick(i), d })
}

// qwen2 is Qwen2 and Qwen2.5.
func qwen2(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QKVBias = true
	b.qwen(a, d)
}

func qwen3(b *builder) {
	b.begin()
	b.c.HeadDim = cmp.Or(b.c.HeadDim, 128)
	a, d := b.attention(), b.dense()
	a.QNorm, a.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	b.qwen(a, d)
}

// qwen gives the model its layers, of which the later ones may have a window.
func (b *builder) qwen(a *Attention, ff FeedForward) {
	if b.c.MLPBias {
		b.bad("mlp_bias is not supported")
	}
	b.rotary(a, 10000)
	near, first := *a, or(b.c.MaxWindowLayers, 28)
	if or(b.c.UseSlidingWindow, false) {
		near.Window = b.window(4096)
	}
	pick := b.either(a, &near, func(i int) bool { return i >= first })
	b.preNorm(func(i int) (Mixer, FeedForward) { return pick(i), ff })
}

// olmo2 normalises what the parts of a layer give instead of what they get, and all heads of queries and keys together.
func olmo2(b *builder) {
	a, d := b.olmo()
	b.rotary(a, 10000)
	b.postNorm(d, func(int) Mixer { return a })
}

// olmo3 has a window in three of four layers, which have a rotary table of their own.
func olmo3(b *builder) {
	a, d := b.olmo()
	near := b.rotaries(a, 500000, 500000)
	pick := b.either(a, near, func(i int) bool { return (i+1)%4 != 0 })
	b.postNorm(d, func(i int) Mixer { return pick(i) })
}

func (b *builder) olmo() (*Attention, *Dense) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QNorm, a.KNorm, a.WholeNorms = "self_attn.q_norm", "self_attn.k_norm", true
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	return a, d
}

// postNorm gives the model layers with OLMo 2's norms.
func (b *builder) postNorm(ff FeedForward, mixer func(i int) Mixer) {
	b.layers(func(i int) LayerSpec {
		return LayerSpec{Mixer: mixer(i), MixerNorm: "post_attention_layernorm", FF: ff, FFOutNorm: "post_feedforward_layernorm"}
	})
}

// smolLM3 is Llama, but for every fourth layer, which does not know positions and may have a window.
func smolLM3(b *builder) {
	b.begin()
	b.TiedHead = or(b.c.TieWordEmbeddings, true)
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = b.attentionBias(), b.attentionBias(), b.c.MLPBias
	b.rotary(a, 2e6)
	still := *a
	still.Rope = NoRope
	if or(b.c.UseSlidingWindow, false) {
		still.Window = b.window(0)
	}
	rotary, every := b.c.NoRopeLayers, cmp.Or(b.c.NoRopeLayerInterval, 4)
	if n := len(rotary); n != 0 && n < b.c.NumHiddenLayers {
		b.bad("no_rope_layers has %d elements for %d layers", n, b.c.NumHiddenLayers)
		return
	}
	b.preNorm(func(i int) (Mixer, FeedForward) {
		m := &still
		if len(rotary) > 0 && rotary[i] != 0 || len(rotary) == 0 && (i+1)%every != 0 {
			m = a
		}
		if b.slides(i, m.Window > 0) != (m.Window > 0) {
			b.bad("layer_types: a window must be where positions are not")
		}
		return m, d
	})
}

// seedOss is Llama with other biases.
func seedOss(b *builder) {
	b.begin()
	b.c.HeadDim = cmp.Or(b.c.HeadDim, 128)
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = or(b.c.AttentionBias, true), b.c.AttentionOutBias, b.c.MLPBias
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// ernie45 is Llama of which positions turn elements that lie side by side.
func ernie45(b *builder) {
	b.begin()
	b.TiedHead = or(b.c.TieWordEmbeddings, true)
	b.c.HeadDim = cmp.Or(b.c.HeadDim, 128)
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = b.c.UseBias, b.c.UseBias, b.c.UseBias
	b.rotary(a, 500000)
	b.Ropes[0].Interleaved = true
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// hunYuan normalises queries and keys after positions have turned them. Its dynamic rope has an alpha and is not dynamic: the
// base is larger whatever the length.
func hunYuan(b *builder) {
	b.begin()
	c := b.c
	b.only("mlp_bias", "false")
	b.only("use_qk_norm", "true")
	a, d := b.attention(), b.dense()
	a.QNorm, a.KNorm, a.LateNorms = "self_attn.query_layernorm", "self_attn.key_layernorm", true
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	if p := cmp.Or(c.RopeParameters, c.RopeScaling); p.Kind() == "dynamic" && p.Unknown["alpha"] != nil {
		alpha, err := strconv.ParseFloat(string(p.Unknown["alpha"]), 64)
		if err != nil || !(alpha >= 1 && alpha < 1e6) || a.HeadDim <= 2 {
			b.bad("rope scaling dynamic: alpha %s for heads of %d is not supported", p.Unknown["alpha"], a.HeadDim)
			return
		}
		usual := *p
		usual.RopeType, usual.Unknown = "default", maps.Clone(p.Unknown)
		delete(usual.Unknown, "alpha")
		usual.RopeTheta = cmp.Or(p.RopeTheta, c.RopeTheta, 10000) * math.Pow(alpha, float64(a.HeadDim)/float64(a.HeadDim-2))
		c.RopeParameters, c.RopeScaling = &usual, nil
	}
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// exaone4 has OLMo 2's norms, but of each head on its own. Where there are windows, the layers without one do not know positions.
func exaone4(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QNorm, a.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	b.rotary(a, 10000)
	near, pattern := *a, 1
	if near.Window = b.window(4096); near.Window > 0 { // or else the pattern does not count: transformers writes 0
		a.Rope, pattern = NoRope, b.pattern(4)
	}
	pick := b.either(a, &near, func(i int) bool { return (i+1)%pattern != 0 })
	b.postNorm(d, func(i int) Mixer { return pick(i) })
}

// granite is Llama with scales.
func granite(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias, d.Bias = b.attentionBias(), b.attentionBias(), b.c.MLPBias
	a.Scale = float32(or(b.c.AttentionMultiplier, 1))
	b.EmbedScale, b.ResidualScale = or(b.c.EmbeddingMultiplier, 1), float32(or(b.c.ResidualMultiplier, 1))
	b.LogitScale = float32(1 / or(b.c.LogitsScaling, 1))
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// phi3 is Phi-3, Phi-3.5 and Phi-4, whose projections are saved together.
func phi3(b *builder) {
	b.begin()
	a, d := b.attention(), b.dense()
	a.QKV, d.GateUp = []string{"self_attn.qkv_proj"}, []string{"mlp.gate_up_proj"}
	a.Window = b.window(0)
	b.c.OriginalMaxPositions = cmp.Or(b.c.OriginalMaxPositions, 4096)
	if r := cmp.Or(b.c.RopeParameters, b.c.RopeScaling); r.Kind() == "su" || r.Kind() == "yarn" { // its older names
		named := *r
		named.RopeType, b.c.RopeParameters = "longrope", &named
	}
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// glm is GLM-4 of 2024.
func glm(b *builder) {
	a, d := b.glm()
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// glm4 is GLM-4-0414, which normalises before and after the parts of a layer.
func glm4(b *builder) {
	a, d := b.glm()
	b.layers(func(int) LayerSpec {
		return LayerSpec{InputNorm: "input_layernorm", Mixer: a, MixerNorm: "post_self_attn_layernorm",
			FFNorm: "post_attention_layernorm", FF: d, FFOutNorm: "post_mlp_layernorm"}
	})
}

func (b *builder) glm() (*Attention, *Dense) {
	b.begin()
	b.NormEps = cmp.Or(b.NormEps, 1.5625e-7)
	b.c.HeadDim = cmp.Or(b.c.HeadDim, 128)
	a, d := b.attention(), b.dense()
	a.QKVBias = or(b.c.AttentionBias, true)
	d.GateUp = []string{"mlp.gate_up_proj"}
	half := 0.5
	b.c.PartialRotaryFactor = cmp.Or(b.c.PartialRotaryFactor, &half)
	b.rotary(a, 10000)
	b.Ropes[0].Interleaved = true
	return a, d
}

// gemma1 is the first Gemma.
func gemma1(b *builder) {
	b.begin()
	if b.c.HiddenActivation = ""; b.c.HiddenAct == "gelu" { // as it was released; the approximation is meant
		b.c.HiddenAct = "gelu_pytorch_tanh"
	}
	a, d := b.gemma()
	a.Scale = inverseRoot(a.HeadDim)
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, d })
}

// gemma2 has a window in every other layer, and bounds scores and logits.
func gemma2(b *builder) {
	b.begin()
	b.c.HiddenAct = b.c.HiddenActivation
	a, d := b.gemma()
	a.Softcap = float32(b.key("attn_logit_softcapping", b.c.AttnLogitSoftcapping, 50))
	b.LogitSoftcap = float32(b.key("final_logit_softcapping", b.c.FinalLogitSoftcapping, 30))
	b.rotary(a, 10000)
	near := *a
	near.Window = b.window(4096)
	pick := b.either(a, &near, func(i int) bool { return i%2 == 0 })
	b.sandwich(d, func(i int) Mixer { return pick(i) })
}

// gemma3 is Gemma 3's text model: every sixth layer sees all, and has a rotary table of its own.
func gemma3(b *builder) {
	b.begin()
	b.c.HiddenAct = b.c.HiddenActivation
	a, d := b.gemma()
	a.QNorm, a.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	b.LogitSoftcap = float32(or(b.c.FinalLogitSoftcapping, 0))
	if b.c.AttnLogitSoftcapping != nil { // the reference does not heed it
		b.bad("attn_logit_softcapping is not supported")
	}
	near, pattern := b.rotaries(a, 1e6, cmp.Or(b.c.RopeLocalBaseFreq, 10000)), b.pattern(6)
	pick := b.either(a, near, func(i int) bool { return (i+1)%pattern != 0 })
	b.sandwich(d, func(i int) Mixer { return pick(i) })
}

// gemma3Text is the text model of a Gemma 3 that also sees, whose configuration often leaves out what is usual.
func gemma3Text(b *builder) {
	b.textOnly(func(b *builder) {
		c := b.c
		c.VocabSize, c.HiddenSize = cmp.Or(c.VocabSize, 262208), cmp.Or(c.HiddenSize, 2304)
		c.IntermediateSize, c.NumHiddenLayers = cmp.Or(c.IntermediateSize, 9216), cmp.Or(c.NumHiddenLayers, 26)
		c.NumAttentionHeads, c.NumKeyValueHeads = cmp.Or(c.NumAttentionHeads, 8), cmp.Or(c.NumKeyValueHeads, 4)
		c.MaxPositionEmbeddings, c.RMSNormEps = cmp.Or(c.MaxPositionEmbeddings, 131072), cmp.Or(c.RMSNormEps, 1e-6)
		gemma3(b)
	})
}

// mistral3Text is the text model of a Mistral that also sees.
func mistral3Text(b *builder) { b.textOnly(mistral) }

// textOnly describes the text model of one that also sees.
func (b *builder) textOnly(describe func(*builder)) {
	if b.c.TextConfig == nil {
		b.bad("text_config is missing")
		return
	}
	outer, text := b.c, *b.c.TextConfig
	text.DType = cmp.Or(text.DType, text.TorchDType, outer.DType, outer.TorchDType)
	text.TieWordEmbeddings = cmp.Or(text.TieWordEmbeddings, outer.TieWordEmbeddings)
	text.QuantizationConfig = slices.Concat(text.QuantizationConfig, outer.QuantizationConfig)
	b.names.layouts = []layout{{"model.language_model.", "lm_head"}, {"language_model.model.", "language_model.lm_head"}}
	b.names.unused = []string{"model.vision_tower.", "model.multi_modal_projector.", "vision_tower.", "multi_modal_projector."}
	b.c = &text
	describe(b)
}

// gemma is what Gemma's generations have in common.
func (b *builder) gemma() (*Attention, *Dense) {
	c := b.c
	b.TiedHead, b.NormOffset = or(c.TieWordEmbeddings, true), 1
	b.EmbedScale, b.EmbedScaleRounded = math.Sqrt(float64(b.Hidden)), true
	c.HeadDim = cmp.Or(c.HeadDim, 256)
	c.HiddenAct = cmp.Or(c.HiddenAct, "gelu_pytorch_tanh")
	a, d := b.attention(), b.dense()
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	a.Scale = float32(1 / math.Sqrt(cmp.Or(c.QueryPreAttnScalar, 256)))
	return a, d
}

// sandwich gives the model layers that normalise before and after their parts, as Gemma names it.
func (b *builder) sandwich(ff FeedForward, mixer func(i int) Mixer) {
	b.layers(func(i int) LayerSpec {
		return LayerSpec{InputNorm: "input_layernorm", Mixer: mixer(i), MixerNorm: "post_attention_layernorm",
			FFNorm: "pre_feedforward_layernorm", FF: ff, FFOutNorm: "post_feedforward_layernorm"}
	})
}

// preNorm gives the model layers with Llama's norms.
func (b *builder) preNorm(parts func(i int) (Mixer, FeedForward)) {
	b.layers(func(i int) LayerSpec {
		m, ff := parts(i)
		return LayerSpec{InputNorm: "input_layernorm", Mixer: m, FFNorm: "post_attention_layernorm", FF: ff}
	})
}

func (b *builder) attentionBias() bool { return or(b.c.AttentionBias, false) }

// either is how layer i attends: near if it has a window, as layer_types or else usually says, or a.
func (b *builder) either(a, near *Attention, usually func(i int) bool) func(i int) *Attention {
	return func(i int) *Attention {
		if b.slides(i, near.Window > 0 && usually(i)) {
			return near
		}
		return a
	}
}

// rotaries gives the model two rotary tables, one for a and one for what it returns: a with a window. Scaling is a's.
func (b *builder) rotaries(a *Attention, theta, nearTheta float64) *Attention {
	near, c := *a, b.c
	near.Window, near.Rope = b.window(4096), 1
	all, local := c.RopeScaling, (*checkpoint.RopeParameters)(nil)
	if p := c.RopeParameters; p != nil {
		if all, local = p.FullAttention, p.SlidingAttention; all == nil && local == nil {
			b.bad("rope_parameters: want those of full_attention and sliding_attention")
		}
	}
	b.Ropes = []Rope{b.ropeOf(all, a.HeadDim, cmp.Or(c.RopeTheta, theta)), b.ropeOf(local, a.HeadDim, nearTheta)}
	return &near
}

// rotary gives the model one rotary table, which a uses.
func (b *builder) rotary(a *Attention, theta float64) {
	a.Rope, b.Ropes = 0, []Rope{b.rope(a.HeadDim, theta)}
}
