package model

import (
	"cmp"
	"errors"
	"math"

	"pagoda/kernels"
)

// Latent is multi-head latent attention: keys and values of all heads are made from one short vector per token, the latent,
// and a key part, shared by all heads, that knows the position. It is computed in the absorbed form: what makes a head's keys
// from the latent is applied to its query instead, and what makes its values to the mean of the latents. So the cache holds
// one head, whose keys are latent and shared part and whose values are the latent.
//
// Source: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
type Latent struct {
	Heads     int
	QueryRank int // of the latent that queries are made from; 0: they are made from the hidden state
	Rank      int // of the latent
	KeyDim    int // elements of a head's query and key that do not know the position,
	RotaryDim int // and of those that do
	ValueDim  int
	Bias      bool // of the projections to latents and of the output
	Scale     float32
}

// latentEps is the epsilon of the norms of latents, whatever that of the other norms.
const latentEps = 1e-6

// latent reads the keys of DeepSeek V2 and V3, which has queryRank where the configuration does not say.
func (b *builder) latent(queryRank int) *Latent {
	c := b.c
	a := &Latent{Heads: c.NumAttentionHeads, QueryRank: or(c.QLoRARank, 0), Rank: cmp.Or(c.KVLoRARank, 512),
		KeyDim: cmp.Or(c.QKNoPEHeadDim, 128), RotaryDim: cmp.Or(c.QKRoPEHeadDim, 64), ValueDim: cmp.Or(c.VHeadDim, 128),
		Bias: b.attentionBias()}
	if !b.has("q_lora_rank") {
		a.QueryRank = queryRank
	}
	b.Ropes = []Rope{b.rope(a.RotaryDim, 10000)}
	b.Ropes[0].Interleaved = or(c.RopeInterleave, true)
	sharper := 1.0
	if p := cmp.Or(c.RopeParameters, c.RopeScaling); p.Kind() != "default" && p.MScaleAllDim != 0 {
		sharper = yarnScale(b.Ropes[0].Factor, p.MScaleAllDim)
	}
	a.Scale = float32(sharper * sharper / math.Sqrt(float64(a.headDim())))
	return a
}

func (a *Latent) check(b *builder) {
	b.between("num_attention_heads", a.Heads, 1<<10)
	if b.has("q_lora_rank") && b.c.QLoRARank != nil {
		b.between("q_lora_rank", a.QueryRank, 1<<17)
	}
	b.between("kv_lora_rank", a.Rank, 1<<10)
	b.between("qk_nope_head_dim", a.KeyDim, 1<<10)
	b.between("qk_rope_head_dim", a.RotaryDim, 1<<10)
	b.between("kv_lora_rank + qk_rope_head_dim", a.width(), 1<<10)
	b.between("v_head_dim", a.ValueDim, 1<<10)
	if !(a.Scale > 0 && a.Scale < 1e6) {
		b.bad("mscale_all_dim makes a scale of attention of %g, which is not between 0 and 1e6", a.Scale)
	}
}

// headDim is the size of a head's query as it is projected, width of the key in the cache that it meets.
func (a *Latent) headDim() int { return a.KeyDim + a.RotaryDim }
func (a *Latent) width() int   { return a.Rank + a.RotaryDim }

func (a *Latent) projections(s *Spec) []projection {
	list := []projection{{"self_attn.q_proj", a.Heads * a.headDim(), s.Hidden, false}}
	if a.QueryRank > 0 {
		list = []projection{{"self_attn.q_a_proj", a.QueryRank, s.Hidden, a.Bias},
			{"self_attn.q_b_proj", a.Heads * a.headDim(), a.QueryRank, false}}
	}
	return append(list, projection{"self_attn.kv_a_proj_with_mqa", a.width(), s.Hidden, a.Bias})
}

func (a *Latent) output(s *Spec) projection {
	return projection{"self_attn.o_proj", s.Hidden, a.Heads * a.ValueDim, a.Bias}
}

// latentUp makes the keys of each head, then its values, from the latent; then the next head's.
const latentUp = "self_attn.kv_b_proj.weight"

func (a *Latent) tensors(*Spec) []tensor {
	up := matrix(latentUp, a.Heads*(a.KeyDim+a.ValueDim), a.Rank)
	up.exact, up.turned = true, true
	for range a.Heads {
		up.packed = append(up.packed, [2]int{a.Rank, a.KeyDim}, [2]int{a.ValueDim, a.Rank})
	}
	list := []tensor{vector("self_attn.kv_a_layernorm.weight", a.Rank), up}
	if a.QueryRank > 0 {
		list = append(list, vector("self_attn.q_a_layernorm.weight", a.QueryRank))
	}
	return list
}

func (a *Latent) cache() cacheDims { return cacheDims{1, a.width(), a.Rank} }

// mixes is the type of what mix gives: products per head, which are not rounded.
func (a *Latent) mixes() kernels.DType { return kernels.F32 }

