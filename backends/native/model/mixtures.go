package model

import (
	"cmp"
	"fmt"
	"slices"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// mixtral is Mistral with experts.
func mixtral(b *builder) {
	b.begin()
	a, x := b.attention(), b.experts("intermediate_size", b.c.IntermediateSize)
	a.Window = b.window(0)
	x.Router, x.Routing.Normalize = "block_sparse_moe.gate", true
	x.named("block_sparse_moe.experts.", "w1", "w3", "w2")
	b.rotary(a, 1e6)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, x })
}

// qwen2Moe is Qwen1.5-MoE and Qwen2-MoE.
func qwen2Moe(b *builder) {
	b.begin()
	a := b.attention()
	a.QKVBias = or(b.c.QKVBias, true)
	b.rotary(a, 10000)
	ff := b.qwenExperts(b.sharedExpert())
	near, last := *a, or(b.c.MaxWindowLayers, 28)
	if or(b.c.UseSlidingWindow, false) {
		near.Window = b.window(4096)
	}
	b.preNorm(func(i int) (Mixer, FeedForward) {
		if b.slides(i, near.Window > 0 && i%2 == 0 && i < last) {
			return &near, ff(i)
		}
		return a, ff(i)
	})
}

func qwen3Moe(b *builder) {
	b.begin()
	a := b.attention()
	a.QNorm, a.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	if or(b.c.UseSlidingWindow, false) {
		a.Window = b.window(4096)
	}
	b.rotary(a, 10000)
	ff := b.qwenExperts(nil)
	b.preNorm(func(i int) (Mixer, FeedForward) { return a, ff(i) })
}

// qwenExperts is the feed-forward of each layer: experts and perhaps a shared one, which then has a gate, or a dense one in
// layers that are listed, or that are not a multiple of some number.
func (b *builder) qwenExperts(shared *Dense) func(i int) FeedForward {
	if b.c.MLPBias {
		b.bad("mlp_bias is not supported")
	}
	x, d, step := b.experts("moe_intermediate_size", b.c.MoEIntermediateSize), b.dense(), or(b.c.DecoderSparseStep, 1)
	if x.Routing.Normalize = or(b.c.NormTopKProb, false); shared != nil {
		x.Shared, x.SharedGate = shared, "mlp.shared_expert_gate"
	}
	if !b.between("decoder_sparse_step", step, 1<<10) {
		step = 1
	}
	return func(i int) FeedForward {
		if (i+1)%step != 0 || slices.Contains(b.c.MLPOnlyLayers, i) {
			return d
		}
		return x
	}
}

// sharedExpert is what every token takes beside the experts of Qwen's families.
func (b *builder) sharedExpert() *Dense {
	b.between("shared_expert_intermediate_size", b.c.SharedExpertIntermediateSize, 1<<19)
	return &Dense{GateUp: []string{"mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"}, Down: "mlp.shared_expert.down_proj",
		Inter: b.c.SharedExpertIntermediateSize, Act: b.activation()}
}

// olmoe is OLMoE.
func olmoe(b *builder) {
	b.begin()
	a, x := b.attention(), b.experts("intermediate_size", b.c.IntermediateSize)
	a.QNorm, a.KNorm, a.WholeNorms = "self_attn.q_norm", "self_attn.k_norm", true
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	b.only("clip_qkv", "null")
	x.Routing.Normalize = or(b.c.NormTopKProb, false)
	b.rotary(a, 10000)
	b.preNorm(func(int) (Mixer, FeedForward) { return a, x })
}

// graniteMoe is Granite 3 with experts, which are saved as stacks.
func graniteMoe(b *builder) {
	granite(b)
	x := b.experts("intermediate_size", b.c.IntermediateSize)
	x.Router, x.Routing.Scores = "block_sparse_moe.router.layer", kernels.LogitScores
	x.GateUp, x.Down = []string{"block_sparse_moe.input_linear.weight"}, "block_sparse_moe.output_linear.weight"
	for i := range b.Layers {
		b.Layers[i].FF = x
	}
}

