package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"pagoda/engine"
	"pagoda/engine/fake"
)

// proxied is a fake engine whose model forwards what we do not know.
func proxied() *fake.Engine {
	eng := fake.New()
	for i := range eng.ModelList {
		eng.ModelList[i].ForwardsUnknown = true
	}
	return eng
}

// chatWith is a chat body with a content and more fields.
func chatWith(content, more string) string {
	return `{"model":"fake","messages":[{"role":"user","content":` + content + `}]` + more + `}`
}

// TestForwardedFields: what the engine of our own refuses goes on to an upstream.
func TestForwardedFields(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		check      func(r *engine.Request) bool
	}{
		{"response_format", chatWith(`"x"`, `,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}}`), func(r *engine.Request) bool {
			return string(r.Extra["response_format"]) == `{"type":"json_schema","json_schema":{"name":"n","schema":{}}}`
		}},
		{"reasoning_effort", chatWith(`"x"`, `,"reasoning_effort":"high"`), func(r *engine.Request) bool {
			return string(r.Extra["reasoning_effort"]) == `"high"`
		}},
		{"tool_choice required", chatWith(`"x"`, `,"tool_choice":"required"`), func(r *engine.Request) bool { return r.Chat.ToolChoice == "required" }},
		{"tool_choice named", chatWith(`"x"`, `,"tool_choice":{"type":"function","function":{"name":"f"}}`), func(r *engine.Request) bool {
			return r.Chat.ToolChoice == "function" && r.Chat.ToolName == "f"
		}},
		{"strict", chatWith(`"x"`, `,"tools":[{"type":"function","function":{"name":"f","strict":true}}]`), func(r *engine.Request) bool {
			return len(r.Chat.Tools) == 1
		}},
		{"image", chatWith(`[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","detail":"low"}}]`, ``),
			func(r *engine.Request) bool {
				m := r.Chat.Messages[0]
				return m.Content == nil && len(m.Parts) == 2 && string(m.Parts[0]) == `{"text":"a","type":"text"}` &&
					strings.Contains(string(m.Parts[1]), `"detail":"low"`) && json.Valid(m.Parts[1])
			}},
		{"sound", chatWith(`[{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]`, ``), func(r *engine.Request) bool {
			return len(r.Chat.Messages[0].Parts) == 1
		}},
		{"text parts alone", chatWith(`[{"type":"text","text":"a"},{"type":"text","text":"b"}]`, ``), func(r *engine.Request) bool {
			return *r.Chat.Messages[0].Content == "ab" && r.Chat.Messages[0].Parts == nil
		}},
		{"whole", chatWith(`"x"`, ``), func(r *engine.Request) bool { return r.Output.Whole && !r.Output.TokenIDs }},
		{"token ids", chatWith(`"x"`, `,"return_token_ids":true,"stream":true`), func(r *engine.Request) bool { return !r.Output.Whole && r.Output.TokenIDs }},
	} {
		eng := proxied()
		s, _ := newTest(t, eng, Config{})
		w := do(s.Handler(), http.MethodPost, chatPath, tc.body)
		if r := eng.Last(); w.Code != http.StatusOK || r == nil || !tc.check(r) {
			t.Errorf("%s: status %d %s; the engine got %+v", tc.name, w.Code, w.Body, r)
		}
		own, _ := newTest(t, fake.New(), Config{})
		refused := do(own.Handler(), http.MethodPost, chatPath, tc.body).Code == http.StatusBadRequest
		if want := tc.name != "text parts alone" && tc.name != "whole" && tc.name != "token ids"; refused != want {
			t.Errorf("%s: refused by our own engine: %t", tc.name, refused)
		}
	}
}

func TestForwardedMediaRefused(t *testing.T) {
	for _, tc := range []struct{ content, param string }{
		{`[{"type":"image_url","image_url":{"url":"http://10.0.0.1/x"}}]`, "messages[0].content[0].image_url.url"},
		{`[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]`, "messages[0].content[0].image_url.url"},
		{`[{"type":"image_url","image_url":"https://x"}]`, "messages[0].content[0].image_url.url"},
		{`[{"type":"image_url"}]`, "messages[0].content[0].image_url"},
		{`[{"type":"video_url","video_url":7}]`, "messages[0].content[0].video_url"},
		{`[{"type":"input_audio"}]`, "messages[0].content[0].input_audio"},
		{`[{"type":"text","text":"x"},{"type":"file","file":{}}]`, "messages[0].content[1].type"},
		{`[{"type":"image_url","image_url":{"url":"data:x"},"more":1}]`, "messages[0].content[0].more"},
	} {
		s, _ := newTest(t, proxied(), Config{})
		w := do(s.Handler(), http.MethodPost, chatPath, chatWith(tc.content, ""))
		wantError(t, w, http.StatusBadRequest)
		if !strings.Contains(w.Body.String(), `"param":"`+tc.param+`"`) {
			t.Errorf("%s: %s", tc.content, w.Body)
		}
	}
}

