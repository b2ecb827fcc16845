package proxy

import (
	"bytes"

	"pagoda/jsonstring"
)

// quickChunk reads what nearly all answers consist of: a text of one choice, or a piece of it, and otherwise nothing but short
// texts, counts and null. It allocates texts only.
type quickChunk struct {
	chunk   chunk
	choices [1]chunkChoice
	message chunkMessage
	usage   chunkUsage

	jsonstring.Reader
	data   []byte // what it reads
	stream bool   // more follow, which may be like it
	last   lastChunk
}

// lastChunk is what was read before: the pieces of a stream differ in their text alone.
type lastChunk struct {
	text          *string // nil: there is none
	before, after []byte  // all of the chunk but this text
}

// note keeps that a string's value, which went to text, ends at data[end:].
func (l *lastChunk) note(text *string, data []byte, end int) {
	begin := end - 1 - len(*text)
	if *text == "" || data[begin-1] != '"' || string(data[begin:end-1]) != *text { // null, or with escapes
		return
	}
	l.text, l.before, l.after = text, append(l.before[:0], data[:begin]...), append(l.after[:0], data[end-1:]...)
}

// again reads data if it is the last chunk but for a text without escapes, ASCII: then all that was read of the last one holds.
func (l *lastChunk) again(data []byte) bool {
	if l.text == nil || !bytes.HasPrefix(data, l.before) || !bytes.HasSuffix(data, l.after) || len(data) < len(l.before)+len(l.after) {
		return false
	}
	text := data[len(l.before) : len(data)-len(l.after)]
	if !jsonstring.IsPlain(text) {
		return false
	}
	*l.text = string(text)
	return true
}

// read returns what decodeChunk makes of data, but for Object, valid until the next call; nil if data is something else, JSON or not.
func (q *quickChunk) read(data []byte) *chunk {
	if q.last.again(data) {
		return &q.chunk
	}
	q.chunk, q.choices[0], q.message, q.usage = chunk{}, chunkChoice{}, chunkMessage{}, chunkUsage{}
	q.data, q.last.text = data, nil
	q.Reset(data)
	if !q.Object(q.ofChunk) || !q.AtEnd() {
		q.last.text = nil
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
		return q.piece(&c.Text)
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

// piece reads a piece of text, or null.
func (q *quickChunk) piece(to *string) bool {
	if !q.String(to) {
		return false
	}
	if q.stream {
		q.last.note(to, q.data, q.At())
	}
	return true
}

func (q *quickChunk) ofMessage(name []byte) bool {
	m := &q.message
	switch string(name) {
	case "content":
		return q.piece(&m.Content)
	case "reasoning":
		return q.piece(&m.Reasoning)
	case "reasoning_content":
		return q.piece(&m.ReasoningContent)
	case "refusal":
		return q.String(&m.Refusal)
	case "tool_calls":
		return q.Word("null") || m.ToolCalls == nil && q.Take('[') && q.Take(']')
	}
	return q.Skip()
}
