package proxy

import (
	"context"

	"pagoda/engine"
)

// pooled is the answer of an upstream's routes for vectors and scores.
type pooled struct {
	Data []struct {
		Index     int       `json:"index"`
		Embedding []float32 `json:"embedding"`
		Score     float64   `json:"score"`
	} `json:"data"`
	Usage chunkUsage `json:"usage"`
}

// pooling asks one of these routes. write adds what is the route's own.
func (e *Engine) pooling(ctx context.Context, path string, p *engine.Pooling, n int, write func(enc *encoding)) (*pooled, []int, error) {
	enc := encoding{d: e.d}
	write(&enc)
	enc.optionalValue("truncate_prompt_tokens", p.Truncate != nil, p.Truncate)
	if p.TruncateLeft {
		enc.optionalValue("truncation_side", true, "left")
	}
	if p.Priority != 0 {
		enc.optionalValue("priority", true, p.Priority)
	}
	enc.extra(p.Extra)
	if enc.err != nil {
		return nil, nil, enc.err
	}
	var out pooled
	err := e.call(ctx, path, p.Model, func(o *object) {
		if len(enc.buf) > 1 {
			o.buf = append(append(o.buf, ','), enc.buf[1:]...)
		}
	}, &out)
	if err != nil {
		return nil, nil, err
	}
	seen := make([]bool, n)
	for _, d := range out.Data {
		if d.Index < 0 || d.Index >= n || seen[d.Index] {
			return nil, nil, engine.Errorf(engine.Upstream, "the model's server sent result %d of %d", d.Index, n)
		}
		seen[d.Index] = true
	}
	if len(out.Data) != n {
		return nil, nil, engine.Errorf(engine.Upstream, "the model's server sent %d results for %d inputs", len(out.Data), n)
	}
	tokens := make([]int, n)
	if n > 0 {
		tokens[0] = out.Usage.Prompt // upstreams tell the sum only
	}
	return &out, tokens, nil
}

// Embed asks an upstream for the vectors of texts. Tokens has the sum of all with the first input.
func (e *Engine) Embed(ctx context.Context, req *engine.EmbedRequest) (*engine.Embedding, error) {
	texts, ids := []string{}, [][]int32{}
	for _, in := range req.Inputs {
		if in.Tokens != nil {
			ids = append(ids, in.Tokens)
		} else {
			texts = append(texts, in.Text)
		}
	}
	if len(texts) > 0 && len(ids) > 0 {
		return nil, BadField("input", "must be texts or token ids, not both")
	}
	out, tokens, err := e.pooling(ctx, "/v1/embeddings", &req.Pooling, len(req.Inputs), func(enc *encoding) {
		if len(ids) > 0 {
			enc.value("input", ids)
		} else {
			enc.value("input", texts)
		}
		enc.text("encoding_format", "float")
		if req.Dimensions != nil {
			enc.int("dimensions", int64(*req.Dimensions))
		}
		enc.optionalBool("add_special_tokens", req.AddSpecialTokens)
		enc.optionalBool("normalize", req.Normalize)
	})
	if err != nil {
		return nil, err
	}
	answer := &engine.Embedding{Vectors: make([][]float32, len(req.Inputs)), Tokens: tokens}
	for _, d := range out.Data {
		answer.Vectors[d.Index] = d.Embedding
	}
	return answer, nil
}

// Score asks an upstream how well texts go together. Tokens has the sum of all with the first pair.
func (e *Engine) Score(ctx context.Context, req *engine.ScoreRequest) (*engine.Scores, error) {
	if e.d.Score == "" {
		return nil, BadField("model", "is not scored: %s has no route for pairs of texts", e.d.Title)
	}
	if req.MaxSecond > 0 {
		return nil, BadField("max_tokens_per_doc", "is not supported by %s", e.d.Title)
	}
	first, second := make([]string, len(req.Pairs)), make([]string, len(req.Pairs))
	for i, p := range req.Pairs {
		first[i], second[i] = p.First, p.Second
	}
	out, tokens, err := e.pooling(ctx, e.d.Score, &req.Pooling, len(req.Pairs), func(enc *encoding) {
		enc.value("text_1", first)
		enc.value("text_2", second)
	})
	if err != nil {
		return nil, err
	}
	answer := &engine.Scores{Scores: make([]float64, len(req.Pairs)), Tokens: tokens}
	for _, d := range out.Data {
		answer.Scores[d.Index] = d.Score
	}
	return answer, nil
}
