package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// generate is the one way from a dialect to the engine: it fills in the ID and Tenant of req, which is the prompt'th of r's prompts,
// refuses while draining, applies the time limit, and keeps the books for metrics and the access log. It gives each event to each,
// until that fails, and returns the first error. r must have come through the router.
func (s *Server) generate(r *http.Request, prompt int, req *engine.Request, each func(*promptEvent) error) error {
	info := requestInfo(r)
	req.ID, req.Tenant = info.ID, info.Tenant
	if err := info.admit(s.work); err != nil {
		return err
	}
	ctx := r.Context()
	if s.cfg.RequestTimeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, errTimeLimit)
		defer cancel()
		ctx = limited
	}
	g := newGeneration(s.metrics, req)
	info.began(g)
	defer g.close()
	pe := &promptEvent{prompt: prompt}
	for ev, err := range s.eng.Generate(ctx, req) {
		if err != nil {
			g.failed = causeOf(ctx, err)
			return g.failed
		}
		g.event(&ev)
		pe.Event = ev
		if req.Output.NameByID {
			nameByID(&pe.Event)
		}
		if err := each(pe); err != nil {
			g.left = true
			return err
		}
	}
	if g.usage == nil { // the contract says that the last event has it
		g.failed = causeOf(ctx, engine.Errorf(engine.Internal, "the answer ended early"))
		return g.failed
	}
	return nil
}

// nameByID puts ids in the place of the texts of tokens whose log-probabilities ev tells. Those without an id have another server's
// word, which was asked for the same.
func nameByID(ev *engine.Event) {
	name := func(t *engine.TokenLogprob) {
		if t.Token >= 0 {
			t.Bytes = fmt.Appendf(nil, "token_id:%d", t.Token)
		}
	}
	lists := [][]engine.Logprob{ev.Logprobs}
	if ev.Prompt != nil {
		lists = append(lists, ev.Prompt.Logprobs)
	}
	for _, list := range lists {
		for i := range list {
			name(&list[i].TokenLogprob)
			for k := range list[i].Top {
				name(&list[i].Top[k])
			}
		}
	}
}

// causeOf says why a generation failed: if its context ended, that is the reason, whatever the engine made of it.
func causeOf(ctx context.Context, err error) *engine.Error {
	if ctx.Err() == nil {
		return engine.AsError(err)
	}
	switch context.Cause(ctx) {
	case errTimeLimit:
		return &engine.Error{Code: engine.Timeout, Message: "the request took longer than this server allows", Err: err}
	case errDrained:
		return &engine.Error{Code: engine.Unavailable, Message: "the server is shutting down; try again shortly",
			RetryAfter: drainRetryAfter, Err: err}
	}
	return &engine.Error{Code: engine.Canceled, Message: "the client went away", Err: err}
}

// generation is the account of one Generate call. Only the goroutine that ranges over the events touches it, and the
// access log when that has ended.
type generation struct {
	all     *metrics
	m       *modelMetrics // nil: the model is not served, or the request never got that far
	req     *engine.Request
	started time.Time
	failed  *engine.Error
	left    bool // the dialect stopped ranging: the client is gone
	pooled  bool // nothing is generated: texts become numbers

	choices    []choiceAccount
	firstToken time.Time
	prompt     int
	completion int
	finish     []string // of the choices, in the order they ended
	usage      *engine.Usage
	timing     *engine.Timing
}

type choiceAccount struct {
	tokens    int
	lastToken time.Time
	done      bool
}

func newGeneration(all *metrics, req *engine.Request) *generation {
	g := &generation{all: all, m: all.model(req.Model), req: req, started: time.Now(),
		choices: make([]choiceAccount, max(1, req.Sampling.N))}
	if g.m != nil {
		all.countModel(req.Model)
	} else {
		g.m = discard
	}
	return g
}

// discard takes the counts of requests for models that are not served. It is never exported.
var discard = newModelMetrics(engine.Model{ID: "none", MaxLen: 1})

// event counts ev.
func (g *generation) event(ev *engine.Event) {
	if ev.Prompt != nil {
		g.prompt = len(ev.Prompt.Tokens)
		g.m.promptTokens.Add(float64(g.prompt))
	}
	if ev.Index >= 0 && ev.Index < len(g.choices) {
		if n := len(ev.Tokens); n > 0 {
			g.tokens(&g.choices[ev.Index], n)
			g.completion += n
			g.m.generationTokens.Add(float64(n))
		} else if g.prompt == 0 && !g.req.Output.Whole && (ev.Text != "" || ev.Reasoning != "" || len(ev.ToolCalls) > 0) {
			g.tokens(&g.choices[ev.Index], 1) // an upstream that tells no ids: a piece is a token, but for the counts
		}
	}
	if ev.Usage != nil {
		g.usage, g.timing = ev.Usage, ev.Timing
		g.recount()
	}
	if ev.Finish != "" {
		g.finished(ev)
	}
}

