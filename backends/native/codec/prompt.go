package codec

import (
	"context"
	"fmt"
	"strconv"

	"pagoda/backends/native/chat"
	"pagoda/engine"
)

// Prompt is a request's prompt as the model sees it.
type Prompt struct {
	Tokens    []int32
	openThink bool // it has opened the thoughts
}

// unbounded is the length of prompts that need not fit.
const unbounded = 0

// maxTokenizeBytes bounds the text of one Tokenize call, which no context length does: about a second's work.
const maxTokenizeBytes = 1 << 20

// prepared runs f when its turn has come: rendering and tokenizing are work for GOMAXPROCS goroutines at once.
func (c *Codec) prepared(ctx context.Context, f func() (Prompt, error)) (Prompt, error) {
	select {
	case c.prepare <- struct{}{}:
		defer func() { <-c.prepare }()
	case <-ctx.Done():
		return Prompt{}, &engine.Error{Code: engine.Canceled, Message: "the request was cancelled", Err: context.Cause(ctx)}
	}
	return f()
}

// Prompt renders and tokenizes req's prompt. What cannot fit into maxLen tokens may be refused before the work is done; MaxTokens
// tells whether the rest does. Errors are *engine.Error.
func (c *Codec) Prompt(ctx context.Context, req *engine.Request, maxLen int) (Prompt, error) {
	p, err := c.prepared(ctx, func() (Prompt, error) { return c.tokenize(req, maxLen) })
	if err != nil {
		return p, err
	}
	if len(p.Tokens) == 0 {
		return p, engine.BadField(promptField(req), "the prompt is empty")
	}
	return p, nil
}

// Tokenize returns the token ids of req's prompt, which need not fit.
func (c *Codec) Tokenize(ctx context.Context, req *engine.Request) ([]int32, error) {
	p, err := c.prepared(ctx, func() (Prompt, error) { return c.tokenize(req, unbounded) })
	return p.Tokens, err
}

// Detokenize returns the text of tokens, special tokens included.
func (c *Codec) Detokenize(tokens []int32) (string, error) {
	if err := c.checkTokens(tokens); err != nil {
		return "", err
	}
	return c.tok.Decode(tokens, false), nil
}

// TokenText returns the text of each token; what is not UTF-8 shows as U+FFFD.
func (c *Codec) TokenText(tokens []int32) ([]string, error) {
	if err := c.checkTokens(tokens); err != nil {
		return nil, err
	}
	out := make([]string, len(tokens))
	for i, id := range tokens {
		out[i] = c.tok.Decode([]int32{id}, false)
	}
	return out, nil
}

func (c *Codec) checkTokens(tokens []int32) error {
	for i, id := range tokens {
		if !c.tok.Valid(id) {
			return engine.BadField("tokens", "token %d is %d, outside the vocabulary of %d tokens", i, id, c.tok.VocabSize())
		}
	}
	return nil
}

// prompterOf is the prompter for ch.
func (c *Codec) prompterOf(ch *engine.Chat) *chat.Prompter {
	if c.toolPrompter != nil && len(ch.Tools) > 0 && ch.ToolChoice != "none" {
		return c.toolPrompter
	}
	return c.prompter
}

// tokenize turns req's prompt into tokens. A text that cannot fit into maxLen is refused before the work is done.
func (c *Codec) tokenize(req *engine.Request, maxLen int) (p Prompt, err error) {
	var text string
	var cuts []int
	bounded := maxLen != unbounded
	switch {
	case req.Chat != nil:
		if c.prompter == nil {
			return p, engine.Errorf(engine.Invalid, "this model has no chat template; use /v1/completions")
		}
		r, err := c.prompterOf(req.Chat).Render(req.Chat)
		if least := contentBytes(req.Chat) / c.tok.Longest(); err != nil && bounded && least > maxLen {
			return p, tooLong(req, maxLen, fmt.Sprintf("at least %d", least)) // which is why a limit of the template was met
		}
		if err != nil {
			return p, err
		}
		text, cuts, p.openThink = r.Text, r.Cuts, r.OpenThink
	case req.Text != nil:
		text = *req.Text
	default:
		for i, id := range req.Tokens {
			if id < 0 || int(id) >= c.vocab {
				return p, engine.BadField("prompt", "token %d is %d, outside the vocabulary of %d tokens", i, id, c.vocab)
			}
		}
		p.Tokens = req.Tokens
		return p, nil
	}
	if least := len(text) / c.tok.Longest(); bounded && least > maxLen {
		return p, tooLong(req, maxLen, fmt.Sprintf("at least %d", least))
	}
	if !bounded && len(text) > maxTokenizeBytes {
		return p, engine.BadField(promptField(req), "the prompt has %d bytes; at most %d can be tokenized at once",
			len(text), maxTokenizeBytes)
	}
	if req.Chat != nil {
		p.Tokens, err = c.tok.EncodeCut(text, cuts)
	} else {
		p.Tokens, err = c.tok.Encode(text, req.AddSpecialTokens == nil || *req.AddSpecialTokens)
	}
	if err != nil {
		return p, &engine.Error{Code: engine.Invalid, Param: promptField(req), Message: "the prompt could not be tokenized", Err: err}
	}
	for _, id := range p.Tokens {
		if int(id) >= c.vocab {
			return p, engine.BadField(promptField(req), "the model has no embedding for the tokenizer's token %d, %q", id,
				c.tok.Decode([]int32{id}, false))
		}
	}
	return p, nil
}

func contentBytes(ch *engine.Chat) int {
	n := 0
	for _, m := range ch.Messages {
		if m.Content != nil {
			n += len(*m.Content)
		}
	}
	return n
}

// MaxTokens is how many tokens a choice may have: what the request says, else the model's default (nil: none), else what
// fits into maxLen, the most tokens of prompt and answer together.
func MaxTokens(req *engine.Request, numPrompt, maxLen int, byDefault *int) (int, *engine.Error) {
	room := maxLen - numPrompt
	want := room
	if byDefault != nil {
		want = min(room, *byDefault)
	}
	if m := req.Sampling.MaxTokens; m != nil {
		want = *m
	}
	if want > room || room < 0 || room == 0 && req.Sampling.MaxTokens == nil {
		return 0, tooLong(req, maxLen, strconv.Itoa(numPrompt))
	}
	if req.Sampling.MinTokens > want {
		return 0, engine.BadField("min_tokens", "min_tokens (%d) is above the %d tokens that may be generated",
			req.Sampling.MinTokens, want)
	}
	return want, nil
}

// tooLong says that prompt and completion do not fit. numPrompt is a number or "at least" one.
func tooLong(req *engine.Request, maxLen int, numPrompt string) *engine.Error {
	err := engine.Errorf(engine.TooLong, "this model's context is %d tokens, but the prompt has %s tokens", maxLen, numPrompt)
	err.Param = promptField(req)
	if m := req.Sampling.MaxTokens; m != nil {
		err.Message += fmt.Sprintf(" and %d more were asked for", *m)
	}
	return err
}

// promptField is the client's name for what a prompt was made of.
func promptField(req *engine.Request) string {
	if req.Chat != nil {
		return "messages"
	}
	return "prompt"
}
