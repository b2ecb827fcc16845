package model

import "pagoda/kernels"

// Dense is a gated feed-forward: Down(act(Gate(h)) · Up(h)).
type Dense struct {
	GateUp []string // names of the projections: of gate and up, or of both in one
	Down   string
	Inter  int
	Bias   bool
}

// dense reads the keys that mean the same in nearly all architectures, and names what Llama has.
func (b *builder) dense() *Dense {
	if b.c.HiddenAct != "silu" {
		b.bad("hidden_act %q is not supported, only silu", b.c.HiddenAct)
	}
	return &Dense{GateUp: []string{"mlp.gate_proj", "mlp.up_proj"}, Down: "mlp.down_proj", Inter: b.c.IntermediateSize}
}

func (d *Dense) check(b *builder) { b.between("intermediate_size", d.Inter, 1<<19) }

func (d *Dense) projections(s *Spec) []projection {
	var list []projection
	for _, name := range d.GateUp {
		list = append(list, projection{name, 2 * d.Inter / len(d.GateUp), s.Hidden, d.Bias})
	}
	return append(list, projection{d.Down, s.Hidden, d.Inter, d.Bias})
}

func (d *Dense) tensors(*Spec) []tensor { return nil }

func (d *Dense) scratch(_ *Spec, act kernels.DType, tokens int) []plan {
	return []plan{{kernels.F32, tokens, 2 * d.Inter}, {act, tokens, d.Inter}}
}

// dense is a Dense's weights.
type dense struct{ gateUp, down linear }

func (d *Dense) load(l *partLoader) feedForward {
	return &dense{gateUp: l.linear(len(d.GateUp)), down: l.linear(1)}
}

func (d *dense) feed(p pass, y, h kernels.Tensor) error {
	gateUp, ff := p.tmp[0].RowRange(0, p.n), p.tmp[1].RowRange(0, p.n)
	if err := p.project(gateUp, h, &d.gateUp); err != nil {
		return err
	}
	if err := kernels.GatedMul(p.s, ff, gateUp, kernels.SiLU); err != nil {
		return err
	}
	return p.project(y, ff, &d.down)
}
