package server

import (
	"crypto/rand"
	"strings"
	"time"

	"pagoda/engine"
	"pagoda/openapi"
)

// newID makes an answer's id; it cannot be guessed from another.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

func (s *Server) fingerprint() string { return "pagoda-" + s.cfg.Version }

// chatCompletion writes a whole answer.
func (s *Server) chatCompletion(out *reply, a *answer) *openapi.ChatCompletion {
	p := &a.prompts[0]
	body := &openapi.ChatCompletion{
		ID: newID("chatcmpl-"), Object: "chat.completion", Created: time.Now().Unix(), Model: out.model,
		SystemFingerprint: s.fingerprint(), Choices: make([]openapi.ChatChoice, len(p.choices)), Usage: usageOf(a.usage),
	}
	if out.tokenIDs {
		body.PromptTokenIDs = promptTokens(p.prompt)
	}
	for i := range p.choices {
		c := &p.choices[i]
		body.Choices[i] = openapi.ChatChoice{Index: i, Message: assistantMessage(c), FinishReason: string(c.finish),
			StopReason: c.stop}
		if out.logprobs {
			body.Choices[i].Logprobs = chatLogprobs(c.logprobs)
		}
		if out.tokenIDs {
			body.Choices[i].TokenIDs = notNil(c.tokens)
		}
	}
	return body
}

func assistantMessage(c *choice) openapi.AssistantMessage {
	m := openapi.AssistantMessage{Role: "assistant", ToolCalls: c.calls}
	if text := c.text.String(); text != "" || len(c.calls) == 0 {
		m.Content = &text
	}
	if thought := c.reasoning.String(); thought != "" {
		m.ReasoningContent, m.Reasoning = &thought, &thought
	}
	return m
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
