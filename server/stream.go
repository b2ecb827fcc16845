package server

import (
	"time"

	"pagoda/engine"
	"pagoda/jsonstring"
	"pagoda/openapi"
)

// progress is what both kinds of stream know about their choices.
type progress struct {
	out      *reply
	opened   []bool // by choice: its first chunk was sent
	finished int
	counted  engine.Usage // the tokens seen so far
	final    engine.Usage // what the engine says at the end
	prompts  []*engine.Prompt
	chunks
}

func newProgress(out *reply, numPrompts int) progress {
	return progress{out: out, opened: make([]bool, numPrompts*out.n), prompts: make([]*engine.Prompt, numPrompts)}
}

// note counts ev and returns its choice's index in the answer.
func (p *progress) note(ev *promptEvent) (int, error) {
	if ev.Prompt != nil {
		p.prompts[ev.prompt] = ev.Prompt
		p.counted.Prompt += len(ev.Prompt.Tokens)
	}
	p.counted.Completion += len(ev.Tokens)
	if ev.Usage != nil {
		addUsage(&p.final, ev.Usage)
	}
	if ev.Index < 0 || ev.Index >= p.out.n {
		return 0, engine.Errorf(engine.Internal, "the engine sent choice %d of %d", ev.Index, p.out.n)
	}
	if ev.Finish != "" {
		p.finished++
	}
	return ev.prompt*p.out.n + ev.Index, nil
}

// carries says whether ev says something about its choice.
func carries(ev *promptEvent) bool {
	return ev.Text != "" || ev.Reasoning != "" || len(ev.ToolCalls) > 0 || len(ev.Tokens) > 0 || len(ev.Logprobs) > 0 ||
		ev.Finish != ""
}

// close ends a chunk's choices and the chunk.
func (p *progress) close(dst []byte) []byte {
	dst = append(dst, ']')
	if p.out.continuousUsage {
		dst = appendUsage(append(dst, `,"usage":`...), p.counted)
	} else if p.out.usage {
		dst = append(dst, `,"usage":null`...)
	}
	return append(dst, "}\n\n"...)
}

// end appends the usage, if it is wanted.
func (p *progress) end(dst []byte) ([]byte, bool) {
	if p.finished < len(p.opened) {
		return dst, false
	}
	if p.out.usage {
		dst = append(append(dst, p.head...), `],"usage":`...)
		dst = append(appendUsage(dst, p.final), "}\n\n"...)
	}
	return dst, true
}

// appendFinish ends a choice's object with why it ended.
func appendFinish(dst []byte, req *engine.Request, ev *engine.Event) []byte {
	dst = jsonstring.AppendQuote(append(dst, `,"logprobs":null,"finish_reason":`...), string(ev.Finish))
	if reason := stopReason(req, ev); reason != nil {
		dst = appendJSON(append(dst, `,"stop_reason":`...), reason)
	}
	return append(dst, '}')
}

// chatStream writes the chunks of a chat completion.
type chatStream struct {
	progress
	req *engine.Request
}

func newChatStream(req *engine.Request, out *reply) *chatStream {
	return &chatStream{newProgress(out, 1), req}
}

func (c *chatStream) begin(fingerprint string, created time.Time) {
	c.chunks = newChunks(newID("chatcmpl-"), "chat.completion.chunk", c.out.model, fingerprint, created)
}

func (c *chatStream) event(dst []byte, ev *promptEvent) ([]byte, error) {
	index, err := c.note(ev)
	if err != nil || !carries(ev) {
		return dst, err
	}
	if !c.opened[index] {
		dst = c.role(dst, index)
		c.opened[index] = true
	}
	tokens := len(ev.Tokens) > 0 && (c.out.logprobs || c.out.tokenIDs || c.out.continuousUsage) || len(ev.Logprobs) > 0
	if ev.Text != "" || ev.Reasoning != "" || len(ev.ToolCalls) > 0 || tokens {
		dst = c.delta(dst, index, &ev.Event)
	}
	if ev.Finish != "" {
		dst = append(c.open(dst, index, "delta"), "{}"...)
		dst = c.close(appendFinish(dst, c.req, &ev.Event))
	}
	return dst, nil
}

// role appends a choice's first chunk. The request's first one has the prompt's token ids too.
func (c *chatStream) role(dst []byte, index int) []byte {
	first := true
	for _, o := range c.opened {
		first = first && !o
	}
	dst = append(c.open(dst, index, "delta"), `{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`...)
	if !first || !c.out.tokenIDs {
		return c.close(dst)
	}
	dst = c.close(dst)
	dst = append(dst[:len(dst)-len("}\n\n")], `,"prompt_token_ids":`...)
	return append(appendIDs(dst, promptTokens(c.prompts[0])), "}\n\n"...)
}

func (c *chatStream) delta(dst []byte, index int, ev *engine.Event) []byte {
	dst = append(c.open(dst, index, "delta"), '{')
	empty := len(dst)
	if ev.Reasoning != "" {
		dst = jsonstring.AppendQuote(append(dst, `"reasoning_content":`...), ev.Reasoning)
		dst = jsonstring.AppendQuote(append(dst, `,"reasoning":`...), ev.Reasoning)
	}
	if ev.Text != "" || ev.Reasoning == "" && len(ev.ToolCalls) == 0 {
		dst = jsonstring.AppendQuote(append(comma(dst, empty), `"content":`...), ev.Text)
	}
	if len(ev.ToolCalls) > 0 {
		dst = appendJSON(append(comma(dst, empty), `"tool_calls":`...), toolCallDeltas(ev.ToolCalls))
	}
	dst = append(dst, `},"logprobs":`...)
	if c.out.logprobs && len(ev.Logprobs) > 0 {
		dst = appendJSON(dst, chatLogprobs(ev.Logprobs))
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":null`...)
	if c.out.tokenIDs {
		dst = appendIDs(append(dst, `,"token_ids":`...), ev.Tokens)
	}
	return c.close(append(dst, '}'))
}

// comma separates from what came before, if anything did since the object began at length empty.
func comma(dst []byte, empty int) []byte {
	if len(dst) > empty {
		return append(dst, ',')
	}
	return dst
}

func toolCallDeltas(deltas []engine.ToolCallDelta) []openapi.ToolCallDelta {
	out := make([]openapi.ToolCallDelta, len(deltas))
	for i, d := range deltas {
		out[i] = openapi.ToolCallDelta{Index: d.Index, ID: d.ID,
			Function: openapi.ToolCallDeltaFunction{Name: d.Name, Arguments: d.Arguments}}
		if d.ID != "" {
			out[i].Type = "function"
		}
	}
	return out
}
