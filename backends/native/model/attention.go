package model

import (
	"errors"

	"pagoda/kernels"
)

// Attention is softmax attention over the sequence's keys and values.
type Attention struct {
	QKV          []string // names of the projections: of queries, keys and values, or of the three in one
	O            string
	QNorm, KNorm string // RMS norms of queries and keys, "" for none
	WholeNorms   bool   // these take all heads together, not each on its own
	LateNorms    bool   // these come after positions have turned the heads
	Gated        bool   // the projection of queries gives each head a gate too, which the sigmoid of multiplies its result
	Sinks        string // a score per head that takes part in the softmax's sum only, "" for none

	Heads, KVHeads, HeadDim int
	QKVBias, OBias          bool
	Rope                    int     // which of Spec.Ropes turns queries and keys, or NoRope
	Window                  int     // tokens that a token sees, itself among them, on either side if BothWays; 0: all
	Scale                   float32 // of the products of queries and keys
	Softcap                 float32 // scores become cap·tanh(score/cap); 0: they stay
	BothWays                bool    // see Spec.BothWays
}

// NoRope is Attention.Rope of a layer that does not know positions.
const NoRope = -1

// attention reads the keys that mean the same in nearly all architectures, and names what Llama has.
func (b *builder) attention() *Attention {
	c := b.c
	a := &Attention{
		QKV: []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, O: "self_attn.o_proj",
		Heads: c.NumAttentionHeads, KVHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim,
	}
	if a.KVHeads == 0 {
		a.KVHeads = a.Heads
	}
	if a.HeadDim == 0 && a.Heads > 0 {
		if a.HeadDim = b.Hidden / a.Heads; b.Hidden%a.Heads != 0 {
			b.bad("hidden_size %d is no multiple of num_attention_heads %d, and head_dim is absent", b.Hidden, a.Heads)
		}
	}
	a.Scale = inverseRoot(a.HeadDim)
	return a
}

func (a *Attention) check(b *builder) {
	heads := b.between("num_attention_heads", a.Heads, 1<<10) && b.between("num_key_value_heads", a.KVHeads, 1<<10)
	if heads && a.Heads%a.KVHeads != 0 {
		b.bad("num_attention_heads %d is no multiple of num_key_value_heads %d", a.Heads, a.KVHeads)
	}
	if b.between("head_dim", a.HeadDim, 1<<10) && !(a.Scale > 0 && a.Scale < 1e6) {
		b.bad("attention_multiplier or query_pre_attn_scalar: a scale of %g is not between 0 and 1e6", a.Scale)
	}
	if !(a.Softcap >= 0 && a.Softcap < 1e6) {
		b.bad("attn_logit_softcapping %g is not between 0 and 1e6", a.Softcap)
	}
}

func (a *Attention) endQ() int { return a.Heads * a.HeadDim }
func (a *Attention) endK() int { return a.endQ() + a.KVHeads*a.HeadDim }
func (a *Attention) endV() int { return a.endK() + a.KVHeads*a.HeadDim }

// gates is the number of columns of all heads' gates.
func (a *Attention) gates() int {
	if a.Gated {
		return a.endQ()
	}
	return 0
}

func (a *Attention) projections(s *Spec) []projection {
	if len(a.QKV) == 1 {
		return []projection{{a.QKV[0], a.endV(), s.Hidden, a.QKVBias}}
	}
	kv := a.KVHeads * a.HeadDim
	return []projection{{a.QKV[0], a.endQ() + a.gates(), s.Hidden, a.QKVBias}, {a.QKV[1], kv, s.Hidden, a.QKVBias},
		{a.QKV[2], kv, s.Hidden, a.QKVBias}}
}

func (a *Attention) output(s *Spec) projection { return projection{a.O, s.Hidden, a.endQ(), a.OBias} }

func (a *Attention) tensors(*Spec) (list []tensor) {
	q, k := a.HeadDim, a.HeadDim
	if a.WholeNorms {
		q, k = a.endQ(), a.KVHeads*a.HeadDim
	}
	if a.QNorm != "" {
		list = append(list, vector(a.QNorm+".weight", q), vector(a.KNorm+".weight", k))
	}
	if a.Sinks != "" {
		list = append(list, vector(a.Sinks, a.Heads))
	}
	return list
}

