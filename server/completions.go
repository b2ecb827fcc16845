package server

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	"pagoda/engine"
	"pagoda/jsonstring"
	"pagoda/openapi"
)

// defaultMaxTokens is OpenAI's default for this route.
const defaultMaxTokens = 16

// refusedInCompletions are OpenAI's fields that no engine of ours heeds.
var refusedInCompletions = []string{"suffix"}

// completions serves POST /v1/completions.
func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	var body openapi.CompletionRequest
	if err := decode(r, &body); err != nil {
		s.writeError(w, r, err)
		return
	}
	reqs, out, err := s.completionRequests(w, &body)
	if err == nil && isTrue(body.Echo) {
		err = s.echo(r, reqs, out)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if out.stream {
		s.stream(w, r, reqs, s.newCompletionStream(r.Context(), reqs, out))
		return
	}
	a, err := s.collect(r, reqs)
	buf := takeBuffer()
	defer giveBuffer(buf)
	if err == nil {
		*buf, err = s.appendCompletion(*buf, r, reqs, out, a)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeBody(w, http.StatusOK, *buf)
}

// completionRequests turns a body into what the engine is asked for: a request per prompt.
func (s *Server) completionRequests(w http.ResponseWriter, b *openapi.CompletionRequest) ([]*engine.Request, *reply, error) {
	model, err := s.model(b.Model)
	if err != nil {
		return nil, nil, err
	}
	c := &checker{model: model}
	req := engine.Request{Model: model.ID, AddSpecialTokens: b.AddSpecialTokens}
	out := &reply{model: model.ID}
	if b.MaxTokens == nil {
		limit := defaultMaxTokens
		b.MaxTokens = &limit
	}
	c.sampling(&b.Sampling, s.cfg.MaxN, &req, out)
	c.maxTokens("max_tokens", b.MaxTokens, 0, &req.Sampling)
	inRange(c, "logprobs", b.Logprobs, 0, maxTopLogprobs)
	req.Output.Logprobs, out.logprobs = b.Logprobs, b.Logprobs != nil
	if isTrue(b.Echo) {
		req.Output.PromptLogprobs = b.Logprobs
	}
	c.bestOf(b, s.cfg.MaxN, &req, out)
	c.prompt(&b.Prompt)
	numPrompts := len(b.Prompt.Texts) + len(b.Prompt.Tokens)
	if numPrompts*out.maxChoices > maxChoices {
		c.bad("prompt", "asks for more than %d choices in one request", maxChoices)
	}
	c.refuse("", b.Unknown, refusedInCompletions)
	if err := s.finish(w, c, b.Unknown, &req); err != nil {
		return nil, nil, err
	}
	reqs := make([]*engine.Request, numPrompts)
	for i := range reqs {
		one := req
		if i < len(b.Prompt.Texts) {
			one.Text = &b.Prompt.Texts[i]
		} else {
			one.Tokens = b.Prompt.Tokens[i]
		}
		reqs[i] = &one
	}
	return reqs, out, nil
}

func (c *checker) bestOf(b *openapi.CompletionRequest, maxN int, req *engine.Request, out *reply) {
	if b.BestOf == nil {
		return
	}
	inRange(c, "best_of", b.BestOf, 1, maxN)
	if *b.BestOf < out.n {
		c.bad("best_of", "must not be less than n")
	}
	if out.stream && *b.BestOf > out.n {
		c.bad("best_of", "must equal n with stream: the best are known only at the end")
	}
	req.Sampling.N, out.maxChoices = *b.BestOf, *b.BestOf
	if *b.BestOf > out.n && req.Output.Logprobs == nil {
		none := 0
		req.Output.Logprobs = &none // to rank by
	}
}

func (c *checker) prompt(p *openapi.Prompt) {
	num := len(p.Texts) + len(p.Tokens)
	if p.Texts == nil && p.Tokens == nil {
		c.bad("prompt", "is required")
	} else if num == 0 || num > maxPrompts {
		c.bad("prompt", "must have 1 to %d prompts", maxPrompts)
	}
	for i, text := range p.Texts {
		if text == "" {
			c.bad(promptParam(i, num), "must not be empty")
		}
	}
	for i, ids := range p.Tokens {
		if len(ids) == 0 {
			c.bad(promptParam(i, num), "must not be empty")
		}
		c.tokens(promptParam(i, num), ids)
	}
}

func promptParam(i, num int) string {
	if num == 1 {
		return "prompt"
	}
	return "prompt[" + strconv.Itoa(i) + "]"
}

// echo finds the texts of the prompts, before anything is generated, so that a failure has a status.
func (s *Server) echo(r *http.Request, reqs []*engine.Request, out *reply) error {
	out.echo = make([]string, len(reqs))
	for i, req := range reqs {
		if req.Text != nil {
			out.echo[i] = *req.Text
			continue
		}
		t, err := s.tokenizer()
		if err != nil {
			return err
		}
		if out.echo[i], err = t.Detokenize(r.Context(), req.Model, req.Tokens); err != nil {
			return err
		}
	}
	return nil
}

// appendCompletion appends a whole answer, an openapi.Completion.
func (s *Server) appendCompletion(dst []byte, r *http.Request, reqs []*engine.Request, out *reply, a *answer) ([]byte, error) {
	dst = appendHead(dst, newID("cmpl-"), "text_completion", out.model, s.fingerprint(), time.Now())
	for i, req := range reqs {
		p := &a.prompts[i]
		for k, c := range best(p.choices, out.n) {
			if i+k > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(append(dst, `{"index":`...), int64(i*out.n+k), 10)
			text := c.text.String()
			if out.echo != nil {
				text = out.echo[i] + text
			}
			dst = jsonstring.AppendQuote(append(dst, `,"text":`...), text)
			var err error
			if dst, err = s.appendLogprobs(append(dst, `,"logprobs":`...), r, req, out, p.prompt, c); err != nil {
				return dst, err
			}
			dst = jsonstring.AppendQuote(append(dst, `,"finish_reason":`...), string(c.finish))
			if c.stop != nil {
				dst = appendJSON(append(dst, `,"stop_reason":`...), c.stop)
			}
			if out.tokenIDs {
				dst = appendIDs(append(dst, `,"prompt_token_ids":`...), promptTokens(p.prompt))
				dst = appendIDs(append(dst, `,"token_ids":`...), c.tokens)
			}
			dst = append(dst, '}')
		}
	}
	return append(appendUsage(append(dst, `],"usage":`...), a.usage), '}'), nil
}

// best returns the n choices with the highest mean log probability, best first; all of them as they are if there are
// no more than n.
func best(choices []choice, n int) []*choice {
	out := make([]*choice, len(choices))
	for i := range choices {
		out[i] = &choices[i]
	}
	if len(choices) <= n {
		return out
	}
	slices.SortStableFunc(out, func(a, b *choice) int { return cmp.Compare(meanLogprob(b), meanLogprob(a)) })
	return out[:n]
}

func meanLogprob(c *choice) float64 {
	if len(c.logprobs) == 0 {
		return minLogprob
	}
	sum := 0.0
	for _, l := range c.logprobs {
		sum += finite(l.Logprob)
	}
	return sum / float64(len(c.logprobs))
}

// appendLogprobs appends those of a choice, an openapi.CompletionLogprobs, or null.
func (s *Server) appendLogprobs(dst []byte, r *http.Request, req *engine.Request, out *reply, prompt *engine.Prompt, c *choice) ([]byte, error) {
	if !out.logprobs {
		return append(dst, "null"...), nil
	}
	l := &completionLogprobs{top: *req.Output.Logprobs}
	if out.echo != nil {
		first, err := s.firstToken(r.Context(), req, prompt)
		if err != nil {
			return dst, err
		}
		if prompt != nil {
			l.prompt(first, prompt.Logprobs)
		}
	}
	l.add(c.logprobs)
	return appendJSON(dst, l.take()), nil
}
