package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"pagoda/engine"
	"pagoda/engine/fake"
	"pagoda/openapi"
)

const (
	chatStart       = `{"model":"fake","messages":[{"role":"user","content":"hi"}]`
	completionStart = `{"model":"fake","prompt":"hi"`
)

// body adds members to the start of a body.
func body(start, members string) string {
	if members == "" {
		return start + "}"
	}
	return start + "," + members + "}"
}

// param is a case of a parameter that is heeded: what reaches the engine.
type param struct {
	members string
	got     func(*engine.Request) any
	want    any
}

func deref(v any) any {
	r := reflect.ValueOf(v)
	if r.Kind() == reflect.Pointer && !r.IsNil() {
		return r.Elem().Interface()
	}
	return v
}

var sharedParams = []param{
	{`"temperature":0`, func(r *engine.Request) any { return r.Sampling.Temperature }, 0.0},
	{`"temperature":2`, func(r *engine.Request) any { return r.Sampling.Temperature }, 2.0},
	{`"temperature":null`, func(r *engine.Request) any { return r.Sampling.Temperature }, (*float64)(nil)},
	{`"top_p":0.5`, func(r *engine.Request) any { return r.Sampling.TopP }, 0.5},
	{`"top_k":-1`, func(r *engine.Request) any { return r.Sampling.TopK }, -1},
	{`"top_k":40`, func(r *engine.Request) any { return r.Sampling.TopK }, 40},
	{`"min_p":0.1`, func(r *engine.Request) any { return r.Sampling.MinP }, 0.1},
	{`"typical_p":0.9`, func(r *engine.Request) any { return r.Sampling.TypicalP }, 0.9},
	{`"repetition_penalty":1.1`, func(r *engine.Request) any { return r.Sampling.RepetitionPenalty }, 1.1},
	{`"presence_penalty":-2`, func(r *engine.Request) any { return r.Sampling.PresencePenalty }, -2.0},
	{`"frequency_penalty":1.5`, func(r *engine.Request) any { return r.Sampling.FrequencyPenalty }, 1.5},
	{`"logit_bias":{"5":-100,"7":1.5}`, func(r *engine.Request) any { return r.Sampling.LogitBias },
		map[int32]float32{5: -100, 7: 1.5}},
	{`"seed":-7`, func(r *engine.Request) any { return r.Sampling.Seed }, int64(-7)},
	{`"seed":9223372036854775807`, func(r *engine.Request) any { return r.Sampling.Seed }, int64(9223372036854775807)},
	{`"n":3`, func(r *engine.Request) any { return r.Sampling.N }, 3},
	{``, func(r *engine.Request) any { return r.Sampling.N }, 1},
	{`"max_tokens":7`, func(r *engine.Request) any { return r.Sampling.MaxTokens }, 7},
	{`"max_tokens":7.0`, func(r *engine.Request) any { return r.Sampling.MaxTokens }, 7},
	{`"max_tokens":70e-1,"stop_token_ids":[1e1]`, func(r *engine.Request) any { return r.Sampling.StopTokenIDs }, []int32{10}},
	{`"seed":1e15`, func(r *engine.Request) any { return r.Sampling.Seed }, int64(1e15)},
	{`"min_tokens":2,"max_tokens":2`, func(r *engine.Request) any { return r.Sampling.MinTokens }, 2},
	{`"stop":"end"`, func(r *engine.Request) any { return r.Sampling.Stop }, []string{"end"}},
	{`"stop":["a\u0000b","c"]`, func(r *engine.Request) any { return r.Sampling.Stop }, []string{"a\x00b", "c"}},
	{`"stop":null`, func(r *engine.Request) any { return len(r.Sampling.Stop) }, 0},
	{`"stop_token_ids":[1,2]`, func(r *engine.Request) any { return r.Sampling.StopTokenIDs }, []int32{1, 2}},
	{`"include_stop_str_in_output":true`, func(r *engine.Request) any { return r.Sampling.IncludeStop }, true},
	{`"do_sample":false`, func(r *engine.Request) any { return r.Sampling.Temperature }, 0.0},
	{`"do_sample":false,"temperature":0.5`, func(r *engine.Request) any { return r.Sampling.Temperature }, 0.0},
	{`"do_sample":true,"temperature":0.5`, func(r *engine.Request) any { return r.Sampling.Temperature }, 0.5},
	{`"ignore_eos":true`, func(r *engine.Request) any { return r.Sampling.IgnoreEOS }, true},
	{`"skip_special_tokens":false`, func(r *engine.Request) any { return r.Output.SkipSpecial }, false},
	{`"return_tokens_as_token_ids":true`, func(r *engine.Request) any { return r.Output.NameByID }, true},
	{`"priority":-3`, func(r *engine.Request) any { return r.Priority }, -3},
	{`"cache_salt":"s"`, func(r *engine.Request) any { return r.CacheSalt }, "s"},
	{`"speculative_tokens":0`, func(r *engine.Request) any { return r.SpeculativeTokens }, 0},
	{`"speculative_tokens":64`, func(r *engine.Request) any { return r.SpeculativeTokens }, 64},
	{``, func(r *engine.Request) any { return r.SpeculativeTokens }, (*int)(nil)},
	{`"user":"u"`, func(r *engine.Request) any { return r.Tenant }, ""},
}

