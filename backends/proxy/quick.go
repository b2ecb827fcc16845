package proxy

import "pagoda/jsonstring"

// quickChunk reads what nearly all answers consist of: a text of one choice, or a piece of it, and otherwise nothing but short
// texts, counts and null. It allocates texts only.
type quickChunk struct {
	chunk   chunk
	choices [1]chunkChoice
	message chunkMessage
	usage   chunkUsage

	jsonstring.Reader
}

// read returns what decodeChunk makes of data, but for Object, valid until the next call; nil if data is something else, JSON or not.
func (q *quickChunk) read(data []byte) *chunk {
	q.chunk, q.choices[0], q.message, q.usage = chunk{}, chunkChoice{}, chunkMessage{}, chunkUsage{}
	q.Reset(data)
	if !q.Object(q.ofChunk) || !q.AtEnd() {
		return nil
	}
	return &q.chunk
}

// decode reads data the quick way, or else the long one.
func (q *quickChunk) decode(data []byte) (*chunk, error) {
	if c := q.read(data); c != nil {
		return c, nil
	}
	c := &chunk{}
	return c, decodeChunk(data, c)
}

func (q *quickChunk) ofChunk(name []byte) bool {
	switch string(name) {
	case "choices":
		switch {
		case q.chunk.Choices != nil || !q.Take('['):
			return false
		case q.Take(']'):
			return true
		}
		q.chunk.Choices = q.choices[:]
		return q.Object(q.ofChoice) && q.Take(']')
	case "object": // the one that counts is SGLang's "error"
		text, plain := q.Quoted()
		return plain && string(text) != `"error"`
	case "usage":
		if q.Peek() != 'n' && q.chunk.Usage == nil {
			q.chunk.Usage = &q.usage
			return q.Object(q.ofUsage)
		}
		return q.chunk.Usage == nil && q.Word("null")
	case "prompt_token_ids", "prompt_logprobs", "error":
		return q.Word("null")
	}
	return q.Skip()
}

func (q *quickChunk) ofUsage(name []byte) bool {
	u := &q.usage
	switch string(name) {
	case "prompt_tokens":
		return q.Int(&u.Prompt)
	case "completion_tokens":
		return q.Int(&u.Completion)
	case "reasoning_tokens":
		return q.Int(&u.Reasoning)
	case "prompt_tokens_details":
		return u.Details.Cached == 0 && q.Word("null") || q.Object(q.ofPromptDetails)
	case "completion_tokens_details":
		return u.CompletionDetails.Reasoning == 0 && q.Word("null") || q.Object(q.ofCompletionDetails)
	}
	return q.Skip()
}

func (q *quickChunk) ofPromptDetails(name []byte) bool {
	if string(name) == "cached_tokens" {
		return q.Int(&q.usage.Details.Cached)
	}
	return q.Skip()
}

func (q *quickChunk) ofCompletionDetails(name []byte) bool {
	if string(name) == "reasoning_tokens" {
		return q.Int(&q.usage.CompletionDetails.Reasoning)
	}
	return q.Skip()
}

func (q *quickChunk) ofChoice(name []byte) bool {
	c := &q.choices[0]
	switch string(name) {
	case "index":
		return q.Int(&c.Index)
	case "text":
		return q.String(&c.Text)
	case "delta", "message":
		if c.Delta != nil || c.Message != nil {
			return false
		}
		if c.Delta = &q.message; string(name) == "message" {
			c.Delta, c.Message = nil, &q.message
		}
		return q.Object(q.ofMessage)
	case "finish_reason":
		return q.String(&c.FinishReason)
	case "logprobs", "stop_reason", "matched_stop", "token_ids", "prompt_token_ids", "prompt_logprobs":
		return q.Word("null")
	}
	return q.Skip()
}

func (q *quickChunk) ofMessage(name []byte) bool {
	m := &q.message
	switch string(name) {
	case "content":
		return q.String(&m.Content)
	case "reasoning":
		return q.String(&m.Reasoning)
	case "reasoning_content":
		return q.String(&m.ReasoningContent)
	case "refusal":
		return q.String(&m.Refusal)
	case "tool_calls":
		return q.Word("null") || m.ToolCalls == nil && q.Take('[') && q.Take(']')
	}
	return q.Skip()
}
