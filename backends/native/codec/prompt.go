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

// Prompt renders and tokenizes req's prompt and checks that it fits. Errors are *engine.Error.
func (c *Codec) Prompt(ctx context.Context, req *engine.Request) (Prompt, error) {
	p, err := c.prepared(ctx, func() (Prompt, error) { return c.tokenize(req, true) })
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
	p, err := c.prepared(ctx, func() (Prompt, error) { return c.tokenize(req, false) })
	return p.Tokens, err
}

// prompterOf is the prompter for ch.
func (c *Codec) prompterOf(ch *engine.Chat) *chat.Prompter {
	if c.toolPrompter != nil && len(ch.Tools) > 0 && ch.ToolChoice != "none" {
		return c.toolPrompter
	}
	return c.prompter
}

// tokenize turns req's prompt into tokens. With bounded, a text that cannot fit is refused before the work is done.
func (c *Codec) tokenize(req *engine.Request, bounded bool) (p Prompt, err error) {
	var text string
	var cuts []int
	switch {
	case req.Chat != nil:
		if c.prompter == nil {
			return p, engine.Errorf(engine.Invalid, "this model has no chat template; use /v1/completions")
		}
		r, err := c.prompterOf(req.Chat).Render(req.Chat)
		if least := contentBytes(req.Chat) / c.tok.Longest(); err != nil && bounded && least > c.maxLen {
			return p, c.tooLong(req, fmt.Sprintf("at least %d", least)) // which is why a limit of the template was met
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
	if least := len(text) / c.tok.Longest(); bounded && least > c.maxLen {
		return p, c.tooLong(req, fmt.Sprintf("at least %d", least))
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
// fits.
func (c *Codec) MaxTokens(req *engine.Request, numPrompt int, byDefault *int) (int, *engine.Error) {
	room := c.maxLen - numPrompt
	want := room
	if byDefault != nil {
		want = min(room, *byDefault)
	}
	if m := req.Sampling.MaxTokens; m != nil {
		want = *m
	}
	if want > room || room < 0 || room == 0 && req.Sampling.MaxTokens == nil {
		return 0, c.tooLong(req, strconv.Itoa(numPrompt))
	}
	if req.Sampling.MinTokens > want {
		return 0, engine.BadField("min_tokens", "min_tokens (%d) is above the %d tokens that may be generated",
			req.Sampling.MinTokens, want)
	}
	return want, nil
}

// tooLong says that prompt and completion do not fit. numPrompt is a number or "at least" one.
func (c *Codec) tooLong(req *engine.Request, numPrompt string) *engine.Error {
	err := engine.Errorf(engine.TooLong, "this model's context is %d tokens, but the prompt has %s tokens", c.maxLen, numPrompt)
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
