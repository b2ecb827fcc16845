package native

import (
	"context"

	"pagoda/backends/native/codec"
	"pagoda/engine"
)

// codecLoad is the reading of tokenizer and chat template, which goes on while the weights are packed.
type codecLoad struct {
	done chan struct{} // closed at the end; then err is final
	err  error
}

// startCodec begins to read. Until the load is done its goroutine owns the engine's codec.
func (e *Engine) startCodec(f codec.Files) *codecLoad {
	l := &codecLoad{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		o := e.opts.Prompt
		o.Tokenizer, o.Log = e.opts.Vocabulary.tokenizer(), e.opts.Log
		if e.codec, l.err = f.Load(o); l.err == nil {
			e.tok = e.codec.Tokenizer()
		}
	}()
	return l
}

// failed returns the error of a load that has failed already.
func (l *codecLoad) failed() error {
	select {
	case <-l.done:
		return l.err
	default:
		return nil
	}
}

// wait waits for the end and returns the error.
func (l *codecLoad) wait() error {
	<-l.done
	return l.err
}

// Tokenize returns the token ids of req's prompt.
func (e *Engine) Tokenize(ctx context.Context, req *engine.Request) ([]int32, error) {
	if err := e.serves(req.Model); err != nil {
		return nil, err
	}
	return e.codec.Tokenize(ctx, req)
}

// Detokenize returns the text of tokens, special tokens included.
func (e *Engine) Detokenize(_ context.Context, name string, tokens []int32) (string, error) {
	if err := e.serves(name); err != nil {
		return "", err
	}
	return e.codec.Detokenize(tokens)
}

// TokenText returns the text of each token; what is not UTF-8 shows as U+FFFD.
func (e *Engine) TokenText(_ context.Context, name string, tokens []int32) ([]string, error) {
	if err := e.serves(name); err != nil {
		return nil, err
	}
	return e.codec.TokenText(tokens)
}

func (e *Engine) serves(name string) error {
	ad, err := e.pickAdapter(name)
	if ad != nil {
		ad.Release()
	}
	return err
}
