package proxy

import (
	"bytes"
	"crypto/rand"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
)

// maxAnswerBytes bounds an answer that comes in one piece.
const maxAnswerBytes = 1 << 30

// answer turns the chunks of one upstream answer into events. It belongs to one try.
type answer struct {
	req     *engine.Request
	maxLen  int
	yield   func(engine.Event) bool
	arrived time.Time // when the request came to us
	first   time.Time // first piece of text
	begun   bool      // something was handed on: from here on nothing is retried
	left    bool      // the caller wants no more
	choices []answerChoice
	open    int // choices that have not ended
	prompt  *engine.Prompt
	usage   *engine.Usage
	atOnce  bool // all of it came at once, so that nobody here knows when its first token was made
	pieces  int  // with text and without token ids; a measure of tokens where the upstream tells none
	timing  engine.Timing
	last    engine.Event // of the choice that ended last, kept back: Finish is set once it has
	one     [1]answerChoice
	quick   quickChunk
}

// answerChoice is a choice on its way.
type answerChoice struct {
	done  bool
	calls []answerCall
}

// answerCall is a tool call on its way.
type answerCall struct {
	index     int // the upstream's
	id, name  string
	arguments strings.Builder
	sent      int // bytes of arguments handed on
}

func newAnswer(req *engine.Request, maxLen int, arrived time.Time, yield func(engine.Event) bool) *answer {
	a := &answer{req: req, maxLen: maxLen, yield: yield, arrived: arrived, open: max(1, req.Sampling.N)}
	if a.choices = a.one[:]; a.open > 1 {
		a.choices = make([]answerChoice, a.open)
	}
	return a
}

// send hands an event on. The first one of a request carries the prompt.
func (a *answer) send(ev engine.Event) bool {
	if !a.begun {
		a.begun = true
		if a.prompt == nil {
			a.prompt = &engine.Prompt{}
		}
		ev.Prompt = a.prompt
	}
	if a.left = !a.yield(ev); a.left {
		return false
	}
	return true
}

// stream reads server-sent events to their end. progress is called for each.
func (a *answer) stream(body io.Reader, progress func()) error {
	events := newEventReader(body)
	a.quick.stream = true
	for {
		data, err := events.next()
		if err != nil {
			return a.cutOff(err)
		}
		progress()
		if string(data) == doneMark {
			if err := a.end(); err != nil || a.left {
				return err
			}
			events.drain()
			return nil
		}
		c, err := a.quick.decode(data)
		if err != nil {
			return &engine.Error{Code: engine.Upstream, Message: "the model's server sent an event that is no JSON", Err: err}
		}
		if err := a.chunk(c, data); err != nil || a.left {
			return err
		}
	}
}

// cutOff says that the stream ended before its [DONE]. An answer that is complete may do without.
func (a *answer) cutOff(err error) error {
	if err == io.EOF && a.open == 0 {
		return a.end()
	}
	return &brokenError{err}
}

// whole reads an answer that comes in one piece.
func (a *answer) whole(x *exchange, progress func()) error {
	text, err := x.all(maxAnswerBytes)
	if err != nil {
		return &brokenError{err}
	}
	progress()
	a.atOnce = true
	c, err := a.quick.decode(text)
	if err != nil {
		return &engine.Error{Code: engine.Upstream, Message: "the model's server sent an answer that is no JSON", Err: err}
	}
	if err := a.chunk(c, text); err != nil || a.left {
		return err
	}
	return a.end()
}

// chunk hands on what c says. data is its text, for errors.
func (a *answer) chunk(c *chunk, data []byte) error {
	if isError(c) {
		return upstreamError(0, data)
	}
	if c.Usage != nil {
		a.usage = c.Usage.usage()
	}
	if a.prompt == nil && len(c.Choices) > 0 {
		if err := a.setPrompt(c); err != nil {
			return err
		}
	}
	for i := range c.Choices {
		if err := a.choice(&c.Choices[i]); err != nil || a.left {
			return err
		}
	}
	return nil
}

func isError(c *chunk) bool {
	return c.Object == "error" || len(c.Error) > 0 && c.Error.Kind() != 'n'
}

func (a *answer) setPrompt(c *chunk) error {
	a.prompt = &engine.Prompt{Tokens: c.PromptTokenIDs}
	if a.prompt.Tokens == nil {
		a.prompt.Tokens = c.Choices[0].PromptTokenIDs
	}
	list := c.PromptLogprobs
	if list == nil {
		list = c.Choices[0].PromptLogprobs
	}
	if list == nil || a.req.Output.PromptLogprobs == nil {
		return nil
	}
	logprobs, err := promptLogprobs(list, a.prompt.Tokens)
	if err != nil {
		return &engine.Error{Code: engine.Upstream, Message: "the model's server sent log-probabilities of the prompt that " +
			"cannot be read", Err: err}
	}
	a.prompt.Logprobs = logprobs
	return nil
}

