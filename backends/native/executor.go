package native

import (
	"fmt"
	"runtime/debug"
	"time"

	"pagoda/backends/native/model"
	"pagoda/backends/native/sample"
	"pagoda/backends/native/sched"
	"pagoda/kernels"
)

// executor turns a plan into the flat batch of one forward pass and runs it. It belongs to the loop.
type executor struct {
	stream    *kernels.Stream
	work      *model.Workspace
	width     int // logits of a row
	vocab     int // of which can be sampled
	blockSize int

	batch  model.Batch // its slices are reused from step to step
	logits []float32   // of the last step: one row of width for each wanted row

	forward time.Duration // spent in the model so far
}

func newExecutor(s *kernels.Stream, w *model.Workspace, width, vocab, blockSize int) *executor {
	return &executor{stream: s, work: w, width: width, vocab: vocab, blockSize: blockSize}
}

// step computes plan. Afterwards row gives the logits of the rows that the plan's items want, in order.
func (x *executor) step(plan sched.Plan) (err error) {
	defer recovered(&err)
	x.fill(plan)
	start := time.Now()
	defer func() { x.forward += time.Since(start) }()
	if err := x.work.Forward(x.stream, &x.batch); err != nil {
		return err
	}
	x.logits, err = x.work.Logits(x.stream)
	return err
}

// row is the i-th row of the last step's logits, [vocab].
func (x *executor) row(i int) []float32 { return x.logits[i*x.width:][:x.vocab] }

// blockSums is the sampler's look at all of a row.
func (x *executor) blockSums(best []float32, sum []float64, logits []float32, scale float64) error {
	return kernels.BlockSums(x.stream, best, sum, logits, scale)
}

var _ = [1]struct{}{}[kernels.SumBlock-sample.BlockLen] // the same blocks

// fill lays the plan's items end to end.
func (x *executor) fill(plan sched.Plan) {
	b := &x.batch
	b.Tokens, b.Positions, b.Slots = b.Tokens[:0], b.Positions[:0], b.Slots[:0]
	b.SeqLens, b.BlockTables, b.Long = b.SeqLens[:0], b.BlockTables[:0], b.Long[:0]
	b.States, b.Runs, b.LogitRows = b.States[:0], b.Runs[:0], b.LogitRows[:0]
	b.QueryStarts = append(b.QueryStarts[:0], 0)
	for _, it := range plan.Items {
		start := len(b.Tokens)
		end := it.Start + it.NumRows()
		b.Tokens = append(b.Tokens, it.Seq.Tokens[it.Start:it.Start+it.Len]...)
		b.Tokens = append(b.Tokens, it.Draft...)
		for p := it.Start; p < end; p++ {
			b.Positions = append(b.Positions, int32(p))
			b.Slots = append(b.Slots, it.Blocks[p/x.blockSize]*int32(x.blockSize)+int32(p%x.blockSize))
		}
		b.QueryStarts = append(b.QueryStarts, int32(len(b.Tokens)))
		b.SeqLens = append(b.SeqLens, int32(end))
		b.BlockTables = append(b.BlockTables, it.Blocks)
		b.Long = append(b.Long, it.Seq.Long)
		b.States = append(b.States, it.Seq.State)
		for i := it.LogitsFrom; i < it.NumRows(); i++ {
			b.LogitRows = append(b.LogitRows, int32(start+i))
		}
		if a := it.Seq.Owner.(*choice).job.adapter; a != nil {
			x.addRun(start, it.NumRows(), a.LoRA())
		}
	}
}

// addRun notes that rows use an adapter, joining them to the previous run where they continue it.
func (x *executor) addRun(start, n int, l *model.LoRA) {
	b := &x.batch
	if k := len(b.Runs) - 1; k >= 0 && b.Runs[k].LoRA == l && b.Runs[k].Start+b.Runs[k].Len == start {
		b.Runs[k].Len += n
		return
	}
	b.Runs = append(b.Runs, model.Run{Start: start, Len: n, LoRA: l})
}

// recovered, deferred, turns a panic into an error: it costs the requests of one step, not the process.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic in a step: %v\n%s", p, debug.Stack())
	}
}
