package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"pagoda/engine"
	"pagoda/engine/fake"
)

// client drives a server with OpenAI's own Go package, which knows nothing of us.
func client(t *testing.T, eng engine.Engine) openai.Client {
	t.Helper()
	s, _ := newTest(t, eng, Config{Keys: []string{"key"}})
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return openai.NewClient(option.WithBaseURL(server.URL+"/v1"), option.WithAPIKey("key"), option.WithMaxRetries(0))
}

func hello() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "fake", Messages: []openai.ChatCompletionMessageParamUnion{
		openai.DeveloperMessage("be brief"), openai.UserMessage("hi")}}
}

func TestOpenAIChat(t *testing.T) {
	eng := fake.New()
	c := client(t, eng)
	p := hello()
	p.N, p.Temperature, p.MaxCompletionTokens = openai.Int(2), openai.Float(0), openai.Int(100)
	p.Logprobs, p.TopLogprobs = openai.Bool(true), openai.Int(2)
	got, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Choices[1].Message.Content != "Hello!" || got.Choices[0].FinishReason != "stop" ||
		got.Usage.CompletionTokens != 12 || got.Model != "fake" || !strings.HasPrefix(got.ID, "chatcmpl-") {
		t.Errorf("got %s", got.RawJSON())
	}
	logprobs := got.Choices[0].Logprobs.Content
	if len(logprobs) != 6 || logprobs[0].Token != "H" || logprobs[0].Logprob != -0.5 || len(logprobs[0].TopLogprobs) != 2 ||
		logprobs[0].Bytes[0] != 'H' {
		t.Errorf("got %+v", logprobs)
	}
	if r := eng.Last(); r.Chat.Messages[0].Role != "developer" || *r.Sampling.Temperature != 0 {
		t.Errorf("request %+v", r)
	}
}

func TestOpenAIStream(t *testing.T) {
	c := client(t, fake.New())
	p := hello()
	p.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := c.Chat.Completions.NewStreaming(t.Context(), p)
	defer stream.Close()
	var acc openai.ChatCompletionAccumulator
	for stream.Next() {
		if !acc.AddChunk(stream.Current()) {
			t.Fatalf("chunk does not fit: %s", stream.Current().RawJSON())
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if len(acc.Choices) != 1 || acc.Choices[0].Message.Content != "Hello!" || acc.Choices[0].FinishReason != "stop" ||
		acc.Usage.CompletionTokens != 6 || acc.Choices[0].Message.Role != "assistant" {
		t.Errorf("got %+v", acc.ChatCompletion)
	}
}

func TestOpenAITools(t *testing.T) {
	eng := fake.New()
	eng.Scripts["fake"] = fake.ToolCall("call_1", "weather", `{"city":`, `"Oslo"}`)
	c := client(t, eng)
	p := hello()
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name: "weather", Description: openai.String("the weather"), Parameters: openai.FunctionParameters{
			"type": "object", "properties": map[string]any{"city": map[string]string{"type": "string"}}}})}
	whole, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), p)
	defer stream.Close()
	var acc openai.ChatCompletionAccumulator
	for stream.Next() {
		acc.AddChunk(stream.Current())
	}
	if stream.Err() != nil {
		t.Fatal(stream.Err())
	}
	for name, got := range map[string]*openai.ChatCompletion{"whole": whole, "streamed": &acc.ChatCompletion} {
		choice := got.Choices[0]
		if choice.FinishReason != "tool_calls" || len(choice.Message.ToolCalls) != 1 {
			t.Fatalf("%s: %+v", name, choice)
		}
		call := choice.Message.ToolCalls[0]
		if call.ID != "call_1" || call.Function.Name != "weather" || call.Function.Arguments != `{"city":"Oslo"}` {
			t.Errorf("%s: %+v", name, call)
		}
	}
	p.Messages = append(p.Messages, whole.Choices[0].Message.ToParam(), openai.ToolMessage("rain", "call_1"))
	if _, err := c.Chat.Completions.New(t.Context(), p); err != nil { // our own answer comes back to us
		t.Fatal(err)
	}
	messages := eng.Last().Chat.Messages
	if got := messages[2].ToolCalls[0]; got.Arguments != `{"city":"Oslo"}` || messages[3].ToolCallID != "call_1" {
		t.Errorf("got %+v", messages)
	}
}