var chatParams = []param{
	{`"max_completion_tokens":9`, func(r *engine.Request) any { return r.Sampling.MaxTokens }, 9},
	{`"max_completion_tokens":9,"max_tokens":9`, func(r *engine.Request) any { return r.Sampling.MaxTokens }, 9},
	{``, func(r *engine.Request) any { return r.Sampling.MaxTokens }, (*int)(nil)},
	{`"logprobs":true`, func(r *engine.Request) any { return r.Output.Logprobs }, 0},
	{`"logprobs":true,"top_logprobs":20`, func(r *engine.Request) any { return r.Output.Logprobs }, 20},
	{`"logprobs":false,"top_logprobs":0`, func(r *engine.Request) any { return r.Output.Logprobs }, (*int)(nil)},
	{`"chat_template_kwargs":{"enable_thinking":true}`, kwargs, `{"enable_thinking":true}`},
	{`"reasoning_effort":"none"`, kwargs, `{"enable_thinking":false}`},
	{`"reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":true}`, kwargs, `{"enable_thinking":true}`},
	{`"add_generation_prompt":false`, func(r *engine.Request) any { return r.Chat.AddGenerationPrompt }, false},
	{`"parallel_tool_calls":false`, func(r *engine.Request) any { return r.Chat.ParallelToolCalls }, false},
	{`"tool_choice":"none"`, func(r *engine.Request) any { return r.Chat.ToolChoice }, "none"},
	{`"tool_choice":"auto"`, func(r *engine.Request) any { return r.Chat.ToolChoice }, "auto"},
	{`"tools":[]`, func(r *engine.Request) any { return len(r.Chat.Tools) }, 0},
	{`"tools":[{"function":{"parameters":{"z":1,"a":2},"name":"f"},"type":"function"}]`,
		func(r *engine.Request) any { return string(r.Chat.Tools[0]) },
		`{"function":{"parameters":{"z":1,"a":2},"name":"f"},"type":"function"}`},
	{`"response_format":{"type":"text"}`, nothing, nil},
	{`"modalities":["text"]`, nothing, nil},
	{`"store":false`, nothing, nil},
	{`"service_tier":"auto"`, nothing, nil},
	{`"metadata":{"a":"b"}`, nothing, nil},
	{`"safety_identifier":"a","prompt_cache_key":"b"`, nothing, nil},
	{`"audio":null,"functions":null,"web_search_options":null`, nothing, nil},
}

var completionParams = []param{
	{``, func(r *engine.Request) any { return r.Sampling.MaxTokens }, 16},
	{`"max_tokens":0`, func(r *engine.Request) any { return r.Sampling.MaxTokens }, 0},
	{`"logprobs":0`, func(r *engine.Request) any { return r.Output.Logprobs }, 0},
	{`"logprobs":20`, func(r *engine.Request) any { return r.Output.PromptLogprobs }, (*int)(nil)},
	{`"logprobs":20,"echo":true`, func(r *engine.Request) any { return r.Output.PromptLogprobs }, 20},
	{`"best_of":4,"n":2`, func(r *engine.Request) any { return r.Sampling.N }, 4},
	{`"best_of":4,"n":2`, func(r *engine.Request) any { return r.Output.Logprobs }, 0},
	{`"add_special_tokens":false`, func(r *engine.Request) any { return r.AddSpecialTokens }, false},
	{`"suffix":null`, nothing, nil},
}

