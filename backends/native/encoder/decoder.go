package encoder

import (
	"errors"
	"fmt"

	"pagoda/backends/native/model"
	"pagoda/kernels"
)

// room is what a text has while it is computed in pieces.
type room struct {
	blocks []int32 // of keys and values, for all its tokens
	state  int32   // row, where the model keeps states
}

// decoder is the trunk of a language model: tokens see what comes before them, so that long texts are computed in pieces.
type decoder struct {
	m          *model.Model
	kv         *model.KV
	work       *model.Workspace
	blocks     []int32 // free ones, the lowest last
	freeStates []int32
	stateful   bool
	batch      model.Batch
}

// newDecoder allocates for steps of that many tokens and texts, of which that many rows are wanted, beside keys and values of
// that many blocks, at least those of the longest text.
func newDecoder(m *model.Model, l model.Limits, blocks int) (_ *decoder, err error) {
	d := &decoder{m: m, stateful: m.Spec().StateBytes() > 0}
	if d.kv, err = m.NewKV(blocks, blockSize); err != nil {
		return nil, err
	}
	if err = m.AddStates(d.kv, l.MaxSeqs); err == nil {
		d.work, err = m.NewWorkspace(d.kv, l)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("work buffers: %w", err), d.close())
	}
	for i := blocks - 1; i >= 0; i-- {
		d.blocks = append(d.blocks, int32(i))
	}
	for i := range l.MaxSeqs {
		d.freeStates = append(d.freeStates, int32(i))
	}
	return d, nil
}

func (d *decoder) begin(t *text) bool {
	n, last := blocksFor(len(t.ids)), len(d.freeStates)-1
	if n > len(d.blocks) || d.stateful && last < 0 {
		return false
	}
	for range n {
		end := len(d.blocks) - 1
		t.room.blocks, d.blocks = append(t.room.blocks, d.blocks[end]), d.blocks[:end]
	}
	if d.stateful {
		t.room.state, d.freeStates = d.freeStates[last], d.freeStates[:last]
	}
	return true
}

func (d *decoder) end(t *text) {
	d.blocks = append(d.blocks, t.room.blocks...)
	if d.stateful {
		d.freeStates = append(d.freeStates, t.room.state)
	}
	t.room = room{}
}

func blocksFor(tokens int) int { return (tokens + blockSize - 1) / blockSize }

func (d *decoder) forward(s *kernels.Stream, pieces []piece, rows []int32) ([]float32, error) {
	b := &d.batch
	*b = model.Batch{Tokens: b.Tokens[:0], Positions: b.Positions[:0], Slots: b.Slots[:0], QueryStarts: append(b.QueryStarts[:0], 0),
		SeqLens: b.SeqLens[:0], BlockTables: b.BlockTables[:0], States: b.States[:0], Long: b.Long[:0], LogitRows: rows}
	for _, p := range pieces {
		t := p.t
		b.Tokens = append(b.Tokens, t.ids[t.done:p.end]...)
		for i := t.done; i < p.end; i++ {
			b.Positions = append(b.Positions, int32(i))
			b.Slots = append(b.Slots, t.room.blocks[i/blockSize]*blockSize+int32(i%blockSize))
		}
		b.QueryStarts, b.SeqLens = append(b.QueryStarts, int32(len(b.Tokens))), append(b.SeqLens, int32(p.end))
		b.BlockTables, b.States = append(b.BlockTables, t.room.blocks), append(b.States, t.room.state)
		b.Long = append(b.Long, d.m.SwitchLen() > 0 && len(t.ids) > d.m.SwitchLen())
	}
	if err := d.work.Forward(s, b); err != nil {
		return nil, err
	}
	return d.work.Hidden(s)
}

func (d *decoder) close() error {
	var errs []error
	if d.work != nil {
		errs = append(errs, d.work.Close())
	}
	if d.kv != nil {
		errs = append(errs, d.kv.Close())
	}
	return errors.Join(errs...)
}
