package blackbox

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

const sdkKey = "sdk-key"

// eachSDK runs a test with OpenAI's own client of each backend that has the built-in model: the native engine, a proxy in
// front of it, and, where upstreamURL names one, in front of a real server of another kind.
func eachSDK(t *testing.T, test func(t *testing.T, c openai.Client)) {
	t.Run("native", func(t *testing.T) { test(t, sdk(t)) })
	t.Run("proxy", func(t *testing.T) {
		native := serve(t)
		test(t, sdk(t, "--infer-backend", "vllm", "--upstream-url", native.url, "--adapter-name-or-path", demoAdapters))
	})
	t.Run("vllm", func(t *testing.T) {
		url := os.Getenv(upstreamURL)
		if url == "" {
			t.Skip("no real vLLM: " + upstreamURL + " is not set; test/upstream/run.sh starts one and sets it")
		}
		test(t, sdk(t, "--infer-backend", "vllm", "--upstream-url", url, "--adapter-name-or-path", demoAdapters))
	})
}

const (
	upstreamURL = "PAGODA_TEST_VLLM_URL"
	// demoAdapters are the built-in model's, which the upstreams have already.
	demoAdapters = "french=already,pirate=already,shout=already"
)

// sdk starts a server and returns OpenAI's own client of it.
func sdk(t *testing.T, args ...string) openai.Client {
	t.Helper()
	p := serve(t, append([]string{"--api-key", sdkKey}, args...)...)
	return openai.NewClient(option.WithBaseURL(p.url+"/v1"), option.WithAPIKey(sdkKey), option.WithMaxRetries(0),
		option.WithHTTPClient(p.client))
}

func sdkChat(model, text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model, Temperature: openai.Float(0),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
}

// accumulate reads a stream to its end.
func accumulate(t *testing.T, c openai.Client, p openai.ChatCompletionNewParams) *openai.ChatCompletion {
	t.Helper()
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
	return &acc.ChatCompletion
}

// both asks for a chat completion whole and streamed; the two must say the same.
func both(t *testing.T, c openai.Client, p openai.ChatCompletionNewParams) *openai.ChatCompletion {
	t.Helper()
	whole, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	streamed := accumulate(t, c, p)
	if whole.Usage.TotalTokens == 0 || whole.Usage.TotalTokens != streamed.Usage.TotalTokens {
		t.Errorf("usage %+v, streamed %+v", whole.Usage, streamed.Usage)
	}
	if len(whole.Choices) != len(streamed.Choices) {
		t.Fatalf("%d choices, %d streamed", len(whole.Choices), len(streamed.Choices))
	}
	for i := range whole.Choices {
		w, s := whole.Choices[i], streamed.Choices[i]
		if w.Message.Content != s.Message.Content || w.FinishReason != s.FinishReason || s.Message.Role != "assistant" {
			t.Errorf("choice %d: %q (%s), streamed %q (%s)", i, w.Message.Content, w.FinishReason, s.Message.Content, s.FinishReason)
		}
	}
	return whole
}

func TestSDKChat(t *testing.T) { eachSDK(t, testSDKChat) }

func testSDKChat(t *testing.T, c openai.Client) {
	for _, tt := range []struct{ model, text, want string }{
		{demo, "hi", "Hi! How can I help you?"},
		{"shout", "hi", "HI! HOW CAN I HELP YOU!"},
		{"pirate", "What is the opposite of hot?", "Arr, the opposite of hot is cold, matey."},
	} {
		got := both(t, c, sdkChat(tt.model, tt.text))
		if got.Choices[0].Message.Content != tt.want || got.Choices[0].FinishReason != "stop" || got.Model != tt.model ||
			!strings.HasPrefix(got.ID, "chatcmpl-") {
			t.Errorf("%s", got.RawJSON())
		}
	}
	p := sdkChat(demo, "hi")
	p.MaxCompletionTokens = openai.Int(2)
	if got := both(t, c, p); got.Choices[0].FinishReason != "length" || got.Usage.CompletionTokens != 2 {
		t.Errorf("%s", got.RawJSON())
	}
	p = sdkChat(demo, "hi")
	p.Stop = openai.ChatCompletionNewParamsStopUnion{OfStringArray: []string{"How"}}
	if got := both(t, c, p); got.Choices[0].Message.Content != "Hi! " || got.Choices[0].FinishReason != "stop" {
		t.Errorf("%s", got.RawJSON())
	}
}

