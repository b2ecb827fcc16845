package fake

import (
	"strconv"

	"pagoda/engine"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Text answers every choice with the pieces, one event each, up to the request's MaxTokens.
func Text(pieces ...string) Script {
	return func(req *engine.Request) []Step {
		events := make([]engine.Event, len(pieces))
		for i, p := range pieces {
			events[i] = engine.Event{Text: p, Tokens: Tokens(p)}
		}
		return Play(req, engine.FinishStop, events...)
	}
}

// Thought answers every choice with a thought and then a text.
func Thought(reasoning, text string) Script {
	return func(req *engine.Request) []Step {
		return Play(req, engine.FinishStop,
			engine.Event{Reasoning: reasoning, Tokens: Tokens(reasoning)}, engine.Event{Text: text, Tokens: Tokens(text)})
	}
}

// ToolCall answers every choice with one call, its arguments in pieces.
func ToolCall(id, name string, arguments ...string) Script {
	return func(req *engine.Request) []Step {
		events := []engine.Event{{ToolCalls: []engine.ToolCallDelta{{ID: id, Name: name}}}}
		for _, a := range arguments {
			events = append(events, engine.Event{ToolCalls: []engine.ToolCallDelta{{Arguments: a}}, Tokens: Tokens(a)})
		}
		return Play(req, engine.FinishToolCalls, events...)
	}
}

// Fail yields the pieces as Text does and then the error.
func Fail(err error, pieces ...string) Script {
	return func(req *engine.Request) []Step {
		steps := Text(pieces...)(req)
		for i, s := range steps {
			if s.Event.Finish != "" {
				return append(steps[:i:i], Step{Err: err})
			}
		}
		return append(steps, Step{Err: err})
	}
}

// Gate is s with a wait for gate before each event but the prompt's.
func Gate(gate <-chan struct{}, s Script) Script {
	return func(req *engine.Request) []Step {
		steps := s(req)
		for i := range steps {
			if steps[i].Event.Prompt == nil {
				steps[i].Wait = gate
			}
		}
		return steps
	}
}

// Play makes a well-formed answer of events: the prompt first, the events once per choice in turn, each choice's
// finish, usage last; logprobs where they are asked for; cut to MaxTokens.
func Play(req *engine.Request, finish engine.FinishReason, events ...engine.Event) []Step {
	n := max(1, req.Sampling.N)
	prompt := promptTokens(req)
	steps := []Step{{Event: engine.Event{Prompt: promptInfo(req, prompt)}}}
	left := make([]int, n)
	for i := range left {
		left[i] = 1 << 30
		if req.Sampling.MaxTokens != nil {
			left[i] = *req.Sampling.MaxTokens
		}
	}
	completion, reasoning := 0, 0
	for _, ev := range events {
		for i := range n {
			ev := cut(ev, left[i])
			left[i] -= len(ev.Tokens)
			completion += len(ev.Tokens)
			if ev.Reasoning != "" {
				reasoning += len(ev.Tokens)
			}
			ev.Index = i
			if req.Output.Logprobs != nil {
				ev.Logprobs = logprobs(ev.Tokens, *req.Output.Logprobs)
			}
			if len(ev.Tokens) > 0 || len(ev.ToolCalls) > 0 {
				steps = append(steps, Step{Event: ev})
			}
		}
	}
	for i := range n {
		end := engine.Event{Index: i, Finish: finish}
		if left[i] == 0 {
			end.Finish = engine.FinishLength
		}
		if i == n-1 {
			end.Usage = &engine.Usage{Prompt: len(prompt), Completion: completion, Reasoning: reasoning}
		}
		steps = append(steps, Step{Event: end})
	}
	return steps
}

// cut keeps the first n tokens of an event.
func cut(ev engine.Event, n int) engine.Event {
	if len(ev.Tokens) <= n {
		return ev
	}
	ev.Tokens = ev.Tokens[:n]
	text := string(ev.Tokens)
	switch {
	case ev.Reasoning != "":
		ev.Reasoning = text
	case ev.Text != "":
		ev.Text = text
	}
	return ev
}

func promptInfo(req *engine.Request, tokens []int32) *engine.Prompt {
	p := &engine.Prompt{Tokens: tokens}
	if req.Output.PromptLogprobs != nil && len(tokens) > 0 {
		p.Logprobs = logprobs(tokens, *req.Output.PromptLogprobs)
		p.Logprobs[0] = engine.Logprob{}
	}
	return p
}

// logprobs gives the i-th alternative of every token the probability e^-(i+1)/2, the token itself being the first.
func logprobs(tokens []int32, top int) []engine.Logprob {
	out := make([]engine.Logprob, len(tokens))
	for i, t := range tokens {
		out[i].TokenLogprob = alternative(t, 0)
		for k := range top {
			out[i].Top = append(out[i].Top, alternative(t, k))
		}
	}
	return out
}

func alternative(t int32, k int) engine.TokenLogprob {
	t += int32(k)
	return engine.TokenLogprob{Token: t, Logprob: -float64(k+1) / 2, Bytes: []byte(string(rune(t)))}
}
