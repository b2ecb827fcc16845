package server

import (
	"testing"

	"github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"pagoda/engine"
	"pagoda/openapi"
)

// chatCompletion is what appendChatCompletion writes; the id and the time are read.
func chatCompletion(out *reply, a *answer, id string, created int64) *openapi.ChatCompletion {
	p := &a.prompts[0]
	usage := openapi.Usage{PromptTokens: a.usage.Prompt, CompletionTokens: a.usage.Completion, TotalTokens: a.usage.Prompt + a.usage.Completion,
		PromptTokensDetails:     openapi.PromptTokensDetails{CachedTokens: a.usage.Cached},
		CompletionTokensDetails: openapi.CompletionTokensDetails{ReasoningTokens: a.usage.Reasoning}}
	body := &openapi.ChatCompletion{ID: id, Object: "chat.completion", Created: created, Model: out.model,
		SystemFingerprint: "pagoda-dev", Choices: make([]openapi.ChatChoice, len(p.choices)), Usage: usage}
	if out.tokenIDs {
		body.PromptTokenIDs = promptTokens(p.prompt)
	}
	for i := range p.choices {
		c, o := &p.choices[i], &body.Choices[i]
		*o = openapi.ChatChoice{Index: i, FinishReason: string(c.finish), StopReason: c.stop,
			Message: openapi.AssistantMessage{Role: "assistant", ToolCalls: c.calls}}
		if text := c.text.String(); text != "" || len(c.calls) == 0 {
			o.Message.Content = &text
		}
		if thought := c.reasoning.String(); thought != "" {
			o.Message.ReasoningContent, o.Message.Reasoning = &thought, &thought
		}
		if out.logprobs {
			o.Logprobs = chatLogprobs(c.logprobs)
		}
		if out.tokenIDs {
			o.TokenIDs = notNil(c.tokens)
		}
	}
	return body
}

// drawChoice makes a choice of anything that an engine may send.
func drawChoice(t *rapid.T, c *choice) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z\n"\\ ]{0,40}`), rapid.Just(""), rapid.Just("a\xff\u2028<\x00"))
	ids := rapid.SliceOfN(rapid.Int32Min(0), 0, 3)
	c.text.add(text.Draw(t, "text"))
	c.text.add(text.Draw(t, "more text"))
	c.reasoning.add(text.Draw(t, "reasoning"))
	for range rapid.IntRange(0, 2).Draw(t, "calls") {
		c.calls = append(c.calls, openapi.ToolCall{ID: text.Draw(t, "id"), Type: "function",
			Function: openapi.ToolCallFunction{Name: text.Draw(t, "name"), Arguments: text.Draw(t, "arguments")}})
	}
	c.tokens = ids.Draw(t, "tokens")
	for _, id := range c.tokens {
		l := engine.TokenLogprob{Token: id, Logprob: -rapid.Float64Range(0, 50).Draw(t, "logprob"), Bytes: []byte(text.Draw(t, "token"))}
		c.logprobs = append(c.logprobs, engine.Logprob{TokenLogprob: l, Top: []engine.TokenLogprob{l}})
	}
	c.finish = rapid.SampledFrom([]engine.FinishReason{engine.FinishStop, engine.FinishLength, engine.FinishToolCalls}).Draw(t, "finish")
	switch rapid.IntRange(0, 2).Draw(t, "stop") {
	case 1:
		c.stop = &openapi.StopReason{Text: new(text.Draw(t, "stop text"))}
	case 2:
		c.stop = &openapi.StopReason{Token: rapid.Int32Min(0).Draw(t, "stop token")}
	}
}

// TestAppendChatCompletion: what is appended is what the JSON library makes of the type in the contract.
func TestAppendChatCompletion(t *testing.T) {
	s := &Server{cfg: Defaults()}
	rapid.Check(t, func(t *rapid.T) {
		out := &reply{model: rapid.String().Draw(t, "model"), logprobs: rapid.Bool().Draw(t, "logprobs"), tokenIDs: rapid.Bool().Draw(t, "token ids")}
		count := rapid.IntRange(0, 1<<30)
		a := &answer{prompts: []promptAnswer{{choices: make([]choice, rapid.IntRange(1, 3).Draw(t, "n"))}},
			usage: engine.Usage{Prompt: count.Draw(t, "prompt"), Cached: count.Draw(t, "cached"), Completion: count.Draw(t, "completion"),
				Reasoning: count.Draw(t, "reasoning")}}
		if rapid.Bool().Draw(t, "has prompt") {
			a.prompts[0].prompt = &engine.Prompt{Tokens: rapid.SliceOfN(rapid.Int32Min(0), 0, 3).Draw(t, "prompt tokens")}
		}
		for i := range a.prompts[0].choices {
			drawChoice(t, &a.prompts[0].choices[i])
		}
		got := s.appendChatCompletion(nil, out, a)
		var made struct {
			ID      string `json:"id"`
			Created int64  `json:"created"`
		}
		if err := json.Unmarshal(got, &made); err != nil || made.ID == "" || made.Created == 0 {
			t.Fatalf("%s: %v", got, err)
		}
		want, err := json.Marshal(chatCompletion(out, a, made.ID, made.Created), jsonOptions)
		if err != nil || string(got) != string(want) {
			t.Fatalf("%s\nwant %s, %v", got, want, err)
		}
	})
}
