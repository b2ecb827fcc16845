package model

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"pagoda/checkpoint"
	"pagoda/quant"
)

// quantization reads how the configuration says that weights are quantized. Which ones are is seen by their tensors.
func (b *builder) quantization() {
	var q struct {
		Method string `json:"quant_method"`
		Format string `json:"format"`
		Tile   []int  `json:"weight_block_size"`
	}
	raw := b.c.QuantizationConfig
	if len(raw) == 0 || string(raw) == "null" {
		return
	}
	if err := json.Unmarshal(raw, &q); err != nil {
		b.bad("quantization_config: %w", err)
		return
	}
	switch {
	case q.Method == "compressed-tensors" && q.Format != "float-quantized":
		b.bad("quantization_config: format %q of compressed-tensors is not supported, only float-quantized", q.Format)
	case !slices.Contains([]string{"mxfp4", "fp8", "fbgemm_fp8", "compressed-tensors"}, q.Method):
		b.bad("quantization_config: quant_method %q is not supported; mxfp4, fp8, fbgemm_fp8 and compressed-tensors are", q.Method)
	}
	switch {
	case q.Tile == nil:
	case len(q.Tile) != 2:
		b.bad("quantization_config: weight_block_size has %d numbers, not 2", len(q.Tile))
	case min(q.Tile[0], q.Tile[1]) < 1 || max(q.Tile[0], q.Tile[1]) > 1<<20:
		b.bad("quantization_config: weight_block_size is %v, must be 1 to %d each", q.Tile, 1<<20)
	default:
		b.Tile = [2]int(q.Tile)
	}
}

// storedTensor is a tensor as a checkpoint has it: as it is, or quantized, of several tensors.
type storedTensor struct {
	checkpoint.Tensor              // shape and type are those after widening; Data only where it is not quantized
	names             []string     // of all tensors that hold it
	packed            quant.Packed // nil: not quantized
}

// Names of tensors of quantized weights follow those of the weights.
const (
	mxfp4Blocks, mxfp4Scales = "_blocks", "_scales"
	fp8Tiles, fp8Rows        = "_scale_inv", "_scale" // the former's tiles are the configuration's
)

// unusedScales are what names of tensors end with that hold scales of activations, which are not quantized here.
var unusedScales = []string{".input_scale", ".k_scale", ".v_scale"}

// find looks a tensor up; ok is false where the checkpoint has none, and problem says why it cannot be widened.
func (s *Spec) find(w *checkpoint.Weights, name string) (found storedTensor, ok bool, problem error) {
	t, ok := w.Tensor(name)
	switch {
	case !ok:
		return findMXFP4(w, name)
	case t.DType == "F8_E4M3":
		found, problem = s.findFP8(w, name, t)
		return found, true, problem
	}
	return storedTensor{Tensor: t, names: []string{name}}, true, nil
}

func findMXFP4(w *checkpoint.Weights, name string) (found storedTensor, ok bool, problem error) {
	found.names = []string{name + mxfp4Blocks, name + mxfp4Scales}
	blocks, ok := w.Tensor(found.names[0])
	if !ok {
		return found, false, nil
	}
	scales, ok := w.Tensor(found.names[1])
	last := len(blocks.Shape) - 1
	switch {
	case !ok:
		return found, true, fmt.Errorf("missing: %s", found.names[1])
	case blocks.DType != "U8" || scales.DType != "U8":
		return found, true, fmt.Errorf("dtype of %s: %s, and of its scales %s, want U8", found.names[0], blocks.DType, scales.DType)
	case last < 1 || blocks.Shape[last] != quant.MXFP4Block/2:
		return found, true, fmt.Errorf("shape of %s: %v, whose last dimension is not %d", found.names[0], blocks.Shape, quant.MXFP4Block/2)
	case !slices.Equal(blocks.Shape[:last], scales.Shape):
		return found, true, fmt.Errorf("shape of %s: %v, want %v", found.names[1], scales.Shape, blocks.Shape[:last])
	}
	cols := blocks.Shape[last-1] * quant.MXFP4Block
	found.DType, found.Shape = "BF16", append(slices.Clone(blocks.Shape[:last-1]), cols)
	found.packed = quant.MXFP4{Blocks: blocks.Data, Scales: scales.Data, Cols: cols}
	return found, true, nil
}

func (s *Spec) findFP8(w *checkpoint.Weights, name string, codes checkpoint.Tensor) (found storedTensor, problem error) {
	last := len(codes.Shape) - 1
	found.Tensor = checkpoint.Tensor{DType: "BF16", Shape: codes.Shape}
	if last < 1 {
		return found, fmt.Errorf("dtype of %s: F8_E4M3, which only matrices may have", name)
	}
	scaleName, tile := name+fp8Tiles, s.Tile
	scales, ok := w.Tensor(scaleName)
	if !ok {
		scaleName = name + fp8Rows
		if scales, ok = w.Tensor(scaleName); !ok {
			return found, fmt.Errorf("missing: %s, the scales of %s", name+fp8Tiles, name)
		}
	}
	found.names = []string{name, scaleName}
	f := quant.FP8{Codes: codes.Data, Rows: codes.Shape[last-1], Cols: codes.Shape[last]}
	lead := codes.Shape[:last-1] // the matrices
	elements := len(scales.Data) / max(scales.DType.Size(), 1)
	matrices := tensor{shape: lead}.elements()
	switch {
	case !floatTypes[scales.DType]:
		return found, fmt.Errorf("dtype of %s: %s, want F32, BF16 or F16", scaleName, scales.DType)
	case elements == matrices: // one for each matrix, in whatever shape
		f.TileRows, f.TileCols = f.Rows, f.Cols
	case elements == matrices*f.Rows && (len(scales.Shape) == 1 || scales.Shape[len(scales.Shape)-1] == 1): // for each row
		f.TileRows, f.TileCols = 1, f.Cols
	default:
		f.TileRows, f.TileCols = tile[0], tile[1]
		if tile == [2]int{} {
			return found, fmt.Errorf("%s: scales of tiles, but the quantization_config has no weight_block_size", scaleName)
		}
		if want := append(slices.Clone(lead), (f.Rows+tile[0]-1)/tile[0], (f.Cols+tile[1]-1)/tile[1]); !slices.Equal(scales.Shape, want) {
			return found, fmt.Errorf("shape of %s: %v, want %v", scaleName, scales.Shape, want)
		}
	}
	f.Scales = scales.Floats()
	found.packed = f
	return found, nil
}

// rows are some rows of all rows of the tensor's matrices.
func (t storedTensor) rows(first, last int) checkpoint.Tensor {
	row := t.Shape[len(t.Shape)-1] * t.DType.Size()
	out := checkpoint.Tensor{DType: t.DType, Shape: t.Shape}
	if t.packed == nil {
		out.Data = t.Data[first*row : last*row]
		return out
	}
	out.Data = make([]byte, (last-first)*row)
	share := (last - first + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	var all sync.WaitGroup
	for from := first; from < last; from += share {
		all.Go(func() {
			t.packed.Widen(out.Data[(from-first)*row:], from, min(from+share, last))
		})
	}
	all.Wait()
	return out
}

// isUnusedScale says whether a tensor is about rounding activations.
func isUnusedScale(name string) bool {
	return slices.ContainsFunc(unusedScales, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}
