// Package fake is a scripted engine.Engine for tests: it says what it was told to say, waits where it was told to
// wait, fails where it was told to fail, and remembers what it was asked. One token is one character.
package fake

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"pagoda/engine"
)

// Step is one thing a Script does: wait for Wait if it is set, then yield Err if it is set, else Event.
type Step struct {
	Wait  <-chan struct{}
	Err   error
	Event engine.Event
}

// Script answers a request. The events are sent as they are, so that a test can send any sequence it likes.
type Script func(req *engine.Request) []Step

// Engine is a scripted engine. Set the fields before the first use; New fills them with a model that answers "Hello!".
type Engine struct {
	ModelList []engine.Model
	Scripts   map[string]Script // by model id
	StatList  []engine.Stats
	// PoolingGate, if there is one, is what Embed and Score wait for.
	PoolingGate <-chan struct{}

	mu       sync.Mutex
	requests []*engine.Request      // guarded by mu
	embeds   []*engine.EmbedRequest // guarded by mu
	scored   []*engine.ScoreRequest // guarded by mu
	running  int                    // guarded by mu
	canceled int                    // guarded by mu
	closed   bool                   // guarded by mu
	idle     chan struct{}          // closed when running falls to zero after Close; guarded by mu
}

var (
	_ engine.Engine    = (*Engine)(nil)
	_ engine.Tokenizer = (*Engine)(nil)
	_ engine.Statser   = (*Engine)(nil)
)

// Created is the Created time of New's models.
var Created = time.Unix(1700000000, 0)

// New returns an engine whose base model "fake" and adapter "fake-adapter" answer with Text("Hello", "!").
func New() *Engine {
	base := engine.Model{ID: "fake", Root: "built-in", Created: Created, MaxLen: 4096, Backend: "fake"}
	adapter := base
	adapter.ID, adapter.Parent, adapter.Root = "fake-adapter", "fake", "fake-adapter"
	return &Engine{
		ModelList: []engine.Model{base, adapter},
		Scripts:   map[string]Script{"fake": Text("Hello", "!"), "fake-adapter": Text("HELLO", "!")},
		StatList:  []engine.Stats{{Model: "fake", Ready: true, NumBlocks: 64, BlockSize: 16, KVDType: "float32"}},
	}
}

// Models returns ModelList.
func (e *Engine) Models() []engine.Model { return slices.Clone(e.ModelList) }

// Stats returns StatList with what runs now.
func (e *Engine) Stats() []engine.Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	stats := slices.Clone(e.StatList)
	for i := range stats {
		stats[i].Running = e.running
		stats[i].Ready = stats[i].Ready && !e.closed
	}
	return stats
}

// Requests returns what Generate was asked so far.
func (e *Engine) Requests() []*engine.Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

// Last returns the latest request, nil if there was none.
func (e *Engine) Last() *engine.Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.requests) == 0 {
		return nil
	}
	return e.requests[len(e.requests)-1]
}

// Running counts the requests whose Generate has not ended.
func (e *Engine) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running
}

// Canceled counts the requests that were left, or whose context ended, before their script did.
func (e *Engine) Canceled() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.canceled
}

// Close refuses new requests and waits for the running ones until ctx ends.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	if e.idle == nil {
		e.idle = make(chan struct{})
		if e.running == 0 {
			close(e.idle)
		}
	}
	idle := e.idle
	e.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Generate plays the script of the request's model.
func (e *Engine) Generate(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] {
	return func(yield func(engine.Event, error) bool) {
		if err := e.begin(req); err != nil {
			yield(engine.Event{}, err)
			return
		}
		done := false
		defer func() { e.end(done) }()
		for _, step := range e.Scripts[req.Model](req) {
			if step.Wait != nil {
				select {
				case <-step.Wait:
				case <-ctx.Done():
				}
			}
			if ctx.Err() != nil {
				yield(engine.Event{}, engine.Errorf(engine.Canceled, "the request was canceled"))
				return
			}
			if step.Err != nil {
				done = true
				yield(engine.Event{}, step.Err)
				return
			}
			if !yield(step.Event, nil) {
				return
			}
		}
		done = true
	}
}