func TestOpenAICompletions(t *testing.T) {
	c := client(t, fake.New())
	p := openai.CompletionNewParams{Model: "fake", Echo: openai.Bool(true), Logprobs: openai.Int(1),
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"a", "b"}}}
	got, err := c.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Choices[1].Text != "bHello!" || got.Choices[1].Index != 1 ||
		len(got.Choices[1].Logprobs.Tokens) != 7 {
		t.Errorf("got %s", got.RawJSON())
	}
	stream := c.Completions.NewStreaming(t.Context(), openai.CompletionNewParams{Model: "fake-adapter",
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfTokens: []int64{97}}})
	defer stream.Close()
	text := ""
	for stream.Next() {
		text += stream.Current().Choices[0].Text
	}
	if stream.Err() != nil || text != "HELLO!" {
		t.Errorf("got %q, %v", text, stream.Err())
	}
}

func TestOpenAIErrors(t *testing.T) {
	eng := fake.New()
	c := client(t, eng)
	for _, tt := range []struct {
		name                string
		err                 error
		change              func(*openai.ChatCompletionNewParams)
		status              int
		param, code, header string
	}{
		{name: "bad value", change: func(p *openai.ChatCompletionNewParams) { p.Temperature = openai.Float(9) },
			status: 400, param: "temperature"},
		{name: "unknown model", change: func(p *openai.ChatCompletionNewParams) { p.Model = "nope" },
			status: 404, param: "model", code: "model_not_found"},
		{name: "too long", change: func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(5000) },
			status: 400, param: "messages", code: "context_length_exceeded"},
		{name: "busy", err: &engine.Error{Code: engine.Busy, Message: "m", RetryAfter: 7 * time.Second},
			status: 429, code: "rate_limit_exceeded", header: "7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eng.Scripts["fake"] = fake.Fail(tt.err)
			p := hello()
			if tt.change != nil {
				tt.change(&p)
			}
			_, err := c.Chat.Completions.New(t.Context(), p)
			e, ok := errors.AsType[*openai.Error](err)
			if !ok || e.StatusCode != tt.status || e.Param != tt.param || e.Code != tt.code ||
				e.Response.Header.Get("Retry-After") != tt.header {
				t.Errorf("got %v", err)
			}
		})
	}
	eng.Scripts["fake"] = fake.Fail(engine.Errorf(engine.Upstream, "went wrong"), "Hel")
	stream := c.Chat.Completions.NewStreaming(t.Context(), hello())
	defer stream.Close()
	for stream.Next() {
	}
	if err := stream.Err(); err == nil || !strings.Contains(err.Error(), "went wrong") {
		t.Errorf("a failed stream ends with %v", err)
	}
	bad := client(t, eng)
	_, err := bad.Models.List(t.Context(), option.WithAPIKey("wrong"))
	if e, ok := errors.AsType[*openai.Error](err); !ok || e.StatusCode != http.StatusUnauthorized || e.Code != "invalid_api_key" {
		t.Errorf("got %v", err)
	}
}

func TestOpenAIModels(t *testing.T) {
	eng := fake.New()
	eng.ModelList[1].ID = "org/adapter"
	c := client(t, eng)
	list, err := c.Models.List(t.Context())
	if err != nil || len(list.Data) != 2 || list.Data[0].ID != "fake" || list.Data[0].OwnedBy != "pagoda" {
		t.Fatalf("got %+v, %v", list, err)
	}
	m, err := c.Models.Get(t.Context(), "org/adapter")
	if err != nil || m.ID != "org/adapter" || m.Created != fake.Created.Unix() {
		t.Errorf("got %+v, %v", m, err)
	}
}
