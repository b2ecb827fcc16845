package model

import (
	"fmt"
	"math"
	"slices"

	"pagoda/kernels"
)

// DType chooses what a model is computed in; see the package comment.
type DType string

// The dtypes. Auto is the checkpoint's own.
const (
	Auto     DType = "auto"
	Float32  DType = "float32"
	BFloat16 DType = "bfloat16"
	Float16  DType = "float16"
)

// The dtypes that only a KV cache has; see kernels.KVCache.
const (
	FP8  DType = "fp8" // also called fp8_e4m3
	Int8 DType = "int8"
)

// ParseDType reads an option's value; "" is Auto.
func ParseDType(name string) (DType, error) {
	if name == "" {
		return Auto, nil
	}
	if d := DType(name); slices.Contains([]DType{Auto, Float32, BFloat16, Float16}, d) {
		return d, nil
	}
	return "", fmt.Errorf("dtype %q is none of auto, float32, bfloat16, float16", name)
}

// resolve turns Auto into the checkpoint's dtype; one that we do not compute in, or that is not given, into float32.
func (s *Spec) resolve(d DType) DType {
	if d == "" || d == Auto {
		d = s.Stored
	}
	switch d {
	case BFloat16, Float16:
		return d
	}
	return Float32
}

// storedAs is the type that a model's matrices have in memory, if its checkpoint is stored as it says.
func (s *Spec) storedAs(compute DType) kernels.DType {
	if compute == Float32 {
		compute = s.Stored
	}
	switch compute {
	case BFloat16:
		return kernels.BF16
	case Float16:
		return kernels.F16
	}
	return kernels.F32
}

// quantized is the type that Bits makes of a matrix, 0 for none. The embedding and the output matrix keep 8 bits: the last
// product goes into every log probability.
func (o Options) quantized(s *Spec, t tensor) kernels.DType {
	switch {
	case t.exact:
		return 0
	case o.Bits == 4 && !s.embedOrHead(t.name):
		return kernels.W4
	case o.Bits != 0:
		return kernels.W8
	}
	return 0
}

// kvDTypes are the types of a KV cache by name. Auto is float32: with bfloat16 keys and values the log probabilities of
// the built-in model are off by up to 0.07, twice as far as everything else that bfloat16 rounds.
var kvDTypes = map[DType]kernels.DType{
	"": kernels.F32, Auto: kernels.F32, Float32: kernels.F32, BFloat16: kernels.BF16,
	FP8: kernels.FP8, "fp8_e4m3": kernels.FP8, Int8: kernels.I8,
}

func (o Options) kvDType() kernels.DType { return kvDTypes[o.KVDType] } // checked before

// activations is the type of the inputs of matrix products.
func (d DType) activations() kernels.DType {
	if d == BFloat16 {
		return kernels.BF16
	}
	return kernels.F32
}

// round is the number of the dtype that is nearest to v, a normal one.
func (d DType) round(v float32) float32 {
	dropped := map[DType]uint32{BFloat16: 16, Float16: 13}[d] // bits of float32's fraction
	if dropped == 0 {
		return v
	}
	bits := math.Float32bits(v)
	bits += 1<<(dropped-1) - 1 + bits>>dropped&1 // ties to even
	return math.Float32frombits(bits >> dropped << dropped)
}
