package proxy

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"pagoda/jsonstring"
)

// quickChunk reads what nearly all answers consist of: a text of one choice, or a piece of it, and otherwise nothing but short
// texts, counts and null. It allocates texts only.
type quickChunk struct {
	chunk   chunk
	choices [1]chunkChoice
	message chunkMessage
	usage   chunkUsage

	text []byte
	at   int // text[at:] is not read yet
}

// read returns what decodeChunk makes of data, but for Object, valid until the next call; nil if data is something else, JSON or not.
func (q *quickChunk) read(data []byte) *chunk {
	q.chunk, q.choices[0], q.message, q.usage = chunk{}, chunkChoice{}, chunkMessage{}, chunkUsage{}
	q.text, q.at = data, 0
	if !q.object(q.ofChunk) || q.peek() != 0 || q.at < len(q.text) {
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
		case q.chunk.Choices != nil || !q.take('['):
			return false
		case q.take(']'):
			return true
		}
		q.chunk.Choices = q.choices[:]
		return q.object(q.ofChoice) && q.take(']')
	case "object": // the one that counts is SGLang's "error"
		text, plain := q.quoted()
		return plain && string(text) != `"error"`
	case "usage":
		if q.peek() != 'n' && q.chunk.Usage == nil {
			q.chunk.Usage = &q.usage
			return q.object(q.ofUsage)
		}
		return q.chunk.Usage == nil && q.word("null")
	case "prompt_token_ids", "prompt_logprobs", "error":
		return q.word("null")
	}
	return q.skip()
}

func (q *quickChunk) ofUsage(name []byte) bool {
	u := &q.usage
	switch string(name) {
	case "prompt_tokens":
		return q.int(&u.Prompt)
	case "completion_tokens":
		return q.int(&u.Completion)
	case "reasoning_tokens":
		return q.int(&u.Reasoning)
	case "prompt_tokens_details":
		return u.Details.Cached == 0 && q.word("null") || q.object(q.ofPromptDetails)
	case "completion_tokens_details":
		return u.CompletionDetails.Reasoning == 0 && q.word("null") || q.object(q.ofCompletionDetails)
	}
	return q.skip()
}

func (q *quickChunk) ofPromptDetails(name []byte) bool {
	if string(name) == "cached_tokens" {
		return q.int(&q.usage.Details.Cached)
	}
	return q.skip()
}

func (q *quickChunk) ofCompletionDetails(name []byte) bool {
	if string(name) == "reasoning_tokens" {
		return q.int(&q.usage.CompletionDetails.Reasoning)
	}
	return q.skip()
}

func (q *quickChunk) ofChoice(name []byte) bool {
	c := &q.choices[0]
	switch string(name) {
	case "index":
		return q.int(&c.Index)
	case "text":
		return q.string(&c.Text)
	case "delta", "message":
		if c.Delta != nil || c.Message != nil {
			return false
		}
		if c.Delta = &q.message; string(name) == "message" {
			c.Delta, c.Message = nil, &q.message
		}
		return q.object(q.ofMessage)
	case "finish_reason":
		return q.string(&c.FinishReason)
	case "logprobs", "stop_reason", "matched_stop", "token_ids", "prompt_token_ids", "prompt_logprobs":
		return q.word("null")
	}
	return q.skip()
}

func (q *quickChunk) ofMessage(name []byte) bool {
	m := &q.message
	switch string(name) {
	case "content":
		return q.string(&m.Content)
	case "reasoning":
		return q.string(&m.Reasoning)
	case "reasoning_content":
		return q.string(&m.ReasoningContent)
	case "refusal":
		return q.string(&m.Refusal)
	case "tool_calls":
		return q.word("null") || m.ToolCalls == nil && q.take('[') && q.take(']')
	}
	return q.skip()
}

// object reads an object whose members' values member reads. Like all that follows, it returns false at anything else.
func (q *quickChunk) object(member func(name []byte) bool) bool {
	if !q.take('{') {
		return false
	}
	if q.take('}') {
		return true
	}
	for {
		name, plain := q.quoted()
		if !plain || !q.take(':') || !member(name[1:len(name)-1]) {
			return false
		}
		if !q.take(',') {
			return q.take('}')
		}
	}
}

// peek skips white space and returns what is next, 0 at the end.
func (q *quickChunk) peek() byte {
	for q.at < len(q.text) {
		switch c := q.text[q.at]; c {
		case ' ', '\t', '\n', '\r':
			q.at++
		default:
			return c
		}
	}
	return 0
}

func (q *quickChunk) take(c byte) bool {
	if q.peek() != c {
		return false
	}
	q.at++
	return true
}

// quoted reads a string with its quotes, nil if there is none; plain says that it has no escapes and is ASCII.
func (q *quickChunk) quoted() (text []byte, plain bool) {
	if q.peek() != '"' {
		return nil, false
	}
	rest := q.text[q.at:]
	end := bytes.IndexByte(rest[1:], '"') + 1
	if end == 0 {
		return nil, false
	}
	if plain = jsonstring.IsPlain(rest[1:end]); !plain {
		for end = 1; end < len(rest) && rest[end] != '"'; end++ {
			if rest[end] == '\\' {
				end++
			}
		}
		if end >= len(rest) {
			return nil, false
		}
	}
	q.at += end + 1
	return rest[:end+1], plain
}

// string reads a string, or null, which leaves it as it is.
func (q *quickChunk) string(to *string) bool {
	if q.peek() == 'n' {
		return *to == "" && q.word("null")
	}
	text, plain := q.quoted()
	switch {
	case plain:
		*to = string(text[1 : len(text)-1])
		return true
	case text == nil:
		return false
	}
	unquoted, err := jsontext.AppendUnquote(nil, text)
	*to = string(unquoted)
	return err == nil
}

func (q *quickChunk) word(w string) bool {
	q.peek()
	if !bytes.HasPrefix(q.text[q.at:], []byte(w)) {
		return false
	}
	q.at += len(w)
	return true
}

// int reads an integer of few digits that is not negative.
func (q *quickChunk) int(to *int) bool {
	q.peek()
	begin, n := q.at, 0
	for q.at < len(q.text) && q.text[q.at] >= '0' && q.text[q.at] <= '9' {
		n = 10*n + int(q.text[q.at]-'0')
		q.at++
	}
	*to = n
	digits := q.at - begin
	return digits == 1 || digits > 1 && digits < 18 && q.text[begin] != '0'
}

// skip reads a text, a number, or a word.
func (q *quickChunk) skip() bool {
	switch q.peek() {
	case '"':
		text, plain := q.quoted()
		return plain || text != nil && jsontext.Value(text).IsValid()
	case 'n':
		return q.word("null")
	case 't':
		return q.word("true")
	case 'f':
		return q.word("false")
	}
	var ignored int
	return q.int(&ignored)
}
