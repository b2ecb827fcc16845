package templated

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"strconv"

	"pagoda/backends/native/codec"
	"pagoda/backends/proxy"
	"pagoda/engine"
)

// Options are what the configuration says.
type Options struct {
	// Codec makes prompts from chats and answers from tokens. Nil: the upstream does.
	Codec *codec.Codec
	// System and Thinking are the system message of chats that have none and the template argument enable_thinking of those that
	// do not say, where the upstream makes the prompts; "" and nil: none.
	System   string
	Thinking *bool
	Sampling engine.SamplingDefaults
	MaxLen   int // most tokens of prompt and answer together where the upstream does not tell; 0: unknown
	MaxStops int // stop strings that the upstream takes; 0: any number
	// NamesByID says that the upstream can tell tokens of log-probabilities by id (engine.Output.NameByID).
	NamesByID bool
}

// Engine is a proxy engine whose requests are completed by the configuration. What is not said here is the proxy engine's.
type Engine struct {
	*proxy.Engine
	o     Options
	codec *codec.Codec
}

var (
	_ engine.Engine    = (*Engine)(nil)
	_ engine.Tokenizer = (*Engine)(nil)
)

// New puts o in front of p. The engine owns both p and the codec.
func New(p *proxy.Engine, o Options) *Engine {
	if o.Codec != nil {
		o.Codec.Bound(o.Codec.Tokenizer().VocabSize())
	}
	o.Sampling = codec.SamplingDefaults(nil, o.Sampling)
	return &Engine{p, o, o.Codec}
}

// Close closes the proxy engine and the codec.
func (e *Engine) Close(ctx context.Context) error {
	err := e.Engine.Close(ctx)
	if e.codec != nil {
		err = errors.Join(err, e.codec.Close())
	}
	return err
}

// Generate answers req.
func (e *Engine) Generate(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] {
	return func(yield func(engine.Event, error) bool) {
		full := e.complete(req)
		if e.codec != nil {
			e.render(ctx, full, yield)
			return
		}
		if full.Sampling.MaxTokens != req.Sampling.MaxTokens {
			if e.fits(ctx, full, yield) {
				return
			}
			full.Sampling.MaxTokens = nil // all that there is room for is less than the default
		}
		for ev, err := range e.Engine.Generate(ctx, full) {
			if !yield(ev, err) {
				return
			}
		}
	}
}

// fits yields the answer to req, unless the upstream finds that prompt and max_tokens are too long together.
func (e *Engine) fits(ctx context.Context, req *engine.Request, yield func(engine.Event, error) bool) bool {
	for ev, err := range e.Engine.Generate(ctx, req) {
		if err != nil && engine.AsError(err).Code == engine.TooLong {
			return false
		}
		if !yield(ev, err) {
			return true
		}
	}
	return true
}

// complete returns a copy of req with the defaults of what it does not say.
func (e *Engine) complete(req *engine.Request) *engine.Request {
	full := *req
	s, d := &full.Sampling, &e.o.Sampling
	s.Temperature = cmp.Or(s.Temperature, d.Temperature)
	s.TopP = cmp.Or(s.TopP, d.TopP)
	s.TopK = cmp.Or(s.TopK, d.TopK)
	s.MinP = cmp.Or(s.MinP, d.MinP)
	s.RepetitionPenalty = cmp.Or(s.RepetitionPenalty, d.RepetitionPenalty)
	full.Output.SkipSpecial = cmp.Or(full.Output.SkipSpecial, d.SkipSpecial)
	if e.codec == nil { // which fits it into the model's length
		s.MaxTokens = cmp.Or(s.MaxTokens, d.MaxTokens)
		full.Chat = e.completeChat(req.Chat)
	}
	return &full
}

func (e *Engine) completeChat(ch *engine.Chat) *engine.Chat {
	if ch == nil {
		return nil
	}
	full := *ch
	if m := ch.Messages; e.o.System != "" && len(m) > 0 && m[0].Role != "system" && m[0].Role != "developer" {
		full.Messages = append([]engine.Message{{Role: "system", Content: &e.o.System}}, m...)
	}
	if e.o.Thinking != nil {
		full.TemplateKwargs = thinking(ch.TemplateKwargs, *e.o.Thinking)
	}
	return &full
}

// thinking returns kwargs with enable_thinking, unless they have it.
func thinking(kwargs map[string]json.RawMessage, value bool) map[string]json.RawMessage {
	if _, ok := kwargs["enable_thinking"]; ok {
		return kwargs
	}
	all := map[string]json.RawMessage{"enable_thinking": json.RawMessage(strconv.FormatBool(value))}
	maps.Copy(all, kwargs)
	return all
}

// Tokenize returns the tokens of the prompt that Generate makes.
func (e *Engine) Tokenize(ctx context.Context, req *engine.Request) ([]int32, error) {
	full := e.complete(req)
	if e.codec == nil {
		return e.Engine.Tokenize(ctx, full)
	}
	if err := checkChat(full); err != nil {
		return nil, err
	}
	return e.codec.Tokenize(ctx, full)
}

// Detokenize returns the text of tokens, special tokens included.
func (e *Engine) Detokenize(ctx context.Context, model string, tokens []int32) (string, error) {
	if e.codec == nil {
		return e.Engine.Detokenize(ctx, model, tokens)
	}
	return e.codec.Detokenize(tokens)
}

// TokenText returns the text of each token.
func (e *Engine) TokenText(ctx context.Context, model string, tokens []int32) ([]string, error) {
	if e.codec == nil {
		return e.Engine.TokenText(ctx, model, tokens)
	}
	return e.codec.TokenText(tokens)
}
