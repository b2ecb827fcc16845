package kernels

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// Every op refuses what would read or write outside its buffers, says which argument it was, and touches nothing.
func TestHostileArguments(t *testing.T) {
	r := newRig(t, freshSeed(t), Variants()[0], 2)
	const rows, hidden, heads, kvHeads, dim = 3, 16, 4, 2, 4
	x, y, w := r.random(F32, rows, hidden), r.random(F32, rows, hidden), r.random(F32, 1, hidden)
	out, wide, half := r.raw(F32, rows, hidden, 0), r.random(F32, rows, 2*hidden), r.raw(BF16, rows, hidden, 0)
	kv, small, pos := r.random(F32, rows, kvHeads*dim), r.random(F32, 1, dim), r.ints(0, 1, 2)
	table, m := r.random(F32, 8, dim), r.matrix(BF16, hidden, hidden)
	a, b := r.matrix(F32, 2, hidden), r.matrix(F32, hidden, 2)
	c, err := NewKVCache(r.dev, F32, 4, 4, kvHeads, dim, dim)
	r.ok(err)
	defer c.Close() //nolint:errcheck // the device's Close tells
	batch := AttentionBatch{r.ints(0, 3), r.ints(5), r.ints(2, 1), 1, 5}
	closed := r.closedTensor(F32, rows, hidden)
	closedMatrix, err := r.dev.PackMatrix(F32, 1, MatrixPart{make([]byte, 4), F32, 1})
	r.ok(err)
	r.ok(closedMatrix.Close())

	with := func(t Tensor, f func(t *Tensor)) Tensor {
		f(&t)
		return t
	}
	type bad struct {
		name, says string
		err        error
		run        func() error
	}
	cases := []bad{
		{"matmul x dtype", "matmul: x is float16", ErrDType, func() error {
			return MatMul(r.s, out, with(x, func(t *Tensor) { t.DType = F16 }), m)
		}},
		{"matmul unknown dtype", "matmul: x is dtype(77)", ErrDType, func() error {
			return MatMul(r.s, out, with(x, func(t *Tensor) { t.DType = 77 }), m)
		}},
		{"matmul out bfloat16", "matmul: out is bfloat16", ErrDType, func() error { return MatMul(r.s, half, x, m) }},
		{"matmul K", "matmul: x is [3, 8], want [-1, 16]", ErrShape, func() error { return MatMul(r.s, out, kv, m) }},
		{"matmul rows", "matmul: out", ErrShape, func() error { return MatMul(r.s, out.RowRange(0, 2), x, m) }},
		{"matmul closed weights", "matmul: weights", ErrClosed, func() error { return MatMul(r.s, out, x, closedMatrix) }},
		{"matmul no weights", "matmul: weights", ErrClosed, func() error { return MatMul(r.s, out, x, nil) }},
		{"matmul closed x", "matmul: x: buffer", ErrClosed, func() error { return MatMul(r.s, out, closed, m) }},
		{"embed id", "embed: ids[1] is 16", ErrIndex, func() error { return Embed(r.s, out, m, r.ints(0, 16, 0)) }},
		{"embed negative id", "embed: ids[2] is -1", ErrIndex, func() error { return Embed(r.s, out, m, r.ints(0, 0, -1)) }},
		{"embed count", "embed: ids", ErrShape, func() error { return Embed(r.s, out, m, r.ints(0)) }},
		{"rmsnorm weights", "rmsnorm: w", ErrShape, func() error { return RMSNorm(r.s, out, x, small, 1e-6) }},
		{"rmsnorm half x", "rmsnorm: x", ErrDType, func() error { return RMSNorm(r.s, out, half, w, 1e-6) }},
		{"add rmsnorm y", "add rmsnorm: y", ErrShape, func() error { return AddRMSNorm(r.s, out, x, w, w, 1e-6) }},
		{"head rmsnorm heads", "head rmsnorm: 16 columns of x for 3 heads", ErrShape, func() error { return HeadRMSNorm(r.s, x, small, 3, 0) }},
		{"head rmsnorm no heads", "head rmsnorm: 16 columns", ErrShape, func() error { return HeadRMSNorm(r.s, x, small, 0, 0) }},
		{"head rmsnorm w", "head rmsnorm: w", ErrShape, func() error { return HeadRMSNorm(r.s, x, w, heads, 0) }},
		{"rope position", "rope: positions[2] is 8", ErrIndex, func() error { return RoPE(r.s, x, r.ints(0, 1, 8), table, heads, Halves) }},
		{"rope table", "rope: table", ErrShape, func() error { return RoPE(r.s, x, pos, w, heads, Halves) }},
		{"rope odd table", "rope: table", ErrShape, func() error { return RoPE(r.s, x, pos, table.Columns(0, 3), heads, Halves) }},
		{"gated mul", "gated mul: gateUp", ErrShape, func() error { return GatedMul(r.s, out, x, SiLU) }},
		{"gated mul dtype", "gated mul: out is int32", ErrDType, func() error {
			return GatedMul(r.s, with(out, func(t *Tensor) { t.DType = I32 }), wide, SiLU)
		}},
		{"groups without matrices", "matmul groups: no matrices", ErrShape, func() error { return MatMulGroups(r.s, out, x, pos, nil) }},
		{"route too many", "route: 9 of 8 experts", ErrShape, func() error {
			return Route(r.s, r.routes(3, 9, 8), r.random(F32, 3, 8), Routing{})
		}},
		{"route groups", "route: 8 experts in 3 groups", ErrShape, func() error {
			return Route(r.s, r.routes(3, 2, 8), r.random(F32, 3, 8), Routing{Groups: 3, ChosenGroups: 1, GroupBest: 1})
		}},
		{"combine place", "combine: places[0,", ErrIndex, func() error {
			return Combine(r.s, r.raw(F32, 1, 4, 0), r.raw(F32, 2, 4, 0), r.ints(0, 2), r.random(F32, 1, 2))
		}},
		{"add groups starts", "add groups: group 1 is rows 3 to 2", ErrIndex, func() error {
			return AddGroups(r.s, r.random(F32, 2, 4), r.ints(0, 3, 2), r.random(F32, 2, 4))
		}},
		{"attention window", "window", ErrShape, func() error {
			return AttentionOptions{Window: -1}.check(heads, 1)
		}},
		{"attention bias", "bias has 7 columns for 5 positions", ErrShape, func() error {
			return AttentionOptions{Bias: r.random(F32, heads, 7)}.check(heads, 5)
		}},
		{"add", "add: y", ErrShape, func() error { return Add(r.s, x, y.RowRange(0, 2)) }},
		{"gather row", "gather: rows[0] is 3", ErrIndex, func() error { return Gather(r.s, out, x, r.ints(3, 0, 0)) }},
		{"gather dtypes", "gather: out is bfloat16, x is float32", ErrDType, func() error { return Gather(r.s, half, x, pos) }},
		{"store slot", "store kv: slots[1] is 16", ErrIndex, func() error { return StoreKV(r.s, c, kv, kv, r.ints(0, 16, 1)) }},
		{"store slot below", "store kv: slots[0] is -2", ErrIndex, func() error { return StoreKV(r.s, c, kv, kv, r.ints(-2, 0, 1)) }},
		{"store heads", "store kv: k", ErrShape, func() error { return StoreKV(r.s, c, x, x, pos) }},
		{"store into nothing", "store kv: cache has blocks of 0", ErrShape, func() error { return StoreKV(r.s, KVCache{}, kv, kv, pos) }},
		{"store without scales", "store kv: cache scales is dtype(0)", ErrDType, func() error {
			with := c
			with.K.DType, with.V.DType = I8, I8
			return StoreKV(r.s, with, kv, kv, pos)
		}},
		{"store mixed cache", "store kv: cache.K is float32, cache.V is bfloat16", ErrDType, func() error {
			mixed := c
			mixed.V.DType = BF16
			return StoreKV(r.s, mixed, kv, kv, pos)
		}},
		{"lora run", "lora: run 0 is rows 2+2 of 3", ErrIndex, func() error { return LoRA(r.s, out, x, []LoRARun{{2, 2, a, b, 1}}) }},
		{"lora negative run", "lora: run 0", ErrIndex, func() error { return LoRA(r.s, out, x, []LoRARun{{-1, 2, a, b, 1}}) }},
		{"lora endless run", "lora: run 0", ErrIndex, func() error { return LoRA(r.s, out, x, []LoRARun{{1, math.MaxInt, a, b, 1}}) }},
		{"lora swapped", "lora: run 0: A", ErrShape, func() error { return LoRA(r.s, out, x, []LoRARun{{0, 1, b, a, 1}}) }},
		{"lora columns", "lora: run 0: B has N 16 for 32", ErrShape, func() error { return LoRA(r.s, wide, x, []LoRARun{{0, 1, a, b, 1}}) }},
		{"lora without A", "lora: run 0: A", ErrClosed, func() error { return LoRA(r.s, out, x, []LoRARun{{0, 1, nil, b, 1}}) }},

		{"no buffer", "add: x: buffer", ErrClosed, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Buf = nil }), y) }},
		{"negative rows", "add: x is [-1, 16]", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Rows = -1 }), y) }},
		{"negative columns", "add: x", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Cols = -1 }), y) }},
		{"negative offset", "add: x has offset -4", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Off = -4 }), y) }},
		{"odd offset", "add: x has offset 66", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Off += 2 }), y) }},
		{"far offset", "add: x", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Off = math.MaxInt - 3 }), y) }},
		{"narrow stride", "add: x", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Stride = 15 }), y) }},
		{"negative stride", "add: x", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Stride = -16 }), y) }},
		{"endless stride", "add: x", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Stride = math.MaxInt }), y) }},
		{"endless rows", "add: y", ErrShape, func() error {
			return Add(r.s, with(x, func(t *Tensor) { t.Rows, t.Cols, t.Stride = 2, 0, 0 }), with(x, func(t *Tensor) { t.Rows = math.MaxInt }))
		}},
		{"too many rows", "add: x", ErrShape, func() error { return Add(r.s, with(x, func(t *Tensor) { t.Rows = 1 << 40 }), y) }},
	}
	for name, f := range map[string]func(b *AttentionBatch, heads *int) (string, error){
		"no heads":             func(_ *AttentionBatch, h *int) (string, error) { *h = 0; return "0 heads", ErrShape },
		"heads that do not go": func(_ *AttentionBatch, h *int) (string, error) { *h = 3; return "3 heads over 2", ErrShape },
		"q columns":            func(_ *AttentionBatch, h *int) (string, error) { *h = 2; return "q is", ErrShape },
		"negative sequences":   func(b *AttentionBatch, _ *int) (string, error) { b.NumSeqs = -1; return "-1 sequences", ErrShape },
		"sequences":            func(b *AttentionBatch, _ *int) (string, error) { b.NumSeqs = 2; return "query starts", ErrShape },
		"starts fall": func(b *AttentionBatch, _ *int) (string, error) {
			b.QueryStarts = r.ints(3, 0)
			return "-3 queries", ErrShape
		},
		"starts beyond": func(b *AttentionBatch, _ *int) (string, error) {
			b.QueryStarts = r.ints(0, 4)
			return "query starts[1] is 4", ErrIndex
		},
		"shorter than queries": func(b *AttentionBatch, _ *int) (string, error) {
			b.SeqLens = r.ints(2)
			return "3 queries of 2", ErrShape
		},
		"negative length": func(b *AttentionBatch, _ *int) (string, error) {
			b.SeqLens = r.ints(-1)
			return "sequence lengths[0] is -1", ErrIndex
		},
		"longer than said": func(b *AttentionBatch, _ *int) (string, error) {
			b.SeqLens = r.ints(6)
			return "sequence lengths[0] is 6", ErrIndex
		},
		"blocks missing": func(b *AttentionBatch, _ *int) (string, error) {
			b.BlockTables = r.ints(2)
			return "has 1 blocks", ErrShape
		},
		"block beyond": func(b *AttentionBatch, _ *int) (string, error) {
			b.BlockTables = r.ints(2, 4)
			return "block 1 of sequence 0 is 4", ErrIndex
		},
		"negative block": func(b *AttentionBatch, _ *int) (string, error) {
			b.BlockTables = r.ints(-1, 1)
			return "block 0 of sequence 0 is -1", ErrIndex
		},
	} {
		with, heads := batch, heads
		says, want := f(&with, &heads)
		cases = append(cases, bad{"attention " + name, says, want, func() error { return PagedAttention(r.s, out, x, c, with, heads, AttentionOptions{Scale: 1}) }})
	}
	before := r.clone(out)
	for _, c := range cases {
		err := c.run()
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error is %v, want %v that says %q", c.name, err, c.err, c.says)
		}
	}
	r.same("out", out, before)
}

