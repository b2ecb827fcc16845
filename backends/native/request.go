package native

import (
	"context"
	"errors"
	"maps"
	"slices"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/codec"
	"pagoda/backends/native/draft"
	"pagoda/backends/native/sample"
	"pagoda/backends/native/sched"
	"pagoda/engine"
)

// newAnswer checks req, turns its prompt into tokens and makes the job for the loop.
func (e *Engine) newAnswer(ctx context.Context, req *engine.Request) (*answer, error) {
	if len(req.Extra) > 0 && !req.IgnoreExtra {
		name := slices.Min(slices.Collect(maps.Keys(req.Extra)))
		return nil, engine.BadField(name, "unknown field %q", name)
	}
	ad, err := e.pickAdapter(req.Model)
	if err != nil {
		return nil, err
	}
	a, err := e.build(ctx, req, ad)
	if err != nil && ad != nil {
		ad.Release()
	}
	return a, err
}

// pickAdapter finds what a model name stands for; nil is the base model. The caller releases the adapter.
func (e *Engine) pickAdapter(name string) (*adapter.Adapter, error) {
	if name == e.opts.Name {
		return nil, nil
	}
	ad, err := e.adapters.Acquire(name)
	if errors.Is(err, adapter.ErrNotFound) {
		return nil, &engine.Error{Code: engine.NotFound, Param: "model", Message: "the model '" + name + "' does not exist"}
	}
	if err != nil {
		return nil, engine.AsError(err)
	}
	return ad, nil
}

func (e *Engine) build(ctx context.Context, req *engine.Request, ad *adapter.Adapter) (*answer, error) {
	p, err := e.codec.Prompt(ctx, req, e.maxLen)
	if err != nil {
		return nil, err
	}
	eos := e.codec.EndTokens(&req.Sampling)
	params, bad := e.defaults.resolve(req, eos, e.vocab)
	if bad != nil {
		return nil, bad
	}
	maxTokens, bad := codec.MaxTokens(req, len(p.Tokens), e.maxLen, e.defaults.maxTokens)
	if bad != nil {
		return nil, bad
	}
	ahead, bad := e.opts.guessesAhead(req)
	if bad != nil {
		return nil, bad
	}
	if ahead > 0 && e.stateful {
		return nil, engine.BadField("speculative_tokens", "speculative_tokens is %d, but this model cannot guess ahead: its state "+
			"cannot forget a wrong guess", ahead)
	}
	n := max(1, req.Sampling.N)
	if n > e.opts.MaxQueue {
		return nil, engine.BadField("n", "n is %d, but at most %d sequences may wait on this server", n, e.opts.MaxQueue)
	}
	j := &job{
		id:  req.ID,
		eos: eos,
		box: newMailbox(),
		spec: sched.GroupSpec{Prompt: p.Tokens, N: n, MaxTokens: maxTokens, Salt: req.CacheSalt,
			Tenant: req.Tenant, Priority: req.Priority, PromptLogits: req.Output.PromptLogprobs != nil},
		adapter: ad,
		prompt:  -1,
	}
	if ad != nil {
		j.spec.Adapter = ad.ID()
	}
	if req.Output.PromptLogprobs != nil {
		j.prompt = *req.Output.PromptLogprobs
	}
	a := &answer{job: j, tok: e.tok, stopIDs: req.Sampling.StopTokenIDs, showStop: req.Sampling.IncludeStop,
		logprobs: req.Output.Logprobs != nil, left: n}
	skip := e.defaults.skipSpecial
	set(&skip, req.Output.SkipSpecial)
	for i := range n {
		s, err := sample.New(params, p.Tokens, e.vocab, i)
		if err != nil {
			return nil, engine.Errorf(engine.Invalid, "sampling parameters: %v", err)
		}
		c := &choice{job: j, sampler: s}
		if ahead > 0 {
			if c.guess, err = e.newGuess(ahead, p.Tokens); err != nil {
				return nil, err
			}
		}
		j.choices = append(j.choices, c)
		a.choices = append(a.choices, answerChoice{Choice: e.codec.NewChoice(req, p, skip)})
	}
	return a, nil
}

// guessesAhead is how many tokens a step may guess of a choice: what the request says, but no more than the server does.
func (o *Options) guessesAhead(req *engine.Request) (int, *engine.Error) {
	want := req.SpeculativeTokens
	switch {
	case want == nil && o.SpeculativeMethod == "none":
		return 0, nil
	case want == nil:
		return o.NumSpeculativeTokens, nil
	case *want < 0:
		return 0, engine.BadField("speculative_tokens", "speculative_tokens is %d, must be at least 0", *want)
	}
	return min(*want, o.NumSpeculativeTokens), nil
}

// newGuess prepares for guessing a choice's text. The prompt is indexed here, off the loop.
func (e *Engine) newGuess(ahead int, prompt []int32) (*guess, error) {
	g := newGuess(ahead)
	if e.opts.SpeculativeMethod == "draft_model" {
		return g, nil
	}
	var err error
	if g.lookup, err = draft.NewLookup(e.opts.PromptLookupMin, e.opts.PromptLookupMax); err != nil {
		return nil, engine.AsError(err)
	}
	g.lookup.Add(prompt...)
	return g, nil
}

// admissionError turns the scheduler's refusal into the client's error.
func (r *runner) admissionError(err error) *engine.Error {
	if errors.Is(err, sched.ErrFull) {
		return r.busy()
	}
	if e, ok := errors.AsType[*sched.TooLongError](err); ok {
		return engine.Errorf(engine.TooLong, "this server holds %d tokens of a request, but the prompt has %d tokens and %d "+
			"more were asked for", e.Limit, e.NumPrompt, e.MaxTokens)
	}
	return &engine.Error{Code: engine.Internal, Message: "internal error", Err: err}
}
