package fake

import (
	"context"
	"math"
	"unicode/utf8"

	"pagoda/engine"
)

// Dimensions is the length of the vectors that Embed makes.
const Dimensions = 4

var (
	_ engine.Embedder = (*Engine)(nil)
	_ engine.Scorer   = (*Engine)(nil)
)

// Embeds returns what Embed was asked so far.
func (e *Engine) Embeds() []*engine.EmbedRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.embeds
}

// Scored returns what Score was asked so far.
func (e *Engine) Scored() []*engine.ScoreRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.scored
}

// Embed returns for each input the vector (number of tokens, first token, 0.5, -1), cut to Dimensions. It waits for
// PoolingGate, if there is one.
func (e *Engine) Embed(ctx context.Context, req *engine.EmbedRequest) (*engine.Embedding, error) {
	e.mu.Lock()
	e.embeds = append(e.embeds, req)
	e.mu.Unlock()
	if err := e.wait(ctx, req.Pooling); err != nil {
		return nil, err
	}
	dims := Dimensions
	if d := req.Dimensions; d != nil {
		if dims = *d; dims > Dimensions {
			return nil, engine.BadField("dimensions", "is %d, and the vectors have %d", dims, Dimensions)
		}
	}
	out := &engine.Embedding{}
	for _, in := range req.Inputs {
		tokens := in.Tokens
		if tokens == nil {
			tokens = Tokens(in.Text)
		}
		v := []float32{float32(len(tokens)), float32(tokens[0]), 0.5, -1}
		out.Vectors, out.Tokens = append(out.Vectors, v[:dims]), append(out.Tokens, len(tokens))
	}
	return out, nil
}

// Score returns for each pair one divided by one plus the difference of the texts' lengths.
func (e *Engine) Score(ctx context.Context, req *engine.ScoreRequest) (*engine.Scores, error) {
	e.mu.Lock()
	e.scored = append(e.scored, req)
	e.mu.Unlock()
	if err := e.wait(ctx, req.Pooling); err != nil {
		return nil, err
	}
	out := &engine.Scores{}
	for _, p := range req.Pairs {
		a, b := utf8.RuneCountInString(p.First), utf8.RuneCountInString(p.Second)
		out.Scores, out.Tokens = append(out.Scores, 1/(1+math.Abs(float64(a-b)))), append(out.Tokens, a+b)
	}
	return out, nil
}

func (e *Engine) wait(ctx context.Context, p engine.Pooling) error {
	if _, ok := e.model(p.Model); !ok {
		return unknownModel(p.Model)
	}
	for name := range p.Extra {
		if !p.IgnoreExtra {
			return engine.BadField(name, "unknown field %q", name)
		}
	}
	if e.PoolingGate != nil {
		select {
		case <-e.PoolingGate:
		case <-ctx.Done():
			return engine.Errorf(engine.Canceled, "the request was canceled")
		}
	}
	return nil
}
