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
	Layers        []LayerSpec
	Ropes         []Rope // rotary tables, which layers name by their place here

	NormEps    float32
	NormOffset float32 // is added to the weights of norms when they are loaded
	TiedHead   bool    // the embedding is also the output matrix

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

// names are a checkpoint's weight names outside the layers, without ".weight".
type names struct {
	embed, finalNorm, head string
	layer                  string // what a layer's names begin with; holds the place of its number
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
	b := &builder{Spec: &Spec{Arch: name}, c: c}
	describe(b)
	b.check()
	if len(b.problems) > 0 {
		return nil, fmt.Errorf("config.json: %s: %w", name, errors.Join(b.problems...))
	}
	return b.Spec, nil
}

// builder is a spec in the making.
type builder struct {
	*Spec
	c        *checkpoint.Config
	problems []error
}

// bad adds a problem, once.
func (b *builder) bad(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if !slices.ContainsFunc(b.problems, func(p error) bool { return p.Error() == err.Error() }) {
		b.problems = append(b.problems, err)
	}
}

// begin reads the keys that mean the same in all architectures.
func (b *builder) begin() {
	c := b.c
	b.Stored = DType(cmp.Or(c.TorchDType, c.DType, string(Auto)))
	b.Vocab, b.Hidden, b.MaxLen = c.VocabSize, c.HiddenSize, c.MaxPositionEmbeddings
	b.LongestLen = b.MaxLen
	b.NormEps, b.TiedHead = float32(c.RMSNormEps), or(c.TieWordEmbeddings, false)
	b.names = names{embed: "model.embed_tokens", finalNorm: "model.norm", head: "lm_head", layer: "model.layers.%d."}
	if q := string(c.QuantizationConfig); q != "" && q != "null" {
		b.bad("quantization_config: quantized weights are not supported")
	}
}

// layers gives the model as many layers as its configuration says.
func (b *builder) layers(layer func(i int) LayerSpec) {
	n := b.c.NumHiddenLayers
	if !b.between("num_hidden_layers", n, 1<<10) {
		return
	}
	for i := range n {
		b.Layers = append(b.Layers, layer(i))
	}
}

// between reports a size that is not 1 to most, so that no product of sizes overflows.
func (b *builder) between(key string, value, most int) bool {
	if value < 1 || value > most {
		b.bad("%s is %d, must be 1 to %d", key, value, most)
		return false
	}
	return true
}

func (b *builder) check() {
	b.between("vocab_size", b.Vocab, 1<<24)
	b.between("hidden_size", b.Hidden, 1<<17)
	b.between("max_position_embeddings", b.MaxLen, maxLen)
	if !(b.NormEps > 0 && b.NormEps < 1) {
		b.bad("rms_norm_eps %g is not between 0 and 1", b.NormEps)
	}
	for _, l := range b.Layers {
		l.Mixer.check(b)
		l.FF.check(b)
	}
}

// WeightBytes is the memory that a Model with these options takes, to be known before it is loaded.
func (s *Spec) WeightBytes(o Options) (bytes int64) {
	for _, t := range s.tensors() {
		switch {
		case !t.matrix:
			bytes += int64(t.elements()) * int64(kernels.F32.Size())
		case !o.Mapped:
			dt := cmp.Or(o.quantized(s.embedOrHead(t.name)), s.storedAs(s.resolve(o.DType)))
			rows, cols := t.shape[len(t.shape)-2], t.shape[len(t.shape)-1]
			bytes += int64(t.elements()/(rows*cols)) * kernels.MatrixBytes(dt, rows, cols)
		}
	}
	for _, r := range s.Ropes {
		bytes += int64(cmp.Or(o.MaxLen, s.MaxLen)) * int64(r.Dim) * int64(kernels.F32.Size())
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

// or is what p points to, or what stands for it where the configuration does not say.
func or[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

// inverseRoot is the usual scale of attention: what the products of queries and keys of this size are multiplied by.
func inverseRoot(headDim int) float32 { return float32(1 / math.Sqrt(float64(headDim))) }
