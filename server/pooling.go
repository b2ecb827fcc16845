package server

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"pagoda/engine"
	"pagoda/openapi"
)

// The routes of models that turn texts into numbers instead of going on with them.

// maxInputs is how many texts, documents or pairs one request may have: OpenAI's limit.
const maxInputs = 2048

// pooling makes a handler of a dialect: answer reads the body, asks the engine and returns what is to be written.
// Requests for a proxied model are passed on as they are.
func (s *Server) pooling(answer func(w http.ResponseWriter, r *http.Request, body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(r)
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		if slices.ContainsFunc(s.eng.Models(), func(m engine.Model) bool { return m.ForwardsUnknown }) {
			m, err := s.modelIn(body)
			if err != nil {
				s.writeError(w, r, err)
				return
			}
			if m.ForwardsUnknown {
				s.forwardTo(w, r, m, body)
				return
			}
		}
		v, err := answer(w, r, body)
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

// pool is the one way from these dialects to the engine, as generate is from the others. ask returns the tokens of the
// request's inputs.
func (s *Server) pool(r *http.Request, p *engine.Pooling, ask func(ctx context.Context) ([]int, error)) (openapi.PoolingUsage, error) {
	info := requestInfo(r)
	p.ID, p.Tenant = info.ID, info.Tenant
	if err := info.admit(s.work); err != nil {
		return openapi.PoolingUsage{}, err
	}
	ctx, cancel := r.Context(), context.CancelFunc(func() {})
	if s.cfg.RequestTimeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, errTimeLimit)
	}
	defer cancel()
	g := newGeneration(s.metrics, &engine.Request{ID: p.ID, Model: p.Model})
	g.pooled = true
	info.began(g)
	defer g.close()
	tokens, err := ask(ctx)
	if err != nil {
		g.failed = causeOf(ctx, err)
		return openapi.PoolingUsage{}, g.failed
	}
	for _, n := range tokens {
		g.prompt += n
	}
	g.m.promptTokens.Add(float64(g.prompt))
	g.usage = &engine.Usage{Prompt: g.prompt}
	return openapi.PoolingUsage{PromptTokens: g.prompt, TotalTokens: g.prompt}, nil
}

// readPooling reads the body of such a request into v, one of whose fields is the model's name.
func (s *Server) readPooling(body []byte, v any, name *string) (*checker, error) {
	if err := decodeBytes(body, v); err != nil {
		return nil, err
	}
	model, err := s.model(*name)
	return &checker{model: model}, err
}

// poolingOf checks what these requests have in common.
func (c *checker) poolingOf(b *openapi.Pooling) engine.Pooling {
	p := engine.Pooling{Model: c.model.ID, Truncate: b.TruncatePromptTokens, Priority: orZero(b.Priority)}
	inRange(c, "priority", b.Priority, math.MinInt32, math.MaxInt32)
	if n := b.TruncatePromptTokens; n != nil && (*n < -1 || *n == 0 || *n > c.model.MaxLen) {
		c.bad("truncate_prompt_tokens", "must be -1, which is as many as the model takes, or between 1 and %d", c.model.MaxLen)
	}
	if side := b.TruncationSide; side != nil {
		if p.TruncateLeft = *side == "left"; !p.TruncateLeft && *side != "right" {
			c.bad("truncation_side", `must be "left" or "right"`)
		}
	}
	return p
}

// finishPooling ends the check of such a request.
func (s *Server) finishPooling(w http.ResponseWriter, c *checker, unknown openapi.Unknown, p *engine.Pooling) error {
	var req engine.Request
	err := s.finish(w, c, unknown, &req)
	p.Extra, p.IgnoreExtra = req.Extra, req.IgnoreExtra
	return err
}

