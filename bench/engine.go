package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pagoda/engine"
)

// EngineTarget asks an engine in this process.
type EngineTarget struct {
	eng     engine.Engine
	model   string
	vocab   []int32 // tokens that prompts are made of
	prompts *prompts
}

// NewEngineTarget measures model, which must be one of eng's.
func NewEngineTarget(ctx context.Context, eng engine.Engine, model string) (*EngineTarget, error) {
	tok, ok := eng.(engine.Tokenizer)
	if !ok {
		return nil, errors.New("the engine has no tokenizer")
	}
	text, plain := strings.Join(words, " "), false
	vocab, err := tok.Tokenize(ctx, &engine.Request{Model: model, Text: &text, AddSpecialTokens: &plain})
	if err != nil {
		return nil, err
	}
	slices.Sort(vocab)
	return &EngineTarget{eng: eng, model: model, vocab: slices.Compact(vocab), prompts: newPrompts()}, nil
}

// Ask answers a prompt of exactly input tokens with exactly output tokens.
func (t *EngineTarget) Ask(ctx context.Context, input, output int) Answer {
	mark, picks := t.prompts.next(input, len(t.vocab))
	tokens := make([]int32, input)
	for i, p := range picks {
		tokens[i] = t.vocab[p]
	}
	var greedy float64
	req := &engine.Request{ID: fmt.Sprintf("bench-%x", mark), CacheSalt: fmt.Sprintf("bench-%x", mark), Model: t.model,
		Tokens: tokens, Sampling: engine.Sampling{Temperature: &greedy, MaxTokens: &output, IgnoreEOS: true}}
	a := Answer{Sent: time.Now()}
	for ev, err := range t.eng.Generate(ctx, req) {
		if err != nil {
			a.Err = err
			break
		}
		if n := len(ev.Tokens); n > 0 {
			a.Pieces = append(a.Pieces, Piece{time.Now(), n})
		}
		if ev.Usage != nil {
			a.PromptTokens, a.CachedTokens, a.OutputTokens = ev.Usage.Prompt, ev.Usage.Cached, ev.Usage.Completion
		}
		if ev.Timing != nil {
			a.Prefill = ev.Timing.FirstToken.Sub(ev.Timing.Scheduled)
		}
	}
	a.Done = time.Now()
	return a
}