func nothing(*engine.Request) any { return nil }

func kwargs(r *engine.Request) any {
	b, _ := json.Marshal(r.Chat.TemplateKwargs)
	return string(b)
}

func TestHeededParameters(t *testing.T) {
	for _, dialect := range []struct {
		path, start string
		params      [][]param
	}{
		{"/v1/chat/completions", chatStart, [][]param{sharedParams, chatParams}},
		{"/v1/completions", completionStart, [][]param{sharedParams, completionParams}},
	} {
		for _, params := range dialect.params {
			for _, p := range params {
				t.Run(dialect.path+" "+p.members, func(t *testing.T) {
					eng := fake.New()
					s, _ := newTest(t, eng, Config{})
					w := call(t, s, http.MethodPost, dialect.path, body(dialect.start, p.members))
					if w.Code != http.StatusOK {
						t.Fatalf("status %d: %s", w.Code, w.Body)
					}
					if got := deref(p.got(eng.Last())); !reflect.DeepEqual(got, p.want) {
						t.Errorf("got %#v, want %#v", got, p.want)
					}
				})
			}
		}
	}
}

// refusal is a case of a request that is refused with 400. The contract must refuse it too, unless it is of a kind
// that schemas cannot tell (rule), or that no JSON parser would hand to one (syntax).
type refusal struct {
	members string
	param   string
	kind    string
}

const (
	rule   = "rule"
	syntax = "syntax"
)

var sharedRefusals = []refusal{
	{`"temperature":-0.1`, "temperature", ""},
	{`"temperature":2.1`, "temperature", ""},
	{`"temperature":"1"`, "temperature", ""},
	{`"temperature":true`, "temperature", ""},
	{`"temperature":NaN`, "temperature", syntax},
	{`"temperature":Infinity`, "temperature", syntax},
	{`"temperature":1e999`, "temperature", syntax},
	{`"temperature":1,"temperature":1`, "temperature", syntax},
	{`"Temperature":1`, "Temperature", ""},
	{`"top_p":0`, "top_p", ""},
	{`"top_p":1.01`, "top_p", ""},
	{`"top_k":-2`, "top_k", ""},
	{`"top_k":1.5`, "top_k", ""},
	{`"min_p":1.5`, "min_p", ""},
	{`"typical_p":0`, "typical_p", ""},
	{`"repetition_penalty":0`, "repetition_penalty", ""},
	{`"presence_penalty":2.5`, "presence_penalty", ""},
	{`"frequency_penalty":-2.5`, "frequency_penalty", ""},
	{`"logit_bias":{"a":1}`, "logit_bias.a", ""},
	{`"logit_bias":{"-1":1}`, "logit_bias[-1]", ""},
	{`"logit_bias":{"5":101}`, "logit_bias[5]", ""},
	{`"logit_bias":{"5":null}`, "logit_bias[5]", ""},
	{`"logit_bias":{"99999999":1}`, "logit_bias", rule}, // the engine's word: not in the vocabulary
	{`"logit_bias":[1]`, "logit_bias", ""},
	{`"seed":9223372036854775808`, "seed", ""},
	{`"seed":1.5`, "seed", ""},
	{`"seed":1e30`, "seed", ""},
	{`"n":2.000001`, "n", ""},
	{`"n":"2"`, "n", ""},
	{`"stop_token_ids":[1.5]`, "stop_token_ids[0]", ""},
	{`"logit_bias":{"05":1}`, "logit_bias[05]", ""},
	{`"repetition_penalty":0.001`, "repetition_penalty", ""},
	{`"n":0`, "n", ""},
	{`"n":129`, "n", ""},
	{`"n":1000000000`, "n", ""},
	{`"max_tokens":-1`, "max_tokens", ""},
	{`"max_tokens":2147483648`, "max_tokens", ""},
	{`"max_tokens":1e30`, "max_tokens", ""},
	{`"min_tokens":-1`, "min_tokens", ""},
	{`"min_tokens":3,"max_tokens":2`, "min_tokens", rule},
	{`"stop":""`, "stop[0]", ""},
	{`"stop":["a",""]`, "stop[1]", ""},
	{`"stop":["a",null]`, "stop[1]", ""},
	{`"stop":5`, "stop", ""},
	{`"stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]`, "stop", ""},
	{`"stop":"` + strings.Repeat("é", 257) + `"`, "stop[0]", ""},
	{`"stop_token_ids":[-1]`, "stop_token_ids[0]", ""},
	{`"stop_token_ids":[1,null]`, "stop_token_ids", ""},
	{`"stop_token_ids":[4294967296]`, "stop_token_ids[0]", ""},
	{`"ignore_eos":1`, "ignore_eos", ""},
	{`"do_sample":0`, "do_sample", ""},
	{`"return_tokens_as_token_ids":"yes"`, "return_tokens_as_token_ids", ""},
	{`"priority":2147483648`, "priority", ""},
	{`"cache_salt":""`, "cache_salt", ""},
	{`"speculative_tokens":-1`, "speculative_tokens", ""},
	{`"speculative_tokens":65`, "speculative_tokens", ""},
	{`"speculative_tokens":true`, "speculative_tokens", ""},
	{`"user":7`, "user", ""},
	{`"stream":"yes"`, "stream", ""},
	{`"stream_options":{"include_usage":true}`, "stream_options", rule},
	{`"stream":true,"stream_options":{"include_obfuscation":true}`, "stream_options.include_obfuscation", ""},
	{`"stream":true,"stream_options":{"continuous_usage_stats":true}`, "stream_options.continuous_usage_stats", rule},
	{`"stream":true,"stream_options":{"x":1}`, "stream_options.x", ""},
	{`"stream":true,"stream_options":[]`, "stream_options", ""},
	{`"unheard_of":1`, "unheard_of", ""},
	{`"unheard_of":null`, "unheard_of", ""},
	{`"guided_json":{}`, "guided_json", ""},
}