// embeddings serves POST /v1/embeddings.
func (s *Server) embeddings(w http.ResponseWriter, r *http.Request, body []byte) (any, error) {
	var b openapi.EmbeddingRequest
	c, err := s.readPooling(body, &b, &b.Model)
	if err != nil {
		return nil, err
	}
	req := &engine.EmbedRequest{Pooling: c.poolingOf(&b.Pooling), Inputs: c.inputs(&b.Input), AddSpecialTokens: b.AddSpecialTokens,
		PromptName: b.PromptName, Dimensions: b.Dimensions, Normalize: b.Normalize}
	inRange(c, "dimensions", b.Dimensions, 1, math.MaxInt32)
	format := "float"
	if b.EncodingFormat != nil {
		if format = *b.EncodingFormat; format != "float" && format != "base64" {
			c.bad("encoding_format", `must be "float" or "base64"`)
		}
	}
	if err := s.finishPooling(w, c, b.Unknown, &req.Pooling); err != nil {
		return nil, err
	}
	e, ok := s.eng.(engine.Embedder)
	if !ok {
		return nil, badField("model", "makes no embeddings")
	}
	var got *engine.Embedding
	usage, err := s.pool(r, &req.Pooling, func(ctx context.Context) (_ []int, err error) {
		if got, err = e.Embed(ctx, req); err != nil {
			return nil, err
		}
		return got.Tokens, nil
	})
	if err != nil {
		return nil, err
	}
	list := &openapi.EmbeddingList{Object: "list", Data: make([]openapi.Embedding, len(got.Vectors)), Model: c.model.ID, Usage: usage}
	for i, v := range got.Vectors {
		list.Data[i] = openapi.Embedding{Object: "embedding", Index: i, Embedding: vectorOf(v, format)}
	}
	return list, nil
}

func vectorOf(v []float32, format string) openapi.Vector {
	if format == "float" {
		return openapi.Vector{Floats: v}
	}
	data := make([]byte, 0, 4*len(v))
	for _, x := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	return openapi.Vector{Base64: base64.StdEncoding.EncodeToString(data)}
}

// inputs are the texts to embed.
func (c *checker) inputs(p *openapi.Prompt) []engine.Input {
	n := len(p.Texts) + len(p.Tokens)
	name := func(i int) string {
		if n == 1 {
			return "input"
		}
		return fmt.Sprintf("input[%d]", i)
	}
	if p.Texts == nil && p.Tokens == nil {
		c.bad("input", "is required")
	} else if n == 0 || n > maxInputs {
		c.bad("input", "must have 1 to %d texts", maxInputs)
	}
	var out []engine.Input
	for i, text := range p.Texts {
		if text == "" {
			c.bad(name(i), "must not be empty")
		}
		out = append(out, engine.Input{Text: text})
	}
	for i, ids := range p.Tokens {
		if len(ids) == 0 {
			c.bad(name(i), "must not be empty")
		}
		c.tokens(name(i), ids)
		out = append(out, engine.Input{Tokens: ids})
	}
	return out
}

// score asks for the scores of pairs.
func (s *Server) score(r *http.Request, req *engine.ScoreRequest) (*engine.Scores, openapi.PoolingUsage, error) {
	e, ok := s.eng.(engine.Scorer)
	if !ok {
		return nil, openapi.PoolingUsage{}, badField("model", "does not score texts")
	}
	var got *engine.Scores
	usage, err := s.pool(r, &req.Pooling, func(ctx context.Context) (_ []int, err error) {
		if got, err = e.Score(ctx, req); err != nil {
			return nil, err
		}
		return got.Tokens, nil
	})
	return got, usage, err
}

