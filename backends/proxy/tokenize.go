package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"pagoda/engine"
)

// call posts a request that has no stream to an upstream that is up, to another if that fails, and reads the JSON answer into out.
func (e *Engine) call(ctx context.Context, path, model string, body func(o *object), out any) error {
	adapter, err := e.resolve(model)
	if err != nil {
		return err
	}
	if err := e.begin(); err != nil {
		return err
	}
	defer e.end()
	for t := (tries{arrived: time.Now()}); ; {
		r, n, err := e.pool.take(ctx, adapter, nil, t.avoid)
		if err != nil {
			return err
		}
		var o object
		o.text("model", e.upstreamName(n, adapter))
		body(&o)
		if err = e.tryCall(ctx, r, path, o.end(), out); err == nil {
			return nil
		}
		if !e.again(ctx, &t, "", r, err) {
			return clientError(err)
		}
	}
}

func (e *Engine) tryCall(ctx context.Context, r *replica, path string, body []byte, out any) error {
	l, tied, cancel := tie(ctx)
	defer cancel()
	e.lines.join(l, r)
	defer e.lines.leave(l)
	return e.conclude(ctx, l, r, r.call(tied, path, body, out), false)
}

func (r *replica) call(ctx context.Context, path string, body []byte, out any) error {
	resp, err := r.do(ctx, http.MethodPost, path, r.key, body)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return &notSentError{op}
	}
	if err != nil {
		return &brokenError{err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return &brokenError{err}
	}
	r.alive()
	if resp.StatusCode != http.StatusOK {
		return upstreamError(resp.StatusCode, text)
	}
	if err := jsonv2.Unmarshal(text, out, lenient); err != nil {
		return &engine.Error{Code: engine.Upstream, Message: "the model's server sent an answer that cannot be read", Err: err}
	}
	return nil
}

// Tokenize asks an upstream for the tokens of a text or a rendered chat.
func (e *Engine) Tokenize(ctx context.Context, req *engine.Request) ([]int32, error) {
	if req.Text == nil && req.Chat == nil {
		return req.Tokens, nil
	}
	if req.Chat != nil && !e.d.TokenizeChat {
		return nil, BadField("messages", "cannot be tokenized by %s; send prompt", e.d.Title)
	}
	enc := encoding{d: e.d}
	if req.Chat != nil {
		enc.chat(req)
	} else {
		enc.text("prompt", *req.Text)
	}
	if req.AddSpecialTokens != nil {
		enc.bool("add_special_tokens", *req.AddSpecialTokens)
	}
	enc.extra(req.Extra)
	if enc.err != nil {
		return nil, enc.err
	}
	var out struct {
		Tokens []int32 `json:"tokens"`
	}
	err := e.call(ctx, "/tokenize", req.Model, func(o *object) {
		if len(enc.buf) > 1 {
			o.buf = append(append(o.buf, ','), enc.buf[1:]...)
		}
	}, &out)
	return out.Tokens, err
}

// Detokenize asks an upstream for the text of tokens.
func (e *Engine) Detokenize(ctx context.Context, model string, tokens []int32) (string, error) {
	var out struct {
		Prompt string `json:"prompt"` // vLLM
		Text   string `json:"text"`   // SGLang
	}
	err := e.call(ctx, "/detokenize", model, func(o *object) {
		if tokens == nil {
			tokens = []int32{}
		}
		o.value("tokens", tokens)
	}, &out)
	return out.Prompt + out.Text, err
}

// TokenText asks for the text of each token by itself.
func (e *Engine) TokenText(ctx context.Context, model string, tokens []int32) ([]string, error) {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		text, err := e.Detokenize(ctx, model, []int32{t})
		if err != nil {
			return nil, err
		}
		out[i] = text
	}
	return out, nil
}