// TestCountsWithoutTokenIDs: an upstream that tells no ids is counted by its usage, and timed by its pieces.
func TestCountsWithoutTokenIDs(t *testing.T) {
	for _, stream := range []bool{false, true} {
		eng := proxied()
		eng.Scripts["fake"] = func(*engine.Request) []fake.Step {
			return []fake.Step{{Event: engine.Event{Prompt: &engine.Prompt{}, Text: "a b"}}, {Event: engine.Event{Text: " c"}},
				{Event: engine.Event{Finish: engine.FinishStop, Usage: &engine.Usage{Prompt: 7, Completion: 5, Cached: 2}}}}
		}
		s, _ := newTest(t, eng, Config{})
		body := chatBody
		if stream {
			body = streamBody
		}
		if w := do(s.Handler(), http.MethodPost, chatPath, body); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "a b") {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		pieces := 0.0
		if stream {
			pieces = 1
		}
		got := gather(t, s)
		for name, want := range map[string]float64{"vllm:prompt_tokens_total": 7, "vllm:generation_tokens_total": 5, "vllm:prompt_tokens_cached_total": 2,
			"vllm:time_to_first_token_seconds": pieces, "vllm:inter_token_latency_seconds": pieces, "vllm:request_generation_tokens": 1} {
			if n := sampleOf(t, got[name], "model_name=fake"); n != want {
				t.Errorf("stream %t: %s is %v, want %v", stream, name, n, want)
			}
		}
	}
}

// TestAdapterRoutes: closed unless the operator opens them, and an engine without the ability says so.
func TestAdapterRoutes(t *testing.T) {
	const body = `{"lora_name":"x","lora_path":"/x"}`
	s, _ := newTest(t, fake.New(), Config{})
	wantError(t, do(s.Handler(), http.MethodPost, "/v1/load_lora_adapter", body), http.StatusForbidden)
	wantError(t, do(s.Handler(), http.MethodPost, "/v1/unload_lora_adapter", `{"lora_name":"x"}`), http.StatusForbidden)
	router := &engine.Router{}
	if err := router.Add(fake.New()); err != nil {
		t.Fatal(err)
	}
	s, _ = newTest(t, router, Config{AdapterUpdates: true})
	wantError(t, do(s.Handler(), http.MethodPost, "/v1/load_lora_adapter", body), http.StatusBadRequest)
	wantError(t, do(s.Handler(), http.MethodPost, "/v1/load_lora_adapter", `{"lora_name":"fake","lora_path":"/x"}`), http.StatusBadRequest)
	wantError(t, do(s.Handler(), http.MethodPost, "/v1/unload_lora_adapter", `{"lora_name":"nobody"}`), http.StatusNotFound)
	wantError(t, do(s.Handler(), http.MethodPost, "/v1/unload_lora_adapter", `{"lora_name":"fake"}`), http.StatusBadRequest)
}

// TestForwardRoutes: only those of the list, for models with an upstream.
func TestForwardRoutes(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{ForwardRoutes: []string{"/pooling", "/v1/completions"}})
	if m := wantError(t, do(s.Handler(), http.MethodPost, "/pooling", `{"model":"fake"}`), http.StatusBadRequest); !strings.Contains(m, "no upstream") {
		t.Error(m)
	}
	wantError(t, do(s.Handler(), http.MethodPost, "/pooling", `{"model":"nobody"}`), http.StatusNotFound)
	wantError(t, do(s.Handler(), http.MethodPost, "/pooling", `[]`), http.StatusBadRequest)
	wantError(t, do(s.Handler(), http.MethodPost, "/generate", `{"model":"fake"}`), http.StatusNotFound)
	wantError(t, do(s.Handler(), http.MethodGet, "/metrics/upstream/nobody", ""), http.StatusNotFound)
	if w := do(s.Handler(), http.MethodPost, "/v1/completions", `{"model":"fake","prompt":"x"}`); w.Code != http.StatusOK {
		t.Errorf("a route of our own: %d", w.Code)
	}
	if _, err := New(fake.New(), Config{ForwardRoutes: []string{"/{x}"}}, s.log); err == nil {
		t.Error("a pattern is taken for a route")
	}
}

// upstreamEngine answers every forwarded request with one text.
type upstreamEngine struct{ *fake.Engine }

func (upstreamEngine) Forward(_ context.Context, r *engine.RawRequest) (*engine.RawResponse, error) {
	return &engine.RawResponse{Status: http.StatusOK, ContentType: "application/json", Body: io.NopCloser(strings.NewReader(`"the upstream's"`))}, nil
}

// TestPoolingOfMixedModels: beside a proxied model, one of our own still makes its embeddings itself.
func TestPoolingOfMixedModels(t *testing.T) {
	proxied := fake.New()
	proxied.ModelList = []engine.Model{{ID: "proxied", ForwardsUnknown: true}}
	router := &engine.Router{}
	for _, e := range []engine.Engine{fake.New(), upstreamEngine{proxied}} {
		if err := router.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := newTest(t, router, Config{})
	for path, fields := range map[string]string{"/v1/embeddings": `"input":"a"`, "/v1/score": `"text_1":"a","text_2":"b"`,
		"/v1/rerank": `"query":"a","documents":["b"]`} {
		if w := call(t, s, http.MethodPost, path, `{"model":"fake",`+fields+`}`); w.Code != http.StatusOK || w.Body.Bytes()[0] != '{' {
			t.Errorf("%s of our own model: %d %s", path, w.Code, w.Body)
		}
		if w := do(s.Handler(), http.MethodPost, path, `{"model":"proxied",`+fields+`}`); w.Body.String() != `"the upstream's"` {
			t.Errorf("%s of the proxied model: %d %s", path, w.Code, w.Body)
		}
	}
	w := do(s.Handler(), http.MethodGet, "/metrics/upstream/fake", "")
	if wantError(t, w, http.StatusNotFound); errorParam(t, w.Body.Bytes()) != "model" {
		t.Errorf("%s", w.Body)
	}
}
