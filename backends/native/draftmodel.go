package native

import (
	"bytes"
	"errors"
	"fmt"

	"pagoda/backends/native/kvcache"
	"pagoda/backends/native/model"
	"pagoda/backends/native/sched"
	"pagoda/backends/native/token"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// modelDrafter has a smaller model of the same vocabulary say what follows, greedily. It keeps keys and values of its
// own for every sequence that it drafts for: as many blocks as the target has, found again by prefix like those, so
// that a text is computed once for all choices of a request. It belongs to the loop.
type modelDrafter struct {
	work   *model.Workspace
	stream *kernels.Stream
	pool   *kvcache.Pool
	limits model.Limits
	maxLen int
	width  int // logits of a row
	vocab  int // of which may be guessed

	seqs   map[*choice]*draftedSeq
	active []*draftedSeq // of the step at hand
	batch  model.Batch   // its slices are reused from pass to pass
	logits []float32     // of the last pass
	step   uint64
}

// draftedSeq is what the draft model knows of one sequence.
type draftedSeq struct {
	table       kvcache.Table
	numComputed int     // tokens whose keys and values the blocks hold
	draft       []int32 // the last draft; all but its last token were computed behind the text
	after       int     // tokens of the text that it followed
	step        uint64  // when it was last drafted for

	// Of the step at hand.
	item   *sched.Item
	most   int // tokens to draft
	numNew int // tokens of the next pass
}

// maxBehind is how many tokens of a text a draft's first pass computes; what is more is prefill, of its own pass.
const maxBehind = 16

func newModelDrafter(m *model.Model, kv *model.KV, stream *kernels.Stream, vocab int, limits model.Limits, prefixCache bool) (
	*modelDrafter, error) {
	work, err := m.NewWorkspace(kv, limits)
	if err != nil {
		return nil, err
	}
	pool, err := kvcache.New(kv.NumBlocks(), kv.BlockSize(), prefixCache)
	if err != nil {
		return nil, errors.Join(err, work.Close())
	}
	return &modelDrafter{work: work, stream: stream, pool: pool, limits: limits, maxLen: m.MaxLen(), width: m.VocabSize(),
		vocab: min(vocab, m.VocabSize()), seqs: map[*choice]*draftedSeq{}}, nil
}

// close frees the work buffers, and reports blocks that were not given back.
func (d *modelDrafter) close() error {
	var err error
	if n := d.pool.NumUsed(); n != 0 {
		err = fmt.Errorf("%d of the draft model's KV blocks are still in use", n)
	}
	return errors.Join(err, d.work.Close())
}

func (d *modelDrafter) forget(c *choice) {
	if s := d.seqs[c]; s != nil {
		d.pool.Release(&s.table)
		delete(d.seqs, c)
	}
}

// prepare computes texts that are new to the draft model, at most a step's tokens. Whose text is not complete then, or
// finds no blocks, is not drafted for yet.
func (d *modelDrafter) prepare(plan sched.Plan, most []int) error {
	d.step++
	d.active = d.active[:0]
	for i := range plan.Items {
		it := &plan.Items[i]
		if most[i] = min(most[i], d.maxLen-len(it.Seq.Tokens)+1); most[i] < 1 {
			most[i] = 0
			continue
		}
		s := d.find(it)
		if s.item, s.most = it, most[i]; !d.makeRoom(s) {
			most[i] = 0
			continue
		}
		d.active = append(d.active, s)
	}
	left := d.limits.MaxTokens
	for _, s := range d.active {
		s.numNew = 0
		if behind := s.behind(); behind > maxBehind {
			s.numNew = min(behind-1, left)
			left -= s.numNew
		}
	}
	if err := d.forward(false); err != nil {
		return err
	}
	left = d.limits.MaxTokens
	for _, s := range d.active {
		if behind := s.behind(); behind <= min(maxBehind, left) {
			left -= behind
		} else {
			s.most = 0
		}
	}
	return nil
}

// find returns what is known of an item's sequence: what was guessed right is computed already.
func (d *modelDrafter) find(it *sched.Item) *draftedSeq {
	c := it.Seq.Owner.(*choice)
	s := d.seqs[c]
	if s == nil {
		s = &draftedSeq{table: kvcache.NewTable(0, c.job.spec.Salt)}
		d.seqs[c] = s
	}
	s.step = d.step
	tokens := it.Seq.Tokens
	if len(s.table.Blocks()) == 0 {
		s.numComputed, s.draft = d.pool.Match(&s.table, tokens, len(tokens)-1), s.draft[:0]
	}
	for i := 0; i+1 < len(s.draft) && s.after+i < len(tokens)-1 && s.draft[i] == tokens[s.after+i]; i++ {
		s.numComputed++
	}
	s.draft = s.draft[:0]
	d.pool.Register(&s.table, tokens[:s.numComputed])
	return s
}

// behind is how many tokens of the text are not computed; the last never is.
func (s *draftedSeq) behind() int { return len(s.item.Seq.Tokens) - s.numComputed }

// makeRoom extends s's blocks over its text and a draft. If too few are free, those that no sequence of this step uses
// are taken from the others.
func (d *modelDrafter) makeRoom(s *draftedSeq) bool {
	need := len(s.item.Seq.Tokens) + s.most - 1
	if d.pool.Grow(&s.table, need) {
		return true
	}
	for _, o := range d.seqs {
		if o.step != d.step {
			d.pool.Release(&o.table)
			o.numComputed = 0
		}
	}
	return d.pool.Grow(&s.table, need)
}

// draft has the model continue the texts, one token in each pass.
func (d *modelDrafter) draft(_ sched.Plan, _ []int) error {
	for _, s := range d.active {
		s.after = len(s.item.Seq.Tokens)
		s.numNew = 0
		if s.most > 0 {
			s.numNew = s.behind()
		}
	}
	for {
		if err := d.forward(true); err != nil {
			return err
		}
		more := false
		row := 0
		for _, s := range d.active {
			if s.numNew == 0 {
				continue
			}
			s.draft = append(s.draft, argmax(d.logits[row*d.width:][:d.vocab]))
			s.item.Draft = s.draft
			row++
			s.numNew = 0
			if len(s.draft) < s.most {
				s.numNew, more = 1, true
			}
		}
		if !more {
			return nil
		}
	}
}

// forward computes the next numNew tokens of each active sequence: of its text, or behind a draft's first token the
// draft's last. With logits, each has a row of them for the last of its tokens.
func (d *modelDrafter) forward(logits bool) error {
	b := &d.batch
	b.Tokens, b.Positions, b.Slots = b.Tokens[:0], b.Positions[:0], b.Slots[:0]
	b.SeqLens, b.BlockTables, b.LogitRows = b.SeqLens[:0], b.BlockTables[:0], b.LogitRows[:0]
	b.QueryStarts = append(b.QueryStarts[:0], 0)
	for _, s := range d.active {
		if s.numNew == 0 {
			continue
		}
		start, tokens := s.numComputed, s.item.Seq.Tokens[s.numComputed:][:s.numNew]
		if n := len(s.draft); n > 0 {
			start, tokens = s.after+n-1, s.draft[n-1:]
		}
		blocks, blockSize := s.table.Blocks(), d.pool.BlockSize()
		for i := range tokens {
			p := start + i
			b.Positions = append(b.Positions, int32(p))
			b.Slots = append(b.Slots, blocks[p/blockSize]*int32(blockSize)+int32(p%blockSize))
		}
		b.Tokens = append(b.Tokens, tokens...)
		b.QueryStarts = append(b.QueryStarts, int32(len(b.Tokens)))
		b.SeqLens = append(b.SeqLens, int32(start+len(tokens)))
		b.BlockTables = append(b.BlockTables, blocks)
		if logits {
			b.LogitRows = append(b.LogitRows, int32(len(b.Tokens)-1))
		}
	}
	if len(b.Tokens) == 0 {
		return nil
	}
	if err := d.work.Forward(d.stream, b); err != nil {
		return fmt.Errorf("draft model: %w", err)
	}
	var err error
	if d.logits, err = d.work.Logits(d.stream); err != nil {
		return fmt.Errorf("draft model: %w", err)
	}
	for _, s := range d.active {
		if len(s.draft) == 0 {
			s.numComputed += s.numNew
		}
	}
	return nil
}

// argmax is the index of the highest logit, of equals the lowest. That NaN is no index does not matter for a guess.
func argmax(logits []float32) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// openDraft opens the draft model's checkpoint.
func (e *Engine) openDraft() (*checkpoint.Checkpoint, *model.Spec, error) {
	ck, err := openCheckpoint(e.opts.DraftDir, e.opts.DraftFiles)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := ck.Config()
	var spec *model.Spec
	if err == nil {
		spec, err = model.NewSpec(cfg)
	}
	if err == nil && spec.StateBytes() > 0 {
		err = fmt.Errorf("%s cannot be a draft model: its state cannot forget what was guessed", spec.Arch)
	}
	if err != nil {
		return nil, nil, errors.Join(err, ck.Close())
	}
	return ck, spec, nil
}

// loadDraft loads the draft model, if there is to be one.
func (e *Engine) loadDraft() error {
	if e.opts.SpeculativeMethod != "draft_model" {
		return nil
	}
	ck, spec, err := e.openDraft()
	if err != nil {
		return err
	}
	defer ck.Close()
	if err := e.sameVocabulary(ck, spec); err != nil {
		return err
	}
	o := e.opts.model(nil)
	o.MaxLen = min(e.maxLen, spec.MaxLen)
	e.draft, err = e.loadWeights(ck, spec, o)
	return err
}

// sameVocabulary refuses a draft model whose tokens are not the target's: it would guess nothing right.
func (e *Engine) sameVocabulary(ck *checkpoint.Checkpoint, spec *model.Spec) error {
	source, err := token.Read(ck)
	if err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	tok, err := source.Load(token.Options{})
	if err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	defer tok.Close()
	if spec.Vocab < e.vocab {
		return fmt.Errorf("it has %d tokens, the model has %d", spec.Vocab, e.vocab)
	}
	for id := range int32(e.vocab) {
		if have, want := tok.Bytes(id), e.tok.Bytes(id); !bytes.Equal(have, want) {
			return fmt.Errorf("its token %d is %q, the model's is %q", id, have, want)
		}
	}
	return nil
}

// newDrafter makes what guesses ahead.
func (e *Engine) newDrafter() (drafter, error) {
	if e.draft == nil {
		return lookupDrafter{}, nil
	}
	kv, err := e.draft.NewKV(e.numBlocks, BlockSize)
	if err != nil {
		return nil, err
	}
	e.own(kv.Close)
	d, err := newModelDrafter(e.draft, kv, e.device.NewStream(), e.vocab, e.opts.draftLimits(),
		!e.opts.NoPrefixCache)
	if err != nil {
		return nil, err
	}
	e.own(d.close)
	return d, nil
}