func (a *Attention) cache() cacheDims { return cacheDims{a.KVHeads, a.HeadDim, a.HeadDim} }

func (a *Attention) scratch(_ *Spec, _ kernels.DType, tokens int) []plan {
	list := []plan{{kernels.F32, tokens, a.endV()}}
	if a.Gated { // what is projected, and beside each other the gates and what they multiply
		list = append(list, plan{kernels.F32, tokens, a.endV() + a.gates()}, plan{kernels.F32, tokens, 2 * a.gates()})
	}
	return list
}

// attention is an Attention's weights.
type attention struct {
	*Attention
	qkv                 linear
	qNorm, kNorm, sinks kernels.Tensor
}

func (a *Attention) load(l *partLoader) mixer {
	y := &attention{Attention: a, qkv: l.linear(len(a.QKV))}
	if a.QNorm != "" {
		y.qNorm, y.kNorm = l.norm(a.QNorm), l.norm(a.KNorm)
	}
	if a.Sinks != "" {
		y.sinks = l.vector(a.Sinks)
	}
	return y
}

func (a *attention) mix(p pass, out, h kernels.Tensor) error {
	step, c := &p.w.step, p.w.kv.layers[p.layer]
	qkv := p.tmp[0].RowRange(0, p.n)
	if err := a.project(p, qkv, h); err != nil {
		return err
	}
	q, k, v := qkv.Columns(0, a.endQ()), qkv.Columns(a.endQ(), a.endK()), qkv.Columns(a.endK(), a.endV())
	norms := func(here bool) error {
		if a.QNorm == "" || !here {
			return nil
		}
		return errors.Join(a.norm(p, q, a.qNorm, a.Heads), a.norm(p, k, a.kNorm, a.KVHeads))
	}
	if err := norms(!a.LateNorms); err != nil {
		return err
	}
	if a.Rope != NoRope {
		qk := qkv.Columns(0, a.endK()) // q and k lie side by side and turn alike
		pairs := kernels.Halves
		if p.w.m.spec.Ropes[a.Rope].Interleaved {
			pairs = kernels.Interleaved
		}
		if err := kernels.RoPE(p.s, qk, step.positions, p.w.m.ropes[a.Rope], a.Heads+a.KVHeads, pairs); err != nil {
			return err
		}
	}
	if err := norms(a.LateNorms); err != nil {
		return err
	}
	if err := kernels.StoreKV(p.s, c, k, v, step.slots); err != nil || p.cacheOnly {
		return err
	}
	result := out
	if a.Gated {
		result = p.tmp[2].Columns(a.gates(), 2*a.gates()).RowRange(0, p.n)
	}
	err := kernels.PagedAttention(p.s, result, q, c, step.attention, a.Heads,
		kernels.AttentionOptions{Scale: a.Scale, Window: a.Window, Softcap: a.Softcap, Sinks: a.sinks, Bidirectional: a.BothWays})
	if err != nil || !a.Gated {
		return err
	}
	return kernels.GatedMul(p.s, out, p.tmp[2].RowRange(0, p.n), kernels.Sigmoid)
}

// project computes queries, keys and values, side by side, and puts gates into their place.
func (a *attention) project(p pass, qkv, h kernels.Tensor) error {
	if !a.Gated {
		return p.project(qkv, h, &a.qkv)
	}
	all, gates := p.tmp[1].RowRange(0, p.n), p.tmp[2].RowRange(0, p.n).Columns(0, a.gates())
	if err := p.project(all, h, &a.qkv); err != nil {
		return err
	}
	heads, kv := all.Columns(0, 2*a.endQ()), all.Columns(2*a.endQ(), all.Cols) // a query and a gate of each head
	return errors.Join(kernels.PickGroups(p.s, qkv.Columns(0, a.endQ()), heads, a.Heads, 0),
		kernels.PickGroups(p.s, gates, heads, a.Heads, a.HeadDim),
		kernels.PickGroups(p.s, qkv.Columns(a.endQ(), a.endV()), kv, 1, 0))
}

// norm normalises queries or keys in place.
func (a *attention) norm(p pass, x, weight kernels.Tensor, heads int) error {
	if a.WholeNorms {
		return kernels.RMSNorm(p.s, x, x, weight, p.w.m.spec.NormEps)
	}
	return kernels.HeadRMSNorm(p.s, x, weight, heads, p.w.m.spec.NormEps)
}