// choice hands on a piece of a choice. Its end is kept back until everything else was sent if it is the request's last,
// since the usage comes after it and belongs to the same event.
func (a *answer) choice(c *chunkChoice) error {
	if c.Index < 0 || c.Index >= len(a.choices) {
		return engine.Errorf(engine.Upstream, "the model's server sent choice %d of %d", c.Index, len(a.choices))
	}
	state := &a.choices[c.Index]
	if state.done {
		return nil // SGLang's further chunks have nothing that counts
	}
	ev := engine.Event{Index: c.Index, Text: c.Text, Tokens: c.TokenIDs, Logprobs: c.Logprobs.logprobs(c.TokenIDs)}
	m := c.Delta
	if m == nil {
		m = c.Message
	}
	if m != nil {
		ev.Text += m.Content + m.Refusal
		ev.Reasoning = m.thought()
		ev.ToolCalls = state.toolCalls(m.ToolCalls)
	}
	if ev.Text != "" || ev.Reasoning != "" || len(ev.ToolCalls) > 0 || len(ev.Tokens) > 0 || len(ev.Logprobs) > 0 {
		if a.first.IsZero() {
			a.first = time.Now()
		}
		if len(ev.Tokens) == 0 {
			a.pieces++
		}
		if !a.send(ev) {
			return nil
		}
	}
	if c.FinishReason == "" {
		return nil
	}
	return a.finish(state, c)
}

func (a *answer) finish(state *answerChoice, c *chunkChoice) error {
	ev := engine.Event{Index: c.Index}
	switch c.FinishReason {
	case "stop", "content_filter":
		ev.Finish = engine.FinishStop
	case "tool_calls", "function_call":
		ev.Finish = engine.FinishToolCalls
	case "length", "repetition": // vLLM cuts an answer off that repeats itself
		ev.Finish = engine.FinishLength
	case "abort":
		return &engine.Error{Code: engine.Unavailable, Message: "the model's server aborted the request", RetryAfter: time.Second}
	default:
		return &engine.Error{Code: engine.Upstream, Message: "the model's server failed to answer this request",
			Err: engine.Errorf(engine.Upstream, "finish reason %q", c.FinishReason)}
	}
	if ev.Finish == engine.FinishStop {
		ev.StopString, ev.StopToken = c.stop()
	}
	state.done = true
	if a.open--; a.open == 0 {
		a.last = ev
		return nil
	}
	ev.Finish = a.trueFinish(state, ev.Finish)
	a.send(ev)
	return nil
}

// trueFinish corrects what servers say. vLLM ends a streamed call that was cut off by the limit with "tool_calls"
// (vllm issue 53269), and others end complete calls with "stop".
func (a *answer) trueFinish(state *answerChoice, finish engine.FinishReason) engine.FinishReason {
	if len(state.calls) == 0 {
		return finish
	}
	arguments := state.calls[len(state.calls)-1].arguments.String()
	cut := !jsontext.Value(arguments).IsValid() && arguments != "" && a.atLimit()
	switch {
	case cut:
		return engine.FinishLength
	case finish == engine.FinishStop:
		return engine.FinishToolCalls
	}
	return finish
}

// atLimit says whether the answer has as many tokens as it may; where only the sum over several choices is known, it may.
func (a *answer) atLimit() bool {
	if a.usage == nil || len(a.choices) > 1 {
		return true
	}
	limit := a.req.Sampling.MaxTokens
	return limit != nil && a.usage.Completion >= *limit ||
		a.maxLen > 0 && a.usage.Prompt+a.usage.Completion >= a.maxLen
}

// end hands the last event on.
func (a *answer) end() error {
	if a.open > 0 {
		return engine.Errorf(engine.Upstream, "the model's server ended before the answer did")
	}
	ev := a.last
	if ev.Finish == "" {
		return nil
	}
	ev.Finish = a.trueFinish(&a.choices[ev.Index], ev.Finish)
	if ev.Usage = a.usage; ev.Usage == nil {
		ev.Usage = &engine.Usage{Completion: a.pieces}
	}
	a.timing = engine.Timing{Arrived: a.arrived, Finished: time.Now()}
	if !a.atOnce {
		a.timing.FirstToken = a.first
	}
	ev.Timing = &a.timing
	a.send(ev)
	return nil
}

// toolCalls brings deltas into one form: the id and the name once, with the call's first piece; calls numbered from 0 in
// the order in which they began. SGLang repeats both as null, some servers repeat them as they are, and some give several
// calls one index.
func (s *answerChoice) toolCalls(deltas []chunkCall) []engine.ToolCallDelta {
	var out []engine.ToolCallDelta
	for i := range deltas {
		d := &deltas[i]
		index := i // of a whole answer's list
		if d.Index != nil {
			index = *d.Index
		}
		at := s.find(index, d)
		call := &s.calls[at]
		isNew := call.name == "" && d.Function.Name != ""
		if call.id == "" {
			call.id = d.ID
		}
		if isNew {
			call.name = d.Function.Name
			if call.id == "" {
				call.id = "call_" + strings.ToLower(rand.Text())
			}
		}
		call.arguments.WriteString(d.arguments())
		piece := call.arguments.String()[call.sent:]
		if call.name == "" || !isNew && piece == "" {
			continue // waits for its name
		}
		call.sent += len(piece)
		delta := engine.ToolCallDelta{Index: at, Arguments: piece}
		if isNew {
			delta.ID, delta.Name = call.id, call.name
		}
		out = append(out, delta)
	}
	return out
}

// find returns the place of the call that d is a piece of, which may be a new one.
func (s *answerChoice) find(index int, d *chunkCall) int {
	for at := len(s.calls) - 1; at >= 0; at-- {
		call := &s.calls[at]
		if call.index != index {
			continue
		}
		if d.ID != "" && call.id != "" && d.ID != call.id && d.Function.Name != "" {
			break // another call under a number that is taken
		}
		return at
	}
	s.calls = append(s.calls, answerCall{index: index})
	return len(s.calls) - 1
}

// brokenError says that the connection to an upstream failed.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return "connection to the upstream: " + e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// firstLine is the beginning of an upstream's message.
func firstLine(s string, most int) string {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		s = s[:i]
	}
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
	}
	return s
}