func (r *rig) closedTensor(dt DType, rows, cols int) Tensor {
	b, err := r.dev.Alloc(rows * cols * dt.Size())
	r.ok(err)
	t := NewTensor(b, 0, dt, rows, cols)
	r.ok(b.Close())
	r.ok(b.Close())
	return t
}

func TestOpenCPUErrors(t *testing.T) {
	for _, c := range []struct {
		o    CPUOptions
		says string
	}{
		{CPUOptions{Variant: "avx1024"}, `no variant "avx1024" here, only `},
		{CPUOptions{Threads: -1}, "-1 threads"},
		{CPUOptions{Threads: maxThreads + 1}, "257 threads, want 0 to 256"},
	} {
		if d, err := OpenCPU(c.o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, %v, want an error that says %q", c.o, d, err, c.says)
		}
	}
}

func TestBuffer(t *testing.T) {
	r := newRig(t, nil, Variants()[len(Variants())-1], 1)
	if _, err := r.dev.Alloc(-1); err == nil {
		t.Error("a negative size was accepted")
	}
	if _, err := r.dev.Alloc(1 << 60); err == nil {
		t.Error("2^60 bytes were accepted")
	}
	for _, n := range []int{0, 1, 63, 4097, 1 << 20, 5<<20 + 3} {
		b, err := r.dev.Alloc(n)
		r.ok(err)
		if b.Len() != n || len(b.Bytes()) != n || r.dev.Allocated() != int64(n) {
			t.Errorf("%d bytes: %d, %d seen, %d counted", n, b.Len(), len(b.Bytes()), r.dev.Allocated())
		}
		for i, v := range b.Bytes() {
			if v != 0 {
				t.Fatalf("byte %d of %d is %d", i, n, v)
			}
		}
		for _, c := range []struct{ off, n int }{{-1, 1}, {0, n + 1}, {n, 1}, {n + 1, 0}, {math.MaxInt, 1}} {
			if err := b.Write(c.off, make([]byte, c.n)); !errors.Is(err, ErrShape) {
				t.Errorf("write of %d at %d into %d: %v", c.n, c.off, n, err)
			}
			if err := b.Read(c.off, make([]byte, c.n)); !errors.Is(err, ErrShape) {
				t.Errorf("read of %d at %d of %d: %v", c.n, c.off, n, err)
			}
		}
		if n > 4 {
			got := make([]byte, 4)
			r.ok(b.Write(n-4, []byte("abcd")))
			r.ok(b.Read(n-4, got))
			if string(got) != "abcd" {
				t.Errorf("read %q", got)
			}
		}
		r.ok(b.Close())
		r.ok(b.Close())
		if b.Bytes() != nil || r.dev.Allocated() != 0 {
			t.Errorf("after Close: %d bytes seen, %d counted", len(b.Bytes()), r.dev.Allocated())
		}
	}
}

func TestNewKVCacheErrors(t *testing.T) {
	r := newRig(t, nil, "ref", 1)
	for _, c := range []struct {
		dt                            DType
		blocks, blockSize, heads, dim int
		want                          error
	}{
		{F16, 1, 1, 1, 1, ErrDType}, {I32, 1, 1, 1, 1, ErrDType}, {F32, 0, 1, 1, 1, ErrShape}, {F32, 1, 0, 1, 1, ErrShape},
		{F32, 1, 1025, 1, 1, ErrShape}, {F32, 1, 1, 0, 1, ErrShape}, {F32, 1, 1, 1, 0, ErrShape}, {F32, 1, 1, 1, 1025, ErrShape},
	} {
		if _, err := NewKVCache(r.dev, c.dt, c.blocks, c.blockSize, c.heads, c.dim, c.dim); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if n := r.dev.Allocated(); n != 0 {
		t.Errorf("%d bytes left", n)
	}
}
