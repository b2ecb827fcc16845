package encoder

import (
	"errors"
	"fmt"
	"path/filepath"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// loadTrunk loads the weights and allocates what steps need.
func (e *Engine) loadTrunk(ck *checkpoint.Checkpoint) error {
	from, err := ck.Weights()
	if err != nil {
		return err
	}
	defer from.Close()
	e.weights = &weights{}
	e.work = &workspace{hidden: e.spec.Hidden, pooling: e.sentence.pooling, tokens: e.opts.MaxBatchedTokens, seqs: e.opts.MaxNumSeqs}
	if e.spec.decoder == nil || e.spec.bothWays {
		e.work.whole, e.work.tokens = true, max(e.work.tokens, e.maxLen)
	}
	l := &loader{weights: e.weights, dev: e.dev, from: from, used: map[string]bool{}}
	if e.spec.decoder != nil {
		err = e.loadDecoder(l)
	} else {
		err = e.loadEncoder(l)
	}
	if err != nil {
		return err
	}
	e.loadDense(l)
	if len(l.problems) > 0 {
		return fmt.Errorf("the weights do not fit the configuration:\n%w", errors.Join(l.problems...))
	}
	if e.spec.decoder != nil {
		e.work.trunk, err = e.newDecoderTrunk()
	} else {
		e.work.trunk, err = newBidirectional(e.dev, e.spec, e.weights, e.spec.sizes(e.work, e.maxLen))
	}
	if err != nil {
		return err
	}
	return e.work.addHead(e.dev, e.weights.head)
}

// loadEncoder loads an encoder, if it fits.
func (e *Engine) loadEncoder(l *loader) error {
	name := e.opts.DType
	if name == "auto" {
		name = e.spec.stored()
	}
	dtypes := map[string]kernels.DType{"": kernels.F32, "float32": kernels.F32, "bfloat16": kernels.BF16, "float16": kernels.F16}
	var ok bool
	if l.dtype, ok = dtypes[name]; !ok {
		return fmt.Errorf("infer_dtype: %q is none of auto, float32, bfloat16, float16", name)
	}
	count := &loader{weights: &weights{}, from: l.from, dtype: l.dtype, dry: true, used: map[string]bool{}}
	count.all(e.spec, e.maxLen)
	if l.problems = count.problems; len(l.problems) > 0 {
		return nil
	}
	need := count.bytes + e.spec.sizes(e.work, e.maxLen).bytes(e.spec)
	if have := e.opts.MemoryBytes; have > 0 && need > have {
		return fmt.Errorf("weights and work buffers need %d MiB, %d MiB more than there is", need>>20, (need-have)>>20)
	}
	l.all(e.spec, e.maxLen)
	return nil
}

// loadDense loads sentence-transformers' modules that follow the pooling.
func (e *Engine) loadDense(l *loader) {
	width := e.spec.Hidden
	for _, d := range e.sentence.dense {
		width = l.dense(func(folder string) (*checkpoint.Checkpoint, error) {
			if !filepath.IsLocal(folder) {
				return nil, errors.New("the folder is not in the checkpoint")
			}
			return checkpoint.Open(filepath.Join(e.opts.Dir, folder))
		}, d, width)
	}
}

func (e *Engine) loadDecoder(l *loader) error {
	dtype, err := model.ParseDType(e.opts.DType)
	if err != nil {
		return fmt.Errorf("infer_dtype: %w", err)
	}
	o := model.Options{DType: dtype, KVDType: model.DType(e.opts.KVDType), MaxLen: e.maxLen, Bits: e.opts.Bits}
	l.dtype = kernels.F32 // of what follows the pooling
	if !e.spec.labels {
		e.spec.decoder.WithoutHead()
	} else if err := e.loadScore(l); err != nil {
		return err
	} else {
		e.spec.decoder.WithoutHead("score.")
	}
	if need, have := e.spec.decoder.WeightBytes(o), e.opts.MemoryBytes; have > 0 && need > have {
		return fmt.Errorf("the weights need %d MiB, %d MiB more than there is", need>>20, (need-have)>>20)
	}
	e.decoder, err = model.Load(e.dev, e.spec.decoder, l.from, o)
	return err
}

// loadScore makes the head of a decoder that scores: its own, or of the output matrix's rows of two tokens, whose softmax is
// the sigmoid of their difference, or of one.
func (e *Engine) loadScore(l *loader) error {
	yes, no, err := e.scoreTokens()
	if err != nil {
		return err
	}
	if yes < 0 {
		l.head = append(l.head, linear{weight: l.matrix(1, e.spec.Hidden, "score.weight")})
		return nil
	}
	row, err := e.spec.decoder.OutputRow(l.from, yes)
	if err == nil && no >= 0 {
		var minus []float32
		minus, err = e.spec.decoder.OutputRow(l.from, no)
		for i, v := range minus {
			row[i] -= v
		}
	}
	if err != nil {
		return err
	}
	l.head = append(l.head, linear{weight: l.row(row)})
	return nil
}

// scoreTokens are the tokens whose logits make the score, no's subtracted from yes's; -1: none.
func (e *Engine) scoreTokens() (yes, no int, err error) {
	yes, no = -1, -1
	if l := e.sentence.logits; l != nil {
		yes = *l.Yes
		if l.No != nil {
			no = *l.No
		}
	}
	for i, name := range e.spec.ScoreTokens {
		id, ok := e.tok.ID(name)
		if !ok {
			return 0, 0, fmt.Errorf("classifier_from_token: %q is no token", name)
		}
		if i == len(e.spec.ScoreTokens)-1 {
			yes = int(id)
		} else {
			no = int(id)
		}
	}
	if yes >= e.spec.Vocab || no >= e.spec.Vocab {
		return 0, 0, fmt.Errorf("the tokens %d and %d that it scores by are not all in the vocabulary of %d", yes, no, e.spec.Vocab)
	}
	return yes, no, nil
}

// newDecoderTrunk sizes the cache: two texts of full length, so that one that takes many steps leaves room for others, and a
// step of short ones; no more than the option says, or half of the memory that the weights leave.
func (e *Engine) newDecoderTrunk() (trunk, error) {
	per, most := e.decoder.KVBytesPerBlock(blockSize), blocksFor(e.maxLen)
	blocks := 2*most + blocksFor(e.work.tokens) + e.work.seqs
	if e.opts.KVCacheBytes > 0 {
		blocks = int(min(e.opts.KVCacheBytes/per, 1<<30))
	} else if have := e.opts.MemoryBytes; have > 0 {
		blocks = int(min(int64(blocks), max(0, have-e.dev.Allocated())/2/per))
	}
	if blocks < most {
		return nil, fmt.Errorf("the KV cache holds %d blocks, but one text of %d tokens needs %d (%d MiB): give kv_cache_memory "+
			"more or max_model_len less", blocks, e.maxLen, most, (int64(most)*per+1<<20-1)>>20)
	}
	rows := e.work.tokens
	if p := e.work.pooling; p == poolCLS || p == poolLast {
		rows = min(rows, e.work.seqs)
	}
	return newDecoder(e.decoder, model.Limits{MaxTokens: e.work.tokens, MaxSeqs: e.work.seqs, MaxLogitRows: rows, Hidden: true}, blocks)
}
