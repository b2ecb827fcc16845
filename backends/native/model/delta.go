package model

import (
	"cmp"
	"errors"
	"maps"
	"math"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// DeltaNet is linear attention by the gated delta rule: a short convolution over queries, keys and values, the rule, and a
// gated norm of what each head gives. It keeps a state of each sequence in place of keys and values.
type DeltaNet struct {
	// In names the projections: of queries, keys and values in one, of the norm's gate, of the rule's beta and of its decay.
	// Or two, of the first two and of the last two, whose rows are grouped by key head.
	In  []string
	Out string
	// Others by name: the convolution's kernel, the rule's parameters, the norm.
	Conv, ALog, DTBias, Norm string

	KeyHeads, ValueHeads int
	KeyDim, ValueDim     int
	Kernel               int // tokens that the convolution sees
}

// deltaNet reads a layer of linear attention, with Qwen3-Next's projections or with Qwen3.5's.
func (b *builder) deltaNet(grouped bool) *DeltaNet {
	c := b.c
	d := &DeltaNet{
		In:  []string{"linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.in_proj_b", "linear_attn.in_proj_a"},
		Out: "linear_attn.out_proj", Conv: "linear_attn.conv1d.weight", ALog: "linear_attn.A_log", DTBias: "linear_attn.dt_bias",
		Norm:     "linear_attn.norm.weight",
		KeyHeads: or(c.LinearNumKeyHeads, 16), ValueHeads: or(c.LinearNumValueHeads, 32),
		KeyDim: or(c.LinearKeyHeadDim, 128), ValueDim: or(c.LinearValueHeadDim, 128), Kernel: or(c.LinearConvKernelDim, 4),
	}
	if grouped {
		d.In = []string{"linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"}
	}
	if c.HiddenAct != "silu" {
		b.bad("hidden_act %q is not supported with linear attention", c.HiddenAct)
	}
	return d
}

func (d *DeltaNet) check(b *builder) {
	heads := b.between("linear_num_key_heads", d.KeyHeads, 1<<10) && b.between("linear_num_value_heads", d.ValueHeads, 1<<10)
	if heads && d.ValueHeads%d.KeyHeads != 0 {
		b.bad("linear_num_value_heads %d is no multiple of linear_num_key_heads %d", d.ValueHeads, d.KeyHeads)
	}
	b.between("linear_key_head_dim", d.KeyDim, 1<<10)
	b.between("linear_value_head_dim", d.ValueDim, 1<<10)
	b.between("linear_conv_kernel_dim", d.Kernel, 8)
}

func (d *DeltaNet) grouped() bool { return len(d.In) == 2 }

// Columns of all queries, as of all keys, of all values, and of what goes through the convolution.
func (d *DeltaNet) keys() int     { return d.KeyHeads * d.KeyDim }
func (d *DeltaNet) values() int   { return d.ValueHeads * d.ValueDim }
func (d *DeltaNet) channels() int { return 2*d.keys() + d.values() }

func (d *DeltaNet) projections(s *Spec) []projection {
	widths := []int{d.channels(), d.values(), d.ValueHeads, d.ValueHeads}
	if d.grouped() {
		widths = []int{d.channels() + d.values(), 2 * d.ValueHeads}
	}
	var list []projection
	for i, name := range d.In {
		list = append(list, projection{name, widths[i], s.Hidden, false})
	}
	return list
}

func (d *DeltaNet) output(s *Spec) projection { return projection{d.Out, s.Hidden, d.values(), false} }

func (d *DeltaNet) tensors(*Spec) []tensor {
	return []tensor{vector(d.Conv, d.channels(), 1, d.Kernel), vector(d.ALog, d.ValueHeads), vector(d.DTBias, d.ValueHeads),
		vector(d.Norm, d.ValueDim)}
}

func (d *DeltaNet) cache() cacheDims { return cacheDims{} }

// states are the matrices of the rule and the last inputs of the convolution.
func (d *DeltaNet) states() []int {
	return []int{d.ValueHeads * d.KeyDim * d.ValueDim, (d.Kernel - 1) * d.channels()}
}

func (d *DeltaNet) scratch(_ *Spec, _ kernels.DType, tokens int) []plan {
	all := d.channels() + d.values() + 2*d.ValueHeads
	list := []plan{{kernels.F32, tokens, all}, {kernels.F32, tokens, d.values()}}
	if d.grouped() {
		list = append(list, plan{kernels.F32, tokens, all})
	}
	return list
}

// deltaNet is a DeltaNet's weights.
type deltaNet struct {
	*DeltaNet
	in         linear
	conv, norm kernels.Tensor // F32 [Kernel, channels], F32 [1, ValueDim]
	rule       kernels.DeltaRule
}

func (d *DeltaNet) load(l *partLoader) mixer {
	y := &deltaNet{DeltaNet: d, in: l.linear(len(d.In)), norm: l.vector(d.Norm)}
	stored := l.values(l.prefix + d.Conv) // [channels, Kernel]
	byToken := make([]float32, 0, len(stored))
	for i := range d.Kernel {
		for at := i; at < len(stored); at += d.Kernel {
			byToken = append(byToken, stored[at])
		}
	}
	y.conv = l.f32(d.Kernel, d.channels(), byToken)
	decay := l.values(l.prefix + d.ALog)
	for i, v := range decay {
		decay[i] = float32(-math.Exp(float64(v)))
	}
	y.rule = kernels.DeltaRule{KeyHeads: d.KeyHeads, ValueHeads: d.ValueHeads, KeyDim: d.KeyDim, ValueDim: d.ValueDim,
		Decay: l.f32(1, d.ValueHeads, decay), Bias: l.vector(d.DTBias)}
	return y
}

func (d *deltaNet) mix(p pass, out, h kernels.Tensor) error {
	states, batch := p.w.kv.states[p.layer], p.w.step.states
	x := p.tmp[0].RowRange(0, p.n)
	if err := p.project(x, h, &d.in); err != nil {
		return err
	}
	if d.grouped() {
		y := p.tmp[2].RowRange(0, p.n)
		if err := d.ungroup(p, y, x); err != nil {
			return err
		}
		x = y
	}
	z, b, a := d.channels(), d.channels()+d.values(), d.channels()+d.values()+d.ValueHeads // where these begin
	qkv := x.Columns(0, z)
	if err := kernels.CausalConv(p.s, qkv, d.conv, states[1], batch); err != nil {
		return err
	}
	values := p.tmp[1].RowRange(0, p.n)
	err := kernels.GatedDelta(p.s, values, qkv, x.Columns(a, x.Cols), x.Columns(b, a), states[0], d.rule, batch)
	if err != nil || p.cacheOnly {
		return err
	}
	return kernels.GatedRMSNorm(p.s, out, values, x.Columns(z, b), d.norm, d.ValueHeads, p.w.m.spec.NormEps)
}

// ungroup puts side by side what x has by key head: a query, a key, then values and gates of the value heads that share
// them, and after all of these the betas and the decays of each key head's value heads.
func (d *deltaNet) ungroup(p pass, y, x kernels.Tensor) error {
	shared := d.ValueHeads / d.KeyHeads
	qkvz, ba := x.Columns(0, d.channels()+d.values()), x.Columns(d.channels()+d.values(), x.Cols)
	var errs []error
	at := 0
	for _, from := range []struct {
		x     kernels.Tensor
		sizes []int // of the parts of a group
	}{{qkvz, []int{d.KeyDim, d.KeyDim, shared * d.ValueDim, shared * d.ValueDim}}, {ba, []int{shared, shared}}} {
		first := 0
		for _, size := range from.sizes {
			cols := d.KeyHeads * size
			errs = append(errs, kernels.PickGroups(p.s, y.Columns(at, at+cols), from.x, d.KeyHeads, first))
			at, first = at+cols, first+size
		}
	}
	return errors.Join(errs...)
}

// qwen3Next has linear attention, whose projections are grouped by key head, and experts.
func qwen3Next(b *builder) {
	b.c.NormTopKProb = cmp.Or(b.c.NormTopKProb, new(true))
	b.hybrid(true, b.qwenExperts(b.sharedExpert()))
}

// qwen35 is Qwen3.5's text model.
func qwen35(b *builder) {
	d := b.dense()
	b.qwen35Names()
	b.hybrid(false, func(int) FeedForward { return d })
}

// qwen35Moe is Qwen3.5's text model with experts, which are saved one by one or, as published, in stacks.
func qwen35Moe(b *builder) {
	x := b.experts("moe_intermediate_size", b.c.MoEIntermediateSize)
	x.Stacks = []string{"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
	x.Routing.Normalize, x.Shared, x.SharedGate = true, b.sharedExpert(), "mlp.shared_expert_gate"
	b.qwen35Names()
	b.hybrid(false, func(int) FeedForward { return x })
}

// qwen35Names are those of checkpoints with and without what sees.
func (b *builder) qwen35Names() {
	b.names.layouts = append(b.names.layouts[:1:1], layout{"model.language_model.", "lm_head"})
	b.names.unused = []string{"model.visual."}
}

// sees describes the text model of a Qwen3.5 that also sees.
func sees(text func(*builder)) func(*builder) {
	return func(b *builder) {
		outer := b.c
		if outer.TextConfig == nil {
			b.bad("text_config is missing")
			return
		}
		b.c = outer.TextConfig
		b.c.DType = cmp.Or(b.c.DType, b.c.TorchDType, outer.DType, outer.TorchDType)
		b.c.TieWordEmbeddings = outer.TieWordEmbeddings
		b.names.layouts = []layout{{"model.language_model.", "lm_head"}}
		text(b)
	}
}

// hybrid gives the model layers of linear attention, but for every fourth, or as layer_types says: that has attention with a
// gate. The layers that predict several tokens at once, which checkpoints have too, are not used.
func (b *builder) hybrid(grouped bool, ff func(i int) FeedForward) {
	b.begin()
	c := b.c
	b.NormOffset = 1
	b.names.unused = append(b.names.unused, "mtp.")
	c.HeadDim = cmp.Or(c.HeadDim, 256)
	quarter := 0.25
	c.PartialRotaryFactor = cmp.Or(c.PartialRotaryFactor, &quarter)
	a, d := b.attention(), b.deltaNet(grouped)
	a.QNorm, a.KNorm, a.Gated = "self_attn.q_norm", "self_attn.k_norm", true
	a.QKVBias, a.OBias = b.attentionBias(), b.attentionBias()
	c.RopeParameters, c.RopeScaling = textRope(c.RopeParameters), textRope(c.RopeScaling)
	b.rotary(a, 10000)
	full := 0
	b.preNorm(func(i int) (Mixer, FeedForward) {
		if b.isLinear(i) {
			return d, ff(i)
		}
		full++
		return a, ff(i)
	})
	if full == 0 {
		b.bad("layer_types: at least one layer must have full_attention")
	}
}

// textRope leaves out how the positions in pictures turn heads: in text all three of a token's are the same.
func textRope(p *checkpoint.RopeParameters) *checkpoint.RopeParameters {
	if p == nil {
		return nil
	}
	text := *p
	text.Unknown = maps.Clone(p.Unknown)
	for _, key := range []string{"mrope_section", "mrope_interleaved"} {
		delete(text.Unknown, key)
	}
	return &text
}

// isLinear says whether layer i has linear attention.
func (b *builder) isLinear(i int) bool {
	types, every := b.c.LayerTypes, or(b.c.FullAttentionInterval, 4)
	switch {
	case types == nil && every < 1:
		b.bad("full_attention_interval is %d, must be at least 1", every)
		return false
	case types == nil:
		return (i+1)%every != 0
	case len(types) != b.c.NumHiddenLayers:
		b.bad("layer_types has %d elements for %d layers", len(types), b.c.NumHiddenLayers)
		return false
	case types[i] != "linear_attention" && types[i] != "full_attention":
		b.bad("layer_types: %q is not supported", types[i])
	}
	return types[i] == "linear_attention"
}