// rerank serves POST /v1/rerank, /rerank and /v2/rerank. The last, as Cohere has it, does not repeat the documents unless
// it is told to.
func (s *Server) rerank(w http.ResponseWriter, r *http.Request, body []byte) (any, error) {
	var b openapi.RerankRequest
	c, err := s.readPooling(body, &b, &b.Model)
	if err != nil {
		return nil, err
	}
	req := &engine.ScoreRequest{Pooling: c.poolingOf(&b.Pooling), Field: "documents", Instruction: orZero(b.Instruction),
		MaxSecond: orZero(b.MaxTokensPerDoc)}
	if orZero(b.Query) == "" {
		c.bad("query", "is required and must not be empty")
	}
	if n := len(b.Documents); n == 0 || n > maxInputs {
		c.bad("documents", "is required and must have 1 to %d documents", maxInputs)
	}
	for i, d := range b.Documents {
		if d.Text == "" {
			c.bad(fmt.Sprintf("documents[%d]", i), "must not be empty")
		}
		req.Pairs = append(req.Pairs, engine.Pair{First: orZero(b.Query), Second: d.Text})
	}
	inRange(c, "top_n", b.TopN, 1, math.MaxInt32)
	inRange(c, "max_tokens_per_doc", b.MaxTokensPerDoc, 1, math.MaxInt32)
	if err := s.finishPooling(w, c, b.Unknown, &req.Pooling); err != nil {
		return nil, err
	}
	got, usage, err := s.score(r, req)
	if err != nil {
		return nil, err
	}
	out := &openapi.Ranking{ID: newID("rerank-"), Model: c.model.ID, Usage: usage}
	repeat := !strings.HasPrefix(r.URL.Path, "/v2/")
	if b.ReturnDocuments != nil {
		repeat = *b.ReturnDocuments
	}
	for i, score := range got.Scores {
		ranked := openapi.Ranked{Index: i, RelevanceScore: score}
		if repeat {
			ranked.Document = &b.Documents[i]
		}
		out.Results = append(out.Results, ranked)
	}
	slices.SortStableFunc(out.Results, func(a, b openapi.Ranked) int { return cmp.Compare(b.RelevanceScore, a.RelevanceScore) })
	if b.TopN != nil && *b.TopN < len(out.Results) {
		out.Results = out.Results[:*b.TopN]
	}
	return out, nil
}

// scores serves POST /v1/score and /score.
func (s *Server) scores(w http.ResponseWriter, r *http.Request, body []byte) (any, error) {
	var b openapi.ScoreRequest
	c, err := s.readPooling(body, &b, &b.Model)
	if err != nil {
		return nil, err
	}
	req := &engine.ScoreRequest{Pooling: c.poolingOf(&b.Pooling), Pairs: c.pairs(b.Text1, b.Text2), Field: "text_2",
		Instruction: orZero(b.Instruction)}
	if err := s.finishPooling(w, c, b.Unknown, &req.Pooling); err != nil {
		return nil, err
	}
	got, usage, err := s.score(r, req)
	if err != nil {
		return nil, err
	}
	out := &openapi.ScoreList{ID: newID("score-"), Object: "list", Created: time.Now().Unix(), Model: c.model.ID, Usage: usage}
	for i, score := range got.Scores {
		out.Data = append(out.Data, openapi.Score{Index: i, Object: "score", Score: score})
	}
	return out, nil
}

// pairs joins one text with each of the others, or two lists of one length.
func (c *checker) pairs(first, second []string) []engine.Pair {
	for _, list := range []struct {
		name  string
		texts []string
	}{{"text_1", first}, {"text_2", second}} {
		if n := len(list.texts); n == 0 || n > maxInputs {
			c.bad(list.name, "is required and must have 1 to %d texts", maxInputs)
		}
		if i := slices.Index(list.texts, ""); i >= 0 {
			c.bad(fmt.Sprintf("%s[%d]", list.name, i), "must not be empty")
		}
	}
	if len(first) != 1 && len(first) != len(second) {
		c.bad("text_1", "must have one text, or as many as text_2, which has %d", len(second))
		return nil
	}
	var out []engine.Pair
	for i, text := range second {
		out = append(out, engine.Pair{First: first[min(i, len(first)-1)], Second: text})
	}
	return out
}