// glm4Moe is GLM-4.5 to 4.7.
func glm4Moe(b *builder) {
	b.begin()
	half := 0.5
	b.c.PartialRotaryFactor = cmp.Or(b.c.PartialRotaryFactor, &half)
	a := b.attention()
	a.QKVBias = b.attentionBias()
	if or(b.c.UseQKNorm, false) {
		a.QNorm, a.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	}
	b.rotary(a, 10000)
	ff := b.scoredExperts(kernels.Routing{Groups: 1, ChosenGroups: 1, Scale: 1}, 1)
	b.preNorm(func(i int) (Mixer, FeedForward) { return a, ff(i) })
}

// scoredExperts is the feed-forward of each layer as in DeepSeek V3: experts that are chosen by a sigmoid and a bias, and
// shared ones, but for the first layers, which are dense. absent and dense are what holds where the configuration does not
// say. The layers that follow the last one predict further tokens and are not loaded.
func (b *builder) scoredExperts(absent kernels.Routing, dense int) func(i int) FeedForward {
	c := b.c
	b.only("scoring_func", `"sigmoid"`)
	b.only("topk_method", `"noaux_tc"`)
	x := b.experts("moe_intermediate_size", b.c.MoEIntermediateSize)
	x.ScoreBias = "mlp.gate.e_score_correction_bias"
	x.Routing = kernels.Routing{Scores: kernels.SigmoidScores, Normalize: or(c.NormTopKProb, true),
		Scale: float32(or(c.RoutedScalingFactor, float64(absent.Scale))), Groups: or(c.NGroup, absent.Groups),
		ChosenGroups: or(c.TopKGroup, absent.ChosenGroups), GroupBest: 2}
	for i := range min(or(c.NumNextNPredictLayers, 1), 1<<10) {
		b.names.unused = append(b.names.unused, fmt.Sprintf("model.layers.%d.", c.NumHiddenLayers+i))
	}
	return b.denseFirst(x, or(c.NumSharedExperts, 1), dense)
}

// denseFirst is the feed-forward of each layer: x with shared experts, but for the first layers, which are dense.
func (b *builder) denseFirst(x *Experts, shared, dense int) func(i int) FeedForward {
	b.only("moe_layer_freq", "1")
	d := b.dense()
	if n := shared; n != 0 && b.between("n_shared_experts", n, 1<<10) {
		x.Shared = &Dense{GateUp: []string{"mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"},
			Down: "mlp.shared_experts.down_proj", Inter: n * x.Inter, Act: d.Act}
	}
	first := or(b.c.FirstKDenseReplace, dense)
	return func(i int) FeedForward {
		if i < first {
			return d
		}
		return x
	}
}

// gptOss has windows in every other layer, sinks, biases everywhere, and experts that are saved as stacks the other way round.
func gptOss(b *builder) {
	b.begin()
	c := b.c
	c.HeadDim = cmp.Or(c.HeadDim, 64)
	a, x := b.attention(), b.experts("intermediate_size", b.c.IntermediateSize)
	a.QKVBias, a.OBias, a.Sinks = or(c.AttentionBias, true), or(c.AttentionBias, true), "self_attn.sinks"
	x.Router, x.RouterBias, x.Routing.Scores = "mlp.router", true, kernels.LogitScores
	x.GateUp, x.Down, x.Bias, x.Turned, x.Woven = []string{"mlp.experts.gate_up_proj"}, "mlp.experts.down_proj", true, true, true
	x.Act = kernels.ClampedSwiGLU
	if alpha, limit := or(c.SwiGLUAlpha, 1.702), or(c.SwiGLULimit, 7); alpha != 1.702 || limit != 7 {
		b.bad("swiglu_alpha %g and swiglu_limit %g are not 1.702 and 7", alpha, limit)
	}
	if c.RopeParameters == nil && c.RopeScaling == nil {
		whole := false
		c.RopeParameters = &checkpoint.RopeParameters{RopeType: "yarn", Factor: 32, BetaFast: 32, BetaSlow: 1, Truncate: &whole,
			OriginalMaxPositions: 4096}
	}
	b.rotary(a, 150000)
	near := *a
	near.Window = b.window(128)
	b.preNorm(func(i int) (Mixer, FeedForward) {
		if b.slides(i, i%2 == 0) {
			return &near, x
		}
		return a, x
	})
}

// only reports a key that has another value, as JSON, than the one that is supported.
func (b *builder) only(key, value string) {
	if got := string(b.c.Raw[key]); got != "" && got != "null" && got != value {
		b.bad("%s %s is not supported", key, got)
	}
}
