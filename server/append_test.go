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
	body := &openapi.ChatCompletion{ID: id, Object: "chat.completion", Created: created, Model: out.model,
		SystemFingerprint: "pagoda-dev", Choices: make([]openapi.ChatChoice, len(p.choices)), Usage: usageOf(a.usage)}
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

// completion is what appendCompletion writes, likewise.
func completion(reqs []*engine.Request, out *reply, a *answer, id string, created int64) *openapi.Completion {
	body := &openapi.Completion{ID: id, Object: "text_completion", Created: created, Model: out.model, SystemFingerprint: "pagoda-dev",
		Usage: new(usageOf(a.usage))}
	for i, req := range reqs {
		p := &a.prompts[i]
		for k, c := range best(p.choices, out.n) {
			o := openapi.CompletionChoice{Index: i*out.n + k, Text: c.text.String(), FinishReason: new(string(c.finish)), StopReason: c.stop}
			if out.echo != nil {
				o.Text = out.echo[i] + o.Text
			}
			if out.logprobs {
				l := &completionLogprobs{top: *req.Output.Logprobs}
				l.add(c.logprobs)
				o.Logprobs = l.take()
			}
			if out.tokenIDs {
				o.PromptTokenIDs, o.TokenIDs = promptTokens(p.prompt), notNil(c.tokens)
			}
			body.Choices = append(body.Choices, o)
		}
	}
	return body
}

func usageOf(u engine.Usage) openapi.Usage {
	return openapi.Usage{PromptTokens: u.Prompt, CompletionTokens: u.Completion, TotalTokens: u.Prompt + u.Completion,
		PromptTokensDetails:     openapi.PromptTokensDetails{CachedTokens: u.Cached},
		CompletionTokensDetails: openapi.CompletionTokensDetails{ReasoningTokens: u.Reasoning}}
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

// drawAnswer makes an answer to some prompts, and what of it is wanted.
func drawAnswer(t *rapid.T, prompts int) (*reply, *answer) {
	n, count := rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(0, 1<<30)
	out := &reply{model: rapid.String().Draw(t, "model"), n: n, logprobs: rapid.Bool().Draw(t, "logprobs"), tokenIDs: rapid.Bool().Draw(t, "token ids")}
	a := &answer{usage: engine.Usage{Prompt: count.Draw(t, "prompt"), Cached: count.Draw(t, "cached"), Completion: count.Draw(t, "completion"),
		Reasoning: count.Draw(t, "reasoning")}}
	for range prompts {
		p := promptAnswer{choices: make([]choice, n)}
		if rapid.Bool().Draw(t, "has prompt") {
			p.prompt = &engine.Prompt{Tokens: rapid.SliceOfN(rapid.Int32Min(0), 0, 3).Draw(t, "prompt tokens")}
		}
		for i := range p.choices {
			drawChoice(t, &p.choices[i])
		}
		a.prompts = append(a.prompts, p)
	}
	return out, a
}

// checkAppended compares got with what the JSON library makes of the type in the contract, with got's id and time.
func checkAppended[T any](t *rapid.T, got []byte, want func(id string, created int64) *T) {
	var made struct {
		ID      string `json:"id"`
		Created int64  `json:"created"`
	}
	if err := json.Unmarshal(got, &made); err != nil || made.ID == "" || made.Created == 0 {
		t.Fatalf("%s: %v", got, err)
	}
	encoded, err := json.Marshal(want(made.ID, made.Created), jsonOptions)
	if err != nil || string(got) != string(encoded) {
		t.Fatalf("%s\nwant %s, %v", got, encoded, err)
	}
}

func TestAppendChatCompletion(t *testing.T) {
	s := &Server{cfg: Defaults()}
	rapid.Check(t, func(t *rapid.T) {
		out, a := drawAnswer(t, 1)
		checkAppended(t, s.appendChatCompletion(nil, out, a), func(id string, created int64) *openapi.ChatCompletion {
			return chatCompletion(out, a, id, created)
		})
	})
}

func TestAppendCompletion(t *testing.T) {
	s := &Server{cfg: Defaults()}
	rapid.Check(t, func(t *rapid.T) {
		reqs := make([]*engine.Request, rapid.IntRange(1, 3).Draw(t, "prompts"))
		out, a := drawAnswer(t, len(reqs))
		for i := range reqs {
			reqs[i] = &engine.Request{Output: engine.Output{Logprobs: new(rapid.IntRange(0, 1).Draw(t, "top"))}}
		}
		if !out.logprobs && rapid.Bool().Draw(t, "echo") { // with both an engine is asked for the first token
			out.echo = []string{"one ", "\"two\" ", ""}
		}
		got, err := s.appendCompletion(nil, nil, reqs, out, a)
		if err != nil {
			t.Fatal(err)
		}
		checkAppended(t, got, func(id string, created int64) *openapi.Completion { return completion(reqs, out, a, id, created) })
	})
}