var chatRefusals = []refusal{
	{`"max_completion_tokens":0`, "max_completion_tokens", ""},
	{`"max_tokens":0`, "max_tokens", ""},
	{`"max_completion_tokens":1,"max_tokens":2`, "max_tokens", rule},
	{`"logprobs":1`, "logprobs", ""},
	{`"top_logprobs":2`, "top_logprobs", rule},
	{`"logprobs":true,"top_logprobs":21`, "top_logprobs", ""},
	{`"logprobs":true,"top_logprobs":-1`, "top_logprobs", ""},
	{`"tool_choice":"required"`, "tool_choice", ""},
	{`"tool_choice":{"type":"function","function":{"name":"f"}}`, "tool_choice", ""},
	{`"tools":[{"type":"function"}]`, "tools[0].function.name", ""},
	{`"tools":[{"type":"x","function":{"name":"f"}}]`, "tools[0].type", ""},
	{`"tools":[{"type":"function","function":{"name":"a b"}}]`, "tools[0].function.name", ""},
	{`"tools":[{"type":"function","function":{"name":"f","strict":true}}]`, "tools[0].function.strict", ""},
	{`"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]`, "tools[0].function.parameters", ""},
	{`"tools":[{"type":"function","function":{"name":"f","x":1}}]`, "tools[0].function.x", ""},
	{`"tools":[null]`, "tools[0].type", ""},
	{`"functions":[]`, "functions", ""},
	{`"function_call":"auto"`, "function_call", ""},
	{`"response_format":{"type":"json_object"}`, "response_format.type", ""},
	{`"response_format":{"type":"json_schema","json_schema":{"name":"x"}}`, "response_format.type", ""},
	{`"response_format":{}`, "response_format.type", ""},
	{`"modalities":["text","audio"]`, "modalities[1]", ""},
	{`"audio":{"voice":"x"}`, "audio", ""},
	{`"prediction":{}`, "prediction", ""},
	{`"web_search_options":{}`, "web_search_options", ""},
	{`"moderation":{}`, "moderation", ""},
	{`"verbosity":"low"`, "verbosity", ""},
	{`"prompt_cache_retention":"24h"`, "prompt_cache_retention", ""},
	{`"reasoning_effort":"high"`, "reasoning_effort", ""},
	{`"service_tier":"flex"`, "service_tier", ""},
	{`"store":true`, "store", ""},
	{`"metadata":{"a":1}`, "metadata.a", ""},
	{`"metadata":{"a":null}`, "metadata", ""},
	{`"chat_template_kwargs":[]`, "chat_template_kwargs", ""},
	{`"chat_template":"{{ x }}"`, "chat_template", ""},
	{`"continue_final_message":true`, "continue_final_message", rule},
	{`"echo":true`, "echo", ""},
	{`"suffix":"x"`, "suffix", ""},
}

