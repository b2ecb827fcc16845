//go:build cgo

package kernels

/*
#cgo CFLAGS: -O3 -Wall -Wno-psabi -std=gnu11
#cgo LDFLAGS: -lm -lpthread
#cgo noescape kn_pack
#cgo nocallback kn_pack
#cgo noescape kn_embed
#cgo nocallback kn_embed
#cgo noescape kn_rmsnorm
#cgo nocallback kn_rmsnorm
#cgo noescape kn_add_rmsnorm
#cgo nocallback kn_add_rmsnorm
#cgo noescape kn_head_rmsnorm
#cgo nocallback kn_head_rmsnorm
#cgo noescape kn_rope
#cgo nocallback kn_rope
#cgo noescape kn_matmul
#cgo nocallback kn_matmul
#cgo noescape kn_layernorm
#cgo nocallback kn_layernorm
#cgo noescape kn_gated_mul
#cgo nocallback kn_gated_mul
#cgo noescape kn_activate
#cgo nocallback kn_activate
#cgo noescape kn_add
#cgo nocallback kn_add
#cgo noescape kn_gather
#cgo nocallback kn_gather
#cgo noescape kn_store_kv
#cgo nocallback kn_store_kv
#cgo noescape kn_attention
#cgo nocallback kn_attention
#cgo noescape kn_causal_conv
#cgo nocallback kn_causal_conv
#cgo noescape kn_pick_groups
#cgo nocallback kn_pick_groups
#cgo noescape kn_gated_delta
#cgo nocallback kn_gated_delta
#cgo noescape kn_gated_rmsnorm
#cgo nocallback kn_gated_rmsnorm
#cgo noescape kn_lora
#cgo nocallback kn_lora
#cgo noescape kn_matmul_groups
#cgo nocallback kn_matmul_groups
#cgo noescape kn_combine
#cgo nocallback kn_combine
#cgo noescape kn_block_sums
#cgo nocallback kn_block_sums
#include "kn.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"unsafe"
)

const buildHint = ""

// variantNames by the numbers of kn.h.
var variantNames = [C.KN_VARIANTS]string{
	C.KN_PORTABLE: "portable", C.KN_AVX2: "avx2", C.KN_AVX2VNNI: "avx2vnni", C.KN_AVX512: "avx512",
	C.KN_AVX512VNNI: "avx512vnni", C.KN_AVX512BF16: "avx512bf16", C.KN_NEON: "neon",
}

func cVariants() (names []string) {
	var bestFirst [C.KN_VARIANTS]C.int
	n := C.kn_variants(&bestFirst[0])
	for _, v := range bestFirst[:n] {
		names = append(names, variantNames[v])
	}
	return names
}

var errNoMemory = errors.New("out of memory")

func result(code C.int) error {
	if code != C.KN_OK {
		return errNoMemory
	}
	return nil
}

// cBackend runs the ops in C. The device it belongs to orders the calls.
type cBackend struct{ dev *C.kn_dev }

func openC(variant string, threads int) (backend, error) {
	for v, name := range variantNames {
		if name != variant {
			continue
		}
		dev := C.kn_open(C.int(v), C.int(threads))
		if dev == nil {
			return nil, fmt.Errorf("cannot start %d threads", threads)
		}
		return &cBackend{dev}, nil
	}
	return nil, fmt.Errorf("no variant %q", variant)
}

func (c *cBackend) close() {
	C.kn_close(c.dev)
	c.dev = nil
}

func cTensor(t Tensor) C.kn_tensor {
	return C.kn_tensor{
		p: t.ptr(), stride: C.int64_t(t.Stride), rows: C.int32_t(t.Rows), cols: C.int32_t(t.Cols), dt: C.int32_t(t.DType),
	}
}

func cMatrix(m *Matrix) C.kn_matrix {
	c := C.kn_matrix{p: m.ptr(), n: C.int64_t(m.n), k: C.int64_t(m.k), dt: C.int32_t(m.dt), group: C.int32_t(m.group)}
	if m.parts != nil {
		c.p, c.parts = nil, (*C.kn_part)(c.p)
	}
	return c
}

func cCache(c KVCache) C.kn_cache {
	return C.kn_cache{
		k: c.K.ptr(), v: c.V.ptr(),
		k_scales: (*C.float)(c.KScales.ptr()), v_scales: (*C.float)(c.VScales.ptr()),
		dt: C.int32_t(c.K.DType), block_size: C.int32_t(c.BlockSize),
		kv_heads: C.int32_t(c.NumKVHeads), head_dim: C.int32_t(c.HeadDim), value_dim: C.int32_t(c.ValueDim),
	}
}

func (c *cBackend) pack(m *Matrix, firstRow int, p MatrixPart) error {
	return result(C.kn_pack(c.dev, cMatrix(m), C.int64_t(firstRow), unsafe.Pointer(unsafe.SliceData(p.Data)),
		C.int(p.DType), C.int64_t(p.Rows)))
}

func (c *cBackend) embed(out Tensor, m *Matrix, ids Tensor) error {
	return result(C.kn_embed(c.dev, cTensor(out), cMatrix(m), cTensor(ids)))
}

func (c *cBackend) rmsNorm(out, x, w Tensor, eps float32) error {
	return result(C.kn_rmsnorm(c.dev, cTensor(out), cTensor(x), cTensor(w), C.float(eps)))
}

func (c *cBackend) addRMSNorm(out, x, y, w Tensor, eps float32) error {
	return result(C.kn_add_rmsnorm(c.dev, cTensor(out), cTensor(x), cTensor(y), cTensor(w), C.float(eps)))
}

func (c *cBackend) headRMSNorm(x, w Tensor, numHeads int, eps float32) error {
	return result(C.kn_head_rmsnorm(c.dev, cTensor(x), cTensor(w), C.int(numHeads), C.float(eps)))
}

func (c *cBackend) layerNorm(out, x, w, b Tensor, eps float32) error {
	return result(C.kn_layernorm(c.dev, cTensor(out), cTensor(x), cTensor(w), cTensor(b), C.float(eps)))
}

func (c *cBackend) rope(x, positions, table Tensor, numHeads int, pairs Pairs) error {
	return result(C.kn_rope(c.dev, cTensor(x), cTensor(positions), cTensor(table), C.int(numHeads), C.int(pairs)))
}

func (c *cBackend) matMul(out, x Tensor, m *Matrix) error {
	return result(C.kn_matmul(c.dev, cTensor(out), cTensor(x), cMatrix(m)))
}

func (c *cBackend) gatedMul(out, gateUp Tensor, act Activation) error {
	return result(C.kn_gated_mul(c.dev, cTensor(out), cTensor(gateUp), C.int(act)))
}

func (c *cBackend) activate(x Tensor, act Activation, limit float32) error {
	return result(C.kn_activate(c.dev, cTensor(x), C.int(act), C.float(limit)))
}

func (c *cBackend) add(x, y Tensor) error { return result(C.kn_add(c.dev, cTensor(x), cTensor(y))) }

func (c *cBackend) gather(out, x, rows Tensor) error {
	return result(C.kn_gather(c.dev, cTensor(out), cTensor(x), cTensor(rows)))
}

func (c *cBackend) storeKV(cache KVCache, k, v, slots Tensor) error {
	return result(C.kn_store_kv(c.dev, cCache(cache), cTensor(k), cTensor(v), cTensor(slots)))
}

func (c *cBackend) pagedAttention(
	out, q Tensor, cache KVCache, b AttentionBatch, numHeads int, o AttentionOptions,
) error {
	batch := C.kn_batch{
		starts: (*C.int32_t)(b.QueryStarts.ptr()), lens: (*C.int32_t)(b.SeqLens.ptr()),
		blocks: (*C.int32_t)(b.BlockTables.ptr()), blocks_stride: C.int64_t(b.BlockTables.Stride),
		seqs: C.int32_t(b.NumSeqs),
	}
	how := C.kn_attend{scale: C.float(o.Scale), softcap: C.float(o.Softcap), window: C.int32_t(min(o.Window, math.MaxInt32))}
	if o.Bidirectional {
		how.bidirectional = 1
	}
	if o.Sinks.Rows > 0 {
		how.sinks = (*C.float)(o.Sinks.ptr())
	}
	if n := o.Bias.Cols; o.Bias.Rows > 0 {
		how.bias, how.bias_stride = (*C.float)(unsafe.Add(o.Bias.ptr(), n/2*F32.Size())), C.int64_t(o.Bias.Stride)
	}
	return result(C.kn_attention(c.dev, cTensor(out), cTensor(q), cCache(cache), batch, C.int(numHeads), how))
}

func cStates(b StateBatch) C.kn_states {
	return C.kn_states{
		starts: (*C.int32_t)(b.QueryStarts.ptr()), lens: (*C.int32_t)(b.SeqLens.ptr()), rows: (*C.int32_t)(b.Rows.ptr()),
		seqs: C.int32_t(b.NumSeqs),
	}
}

func (c *cBackend) causalConv(x, w, states Tensor, b StateBatch) error {
	return result(C.kn_causal_conv(c.dev, cTensor(x), cTensor(w), cTensor(states), cStates(b)))
}

func (c *cBackend) pickGroups(out, x Tensor, groups, from int) error {
	return result(C.kn_pick_groups(c.dev, cTensor(out), cTensor(x), C.int(groups), C.int(from)))
}

func (c *cBackend) gatedDelta(out, qkv, a, b, states Tensor, r DeltaRule, batch StateBatch) error {
	rule := C.kn_delta_rule{
		decay: (*C.float)(r.Decay.ptr()), bias: (*C.float)(r.Bias.ptr()),
		key_heads: C.int32_t(r.KeyHeads), value_heads: C.int32_t(r.ValueHeads),
		key_dim: C.int32_t(r.KeyDim), value_dim: C.int32_t(r.ValueDim),
	}
	return result(C.kn_gated_delta(c.dev, cTensor(out), cTensor(qkv), cTensor(a), cTensor(b), cTensor(states), rule,
		cStates(batch)))
}

func (c *cBackend) gatedRMSNorm(out, x, z, w Tensor, numHeads int, eps float32) error {
	return result(C.kn_gated_rmsnorm(c.dev, cTensor(out), cTensor(x), cTensor(z), cTensor(w), C.int(numHeads), C.float(eps)))
}

func (c *cBackend) lora(out, x Tensor, runs []LoRARun) error {
	p := C.kn_lora_runs(c.dev, C.int64_t(len(runs)))
	if p == nil {
		return errNoMemory
	}
	to := unsafe.Slice(p, len(runs))
	for i, r := range runs {
		to[i] = C.kn_run_lora{
			start: C.int64_t(r.Start), len: C.int64_t(r.Len), a: cMatrix(r.A), b: cMatrix(r.B), scale: C.float(r.Scale),
		}
	}
	return result(C.kn_lora(c.dev, cTensor(out), cTensor(x), C.int64_t(len(runs))))
}

func (c *cBackend) matMulGroups(out, x, starts Tensor, experts []*Matrix) error {
	p := C.kn_groups(c.dev, C.int64_t(len(experts)))
	if p == nil {
		return errNoMemory
	}
	to, at, n := unsafe.Slice(p, len(experts)), starts.ints(0), 0
	for e, m := range experts {
		if rows := at[e+1] - at[e]; rows > 0 {
			to[n] = C.kn_group{m: cMatrix(m), row: C.int64_t(at[e]), rows: C.int64_t(rows)}
			n++
		}
	}
	return result(C.kn_matmul_groups(c.dev, cTensor(out), cTensor(x), C.int64_t(n)))
}

func (c *cBackend) combine(out, x, places, weights Tensor) error {
	return result(C.kn_combine(c.dev, cTensor(out), cTensor(x), cTensor(places), cTensor(weights)))
}

func (c *cBackend) blockSums(max []float32, sum []float64, row []float32, scale float64) error {
	return result(C.kn_block_sums(c.dev, (*C.float)(unsafe.SliceData(row)), C.int64_t(len(row)), C.double(scale),
		(*C.float)(unsafe.SliceData(max)), (*C.double)(unsafe.SliceData(sum))))
}

// measureLimits takes the best of many short passes: whatever else runs on the machine only makes one slower, and
// leaves the shorter ones alone more often.
func measureLimits(d *Device) (Limits, error) {
	c, ok := d.impl.(*cBackend)
	if !ok {
		return Limits{}, errors.New("kernels: the reference has no limits to measure")
	}
	const size, piece, passes = 512 << 20, 64 << 20, 10 // one piece is read in two milliseconds, and no cache holds it
	buf, err := d.Alloc(size)
	if err != nil {
		return Limits{}, err
	}
	defer buf.Close() //nolint:errcheck // scratch
	for i := 0; i < size; i += 4096 {
		buf.data[i] = 0 // so that there is memory behind the address
	}
	l := Limits{Threads: d.threads}
	for range passes {
		for _, streams := range []C.int{1, 8} {
			for at := 0; at < size; at += piece {
				l.ReadGBs = max(l.ReadGBs, piece/1e9/float64(C.kn_read_seconds(c.dev, buf.ptr(at), piece, streams)))
			}
		}
		for range 4 {
			var flops C.double
			seconds := float64(C.kn_fma_seconds(c.dev, &flops))
			l.F32GFLOPs = max(l.F32GFLOPs, float64(flops)/1e9/seconds)
			if seconds = float64(C.kn_dot_seconds(c.dev, &flops)); flops > 0 {
				l.BF16GFLOPs = max(l.BF16GFLOPs, float64(flops)/1e9/seconds)
			}
			seconds = float64(C.kn_int8_seconds(c.dev, &flops))
			l.Int8GOPs = max(l.Int8GOPs, float64(flops)/1e9/seconds)
		}
	}
	return l, nil
}