func TestSDKLogprobs(t *testing.T) { eachSDK(t, testSDKLogprobs) }

func testSDKLogprobs(t *testing.T, c openai.Client) {
	p := sdkChat(demo, "hi")
	p.Logprobs, p.TopLogprobs = openai.Bool(true), openai.Int(3)
	got := both(t, c, p)
	tokens := got.Choices[0].Logprobs.Content
	text := ""
	for _, token := range tokens {
		if token.Logprob > 0 || len(token.TopLogprobs) != 3 || token.TopLogprobs[0].Token != token.Token {
			t.Errorf("token %+v", token)
		}
		text += token.Token
	}
	if text != got.Choices[0].Message.Content+"<|im_end|>" {
		t.Errorf("tokens %q of %q", text, got.Choices[0].Message.Content)
	}
}

func TestSDKChoices(t *testing.T) { eachSDK(t, testSDKChoices) }

func testSDKChoices(t *testing.T, c openai.Client) {
	p := sdkChat(demo, "Tell me a story about a cat.")
	p.N, p.Seed, p.Temperature, p.MaxTokens = openai.Int(3), openai.Int(5), openai.Float(1), openai.Int(24)
	first, again := both(t, c, p), both(t, c, p)
	texts := map[string]bool{}
	for i := range first.Choices {
		if first.Choices[i].Message.Content != again.Choices[i].Message.Content {
			t.Errorf("the same seed gave %q and %q", first.Choices[i].Message.Content, again.Choices[i].Message.Content)
		}
		texts[first.Choices[i].Message.Content] = true
	}
	if len(first.Choices) != 3 || len(texts) < 2 {
		t.Errorf("%d choices, %d different", len(first.Choices), len(texts))
	}
}

func TestSDKTools(t *testing.T) { eachSDK(t, testSDKTools) }

func testSDKTools(t *testing.T, c openai.Client) {
	p := sdkChat(demo, "What is the weather in Paris?")
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name: "get_weather", Description: openai.String("Get the current weather in a city."),
		Parameters: openai.FunctionParameters{"type": "object", "required": []string{"city"},
			"properties": map[string]any{"city": map[string]string{"type": "string"}}}})}
	whole, streamed := both(t, c, p), accumulate(t, c, p)
	for _, got := range []*openai.ChatCompletion{whole, streamed} {
		choice := got.Choices[0]
		if choice.FinishReason != "tool_calls" || len(choice.Message.ToolCalls) != 1 {
			t.Fatalf("%+v", choice)
		}
		call := choice.Message.ToolCalls[0]
		var args struct{ City string }
		if err := json.Unmarshal([]byte(call.Function.Arguments), &args); err != nil || args.City != "Paris" ||
			call.Function.Name != "get_weather" || call.ID == "" {
			t.Errorf("%+v, %v", call, err)
		}
	}
	p.Messages = append(p.Messages, whole.Choices[0].Message.ToParam(),
		openai.ToolMessage(`{"weather": "sunny"}`, whole.Choices[0].Message.ToolCalls[0].ID))
	if got := both(t, c, p).Choices[0]; got.FinishReason != "stop" || !strings.Contains(got.Message.Content, "sunny") {
		t.Errorf("%+v", got)
	}
	p.Messages = p.Messages[:1]
	p.ToolChoice = openai.ChatCompletionToolChoiceOptionUnionParam{OfAuto: openai.String("none")}
	if got := both(t, c, p).Choices[0]; got.FinishReason != "stop" || len(got.Message.ToolCalls) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestSDKCompletions(t *testing.T) {
	eachSDK(t, func(t *testing.T, c openai.Client) {
		stream := c.Completions.NewStreaming(t.Context(), openai.CompletionNewParams{Model: "shout", Temperature: openai.Float(0),
			MaxTokens: openai.Int(20), Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfTokens: []int64{2040, 275, 10, 456,
				2041, 10, 2040, 273, 10}}})
		defer stream.Close()
		text := ""
		for stream.Next() {
			for _, choice := range stream.Current().Choices {
				text += choice.Text
			}
		}
		if stream.Err() != nil || text != "HI! HOW CAN I HELP YOU!" {
			t.Errorf("%q, %v", text, stream.Err())
		}
	})
}

