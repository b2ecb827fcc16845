package model

import "pagoda/kernels"

// deepseekV2 is DeepSeek V2 and V2.5, and DeepSeek-Coder-V2.
func deepseekV2(b *builder) {
	b.begin()
	a, x := b.latent(1536), b.experts("moe_intermediate_size", b.c.MoEIntermediateSize)
	b.only("rope_interleave", "true")
	b.only("scoring_func", `"softmax"`)
	b.only("norm_topk_prob", "false")
	b.only("mlp_bias", "false")
	x.Routing.Scale = float32(or(b.c.RoutedScalingFactor, 1))
	switch method := string(b.c.Raw["topk_method"]); method {
	case `"group_limited_greedy"`:
		x.Routing.Groups, x.Routing.ChosenGroups, x.Routing.GroupBest = or(b.c.NGroup, 1), or(b.c.TopKGroup, 1), 1
	case `"greedy"`, "", "null":
	default:
		b.bad("topk_method %s is not supported", method)
	}
	ff := b.denseFirst(x, or(b.c.NumSharedExperts, 2), 0)
	b.preNorm(func(i int) (Mixer, FeedForward) { return a, ff(i) })
}

// deepseekV3 is DeepSeek V3, V3.1 and R1, and Kimi K2.
func deepseekV3(b *builder) {
	b.begin()
	a := b.latent(1536)
	b.only("mlp_bias", "false")
	ff := b.scoredExperts(kernels.Routing{Groups: 8, ChosenGroups: 4, Scale: 2.5}, 3)
	b.preNorm(func(i int) (Mixer, FeedForward) { return a, ff(i) })
}
