package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"pagoda/client"
)

// URLTarget asks a server that speaks OpenAI's API, with streamed answers.
type URLTarget struct {
	client  *client.Client
	model   string
	chat    bool // chat completions, else completions
	prompts *prompts

	// What Probe found out.
	wordsPerToken float64
	ignoreEOS     bool // the server takes ignore_eos
	usage         bool // the server counts tokens
}

// NewURLTarget measures model at c's server. Call Probe before Ask.
func NewURLTarget(c *client.Client, model string, chat bool) *URLTarget {
	return &URLTarget{client: c, model: model, chat: chat, prompts: newPrompts(), wordsPerToken: 1, ignoreEOS: true}
}

// Probe sends a request or two to learn what the server takes and how it counts, and returns what one should know to
// read the figures.
func (t *URLTarget) Probe(ctx context.Context, input int) (notes []string, err error) {
	a := t.Ask(ctx, input, 4)
	status, ok := errors.AsType[*client.StatusError](a.Err)
	if ok && (status.Code == http.StatusBadRequest || status.Code == http.StatusUnprocessableEntity) {
		t.ignoreEOS = false
		if a = t.Ask(ctx, input, 4); a.Err == nil {
			notes = append(notes, "the server refuses ignore_eos: answers end where the model ends them")
		}
	}
	if a.Err != nil {
		return nil, a.Err
	}
	if t.usage = a.PromptTokens > 0; t.usage {
		t.wordsPerToken = float64(input) / float64(a.PromptTokens)
	} else {
		notes = append(notes, "the server does not count tokens: output tokens are pieces of the stream, input tokens are unknown")
	}
	return notes, nil
}

// Ask sends a prompt that has input tokens as far as the probe's words per token tell.
func (t *URLTarget) Ask(ctx context.Context, input, output int) Answer {
	text := t.prompts.text(max(1, int(float64(input)*t.wordsPerToken+0.5)))
	body := map[string]any{"model": t.model, "max_tokens": output, "temperature": 0, "stream": true,
		"stream_options": map[string]any{"include_usage": true}}
	if t.ignoreEOS {
		body["ignore_eos"] = true
	}
	path := "/completions"
	if t.chat {
		path = "/chat/completions"
		body["messages"] = []any{map[string]any{"role": "user", "content": text}}
	} else {
		body["prompt"] = text
	}
	a := Answer{Sent: time.Now()}
	for chunk, err := range t.client.Stream(ctx, path, body) {
		if err != nil {
			a.Err = err
			break
		}
		for _, c := range chunk.Choices {
			if c.Text != "" || c.Delta.Content != "" || c.Thought() != "" || len(c.Delta.ToolCalls) > 0 {
				a.Pieces = append(a.Pieces, Piece{time.Now(), 1})
			}
		}
		if u := chunk.Usage; u != nil {
			a.PromptTokens, a.CachedTokens, a.OutputTokens = u.PromptTokens, u.PromptTokensDetails.CachedTokens, u.CompletionTokens
		}
	}
	a.Done = time.Now()
	if a.OutputTokens == 0 {
		a.OutputTokens = len(a.Pieces)
	}
	if a.Err != nil && ctx.Err() == nil {
		a.Err = plainError(a.Err)
	}
	return a
}

// plainError leaves out what differs between requests that fail alike: addresses and ports.
func plainError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}