// TestSDKEcho runs on the native engine only: as an upstream it has vLLM's echo but not its field prompt_logprobs, with which
// vLLM 0.29 on CPUs ends when it serves adapters.
func TestSDKEcho(t *testing.T) {
	c := sdk(t)
	const prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
	p := openai.CompletionNewParams{Model: demo, Echo: openai.Bool(true), Logprobs: openai.Int(1), MaxTokens: openai.Int(20),
		Temperature: openai.Float(0), Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{prompt, "1 2 3"}}}
	got, err := c.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Choices[0].Text != prompt+"Hi! How can I help you?" ||
		!strings.HasPrefix(got.Choices[1].Text, "1 2 3") || len(got.Choices[0].Logprobs.Tokens) < 15 {
		t.Errorf("%s", got.RawJSON())
	}
}

func TestSDKModels(t *testing.T) { eachSDK(t, testSDKModels) }

func testSDKModels(t *testing.T, c openai.Client) {
	list, err := c.Models.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range list.Data {
		ids = append(ids, m.ID)
	}
	if slices.Sort(ids); !slices.Equal(ids, []string{"french", demo, "pirate", "shout"}) {
		t.Errorf("models %v", ids)
	}
	if m, err := c.Models.Get(t.Context(), "shout"); err != nil || m.ID != "shout" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestSDKErrors(t *testing.T) { eachSDK(t, testSDKErrors) }

func testSDKErrors(t *testing.T, c openai.Client) {
	for _, tt := range []struct {
		name        string
		change      func(*openai.ChatCompletionNewParams)
		options     []option.RequestOption
		status      int
		param, code string
	}{
		{name: "bad value", change: func(p *openai.ChatCompletionNewParams) { p.Temperature = openai.Float(9) },
			status: http.StatusBadRequest, param: "temperature"},
		{name: "unknown field", options: []option.RequestOption{option.WithJSONSet("frobnicate", 1)},
			status: http.StatusBadRequest, param: "frobnicate"},
		{name: "unknown model", change: func(p *openai.ChatCompletionNewParams) { p.Model = "nobody" },
			status: http.StatusNotFound, param: "model", code: "model_not_found"},
		{name: "too long", change: func(p *openai.ChatCompletionNewParams) {
			p.Messages[0] = openai.UserMessage(strings.Repeat("one two three ", 1000))
		}, status: http.StatusBadRequest, param: "messages", code: "context_length_exceeded"},
		{name: "wrong key", options: []option.RequestOption{option.WithAPIKey("wrong")},
			status: http.StatusUnauthorized, code: "invalid_api_key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "unknown field" && !strings.Contains(t.Name(), "/native/") {
				t.Skip("fields that only an upstream may know are passed on to it")
			}
			p := sdkChat(demo, "hi")
			if tt.change != nil {
				tt.change(&p)
			}
			_, err := c.Chat.Completions.New(t.Context(), p, tt.options...)
			stream := c.Chat.Completions.NewStreaming(t.Context(), p, tt.options...)
			defer stream.Close()
			for stream.Next() {
				t.Errorf("chunk %s", stream.Current().RawJSON())
			}
			for _, err := range []error{err, stream.Err()} {
				e, ok := errors.AsType[*openai.Error](err)
				if !ok || e.StatusCode != tt.status || e.Param != tt.param || e.Code != tt.code || e.Message == "" {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}