// recount takes the counts from the usage where no token ids told them.
func (g *generation) recount() {
	if g.prompt == 0 {
		g.prompt = g.usage.Prompt
		g.m.promptTokens.Add(float64(g.prompt))
	}
	if g.completion == 0 {
		g.completion = g.usage.Completion
		g.m.generationTokens.Add(float64(g.completion))
		if len(g.choices) == 1 {
			g.choices[0].tokens = g.completion
		}
	}
}

func (g *generation) tokens(c *choiceAccount, n int) {
	now := after(g.started)
	if g.firstToken.IsZero() {
		g.firstToken = now
		g.m.ttft.Observe(now.Sub(g.started).Seconds())
	}
	if c.tokens > 0 {
		each := now.Sub(c.lastToken).Seconds() / float64(n) // tokens that came together share the time
		for range n {
			g.m.itl.Observe(each)
		}
	}
	c.tokens, c.lastToken = c.tokens+n, now
}

func (g *generation) finished(ev *engine.Event) {
	g.finish = append(g.finish, string(ev.Finish))
	reason := "stop"
	if ev.Finish == engine.FinishLength {
		reason = "length"
	}
	g.m.success[reason].Inc()
	if ev.Index >= 0 && ev.Index < len(g.choices) {
		c := &g.choices[ev.Index]
		c.done = true
		g.m.generationHist.Observe(float64(c.tokens))
	}
}

// canceled says whether the request ended because nobody wanted the rest.
func (g *generation) canceled() bool {
	return g.usage == nil && (g.left || g.failed != nil && g.failed.Code == engine.Canceled)
}

// close adds what is known only at the end.
func (g *generation) close() {
	switch {
	case g.usage != nil:
		g.complete(after(g.started))
	case g.canceled():
		g.all.canceled.Inc()
		g.unfinished("abort")
	case g.prompt > 0 || g.failed == nil || isOurFault(g.failed): // failed is nil after a panic
		g.unfinished("error") // others, such as a bad field, never were generations
	}
}

func (g *generation) unfinished(reason string) {
	for i := range g.choices {
		if !g.choices[i].done {
			g.m.success[reason].Inc()
		}
	}
}

func (g *generation) complete(now time.Time) {
	m, longest := g.m, 0
	m.promptHist.Observe(float64(g.usage.Prompt))
	m.e2e.Observe(now.Sub(g.started).Seconds())
	if g.pooled {
		m.success["stop"].Inc()
		return
	}
	for i := range g.choices {
		longest = max(longest, g.choices[i].tokens)
	}
	m.cachedTokens.Add(float64(g.usage.Cached))
	m.maxGenerationHist.Observe(float64(longest))
	m.paramN.Observe(float64(len(g.choices)))
	if mt := g.req.Sampling.MaxTokens; mt != nil {
		m.paramMaxTokens.Observe(float64(*mt))
	}
	if t := g.timing; t != nil {
		observeBetween(m.queue, t.Arrived, t.Scheduled)
		observeBetween(m.prefill, t.Scheduled, t.FirstToken)
		observeBetween(m.decode, t.FirstToken, t.Finished)
		observeBetween(m.inference, t.Scheduled, t.Finished)
		if longest > 1 && !t.FirstToken.IsZero() && !t.Finished.IsZero() {
			m.perToken.Observe(t.Finished.Sub(t.FirstToken).Seconds() / float64(longest-1))
		}
	}
}

// logGenerations adds the accounts of a request, one for each of its prompts, to the access log line: counts and times,
// no text.
func logGenerations(ev *zerolog.Event, gens []*generation) {
	if len(gens) == 0 {
		return
	}
	var prompt, cached, completion int
	var ttft, queue *time.Duration // nil: not reached, or not known, as of an upstream's answer in one piece
	var finish []string
	for _, g := range gens {
		prompt, completion, finish = prompt+g.prompt, completion+g.completion, append(finish, g.finish...)
		if g.usage != nil {
			cached += g.usage.Cached
		}
		if d := g.firstToken.Sub(g.started); !g.firstToken.IsZero() && (ttft == nil || d < *ttft) {
			ttft = &d
		}
		if t := g.timing; t != nil && !t.Arrived.IsZero() && !t.Scheduled.IsZero() {
			if d := t.Scheduled.Sub(t.Arrived); queue == nil || d > *queue {
				queue = &d
			}
		}
	}
	ev.Str("model", clip(gens[0].req.Model, 128)).Int("prompt_tokens", prompt).Int("cached_tokens", cached).
		Int("completion_tokens", completion)
	if ttft != nil {
		ev.Dur("ttft_ms", *ttft)
	}
	if queue != nil {
		ev.Dur("queue_ms", *queue)
	}
	ev.Strs("finish", finish)
}
