package server

import (
	"strconv"
	"time"

	"pagoda/engine"
	"pagoda/jsonstring"
)

func (s *Server) fingerprint() string { return "pagoda-" + s.cfg.Version }

// appendHead begins an answer, or a chunk of one, up to its choices.
func appendHead(dst []byte, id, object, model, fingerprint string, created time.Time) []byte {
	dst = jsonstring.AppendQuote(append(dst, `{"id":`...), id)
	dst = jsonstring.AppendQuote(append(dst, `,"object":`...), object)
	dst = strconv.AppendInt(append(dst, `,"created":`...), created.Unix(), 10)
	dst = jsonstring.AppendQuote(append(dst, `,"model":`...), model)
	dst = jsonstring.AppendQuote(append(dst, `,"system_fingerprint":`...), fingerprint)
	return append(dst, `,"choices":[`...)
}

// appendChatCompletion appends a whole answer, an openapi.ChatCompletion.
func (s *Server) appendChatCompletion(dst []byte, out *reply, a *answer) []byte {
	p := &a.prompts[0]
	dst = appendHead(dst, newID("chatcmpl-"), "chat.completion", out.model, s.fingerprint(), time.Now())
	for i := range p.choices {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendChatChoice(dst, i, &p.choices[i], out)
	}
	dst = appendUsage(append(dst, `],"usage":`...), a.usage)
	if out.tokenIDs {
		dst = appendIDs(append(dst, `,"prompt_token_ids":`...), promptTokens(p.prompt))
	}
	return append(dst, '}')
}

func appendChatChoice(dst []byte, index int, c *choice, out *reply) []byte {
	dst = strconv.AppendInt(append(dst, `{"index":`...), int64(index), 10)
	dst = append(dst, `,"message":{"role":"assistant","content":`...)
	if text := c.text.String(); text != "" || len(c.calls) == 0 {
		dst = jsonstring.AppendQuote(dst, text)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"refusal":null`...)
	if thought := c.reasoning.String(); thought != "" {
		dst = jsonstring.AppendQuote(append(dst, `,"reasoning_content":`...), thought)
		dst = jsonstring.AppendQuote(append(dst, `,"reasoning":`...), thought)
	}
	if len(c.calls) > 0 {
		dst = appendJSON(append(dst, `,"tool_calls":`...), c.calls)
	}
	dst = append(dst, `},"logprobs":`...)
	if out.logprobs {
		dst = appendJSON(dst, chatLogprobs(c.logprobs))
	} else {
		dst = append(dst, "null"...)
	}
	dst = jsonstring.AppendQuote(append(dst, `,"finish_reason":`...), string(c.finish))
	dst = append(dst, `,"stop_reason":`...)
	if c.stop != nil {
		dst = appendJSON(dst, c.stop)
	} else {
		dst = append(dst, "null"...)
	}
	if out.tokenIDs {
		dst = appendIDs(append(dst, `,"token_ids":`...), c.tokens)
	}
	return append(dst, '}')
}

// appendUsage appends an openapi.Usage.
func appendUsage(dst []byte, u engine.Usage) []byte {
	dst = strconv.AppendInt(append(dst, `{"prompt_tokens":`...), int64(u.Prompt), 10)
	dst = strconv.AppendInt(append(dst, `,"completion_tokens":`...), int64(u.Completion), 10)
	dst = strconv.AppendInt(append(dst, `,"total_tokens":`...), int64(u.Prompt+u.Completion), 10)
	dst = strconv.AppendInt(append(dst, `,"prompt_tokens_details":{"cached_tokens":`...), int64(u.Cached), 10)
	dst = strconv.AppendInt(append(dst, `},"completion_tokens_details":{"reasoning_tokens":`...), int64(u.Reasoning), 10)
	return append(dst, "}}"...)
}

func promptTokens(p *engine.Prompt) []int32 {
	if p == nil {
		return []int32{}
	}
	return notNil(p.Tokens)
}

// notNil makes an empty list be written as [] and not be left out.
func notNil(ids []int32) []int32 {
	if ids == nil {
		return []int32{}
	}
	return ids
}