var completionRefusals = []refusal{
	{`"suffix":"x"`, "suffix", ""},
	{`"logprobs":21`, "logprobs", ""},
	{`"logprobs":true`, "logprobs", ""},
	{`"best_of":0`, "best_of", ""},
	{`"best_of":129`, "best_of", ""},
	{`"best_of":1,"n":2`, "best_of", rule},
	{`"best_of":2,"stream":true`, "best_of", rule},
	{`"echo":"x"`, "echo", ""},
	{`"messages":[]`, "messages", ""},
}

func TestRefusedParameters(t *testing.T) {
	for _, dialect := range []struct {
		path, start string
		refusals    [][]refusal
	}{
		{"/v1/chat/completions", chatStart, [][]refusal{sharedRefusals, chatRefusals}},
		{"/v1/completions", completionStart, [][]refusal{sharedRefusals, completionRefusals}},
	} {
		s, _ := newTest(t, fake.New(), Config{})
		for _, refusals := range dialect.refusals {
			for _, c := range refusals {
				t.Run(dialect.path+" "+clip(c.members, 60), func(t *testing.T) {
					wantRefusal(t, s, dialect.path, body(dialect.start, c.members), c)
				})
			}
		}
	}
}

func wantRefusal(t *testing.T, s *Server, path, body string, c refusal) {
	t.Helper()
	w := call(t, s, http.MethodPost, path, body)
	message := wantError(t, w, http.StatusBadRequest)
	if got := errorParam(t, w.Body.Bytes()); got != c.param {
		t.Errorf("param %q, want %q (%s)", got, c.param, message)
	}
	if c.kind != syntax {
		if err := requestVerdict(t, http.MethodPost, path, body); (err == nil) != (c.kind == rule) {
			t.Errorf("the contract says %v", err)
		}
	}
}

func errorParam(t *testing.T, body []byte) string {
	t.Helper()
	var e struct {
		Error struct{ Param string }
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatal(err)
	}
	return e.Error.Param
}

