package model

import (
	"maps"
	"slices"

	"pagoda/kernels"
)

// Dense is a gated feed-forward: Down(act(Gate(h)) · Up(h)).
type Dense struct {
	GateUp []string // names of the projections: of gate and up, or of both in one
	Down   string
	Inter  int
	Bias   bool
	Act    kernels.Activation
}

// activations are the functions that a gate may go through, by the name in config.json.
var activations = map[string]kernels.Activation{
	"silu": kernels.SiLU, "gelu_pytorch_tanh": kernels.GELUTanh, "gelu": kernels.GELU,
}

// activation reads hidden_act.
func (b *builder) activation() kernels.Activation {
	act, ok := activations[b.c.HiddenAct]
	if !ok {
		b.bad("hidden_act %q is none of %v", b.c.HiddenAct, slices.Sorted(maps.Keys(activations)))
	}
	return act
}

// dense reads the keys that mean the same in nearly all architectures, and names what Llama has.
func (b *builder) dense() *Dense {
	return &Dense{GateUp: []string{"mlp.gate_proj", "mlp.up_proj"}, Down: "mlp.down_proj", Inter: b.c.IntermediateSize,
		Act: b.activation()}
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

// denseRows is how many rows a Dense computes at once: two blocks of those in which products take many rows. What gate and up
// give is the widest that a step writes, so a large part of all work memory would be for it; weights are read once more for
// each piece, behind the arithmetic of so many rows.
const denseRows = 192

func (d *Dense) scratch(_ *Spec, act kernels.DType, tokens int) []plan {
	rows := min(tokens, denseRows)
	return []plan{{kernels.F32, rows, 2 * d.Inter}, {act, rows, d.Inter}}
}

// dense is a Dense's weights.
type dense struct {
	gateUp, down linear
	act          kernels.Activation
}

func (d *Dense) load(l *partLoader) feedForward {
	return &dense{gateUp: l.linear(len(d.GateUp)), down: l.linear(1), act: d.Act}
}

func (d *dense) feed(p pass, y, h kernels.Tensor) error {
	for at := 0; at < p.n; at += denseRows {
		end := min(at+denseRows, p.n)
		if err := d.feedPiece(p.piece(at, end), y.RowRange(at, end), h.RowRange(at, end)); err != nil {
			return err
		}
	}
	return nil
}

func (d *dense) feedPiece(p pass, y, h kernels.Tensor) error {
	gateUp, ff := p.tmp[0].RowRange(0, p.n), p.tmp[1].RowRange(0, p.n)
	if err := p.project(gateUp, h, &d.gateUp); err != nil {
		return err
	}
	if err := kernels.GatedMul(p.s, ff, gateUp, d.act); err != nil {
		return err
	}
	return p.project(y, ff, &d.down)
}
