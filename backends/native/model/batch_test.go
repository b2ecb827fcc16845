package model_test

import (
	"errors"
	"math"
	"testing"

	"pagoda/backends/native/model"
	"pagoda/kernels"
)

// TestBadBatch: whatever would reach outside a buffer is refused, and the next good batch is computed.
func TestBadBatch(t *testing.T) {
	r := demoRig(t, kernels.Variants()[0], model.Options{DType: model.Float32})
	good := func() *model.Batch {
		return &model.Batch{Tokens: []int32{1, 2, 3}, Positions: []int32{0, 1, 0}, Slots: []int32{0, 1, 16},
			QueryStarts: []int32{0, 2, 3}, SeqLens: []int32{2, 1}, BlockTables: [][]int32{{0}, {1}},
			LogitRows: []int32{1, 2}}
	}
	run := func(start, n int) []model.Run { return []model.Run{{Start: start, Len: n, LoRA: r.loras["shout"]}} }
	tests := map[string]func(b *model.Batch){
		"no tokens":             func(b *model.Batch) { *b = model.Batch{QueryStarts: []int32{0}} },
		"token too large":       func(b *model.Batch) { b.Tokens[1] = 2048 },
		"token negative":        func(b *model.Batch) { b.Tokens[1] = -1 },
		"position too large":    func(b *model.Batch) { b.Positions[0] = 1024 },
		"position negative":     func(b *model.Batch) { b.Positions[0] = -1 },
		"slot too large":        func(b *model.Batch) { b.Slots[0] = 512 * blockSize },
		"slot negative":         func(b *model.Batch) { b.Slots[0] = -2 },
		"slots missing":         func(b *model.Batch) { b.Slots = b.Slots[:2] },
		"starts not from 0":     func(b *model.Batch) { b.QueryStarts[0] = 1 },
		"starts beyond rows":    func(b *model.Batch) { b.QueryStarts[2] = 4 },
		"starts decrease":       func(b *model.Batch) { b.QueryStarts[1] = 4 },
		"empty sequence":        func(b *model.Batch) { b.QueryStarts[1] = 3 },
		"length below new rows": func(b *model.Batch) { b.SeqLens[0] = 1 },
		"length too large":      func(b *model.Batch) { b.SeqLens[0] = math.MaxInt32 },
		"too few blocks":        func(b *model.Batch) { b.BlockTables[0] = nil },
		"block too large":       func(b *model.Batch) { b.BlockTables[0][0] = 512 },
		"block negative":        func(b *model.Batch) { b.BlockTables[0][0] = -1 },
		"row of logits beyond":  func(b *model.Batch) { b.LogitRows[1] = 3 },
		"rows not ascending":    func(b *model.Batch) { b.LogitRows[1] = 1 },
		"run beyond":            func(b *model.Batch) { b.Runs = run(2, 2) },
		"run overflows":         func(b *model.Batch) { b.Runs = run(1, math.MaxInt) },
		"run negative":          func(b *model.Batch) { b.Runs = run(-1, 1) },
		"run empty":             func(b *model.Batch) { b.Runs = run(1, 0) },
		"runs overlap":          func(b *model.Batch) { b.Runs = append(run(0, 2), run(1, 1)...) },
		"run without adapter":   func(b *model.Batch) { b.Runs = []model.Run{{Start: 0, Len: 1}} },
		"adapter of another":    func(b *model.Batch) { b.Runs = []model.Run{{Start: 0, Len: 1, LoRA: &model.LoRA{}}} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			b := good()
			spoil(b)
			if err := r.ws.Forward(r.stream, b); !errors.Is(err, model.ErrBatch) {
				t.Errorf("error %v, want ErrBatch", err)
			}
			if logits, err := r.ws.Logits(r.stream); err != nil || len(logits) != 0 {
				t.Errorf("%d logits after a refused batch, %v", len(logits), err)
			}
		})
	}
	if logits := r.forward(good()); len(logits) != 2*2048 {
		t.Errorf("%d logits of a good batch", len(logits))
	}
}

// TestForwardDoesNotAllocate: a step makes no garbage, with adapters and logits.
func TestForwardDoesNotAllocate(t *testing.T) {
	if kernels.Variants()[0] == "ref" {
		t.Skip("the reference kernels allocate")
	}
	r := demoRig(t, kernels.Variants()[0], model.Options{DType: model.BFloat16})
	b := &model.Batch{Tokens: []int32{1, 2, 3}, Positions: []int32{0, 1, 0}, Slots: []int32{0, 1, 16},
		QueryStarts: []int32{0, 2, 3}, SeqLens: []int32{2, 1}, BlockTables: [][]int32{{0}, {1}},
		LogitRows: []int32{2}, Runs: []model.Run{{Start: 0, Len: 2, LoRA: r.loras["shout"]}}}
	if n := testing.AllocsPerRun(10, func() { r.forward(b) }); n != 0 {
		t.Errorf("%g allocations per step", n)
	}
}