func TestMessages(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		name, message string
		want          engine.Message
	}{
		{"system", `{"role":"system","content":"a"}`, engine.Message{Role: "system", Content: text("a")}},
		{"developer", `{"role":"developer","content":"a","name":"n"}`,
			engine.Message{Role: "developer", Content: text("a"), Name: "n"}},
		{"empty", `{"role":"user","content":""}`, engine.Message{Role: "user", Content: text("")}},
		{"NUL", `{"role":"user","content":"a\u0000b"}`, engine.Message{Role: "user", Content: text("a\x00b")}},
		{"parts", `{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}`,
			engine.Message{Role: "user", Content: text("ab")}},
		{"assistant", `{"role":"assistant","content":"a","refusal":null,"annotations":[]}`,
			engine.Message{Role: "assistant", Content: text("a")}},
		{"assistant without content", `{"role":"assistant"}`, engine.Message{Role: "assistant"}},
		{"refusal", `{"role":"assistant","refusal":"no"}`, engine.Message{Role: "assistant", Content: text("no")}},
		{"refusal part", `{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}`,
			engine.Message{Role: "assistant", Content: text("no")}},
		{"reasoning_content", `{"role":"assistant","content":"a","reasoning_content":"r","reasoning":"s"}`,
			engine.Message{Role: "assistant", Content: text("a"), Reasoning: text("r")}},
		{"reasoning", `{"role":"assistant","content":"a","reasoning":"s"}`,
			engine.Message{Role: "assistant", Content: text("a"), Reasoning: text("s")}},
		{"calls", `{"role":"assistant","content":null,"audio":null,"function_call":null,
			"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}`,
			engine.Message{Role: "assistant", ToolCalls: []engine.ToolCall{{ID: "c", Name: "f", Arguments: "{}"}}}},
		{"tool", `{"role":"tool","content":"a","tool_call_id":"c","name":"f"}`,
			engine.Message{Role: "tool", Content: text("a"), ToolCallID: "c", Name: "f"}},
		{"function", `{"role":"function","content":"a","name":"f"}`,
			engine.Message{Role: "function", Content: text("a"), Name: "f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eng := fake.New()
			s, _ := newTest(t, eng, Config{})
			w := call(t, s, http.MethodPost, "/v1/chat/completions", `{"model":"fake","messages":[`+c.message+`]}`)
			if w.Code != http.StatusOK {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			if got := eng.Last().Chat.Messages[0]; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestAnsweredCalls: tools' messages without tool_call_id answer calls by their place, one after another.
func TestAnsweredCalls(t *testing.T) {
	const calls = `{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},` +
		`{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}]}`
	for messages, want := range map[string]string{
		`{"role":"tool","content":"1"},{"role":"tool","content":"2"}`:                               "a b",
		`{"role":"tool","content":"1","tool_call_id":null},{"role":"tool","content":"2"}`:           "a b",
		`{"role":"tool","content":"1","tool_call_id":"b"},{"role":"tool","content":"2"}`:            "b b",
		`{"role":"tool","content":"1"},{"role":"tool","content":"2"},{"role":"tool","content":"3"}`: "messages[3].tool_call_id",
		`{"role":"tool","content":"1"},{"role":"user","content":"x"},{"role":"tool","content":"2"}`: "messages[3].tool_call_id",
		`{"role":"tool","content":"1","tool_call_id":""},{"role":"tool","content":"2"}`:             "a b",
	} {
		eng := fake.New()
		s, _ := newTest(t, eng, Config{})
		w := call(t, s, http.MethodPost, "/v1/chat/completions", `{"model":"fake","messages":[`+calls+`,`+messages+`]}`)
		if w.Code != http.StatusOK {
			if !strings.Contains(w.Body.String(), `"param":"`+want+`"`) {
				t.Errorf("%s: %d %s", messages, w.Code, w.Body)
			}
			continue
		}
		var got []string
		for _, m := range eng.Last().Chat.Messages[1:] {
			got = append(got, m.ToolCallID)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: ids %q, want %q", messages, got, want)
		}
	}
}

func TestRefusedMessages(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	for _, c := range []refusal{
		{`{"content":"a"}`, "messages[0].role", ""},
		{`{"role":"robot","content":"a"}`, "messages[0].role", ""},
		{`{"role":"User","content":"a"}`, "messages[0].role", ""},
		{`{"role":"user"}`, "messages[0].content", ""},
		{`{"role":"user","content":null}`, "messages[0].content", ""},
		{`{"role":"user","content":5}`, "messages[0].content", ""},
		{`{"role":"user","content":[]}`, "messages[0].content", ""},
		{`{"role":"user","content":[{}]}`, "messages[0].content[0].type", ""},
		{`{"role":"user","content":[5]}`, "messages[0].content[0]", ""},
		{`{"role":"user","content":[{"type":"text"}]}`, "messages[0].content[0].text", ""},
		{`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}`,
			"messages[0].content[1].type", ""},
		{`{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}`, "messages[0].content[0].type", ""},
		{`{"role":"user","content":[{"type":"file","file":{}}]}`, "messages[0].content[0].type", ""},
		{`{"role":"user","content":[{"type":"refusal","refusal":"x"}]}`, "messages[0].content[0].type", ""},
		{`{"role":"user","content":[{"type":"text","text":"a","cache_control":{}}]}`,
			"messages[0].content[0].cache_control", ""},
		{`{"role":"user","content":"a","tool_calls":[]}`, "messages[0].tool_calls", ""},
		{`{"role":"user","content":"a","tool_call_id":"x"}`, "messages[0].tool_call_id", ""},
		{`{"role":"user","content":"a","name":""}`, "messages[0].name", ""},
		{`{"role":"user","content":"a","prefix":true}`, "messages[0].prefix", ""},
		{`{"role":"tool","content":"a"}`, "messages[0].tool_call_id", rule},
		{`{"role":"function","content":"a"}`, "messages[0].name", ""},
		{`{"role":"assistant","function_call":{"name":"f","arguments":""}}`, "messages[0].function_call", ""},
		{`{"role":"assistant","audio":{"id":"x"}}`, "messages[0].audio", ""},
		{`{"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f","arguments":""}}]}`,
			"messages[0].tool_calls[0].id", ""},
		{`{"role":"assistant","tool_calls":[{"id":"c","type":"custom","function":{"name":"f","arguments":""}}]}`,
			"messages[0].tool_calls[0].type", ""},
		{`{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f"}}]}`,
			"messages[0].tool_calls[0].function.arguments", ""},
		{`{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":{}}}]}`,
			"messages[0].tool_calls[0].function.arguments", ""},
		{`null`, "messages[0].role", ""},
		{`"hi"`, "messages[0]", ""},
	} {
		t.Run(c.members, func(t *testing.T) {
			wantRefusal(t, s, "/v1/chat/completions", `{"model":"fake","messages":[`+c.members+`]}`, c)
		})
	}
}

func TestRefusedBodies(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for _, c := range []struct {
		name, path, body, param string
		status                  int
	}{
		{"empty", "/v1/completions", ``, "", 400},
		{"null", "/v1/completions", `null`, "", 400},
		{"list", "/v1/completions", `[]`, "", 400},
		{"text", "/v1/completions", `"x"`, "", 400},
		{"cut", "/v1/completions", `{"model":"fake"`, "", 400},
		{"trailing", "/v1/completions", `{"model":"fake","prompt":"x"} {}`, "", 400},
		{"deep", "/v1/completions", `{"model":"fake","prompt":"x","y":` + deep + `}`, "", 400},
		{"deep in a tool", "/v1/chat/completions", body(chatStart, `"tools":[`+deep+`]`), "", 400},
		{"invalid UTF-8", "/v1/completions", "{\"model\":\"fake\",\"prompt\":\"\xff\"}", "prompt", 400},
		{"half a surrogate pair", "/v1/completions", `{"model":"fake","prompt":"\ud800"}`, "prompt", 400},
		{"no model", "/v1/completions", `{"prompt":"x"}`, "model", 400},
		{"null model", "/v1/completions", `{"model":null,"prompt":"x"}`, "model", 400},
		{"unknown model", "/v1/completions", `{"model":"nope","prompt":"x"}`, "model", 404},
		{"no prompt", "/v1/completions", `{"model":"fake"}`, "prompt", 400},
		{"null prompt", "/v1/completions", `{"model":"fake","prompt":null}`, "prompt", 400},
		{"empty prompt", "/v1/completions", `{"model":"fake","prompt":""}`, "prompt", 400},
		{"no prompts", "/v1/completions", `{"model":"fake","prompt":[]}`, "prompt", 400},
		{"empty second prompt", "/v1/completions", `{"model":"fake","prompt":["a",""]}`, "prompt[1]", 400},
		{"no tokens", "/v1/completions", `{"model":"fake","prompt":[[]]}`, "prompt", 400},
		{"null token", "/v1/completions", `{"model":"fake","prompt":[[1,null]]}`, "prompt[0]", 400},
		{"negative token", "/v1/completions", `{"model":"fake","prompt":[1,-1]}`, "prompt[1]", 400},
		{"huge token", "/v1/completions", `{"model":"fake","prompt":[1,4294967296]}`, "prompt[1]", 400},
		{"fraction", "/v1/completions", `{"model":"fake","prompt":[1.5]}`, "prompt[0]", 400},
		{"mixed prompts", "/v1/completions", `{"model":"fake","prompt":["a",1]}`, "prompt", 400},
		{"object prompt", "/v1/completions", `{"model":"fake","prompt":{}}`, "prompt", 400},
		{"too many choices", "/v1/completions", `{"model":"fake","n":128,"prompt":["a","b","c","d","e","f","g","h","i"]}`,
			"prompt", 400},
		{"no messages", "/v1/chat/completions", `{"model":"fake"}`, "messages", 400},
		{"empty messages", "/v1/chat/completions", `{"model":"fake","messages":[]}`, "messages", 400},
		{"duplicate inside", "/v1/chat/completions",
			`{"model":"fake","messages":[{"role":"user","role":"system","content":"a"}]}`, "messages[0].role", 400},
		{"text as messages", "/v1/chat/completions", `{"model":"fake","messages":"hi"}`, "messages", 400},
		{"too long", "/v1/completions", `{"model":"fake","prompt":"x","max_tokens":5000}`, "messages", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := call(t, s, http.MethodPost, c.path, c.body)
			message := wantError(t, w, c.status)
			if got := errorParam(t, w.Body.Bytes()); got != c.param {
				t.Errorf("param %q, want %q (%s)", got, c.param, message)
			}
			if strings.Contains(message, "openapi") || strings.Contains(message, "Go ") || strings.Contains(message, ".go") {
				t.Errorf("the message speaks of our code: %s", message)
			}
		})
	}
}

func TestBodyTooLarge(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{MaxBodyBytes: 100})
	w := call(t, s, http.MethodPost, "/v1/completions", body(completionStart, `"user":"`+strings.Repeat("x", 100)+`"`))
	wantError(t, w, http.StatusRequestEntityTooLarge)
}

func TestUnknownFieldsReported(t *testing.T) {
	eng := fake.New()
	s, _ := newTest(t, eng, Config{UnknownFields: "report"})
	w := call(t, s, http.MethodPost, "/v1/chat/completions",
		`{"model":"fake","zebra":1,"apple":{"x":2},"a\r\nb":0,"messages":[{"role":"user","content":"hi","mood":1}]}`)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if got, want := w.Header().Get("X-Pagoda-Ignored-Fields"), "a??b, apple, zebra, messages[0].mood"; got != want {
		t.Errorf("header %q, want %q", got, want)
	}
	req := eng.Last()
	if !req.IgnoreExtra || string(req.Extra["apple"]) != `{"x":2}` || len(req.Extra) != 3 {
		t.Errorf("extra %q, ignored %t", req.Extra, req.IgnoreExtra)
	}
	wantError(t, call(t, s, http.MethodPost, "/v1/chat/completions", body(chatStart, `"functions":[]`)), 400)
}

func TestUnknownFieldsForwarded(t *testing.T) {
	eng := fake.New()
	eng.ModelList[0].ForwardsUnknown = true
	s, _ := newTest(t, eng, Config{})
	w := do(s.Handler(), http.MethodPost, "/v1/chat/completions", body(chatStart, `"zebra":[1, 2],"verbosity":"low"`))
	if w.Code != http.StatusOK || w.Header().Get("X-Pagoda-Ignored-Fields") != "" {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if got := eng.Last().Extra; string(got["zebra"]) != "[1, 2]" || string(got["verbosity"]) != `"low"` {
		t.Errorf("extra %q", got)
	}
	w = do(s.Handler(), http.MethodPost, "/v1/chat/completions", body(chatStart, `"stream":true,"stream_options":{"x":1}`))
	wantError(t, w, http.StatusBadRequest) // inside of what we read ourselves nothing is forwarded
}

// TestDecodedKeepsNothingOfTheBody: the buffer of a body is used again, so that what was decoded must not refer to it.
func TestDecodedKeepsNothingOfTheBody(t *testing.T) {
	check := func(text string, v any) {
		t.Helper()
		data := []byte(text)
		if err := decodeBytes(data, v); err != nil {
			return // refusals are other tests' matter
		}
		before := appendJSON(nil, v)
		for i := range data {
			data[i] = 'x'
		}
		if after := appendJSON(nil, v); !bytes.Equal(before, after) {
			t.Errorf("%s: %s became %s", text, before, after)
		}
	}
	for _, params := range [][]param{sharedParams, chatParams} {
		for _, p := range params {
			check(body(chatStart, p.members), new(openapi.ChatCompletionRequest))
			check(body(chatStart, p.members+`,"unknown":{"a":["b"]}`), new(openapi.ChatCompletionRequest))
		}
	}
	for _, params := range [][]param{sharedParams, completionParams} {
		for _, p := range params {
			check(body(completionStart, p.members+`,"unknown":"a"`), new(openapi.CompletionRequest))
		}
	}
}
