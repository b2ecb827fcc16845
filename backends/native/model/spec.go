package model

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// Spec describes a decoder: its sizes, its layers one by one, and the numbers that scale what flows through them.
type Spec struct {
	Arch   string
	Stored DType // the dtype that the checkpoint says it was saved in; Auto if it does not say

	Vocab, Hidden int
	MaxLen        int // tokens of a sequence, prompt and answer, where Options do not say
	LongestLen    int // the most that Options may say: MaxLen, or more with dynamic rope scaling
	SwitchLen     int // longer sequences have other rotary tables, from their first token on; 0: none has
	Layers        []LayerSpec
	Ropes         []Rope // rotary tables, which layers name by their place here

	NormEps    float32
	NormOffset float32 // is added to the weights of norms when they are loaded
	TiedHead   bool    // the embedding is also the output matrix
	Tile       [2]int  // rows and columns of FP8 weights that share a scale, where there are tiles

	// Scales: 0 is 1, there is nothing to multiply.
	EmbedScale        float64 // of what the embedding gives
	EmbedScaleRounded bool    // it is rounded to the dtype that the model is computed in
	ResidualScale     float32 // of what is added to the residual stream
	LogitScale        float32
	LogitSoftcap      float32 // logits become cap·tanh(logit/cap); 0: they stay

	names names
}

// LayerSpec describes a layer. Norms go by the name of their weight in the layer, "" for none:
//
//	x += MixerNorm(Mixer(InputNorm(x)))
//	x += FFOutNorm(FF(FFNorm(x)))
//
// Layers that are alike may share a Mixer or an FF.
type LayerSpec struct {
	InputNorm, MixerNorm string
	FFNorm, FFOutNorm    string
	Mixer                Mixer
	FF                   FeedForward
}

// NewSpec reads a spec from config.json. All that is wrong or not supported is reported at once.
func NewSpec(c *checkpoint.Config) (*Spec, error) {
	if len(c.Architectures) != 1 {
		return nil, fmt.Errorf("config.json: %d architectures named, want one", len(c.Architectures))
	}
	name := c.Architectures[0]
	describe, ok := architectures[name]
	if !ok {
		return nil, unsupported(name)
	}
	config := *c // families put in what is usual
	b := &builder{Spec: &Spec{Arch: name, names: names{layouts: []layout{{"model.", "lm_head"}, {"", "lm_head"}}}}, c: &config}
	describe(b)
	b.check()
	if len(b.problems) > 0 {
		return nil, fmt.Errorf("config.json: %s: %w", name, errors.Join(b.problems...))
	}
	return b.Spec, nil
}

// OutputRow returns what a token's logit is the product of with the last hidden state, Hidden numbers, from a checkpoint.
func (s *Spec) OutputRow(w *checkpoint.Weights, id int) ([]float32, error) {
	name := s.names.head()
	if s.TiedHead {
		name = s.names.embed()
	}
	name = s.names.in(w)(name)
	t, ok := w.Tensor(name)
	switch {
	case s.LogitSoftcap != 0:
		return nil, fmt.Errorf("%s caps its logits (final_logit_softcapping): one is no product", s.Arch)
	case !ok:
		return nil, fmt.Errorf("missing: %s", name)
	case !slices.Equal(t.Shape, []int{s.Vocab, s.Hidden}) || !floatTypes[t.DType]:
		return nil, fmt.Errorf("%s is %s %v, want F32, BF16 or F16 %v", name, t.DType, t.Shape, []int{s.Vocab, s.Hidden})
	}
	size := s.Hidden * t.DType.Size()
	t.Data = t.Data[id*size:][:size]
	row := t.Floats()
	for i := range row {
		row[i] *= cmp.Or(s.LogitScale, 1)
	}
	return row, nil
}

// WithoutHead makes the model one for hidden states: its output matrix is not loaded, and a checkpoint need not have it. more
// are what the names of tensors begin with that the checkpoint may have beside the decoder.
func (s *Spec) WithoutHead(more ...string) {
	s.TiedHead = true
	s.names.unused = append(slices.Clip(s.names.unused), more...)
}

// BothWays lets tokens see those after them too, as embedders do that were made of decoders. Steps must then have whole sequences.
// Windows reach as far to either side as they say, or with halve half of that.
func (s *Spec) BothWays(halve bool) error {
	done := map[*Attention]bool{}
	for i, l := range s.Layers {
		a, ok := l.Mixer.(*Attention)
		if !ok {
			return fmt.Errorf("layer %d cannot look both ways: only softmax attention can", i)
		}
		if done[a] {
			continue
		}
		done[a], a.BothWays = true, true
		if a.Window > 0 && halve {
			a.Window /= 2
		}
		if a.Window > 0 {
			a.Window++ // the token itself
		}
	}
	return nil
}

// WeightBytes is the memory that a Model with these options takes, to be known before it is loaded.
func (s *Spec) WeightBytes(o Options) (bytes int64) {
	s = s.grown(o.Grow)
	for _, t := range s.tensors() {
		switch {
		case !t.matrix:
			bytes += int64(t.elements()) * int64(kernels.F32.Size())
		case !o.Mapped:
			dt := cmp.Or(o.quantized(s, t), s.storedAs(s.resolve(o.DType)))
			if t.packed != nil {
				for _, m := range t.packed {
					bytes += kernels.MatrixBytes(dt, m[0], m[1])
				}
				continue
			}
			rows, cols := t.shape[len(t.shape)-2], t.shape[len(t.shape)-1]
			if t.turned {
				rows, cols = cols, rows
			}
			bytes += int64(t.elements()/(rows*cols)) * kernels.MatrixBytes(dt, rows, cols)
		}
	}
	for _, r := range s.Ropes {
		bytes += int64(s.ropeRows(cmp.Or(o.MaxLen, s.MaxLen))) * int64(r.Dim) * int64(kernels.F32.Size())
	}
	return bytes
}

// KVBytesPerBlock is the memory of one KV block over all layers.
func (s *Spec) KVBytesPerBlock(o Options, blockSize int) (bytes int64) {
	for _, l := range s.Layers {
		if d := l.Mixer.cache(); d.heads > 0 {
			bytes += kernels.KVCacheBytes(o.kvDType(), 1, blockSize, d.heads, d.keyDim, d.valueDim)
		}
	}
	return bytes
}

// StateBytes is the memory of what layers keep of a sequence beside keys and values; 0: they keep nothing. It is a function
// of all tokens so far: what was computed cannot be taken back, nor can a sequence begin with another's.
func (s *Spec) StateBytes() (bytes int64) {
	for _, l := range s.Layers {
		for _, elements := range l.states() {
			bytes += int64(elements * kernels.F32.Size())
		}
	}
	return bytes
}

// inverseRoot is the usual scale of attention: what the products of queries and keys of this size are multiplied by.
func inverseRoot(headDim int) float32 { return float32(1 / math.Sqrt(float64(headDim))) }
