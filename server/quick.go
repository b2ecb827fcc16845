package server

import (
	"pagoda/jsonstring"
	"pagoda/openapi"
)

// quickBody reads what nearly all requests consist of: texts, and a few numbers. It takes nothing else: no name given twice or not
// known here, no null, no empty text or list where one could be taken for an absent one.
type quickBody struct{ jsonstring.Reader }

// readChat reads body into v, which is zero, as the JSON library would. It returns false, with v zero, if body is anything else
// than the usual.
func readChat(body []byte, v *openapi.ChatCompletionRequest) bool {
	var q quickBody
	q.Reset(body)
	if q.Object(func(name []byte) bool { return q.ofChat(name, v) }) && q.AtEnd() {
		return true
	}
	*v = openapi.ChatCompletionRequest{}
	return false
}

// readCompletion is readChat for completions of one text.
func readCompletion(body []byte, v *openapi.CompletionRequest) bool {
	var q quickBody
	q.Reset(body)
	if q.Object(func(name []byte) bool { return q.ofCompletion(name, v) }) && q.AtEnd() {
		return true
	}
	*v = openapi.CompletionRequest{}
	return false
}

func (q *quickBody) ofChat(name []byte, b *openapi.ChatCompletionRequest) bool {
	switch string(name) {
	case "model":
		return b.Model == "" && q.Text(&b.Model) && b.Model != ""
	case "messages":
		return b.Messages == nil && q.Array(func() bool {
			b.Messages = append(b.Messages, openapi.ChatMessage{})
			m := &b.Messages[len(b.Messages)-1]
			return q.Object(func(name []byte) bool { return q.ofMessage(name, m) })
		})
	case "max_completion_tokens":
		return once(&b.MaxCompletionTokens) && q.Int(b.MaxCompletionTokens)
	}
	return q.ofSampling(name, &b.Sampling)
}

func (q *quickBody) ofMessage(name []byte, m *openapi.ChatMessage) bool {
	switch string(name) {
	case "role":
		return m.Role == "" && q.Text(&m.Role) && m.Role != ""
	case "content":
		return m.Content.Text == nil && m.Content.Parts == nil && q.ofContent(&m.Content)
	case "name":
		return once(&m.Name) && q.Text(m.Name)
	}
	return false
}

func (q *quickBody) ofContent(c *openapi.Content) bool {
	if q.Peek() != '[' {
		return once(&c.Text) && q.Text(c.Text)
	}
	return q.Array(func() bool {
		c.Parts = append(c.Parts, openapi.ContentPart{})
		p := &c.Parts[len(c.Parts)-1]
		return q.Object(func(name []byte) bool { return q.ofPart(name, p) })
	})
}

func (q *quickBody) ofPart(name []byte, p *openapi.ContentPart) bool {
	switch string(name) {
	case "type":
		return p.Type == "" && q.Text(&p.Type) && p.Type != ""
	case "text":
		return once(&p.Text) && q.Text(p.Text)
	}
	return false
}

func (q *quickBody) ofCompletion(name []byte, b *openapi.CompletionRequest) bool {
	switch string(name) {
	case "model":
		return b.Model == "" && q.Text(&b.Model) && b.Model != ""
	case "prompt":
		if b.Prompt.Texts != nil {
			return false
		}
		b.Prompt.Texts = make([]string, 1)
		return q.Text(&b.Prompt.Texts[0])
	}
	return q.ofSampling(name, &b.Sampling)
}

// ofSampling reads the members that both kinds of completion have.
func (q *quickBody) ofSampling(name []byte, b *openapi.Sampling) bool {
	switch string(name) {
	case "stream":
		return once(&b.Stream) && q.Bool(b.Stream)
	case "stream_options":
		return once(&b.StreamOptions) && q.Object(func(name []byte) bool { return q.ofStreamOptions(name, b.StreamOptions) })
	case "max_tokens":
		return once(&b.MaxTokens) && q.Int(b.MaxTokens)
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

func (q *quickBody) ofStreamOptions(name []byte, o *openapi.StreamOptions) bool {
	return string(name) == "include_usage" && once(&o.IncludeUsage) && q.Bool(o.IncludeUsage)
}

// once makes room for a member's value; false if the member was there before.
func once[T any](p **T) bool {
	if *p != nil {
		return false
	}
	*p = new(T)
	return true
}