func (e *Engine) begin(req *engine.Request) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.requests = append(e.requests, req)
	if e.closed {
		return engine.Errorf(engine.Unavailable, "the server is shutting down")
	}
	if err := e.check(req); err != nil {
		return err
	}
	e.running++
	return nil
}

func (e *Engine) end(done bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running--
	if !done {
		e.canceled++
	}
	if e.running == 0 && e.idle != nil {
		close(e.idle)
	}
}

// check refuses what a real engine refuses: it knows the vocabulary and the model's length, the server does not.
func (e *Engine) check(req *engine.Request) error {
	m, ok := e.model(req.Model)
	if !ok || e.Scripts[req.Model] == nil {
		return unknownModel(req.Model)
	}
	for id := range req.Sampling.LogitBias {
		if id >= utf8.MaxRune {
			return engine.BadField("logit_bias", "token id %d is not in the vocabulary", id)
		}
	}
	for name := range req.Extra {
		if !req.IgnoreExtra && !m.ForwardsUnknown {
			return engine.BadField(name, "unknown field %q", name)
		}
	}
	prompt := len(promptTokens(req))
	if prompt == 0 {
		return engine.BadField("prompt", "the prompt has no tokens")
	}
	want := prompt + 1
	if req.Sampling.MaxTokens != nil {
		want = prompt + *req.Sampling.MaxTokens
	}
	if want > m.MaxLen {
		return &engine.Error{Code: engine.TooLong, Param: "messages", Message: "This model's maximum context length is " +
			itoa(m.MaxLen) + " tokens. However, you requested " + itoa(want) + " tokens."}
	}
	return nil
}

func (e *Engine) model(id string) (engine.Model, bool) {
	i := slices.IndexFunc(e.ModelList, func(m engine.Model) bool { return m.ID == id })
	if i < 0 {
		return engine.Model{}, false
	}
	return e.ModelList[i], true
}

func unknownModel(id string) error {
	return &engine.Error{Code: engine.NotFound, Param: "model", Message: "The model `" + id + "` does not exist."}
}

// Tokenize returns the characters of the prompt; a chat is rendered as "role: content\n" per message.
func (e *Engine) Tokenize(_ context.Context, req *engine.Request) ([]int32, error) {
	if _, ok := e.model(req.Model); !ok {
		return nil, unknownModel(req.Model)
	}
	return promptTokens(req), nil
}

// Detokenize is the inverse of Tokenize for texts.
func (e *Engine) Detokenize(_ context.Context, model string, tokens []int32) (string, error) {
	texts, err := e.TokenText(context.Background(), model, tokens)
	return strings.Join(texts, ""), err
}

// TokenText returns each token's character.
func (e *Engine) TokenText(_ context.Context, model string, tokens []int32) ([]string, error) {
	if _, ok := e.model(model); !ok {
		return nil, unknownModel(model)
	}
	texts := make([]string, len(tokens))
	for i, t := range tokens {
		if t >= utf8.MaxRune {
			return nil, engine.BadField("tokens", "token id %d is not in the vocabulary", t)
		}
		texts[i] = string(rune(t))
	}
	return texts, nil
}

func promptTokens(req *engine.Request) []int32 {
	switch {
	case req.Chat != nil:
		var b strings.Builder
		for _, m := range req.Chat.Messages {
			b.WriteString(m.Role + ": ")
			if m.Content != nil {
				b.WriteString(*m.Content)
			}
			b.WriteByte('\n')
		}
		return Tokens(b.String())
	case req.Text != nil:
		return Tokens(*req.Text)
	default:
		return req.Tokens
	}
}

// Tokens returns the token ids of text.
func Tokens(text string) []int32 { return []int32(text) }
