package model

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// Spec describes a decoder: its sizes, and which of the known variations it has.
type Spec struct {
	Arch   string
	Stored DType // the dtype that the checkpoint says it was saved in; Auto if it does not say

	Vocab, Hidden, Inter, Layers int
	Heads, KVHeads, HeadDim      int
	MaxLen                       int // tokens of a sequence, prompt and answer

	NormEps   float32
	HeadNorms bool // q and k are normalised head by head before RoPE
	TiedHead  bool // the embedding is also the output matrix
	Rope      Rope

	QKVBias, OBias, MLPBias bool // vectors are added to what these projections give

	names *names
}

// NewSpec reads a spec from config.json. All that is wrong or not supported is reported at once.
func NewSpec(c *checkpoint.Config) (*Spec, error) {
	if len(c.Architectures) != 1 {
		return nil, fmt.Errorf("config.json: %d architectures named, want one", len(c.Architectures))
	}
	complete, ok := architectures[c.Architectures[0]]
	if !ok {
		return nil, unsupported(c.Architectures[0])
	}
	s := &Spec{
		Arch: c.Architectures[0], Stored: DType(cmp.Or(c.TorchDType, c.DType, string(Auto))),
		Vocab: c.VocabSize, Hidden: c.HiddenSize, Inter: c.IntermediateSize, Layers: c.NumHiddenLayers,
		Heads: c.NumAttentionHeads, KVHeads: cmp.Or(c.NumKeyValueHeads, c.NumAttentionHeads), HeadDim: c.HeadDim,
		MaxLen: c.MaxPositionEmbeddings, NormEps: float32(c.RMSNormEps), TiedHead: c.TieWordEmbeddings,
	}
	var problems []error
	s.Rope, problems = newRope(c)
	problems = append(problems, unsupportedKeys(c)...)
	problems = append(problems, complete(s, c)...)
	problems = append(problems, s.check()...)
	if len(problems) > 0 {
		return nil, fmt.Errorf("config.json: %s: %w", s.Arch, errors.Join(problems...))
	}
	return s, nil
}

// unsupportedKeys are the variations that no architecture has yet.
func unsupportedKeys(c *checkpoint.Config) (problems []error) {
	if c.HiddenAct != "silu" {
		problems = append(problems, fmt.Errorf("hidden_act %q is not supported, only silu", c.HiddenAct))
	}
	if q := string(c.QuantizationConfig); q != "" && q != "null" {
		problems = append(problems, errors.New("quantization_config: quantized weights are not supported"))
	}
	return problems
}

// check bounds every size, so that no product below overflows.
func (s *Spec) check() (problems []error) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, size := range []struct {
		key        string
		value, max int
	}{
		{"vocab_size", s.Vocab, 1 << 24}, {"hidden_size", s.Hidden, 1 << 17}, {"intermediate_size", s.Inter, 1 << 19},
		{"num_hidden_layers", s.Layers, 1 << 10}, {"num_attention_heads", s.Heads, 1 << 10},
		{"num_key_value_heads", s.KVHeads, 1 << 10}, {"head_dim", s.HeadDim, 1 << 10},
		{"max_position_embeddings", s.MaxLen, 1 << 24},
	} {
		if size.value < 1 || size.value > size.max {
			bad("%s is %d, must be 1 to %d", size.key, size.value, size.max)
		}
	}
	if s.KVHeads > 0 && s.Heads%s.KVHeads != 0 {
		bad("num_attention_heads %d is no multiple of num_key_value_heads %d", s.Heads, s.KVHeads)
	}
	if s.HeadDim%2 != 0 {
		bad("head_dim %d is odd", s.HeadDim)
	}
	if !(s.NormEps > 0 && s.NormEps < 1) {
		bad("rms_norm_eps %g is not between 0 and 1", s.NormEps)
	}
	return problems
}

// WeightBytes is the memory that a Model with these options takes, to be known before it is loaded.
func (s *Spec) WeightBytes(o Options) (bytes int64) {
	for _, t := range s.tensors() {
		if len(t.shape) != 2 {
			bytes += int64(t.shape[0]) * int64(kernels.F32.Size())
			continue
		}
		if o.Mapped {
			continue
		}
		name := strings.TrimSuffix(t.name, ".weight")
		dt := cmp.Or(o.quantized(name == s.names.embed || name == s.names.head), s.storedAs(s.resolve(o.DType)))
		bytes += kernels.MatrixBytes(dt, t.shape[0], t.shape[1])
	}
	return bytes + int64(cmp.Or(o.MaxLen, s.MaxLen))*int64(s.HeadDim)*int64(kernels.F32.Size())
}

// KVBytesPerBlock is the memory of one KV block over all layers.
func (s *Spec) KVBytesPerBlock(o Options, blockSize int) int64 {
	return int64(s.Layers) * kernels.KVCacheBytes(o.kvDType(), 1, blockSize, s.KVHeads, s.HeadDim)
}

// attentionScale multiplies the products of queries and keys.
func (s *Spec) attentionScale() float32 { return float32(1 / math.Sqrt(float64(s.HeadDim))) }
