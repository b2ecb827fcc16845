package templated

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"pagoda/backends/native/codec"
	"pagoda/engine"
)

// answer turns the tokens of an upstream's answer into the events of ours.
type answer struct {
	req     *engine.Request
	codec   *codec.Codec
	arrived time.Time
	first   time.Time // first token
	prompt  codec.Prompt
	end     []int32 // tokens that end a choice
	choices []choice
	open    int // choices that go on
	// namesByID says that the upstream was asked for ids of alternatives in the place of their texts.
	namesByID bool
	usage     engine.Usage
	out       engine.Event // the latest event
}

// choice is a choice on its way. Its answer may be over, by a stop string or the only call allowed, before the upstream sees that:
// its end is told when the upstream has told it, which has the usage, or when a further token shows that it does not see it.
type choice struct {
	*codec.Choice
	numTokens int
	over      bool
	stop      string // what it was over by, if that is a stop string
	stopToken *int32 // if it is a token of the request
	done      bool
}

func (a *answer) begin(p codec.Prompt, end []int32) {
	a.prompt, a.end, a.open = p, end, max(1, a.req.Sampling.N)
	a.usage.Prompt = len(p.Tokens)
	skip := a.req.Output.SkipSpecial == nil || *a.req.Output.SkipSpecial
	for range a.open {
		a.choices = append(a.choices, choice{Choice: a.codec.NewChoice(a.req, p, skip)})
	}
}

// event is what ev means to the client, until the next call; nil is nothing.
func (a *answer) event(ev *engine.Event) (*engine.Event, error) {
	c := &a.choices[ev.Index]
	a.out = engine.Event{Index: ev.Index}
	out := &a.out
	if ev.Prompt != nil {
		out.Prompt = &engine.Prompt{Tokens: a.prompt.Tokens, Logprobs: ev.Prompt.Logprobs}
	}
	if c.done {
		return nil, nil
	}
	if ev.Text != "" && len(ev.Tokens) == 0 && c.numTokens == 0 {
		return nil, engine.Errorf(engine.Upstream, "the model's server does not tell the ids of its tokens (return_token_ids), which it must "+
			"where a template makes the prompts")
	}
	goesOn := false
	for i, id := range ev.Tokens {
		if goesOn = c.over; goesOn {
			break
		}
		out.Tokens = ev.Tokens[: i+1 : i+1]
		a.token(c, out, id)
		if i < len(ev.Logprobs) && a.req.Output.Logprobs != nil {
			out.Logprobs = append(out.Logprobs, a.logprob(ev.Logprobs[i], id))
		}
	}
	if ev.Usage != nil {
		a.usage.Cached, a.usage.Completion = ev.Usage.Cached, max(a.usage.Completion, ev.Usage.Completion)
	}
	if ev.Finish == "" && !goesOn {
		return out, nil
	}
	a.finish(c, out, ev)
	return out, nil
}

// token adds what a token says to out.
func (a *answer) token(c *choice, out *engine.Event, id int32) {
	if a.first.IsZero() {
		a.first = time.Now()
	}
	c.numTokens++
	a.usage.Completion++
	isEnd := slices.Contains(a.end, id)
	if !isEnd || a.req.Sampling.IncludeStop {
		c.stop, c.over = c.Token(out, id)
	}
	if c.InReasoning() {
		a.usage.Reasoning++
	}
	if !isEnd || c.over {
		return
	}
	c.over = true
	if c.stop, _ = c.Close(out); c.stop == "" && slices.Contains(a.req.Sampling.StopTokenIDs, id) {
		c.stopToken = &id
	}
}

// finish ends a choice, and with the last one the request. ev is the upstream's word for it, or one that shows that it has none.
func (a *answer) finish(c *choice, out, ev *engine.Event) {
	reason := ev.Finish
	if !c.over {
		c.stop, c.over = c.Close(out)
	}
	switch {
	case c.over:
		reason, out.StopString, out.StopToken = engine.FinishStop, c.stop, c.stopToken
	case reason == engine.FinishStop:
		out.StopString = ev.StopString
	}
	c.done = true
	out.Finish = c.Finish(reason)
	if a.open--; a.open > 0 {
		return
	}
	usage := a.usage
	out.Usage = &usage
	out.Timing = &engine.Timing{Arrived: a.arrived, FirstToken: a.first, Finished: time.Now()}
}

// logprob completes what the upstream tells of token id, of as many alternatives as were asked for.
func (a *answer) logprob(l engine.Logprob, id int32) engine.Logprob {
	l.Token, l.Bytes = id, a.codec.Tokenizer().Bytes(id)
	l.Top = l.Top[:min(len(l.Top), *a.req.Output.Logprobs)]
	for i := range l.Top {
		top := &l.Top[i]
		digits, ok := strings.CutPrefix(string(top.Bytes), "token_id:")
		if id, err := strconv.ParseInt(digits, 10, 32); a.namesByID && ok && err == nil {
			top.Token, top.Bytes = int32(id), a.codec.Tokenizer().Bytes(int32(id))
		}
	}
	return l
}
