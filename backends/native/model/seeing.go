package model

import (
	"cmp"

	"pagoda/checkpoint"
)

// qwen2Sees is the text model of Qwen2-VL and Qwen2.5-VL, whose configuration is often the outer one itself.
func qwen2Sees(b *builder) {
	if b.c.TextConfig == nil {
		b.c.TextConfig = b.c
	}
	if or(b.c.TextConfig.TieWordEmbeddings, false) { // as older releases of transformers wrote it
		b.c.TieWordEmbeddings = b.c.TextConfig.TieWordEmbeddings
	}
	b.qwenSees(1e6, func(b *builder) {
		b.c.MaxWindowLayers = cmp.Or(b.c.MaxWindowLayers, new(80))
		qwen2(b)
	})
}

// qwen3Sees is the text model of Qwen3-VL.
func qwen3Sees(b *builder) { b.qwenSees(500000, qwen3) }

// qwen3MoeSees is that with experts, which are saved in stacks: turned, as published, or not, as transformers writes them.
func qwen3MoeSees(b *builder) {
	b.qwenSees(500000, func(b *builder) {
		b.c.NormTopKProb = new(true)
		qwen3Moe(b)
		for i := range b.Layers {
			if x, ok := b.Layers[i].FF.(*Experts); ok {
				x.GateUp, x.Down = []string{"mlp.experts.gate_up_proj"}, "mlp.experts.down_proj"
				x.Turned, x.EitherWay = true, true
			}
		}
	})
}

// qwenSees describes the text model of one that also sees: what turns heads by positions in pictures is left out, because in
// text the three positions of a token are one.
func (b *builder) qwenSees(theta float64, text func(*builder)) {
	outer := b.c
	if outer.TextConfig == nil {
		b.bad("text_config is missing")
		return
	}
	c := *outer.TextConfig
	c.DType = cmp.Or(c.DType, c.TorchDType, outer.DType, outer.TorchDType)
	c.TieWordEmbeddings, c.RopeTheta = outer.TieWordEmbeddings, cmp.Or(c.RopeTheta, theta)
	c.RopeParameters, c.RopeScaling = plainRope(c.RopeParameters), plainRope(c.RopeScaling)
	b.names.layouts = []layout{{"model.language_model.", "lm_head"}, {"model.", "lm_head"}}
	b.names.unused = []string{"model.visual.", "visual."}
	b.c = &c
	text(b)
}

// plainRope is textRope where the positions in pictures may be a kind of scaling of their own.
func plainRope(p *checkpoint.RopeParameters) *checkpoint.RopeParameters {
	p = textRope(p)
	if p.Kind() == "mrope" {
		p.RopeType = "default"
	}
	return p
}