func (a *Latent) scratch(_ *Spec, act kernels.DType, tokens int) []plan {
	return []plan{{kernels.F32, tokens, a.width()}, {kernels.F32, tokens, a.Heads * a.headDim()},
		{kernels.F32, tokens, a.Heads * a.width()}, {kernels.F32, tokens, a.Heads * a.Rank},
		{kernels.F32, tokens, a.QueryRank}, {act, tokens, a.QueryRank}}
}

// latent is a Latent's weights.
type latent struct {
	*Latent
	qa, q, kv      linear // qa only with a QueryRank
	qNorm, kvNorm  kernels.Tensor
	toKey, toValue []*kernels.Matrix // of each head: [Rank, KeyDim], which takes its query to the latent's, and [ValueDim, Rank]
}

func (a *Latent) load(l *partLoader) mixer {
	y := &latent{Latent: a}
	if a.QueryRank > 0 {
		y.qa, y.qNorm = l.linear(1), l.norm("self_attn.q_a_layernorm")
	}
	y.q, y.kv, y.kvNorm = l.linear(1), l.linear(1), l.norm("self_attn.kv_a_layernorm")
	if l.err != nil {
		return y
	}
	name := l.prefix + latentUp
	t := l.tensor(name)
	size := t.DType.Size()
	row, rest := a.Rank*size, t.Data
	part := func(data []byte, rows int) kernels.MatrixPart {
		return kernels.MatrixPart{Data: data, DType: kernelDType(t.DType), Rows: rows}
	}
	for range a.Heads {
		keys, values := rest[:a.KeyDim*row], rest[a.KeyDim*row:(a.KeyDim+a.ValueDim)*row]
		rest = rest[(a.KeyDim+a.ValueDim)*row:]
		turned := turn(keys, a.KeyDim, a.Rank, size, func(row int) int { return row })
		y.toKey = append(y.toKey, l.pack(name, a.KeyDim, part(turned, a.Rank)))
		y.toValue = append(y.toValue, l.pack(name, a.Rank, part(values, a.ValueDim)))
	}
	l.src.release(name)
	return y
}

func (a *latent) mix(p pass, out, h kernels.Tensor) error {
	step, c, table := &p.w.step, p.w.kv.layers[p.layer], p.w.m.ropes[0]
	kv, q := p.tmp[0].RowRange(0, p.n), p.tmp[1].RowRange(0, p.n)
	absorbed, mean := p.tmp[2].RowRange(0, p.n), p.tmp[3].RowRange(0, p.n)
	pairs := kernels.Halves
	if p.w.m.spec.Ropes[0].Interleaved {
		pairs = kernels.Interleaved
	}
	if err := p.project(kv, h, &a.kv); err != nil {
		return err
	}
	value, shared := kv.Columns(0, a.Rank), kv.Columns(a.Rank, a.width())
	if err := errors.Join(kernels.RMSNorm(p.s, value, value, a.kvNorm, latentEps),
		kernels.RoPE(p.s, shared, step.positions, table, 1, pairs),
		kernels.StoreKV(p.s, c, kv, value, step.slots)); err != nil || p.cacheOnly {
		return err
	}
	if err := a.queries(p, q, h); err != nil {
		return err
	}
	for i := range a.Heads {
		from, to := i*a.headDim(), i*a.width()
		turned := absorbed.Columns(to+a.Rank, to+a.width())
		if err := errors.Join(kernels.MatMul(p.s, absorbed.Columns(to, to+a.Rank), q.Columns(from, from+a.KeyDim), a.toKey[i]),
			kernels.PickGroups(p.s, turned, q.Columns(from, from+a.headDim()), 1, a.KeyDim),
			kernels.RoPE(p.s, turned, step.positions, table, 1, pairs)); err != nil {
			return err
		}
	}
	if err := kernels.PagedAttention(p.s, mean, absorbed, c, step.attention, a.Heads, kernels.AttentionOptions{Scale: a.Scale}); err != nil {
		return err
	}
	for i := range a.Heads {
		if err := kernels.MatMul(p.s, out.Columns(i*a.ValueDim, (i+1)*a.ValueDim), mean.Columns(i*a.Rank, (i+1)*a.Rank),
			a.toValue[i]); err != nil {
			return err
		}
	}
	return nil
}

// queries projects q, F32 [p.n, Heads*headDim], from h.
func (a *latent) queries(p pass, q, h kernels.Tensor) error {
	if a.QueryRank == 0 {
		return p.project(q, h, &a.q)
	}
	low, normed := p.tmp[4].RowRange(0, p.n), p.tmp[5].RowRange(0, p.n)
	if err := p.project(low, h, &a.qa); err != nil {
		return err
	}
	if err := kernels.RMSNorm(p.s, normed, low, a.qNorm, latentEps); err != nil {
		return err
	}
	return p.project(q, normed, &a.q)
}
