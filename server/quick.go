package server

import (
	"pagoda/jsonstring"
	"pagoda/openapi"
)

// quickChat reads what nearly all chats consist of: messages that are texts, and a few numbers.
type quickChat struct {
	jsonstring.Reader
	body    *openapi.ChatCompletionRequest
	message *openapi.ChatMessage
	part    *openapi.ContentPart
}

// readChat reads body into v, which is zero, as the JSON library would. It returns false, with v zero, if body is anything else
// than the usual: a name given twice or not known here, null, an empty text or list, an error.
func readChat(body []byte, v *openapi.ChatCompletionRequest) bool {
	q := quickChat{body: v}
	q.Reset(body)
	if q.Object(q.ofChat) && q.AtEnd() {
		return true
	}
	*v = openapi.ChatCompletionRequest{}
	return false
}

func (q *quickChat) ofChat(name []byte) bool {
	b := q.body
	switch string(name) {
	case "model":
		return b.Model == "" && q.Text(&b.Model) && b.Model != ""
	case "messages":
		return b.Messages == nil && q.Array(q.nextMessage)
	case "stream":
		return once(&b.Stream) && q.Bool(b.Stream)
	case "stream_options":
		return once(&b.StreamOptions) && q.Object(q.ofStreamOptions)
	case "max_tokens":
		return once(&b.MaxTokens) && q.Int(b.MaxTokens)
	case "max_completion_tokens":
		return once(&b.MaxCompletionTokens) && q.Int(b.MaxCompletionTokens)
	case "n":
		return once(&b.N) && q.Int(b.N)
	case "temperature":
		return once(&b.Temperature) && q.Float(b.Temperature)
	case "top_p":
		return once(&b.TopP) && q.Float(b.TopP)
	case "top_k":
		return once(&b.TopK) && q.Int(b.TopK)
	case "min_p":
		return once(&b.MinP) && q.Float(b.MinP)
	case "ignore_eos":
		return once(&b.IgnoreEOS) && q.Bool(b.IgnoreEOS)
	case "repetition_penalty":
		return once(&b.RepetitionPenalty) && q.Float(b.RepetitionPenalty)
	case "frequency_penalty":
		return once(&b.FrequencyPenalty) && q.Float(b.FrequencyPenalty)
	case "presence_penalty":
		return once(&b.PresencePenalty) && q.Float(b.PresencePenalty)
	case "user":
		return once(&b.User) && q.Text(b.User)
	}
	return false
}

// once makes room for a member's value; false if the member was there before.
func once[T any](p **T) bool {
	if *p != nil {
		return false
	}
	*p = new(T)
	return true
}

func (q *quickChat) ofStreamOptions(name []byte) bool {
	o := q.body.StreamOptions
	return string(name) == "include_usage" && once(&o.IncludeUsage) && q.Bool(o.IncludeUsage)
}

func (q *quickChat) nextMessage() bool {
	q.body.Messages = append(q.body.Messages, openapi.ChatMessage{})
	q.message = &q.body.Messages[len(q.body.Messages)-1]
	return q.Object(q.ofMessage)
}

func (q *quickChat) ofMessage(name []byte) bool {
	m := q.message
	switch string(name) {
	case "role":
		return m.Role == "" && q.Text(&m.Role) && m.Role != ""
	case "content":
		if m.Content.Text != nil || m.Content.Parts != nil {
			return false
		}
		if q.Peek() == '[' {
			return q.Array(q.nextPart)
		}
		return once(&m.Content.Text) && q.Text(m.Content.Text)
	case "name":
		return once(&m.Name) && q.Text(m.Name)
	}
	return false
}

func (q *quickChat) nextPart() bool {
	c := &q.message.Content
	c.Parts = append(c.Parts, openapi.ContentPart{})
	q.part = &c.Parts[len(c.Parts)-1]
	return q.Object(q.ofPart)
}

func (q *quickChat) ofPart(name []byte) bool {
	switch string(name) {
	case "type":
		return q.part.Type == "" && q.Text(&q.part.Type) && q.part.Type != ""
	case "text":
		return once(&q.part.Text) && q.Text(q.part.Text)
	}
	return false
}
