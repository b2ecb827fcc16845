package server

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"pagoda/engine"
	"pagoda/jsonstring"
	"pagoda/openapi"
)

// completionLogprobs collects the lists of a choice. Offsets go on from one take to the next.
type completionLogprobs struct {
	top    int // alternatives per token
	offset int // in characters
	lists  openapi.CompletionLogprobs
}

// prompt puts the prompt's tokens first. The very first one has a text, which first is, but no probability.
func (l *completionLogprobs) prompt(first string, logprobs []engine.Logprob) {
	if len(logprobs) == 0 {
		return
	}
	l.token([]byte(first), nil, nil)
	l.add(logprobs[1:])
}

func (l *completionLogprobs) add(logprobs []engine.Logprob) {
	for _, p := range logprobs {
		own := finite(p.Logprob)
		var top map[string]float64
		if l.top > 0 {
			top = make(map[string]float64, len(p.Top)+1)
			for i := len(p.Top) - 1; i >= 0; i-- { // of two that look alike the likelier one stays
				top[tokenString(p.Top[i].Bytes)] = finite(p.Top[i].Logprob)
			}
			top[tokenString(p.Bytes)] = own
		}
		l.token(p.Bytes, &own, top)
	}
}

func (l *completionLogprobs) token(text []byte, logprob *float64, top map[string]float64) {
	l.lists.Tokens = append(l.lists.Tokens, tokenString(text))
	l.lists.TokenLogprobs = append(l.lists.TokenLogprobs, logprob)
	if l.top > 0 {
		l.lists.TopLogprobs = append(l.lists.TopLogprobs, top)
	}
	l.lists.TextOffset = append(l.lists.TextOffset, l.offset)
	for _, c := range text {
		if utf8.RuneStart(c) { // a character counts for the token that begins it
			l.offset++
		}
	}
}

// take returns what was collected since the last time.
func (l *completionLogprobs) take() *openapi.CompletionLogprobs {
	lists := l.lists
	if l.top > 0 && lists.TopLogprobs == nil {
		lists.TopLogprobs = []map[string]float64{}
	}
	l.lists = openapi.CompletionLogprobs{}
	return &lists
}

// firstToken returns the text of a prompt's first token, which has no logprob to tell it.
func (s *Server) firstToken(ctx context.Context, req *engine.Request, p *engine.Prompt) (string, error) {
	if p == nil || len(p.Tokens) == 0 {
		return "", nil
	}
	if req.Output.NameByID {
		return fmt.Sprintf("token_id:%d", p.Tokens[0]), nil
	}
	t, err := s.tokenizer()
	if err != nil {
		return "", err
	}
	texts, err := t.TokenText(ctx, req.Model, p.Tokens[:1])
	if err != nil || len(texts) == 0 {
		return "", err
	}
	return texts[0], nil
}

// completionStream writes the chunks of a completion.
type completionStream struct {
	progress
	reqs       []*engine.Request
	logprobs   []completionLogprobs // by choice
	firstToken func(*engine.Prompt) (string, error)
}

func (s *Server) newCompletionStream(ctx context.Context, reqs []*engine.Request, out *reply) *completionStream {
	c := &completionStream{progress: newProgress(out, len(reqs)), reqs: reqs,
		firstToken: func(p *engine.Prompt) (string, error) { return s.firstToken(ctx, reqs[0], p) }}
	c.logprobs = make([]completionLogprobs, len(c.opened))
	for i := range c.logprobs {
		c.logprobs[i].top = orZero(reqs[0].Output.Logprobs)
	}
	return c
}

func (c *completionStream) begin(fingerprint string, created time.Time) {
	c.chunks = newChunks(newID("cmpl-"), "text_completion", c.out.model, fingerprint, created)
}

func (c *completionStream) event(dst []byte, ev *promptEvent) ([]byte, error) {
	index, err := c.note(ev)
	if err != nil || !carries(ev) {
		return dst, err
	}
	if !c.opened[index] {
		c.opened[index] = true
		if dst, err = c.first(dst, index, ev.prompt); err != nil {
			return dst, err
		}
	}
	if ev.Text != "" || len(ev.Logprobs) > 0 || len(ev.Tokens) > 0 && (c.out.logprobs || c.out.tokenIDs || c.out.continuousUsage) {
		dst = c.text(dst, index, &ev.Event)
	}
	if ev.Finish != "" {
		dst = append(c.open(dst, index, "text"), `""`...)
		dst = c.close(appendFinish(dst, c.reqs[ev.prompt], &ev.Event))
	}
	return dst, nil
}

// first appends the chunk with the prompt, if the client wants to see it.
func (c *completionStream) first(dst []byte, index, prompt int) ([]byte, error) {
	if c.out.echo == nil && !c.out.tokenIDs {
		return dst, nil
	}
	text := ""
	if c.out.echo != nil {
		text = c.out.echo[prompt]
	}
	dst = jsonstring.AppendQuote(c.open(dst, index, "text"), text)
	dst = append(dst, `,"logprobs":`...)
	if p := c.prompts[prompt]; c.out.echo != nil && c.out.logprobs && p != nil {
		token, err := c.firstToken(p)
		if err != nil {
			return dst, err
		}
		c.logprobs[index].prompt(token, p.Logprobs)
		dst = appendJSON(dst, c.logprobs[index].take())
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":null`...)
	if c.out.tokenIDs {
		dst = appendIDs(append(dst, `,"prompt_token_ids":`...), promptTokens(c.prompts[prompt]))
	}
	return c.close(append(dst, '}')), nil
}

func (c *completionStream) text(dst []byte, index int, ev *engine.Event) []byte {
	dst = jsonstring.AppendQuote(c.open(dst, index, "text"), ev.Text)
	dst = append(dst, `,"logprobs":`...)
	if c.out.logprobs && len(ev.Logprobs) > 0 {
		c.logprobs[index].add(ev.Logprobs)
		dst = appendJSON(dst, c.logprobs[index].take())
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":null`...)
	if c.out.tokenIDs {
		dst = appendIDs(append(dst, `,"token_ids":`...), ev.Tokens)
	}
	return c.close(append(dst, '}'))
}
