package native

import (
	"context"
	"slices"
	"time"

	"pagoda/backends/native/codec"
	"pagoda/backends/native/token"
	"pagoda/engine"
)

// answer turns a job's outputs into events. It belongs to the goroutine that ranges over Generate.
type answer struct {
	job      *job
	tok      *token.Tokenizer
	stopIDs  []int32 // the request's own
	showStop bool    // keep the text of the token that ends a choice
	logprobs bool
	choices  []answerChoice
	left     int // choices not finished
	told     bool
	usage    engine.Usage
}

type answerChoice struct {
	*codec.Choice
	finished bool
}

// events yields the job's events until all its choices are finished, or an error.
func (a *answer) events(ctx context.Context, yield func(engine.Event, error) bool) {
	var buf []output
	for a.left > 0 {
		outs, err := a.job.box.take(ctx, buf)
		if err != nil {
			yield(engine.Event{}, err)
			return
		}
		for i := range outs {
			if a.choices[outs[i].index].finished {
				continue // computed before the loop saw that it was over
			}
			if !yield(a.event(&outs[i]), nil) {
				return
			}
		}
		buf = outs
	}
}

// event is what one output means to the client.
func (a *answer) event(o *output) engine.Event {
	c := &a.choices[o.index]
	ev := engine.Event{Index: o.index}
	if !a.told {
		a.told = true
		ev.Prompt = a.prompt()
	}
	var stop string
	var ended bool
	if o.hasTok {
		a.usage.Completion++
		ev.Tokens = []int32{o.token.Token}
		if a.logprobs {
			ev.Logprobs = []engine.Logprob{a.withBytes(logprob(o.token.Token, o.token.Logprob, o.token.Top))}
		}
		if !o.stopToken || a.showStop {
			stop, ended = c.Token(&ev, o.token.Token)
		}
		if c.InReasoning() {
			a.usage.Reasoning++
		}
	}
	if o.finish != "" && !ended {
		stop, ended = c.Close(&ev)
	}
	switch {
	case ended:
		a.job.choices[o.index].gone.Store(true)
		ev.StopString = stop
		a.finish(&ev, c, engine.FinishStop)
	case o.finish != "":
		if o.stopToken && slices.Contains(a.stopIDs, o.token.Token) {
			ev.StopToken = &ev.Tokens[0]
		}
		a.finish(&ev, c, o.finish)
	}
	return ev
}

// finish ends a choice, and with the last one the request.
func (a *answer) finish(ev *engine.Event, c *answerChoice, reason engine.FinishReason) {
	c.finished = true
	ev.Finish = c.Finish(reason)
	if a.left--; a.left > 0 {
		return
	}
	b := a.job.box
	b.mu.Lock()
	t := b.timing
	b.mu.Unlock()
	t.Finished = time.Now()
	ev.Timing = &t
	u := a.usage
	ev.Usage = &u
}

// prompt describes the prompt; the first output has come, so its figures are final.
func (a *answer) prompt() *engine.Prompt {
	b := a.job.box
	b.mu.Lock()
	lps, cached := b.prompt, b.cached
	b.mu.Unlock()
	a.usage.Prompt, a.usage.Cached = len(a.job.spec.Prompt), cached
	p := &engine.Prompt{Tokens: a.job.spec.Prompt}
	if a.job.prompt >= 0 {
		p.Logprobs = make([]engine.Logprob, 1, 1+len(lps)) // nothing precedes the first token
		for _, l := range lps {
			p.Logprobs = append(p.Logprobs, a.withBytes(l))
		}
	}
	return p
}

func (a *answer) withBytes(l engine.Logprob) engine.Logprob {
	l.Bytes = a.tok.Bytes(l.Token)
	for i := range l.Top {
		l.Top[i].Bytes = a.tok.Bytes(l.Top[i].Token)
	}
	return l
}
