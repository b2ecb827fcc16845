package model

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/go-json-experiment/json"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// LoadDummy makes a model of the spec's shape with random weights: the same seed gives the same weights. It measures
// speed and memory without a checkpoint.
func LoadDummy(dev *kernels.Device, spec *Spec, seed uint64, o Options) (*Model, error) {
	return load(dev, spec, newDummySource(spec, seed), o)
}

// WriteDummy writes the weights that LoadDummy makes with this seed as a safetensors file.
func WriteDummy(w io.Writer, spec *Spec, seed uint64) error {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	header, at := map[string]entry{}, int64(0)
	for _, t := range spec.tensors() {
		end := at + int64(2*t.elements())
		header[t.name] = entry{"BF16", t.shape, [2]int64{at, end}}
		at = end
	}
	text, err := json.Marshal(header, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("write dummy weights: %w", err)
	}
	text = append(text, bytes.Repeat([]byte{' '}, -len(text)&7)...)
	out := bufio.NewWriter(w) // whose first error stays
	out.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(text))))
	out.Write(text)
	src := newDummySource(spec, seed)
	for _, t := range spec.tensors() {
		out.Write(src.tensor(t.name, t.shape).Data)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write dummy weights: %w", err)
	}
	return nil
}

// dummySource draws each tensor from the seed and its name.
type dummySource struct {
	seed  uint64
	norm  float32           // the weights of norms: they change nothing
	stack checkpoint.Tensor // of which parts are taken
}

func newDummySource(s *Spec, seed uint64) *dummySource {
	return &dummySource{seed: seed, norm: 1 - s.NormOffset}
}

func (s *dummySource) release(string) { s.stack = checkpoint.Tensor{} }

func (s *dummySource) part(name string, shape []int, i int) checkpoint.Tensor {
	if s.stack.Data == nil {
		s.stack = s.tensor(name, shape)
	}
	size := len(s.stack.Data) / shape[0]
	return checkpoint.Tensor{DType: s.stack.DType, Shape: shape[1:], Data: s.stack.Data[i*size:][:size]}
}

func (s *dummySource) tensor(name string, shape []int) checkpoint.Tensor {
	t := checkpoint.Tensor{DType: "BF16", Shape: shape}
	if len(shape) == 1 && !strings.HasSuffix(name, ".bias") { // a norm
		for range shape[0] {
			t.Data = binary.LittleEndian.AppendUint16(t.Data, uint16(math.Float32bits(s.norm)>>16))
		}
		return t
	}
	hash := fnv.New64a()
	hash.Write([]byte(name))
	random := rand.New(rand.NewPCG(s.seed, hash.Sum64()))
	// 4096 normal values with the variance that keeps a product's size, then drawn from at random: much faster than
	// as many normal draws.
	var values [4096]uint16
	for i := range values {
		v := random.NormFloat64() / math.Sqrt(float64(shape[len(shape)-1]))
		values[i] = uint16(math.Float32bits(float32(v)) >> 16)
	}
	n := tensor{shape: shape}.elements()
	t.Data = make([]byte, 0, 2*n+8)
	for len(t.Data) < 2*n {
		for bits, k := random.Uint64(), 0; k < 4; k++ {
			t.Data = binary.LittleEndian.AppendUint16(t.Data, values[bits&4095])
			bits >>= 12
		}
	}
	t.Data = t.Data[:2*n]
	return t
}
