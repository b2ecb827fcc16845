package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pagoda/backends/proxy"
	"pagoda/backends/proxy/fakeupstream"
	"pagoda/engine"
)

// TestAnswers: whatever the upstream and however it answers, the events say the same.
func TestAnswers(t *testing.T) {
	three := 3
	tools := func(r *engine.Request) {
		r.Chat.Tools = []json.RawMessage{json.RawMessage(`{"type":"function","function":{"name":"f"}}`)}
	}
	for _, tc := range []struct {
		name, text string
		change     func(*engine.Request)
		check      func(t *testing.T, s *said)
	}{
		{"text", "say Hello wide world", nil, func(t *testing.T, s *said) {
			if s.text != "Hello wide world" || s.finish != engine.FinishStop || s.usage.Completion != 3 || s.usage.Prompt != 5 {
				t.Errorf("%+v %+v", s, s.usage)
			}
		}},
		{"no words", "say", nil, func(t *testing.T, s *said) {
			if s.text != "" || s.finish != engine.FinishStop || s.usage.Completion != 0 {
				t.Errorf("%+v", s)
			}
		}},
		{"limit", "say a b c d", func(r *engine.Request) { r.Sampling.MaxTokens = &three }, func(t *testing.T, s *said) {
			if s.text != "a b c" || s.finish != engine.FinishLength {
				t.Errorf("%+v", s)
			}
		}},
		{"thought", "think so", nil, func(t *testing.T, s *said) {
			if s.reasoning != "hmm" || s.text != "so" {
				t.Errorf("%+v", s)
			}
		}},
		{"tool calls", "tool", tools, func(t *testing.T, s *said) {
			want := []engine.ToolCallDelta{{Index: 0, ID: "call_a", Name: "f", Arguments: `{"a": 1}`},
				{Index: 1, ID: "call_b", Name: "f", Arguments: `{"a": 1}`}}
			if !slices.Equal(s.calls, want) || s.finish != engine.FinishToolCalls || s.text != "" {
				t.Errorf("%+v", s)
			}
		}},
		{"a call cut off", "toolcut", func(r *engine.Request) { tools(r); r.Sampling.MaxTokens = &three }, func(t *testing.T, s *said) {
			if s.finish != engine.FinishLength || s.calls[0].Arguments != `{"a": ` {
				t.Errorf("%+v", s)
			}
		}},
		{"token ids", "say a b", func(r *engine.Request) { r.Output.TokenIDs = true }, func(t *testing.T, s *said) {
			if !slices.Equal(s.tokens, []int32{1000, 1001}) || !slices.Equal(s.prompt.Tokens, []int32{1, 13, 11, 11}) {
				t.Errorf("%+v %+v", s, s.prompt)
			}
		}},
		{"log-probabilities", "say é", func(r *engine.Request) { r.Output.Logprobs = new(int) }, func(t *testing.T, s *said) {
			if len(s.logprobs) != 1 || string(s.logprobs[0].Bytes) != "é" || s.logprobs[0].Logprob != -0.5 || len(s.logprobs[0].Top) != 1 {
				t.Errorf("%+v", s.logprobs)
			}
		}},
		{"stop string", "stopstr", func(r *engine.Request) { r.Sampling.Stop = []string{"END"} }, func(t *testing.T, s *said) {
			if s.stop != "END" || s.text != "until" {
				t.Errorf("%+v", s)
			}
		}},
		{"usage missing", "no-usage", nil, func(t *testing.T, s *said) {
			if s.usage == nil || s.usage.Completion == 0 {
				t.Errorf("%+v", s.usage)
			}
		}},
		{"a large event", "big", nil, func(t *testing.T, s *said) {
			if len(s.text) != 3<<20 {
				t.Errorf("%d bytes", len(s.text))
			}
		}},
		{"small pieces", "pieces", nil, func(t *testing.T, s *said) {
			if s.text != "one two" {
				t.Errorf("%q", s.text)
			}
		}},
		{"adapter", "who", func(r *engine.Request) { r.Model = "pirate" }, func(t *testing.T, s *said) {
			if s.text != "pirate" {
				t.Errorf("%q answers", s.text)
			}
		}},
		{"base model", "who", nil, func(t *testing.T, s *said) {
			if s.text != "upstream-model" {
				t.Errorf("%q answers", s.text)
			}
		}},
	} {
		for dialect := range dialects {
			for _, kind := range []string{"stream", "whole"} {
				t.Run(tc.name+"/"+dialect+"/"+kind, func(t *testing.T) {
					r := attach(t, dialect, 1)
					req := ask(tc.text)
					req.Output.Whole = kind == "whole"
					if tc.change != nil {
						tc.change(req)
					}
					s := collect(t.Context(), r, req)
					if s.err != nil || s.prompt == nil || s.usage == nil {
						t.Fatalf("%+v, error %v", s, s.err)
					}
					known, could := !s.timing.FirstToken.IsZero(), kind == "stream"
					if known && !could || !known && could && s.text != "" || s.timing.Finished.IsZero() {
						t.Errorf("%+v", s.timing)
					}
					tc.check(t, s)
					if got := r.count(t, "pagoda_upstream_requests_total", "outcome=ok"); got != 1 {
						t.Errorf("%v requests ended well", got)
					}
				})
			}
		}
	}
}

// TestToolDeltas: id and name come with the first piece of each call and never again.
func TestToolDeltas(t *testing.T) {
	for dialect := range dialects {
		s := collect(t.Context(), attach(t, dialect, 1), ask("tool"))
		seen := map[int]bool{}
		for _, d := range s.deltas {
			if first := !seen[d.Index]; first != (d.ID != "" && d.Name != "") || !first && (d.ID != "" || d.Name != "") {
				t.Errorf("%s: %+v", dialect, s.deltas)
			}
			seen[d.Index] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s: %d calls", dialect, len(seen))
		}
	}
}

func TestChoices(t *testing.T) {
	r := attach(t, "vllm", 1)
	for _, isWhole := range []bool{false, true} {
		req := ask("say a b")
		req.Sampling.N, req.Output.Whole = 3, isWhole
		texts, ends, usages := map[int]string{}, 0, 0
		for ev, err := range r.Generate(t.Context(), req) {
			if err != nil {
				t.Fatal(err)
			}
			texts[ev.Index] += ev.Text
			if ev.Finish != "" {
				ends++
			}
			if ev.Usage != nil {
				usages++
				if ends != 3 || ev.Usage.Completion != 6 {
					t.Errorf("usage %+v after %d ends", ev.Usage, ends)
				}
			}
		}
		if len(texts) != 3 || texts[2] != "a b" || ends != 3 || usages != 1 {
			t.Errorf("%v, %d ends, %d usages", texts, ends, usages)
		}
	}
}

func TestCompletions(t *testing.T) {
	for dialect := range dialects {
		r := attach(t, dialect, 1)
		for _, isWhole := range []bool{false, true} {
			req := &engine.Request{Model: "m", Text: new("say a b"), Output: engine.Output{Logprobs: new(1), Whole: isWhole}}
			s := collect(t.Context(), r, req)
			if s.err != nil || s.text != "a b" || len(s.logprobs) != 2 || len(s.logprobs[0].Top) != 2 || s.logprobs[0].Top[0].Logprob != -0.5 {
				t.Errorf("%s: %+v %v", dialect, s, s.err)
			}
			req = &engine.Request{Model: "m", Tokens: []int32{4, 5}}
			if s := collect(t.Context(), r, req); s.err != nil || s.text != "ids" {
				t.Errorf("%s: %+v %v", dialect, s, s.err)
			}
			if got := fmt.Sprint(r.fakes[0].Last()["prompt"]); got != "[4 5]" {
				t.Errorf("%s: prompt %s", dialect, got)
			}
		}
	}
}

// TestRequestOnTheWire: what the upstream is sent for each field of ours.
func TestRequestOnTheWire(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*engine.Request)
		vllm   string // of the body, as JSON; "" is absent, a text that is no JSON the refusal
		sglang string
		field  string
	}{
		{"stream_options", func(*engine.Request) {}, `{"include_usage":true}`, `{"include_usage":true}`, "stream_options"},
		{"no stream", func(r *engine.Request) { r.Output.Whole = true }, "", "", "stream_options"},
		{"model", func(*engine.Request) {}, `"upstream-model"`, `"upstream-model"`, "model"},
		{"adapter", func(r *engine.Request) { r.Model = "pirate" }, `"pirate"`, `"upstream-model:pirate"`, "model"},
		{"top_k 0", func(r *engine.Request) { r.Sampling.TopK = new(0) }, "-1", "-1", "top_k"},
		{"top_k", func(r *engine.Request) { r.Sampling.TopK = new(7) }, "7", "7", "top_k"},
		{"temperature", func(r *engine.Request) { r.Sampling.Temperature = new(0.0) }, "0", "0", "temperature"},
		{"penalties", func(r *engine.Request) { r.Sampling.PresencePenalty = -1.5 }, "-1.5", "-1.5", "presence_penalty"},
		{"no penalties", func(*engine.Request) {}, "", "", "presence_penalty"},
		{"typical_p", func(r *engine.Request) { r.Sampling.TypicalP = new(0.5) }, "not supported by vLLM", "not supported by SGLang", "typical_p"},
		{"stop kept", func(r *engine.Request) { r.Sampling.IncludeStop = true }, "", "true", "no_stop_trim"},
		{"stop kept", func(r *engine.Request) { r.Sampling.IncludeStop = true }, "true", "", "include_stop_str_in_output"},
		{"five stops", func(r *engine.Request) { r.Sampling.Stop = strings.Split("abcde", "") }, "more than 4", `["a","b","c","d","e"]`, "stop"},
		{"speculation", func(r *engine.Request) { r.SpeculativeTokens = new(3) }, "not supported", "not supported", ""},
		{"no tools", func(r *engine.Request) { r.Chat.Tools, r.Chat.ToolChoice = []json.RawMessage{}, "auto" }, "", "", "tool_choice"},
		{"empty tools", func(r *engine.Request) { r.Chat.Tools = []json.RawMessage{} }, "", "", "tools"},
		{"forced without tools", func(r *engine.Request) { r.Chat.ToolChoice = "required" }, "needs tools", "needs tools", ""},
		{"thinking", func(r *engine.Request) {
			r.Chat.TemplateKwargs = map[string]json.RawMessage{"enable_thinking": json.RawMessage("false")}
		}, `{"enable_thinking":false}`, `{"enable_thinking":false}`, "chat_template_kwargs"},
		{"continuation", func(r *engine.Request) { r.Chat.ContinueFinal = true }, "false", "", "add_generation_prompt"},
		{"prompt log-probabilities", func(r *engine.Request) { r.Output.PromptLogprobs = new(2) }, "2", "not supported", "prompt_logprobs"},
		{"guided_regex", extra("guided_regex", `"a+"`), `{"regex":"a+"}`, "", "structured_outputs"},
		{"guided_regex", extra("guided_regex", `"a+"`), "", `"a+"`, "regex"},
		{"guided_json", extra("guided_json", `{"type":"object"}`), `{"json":{"type":"object"}}`, "", "structured_outputs"},
		{"guided_json", extra("guided_json", `{"type":"object"}`), "",
			`{"json_schema":{"name":"schema","schema":{"type":"object"}},"type":"json_schema"}`, "response_format"},
		{"choice", extra("structured_outputs", `{"choice":["a.b","c"]}`), "", `"(a\\.b|c)"`, "regex"},
		{"ebnf", extra("ebnf", `"root ::= x"`), `{"grammar":"root ::= x"}`, "", "structured_outputs"},
		{"something new", extra("brand_new", `{"b":1,"a":[null]}`), `{"a":[null],"b":1}`, `{"a":[null],"b":1}`, "brand_new"},
		{"going around", extra("lora_path", `"x"`), `"x"`, "must not be set", "lora_path"},
		{"going around", extra("request_id", `"x"`), "must not be set", `"x"`, "request_id"},
	} {
		for dialect, want := range map[string]string{"vllm": tc.vllm, "sglang": tc.sglang} {
			t.Run(tc.name+"/"+tc.field+"/"+dialect, func(t *testing.T) {
				r := attach(t, dialect, 1)
				req := ask("say x")
				tc.change(req)
				s := collect(t.Context(), r, req)
				if strings.Contains(want, " ") && !json.Valid([]byte(want)) {
					if s.err == nil || s.err.Code != engine.Invalid || !strings.Contains(s.err.Message, want) || len(r.fakes[0].Requests()) > 0 {
						t.Errorf("error %v, want %q", s.err, want)
					}
					return
				}
				if s.err != nil {
					t.Fatal(s.err)
				}
				got, ok := r.fakes[0].Last()[tc.field]
				text, _ := json.Marshal(got)
				if want == "" && ok || want != "" && string(text) != want {
					t.Errorf("%s is %s, want %q", tc.field, text, want)
				}
			})
		}
	}
}

func extra(name, value string) func(*engine.Request) {
	return func(r *engine.Request) { r.Extra = map[string]json.RawMessage{name: json.RawMessage(value)} }
}

// TestDeveloperRole: SGLang's templates drop the role in silence (sglang issue 40082), so it becomes system there.
func TestDeveloperRole(t *testing.T) {
	for dialect, want := range map[string]string{"vllm": "system developer user", "sglang": "system user", "ktransformers": "system user"} {
		r := attach(t, dialect, 1)
		req := ask("say x")
		req.Chat.Messages = slices.Insert(req.Chat.Messages, 0, engine.Message{Role: "system", Content: new("A")},
			engine.Message{Role: "developer", Content: new("B")})
		if s := collect(t.Context(), r, req); s.err != nil {
			t.Fatal(s.err)
		}
		var roles, first []string
		for _, m := range r.fakes[0].Last()["messages"].([]any) {
			roles = append(roles, m.(map[string]any)["role"].(string))
			first = append(first, m.(map[string]any)["content"].(string))
		}
		if got := strings.Join(roles, " "); got != want || dialect != "vllm" && first[0] != "A\n\nB" {
			t.Errorf("%s: roles %s, contents %q", dialect, got, first)
		}
	}
}

// TestErrors: an upstream's error is the client's in our words, whatever its shape and whenever it comes.
func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		text    string
		dialect string
		kinds   string
		code    engine.Code
		message string
	}{
		{"fail", "", "stream whole", engine.Upstream, "failed to answer"},
		{"error-first", "", "stream whole", engine.Upstream, "failed to answer"},
		{"error", "", "stream whole", engine.Upstream, "failed to answer"},
		{"too-long", "", "stream whole", engine.TooLong, "maximum context length"},
		{"full", "", "stream whole", engine.Busy, "queue is full"},
		{"abort", "", "stream whole", engine.Unavailable, "aborted"},
		{"cut", "", "stream whole", engine.Upstream, "connection to the model's server broke"},
		{"half", "", "stream whole", engine.Upstream, "connection to the model's server broke"},
	} {
		for dialect := range dialects {
			for kind := range strings.FieldsSeq(tc.kinds) {
				t.Run(tc.text+"/"+dialect+"/"+kind, func(t *testing.T) {
					r := attach(t, dialect, 1)
					req := ask(tc.text)
					req.Output.Whole = kind == "whole"
					s := collect(t.Context(), r, req)
					if s.err == nil || s.err.Code != tc.code || !strings.Contains(s.err.Message, tc.message) {
						t.Fatalf("error %+v, want %q", s.err, tc.message)
					}
					if strings.Contains(s.err.Message, "/opt") || strings.Contains(s.err.Message, "127.0.0.1") {
						t.Errorf("the client is told %q", s.err.Message)
					}
					if s.usage != nil || s.finish != "" {
						t.Errorf("an error after an end: %+v", s)
					}
					if tc.code == engine.Busy && s.err.RetryAfter <= 0 {
						t.Error("no time to come back")
					}
				})
			}
		}
	}
}

func TestUnknownModel(t *testing.T) {
	for dialect := range dialects {
		r := attach(t, dialect, 1)
		for _, name := range []string{"upstream-model", "other", "m:pirate", "upstream-model:pirate", ""} {
			req := ask("who")
			req.Model = name
			if s := collect(t.Context(), r, req); s.err == nil || s.err.Code != engine.NotFound || s.err.Param != "model" {
				t.Errorf("%s, %q: %+v, %v", dialect, name, s.text, s.err)
			}
		}
		if n := len(r.fakes[0].Requests()); n != 0 {
			t.Errorf("%s: the upstream got %d requests", dialect, n)
		}
	}
}

func TestDynamicAdapters(t *testing.T) {
	for dialect := range dialects {
		r := attach(t, dialect, 2)
		ctx := t.Context()
		name := func(model string) *engine.Request {
			req := ask("who")
			req.Model = model
			return req
		}
		if err := r.LoadAdapter(ctx, "m", "new", "/adapters/new"); err != nil {
			t.Fatal(err)
		}
		if s := collect(ctx, r, name("new")); s.text != "new" {
			t.Errorf("%s: %+v %v", dialect, s, s.err)
		}
		if models := r.Models(); len(models) != 3 || models[2].ID != "new" || models[2].Parent != "m" {
			t.Errorf("%s: %+v", dialect, models)
		}
		if err := r.LoadAdapter(ctx, "m", "new", "/x"); engine.AsError(err) == nil || engine.AsError(err).Code != engine.Invalid {
			t.Errorf("%s: a name twice: %v", dialect, err)
		}
		if err := r.LoadAdapter(ctx, "m", "bad", "/missing"); engine.AsError(err) == nil {
			t.Errorf("%s: an adapter that is not there", dialect)
		}
		if err := r.UnloadAdapter(ctx, "new"); err != nil {
			t.Fatal(err)
		}
		if s := collect(ctx, r, name("new")); s.err == nil || s.err.Code != engine.NotFound {
			t.Errorf("%s: after unloading: %+v %v", dialect, s, s.err)
		}
		for i, f := range r.fakes {
			if got := f.Adapters(); !slices.Equal(got, []string{"pirate"}) {
				t.Errorf("%s: upstream %d has %v", dialect, i, got)
			}
		}
		// A configured adapter is loaded where it is missing, and a start without it fails.
		r = attach(t, dialect, 1, func(c *proxy.Config) { c.Adapters = append(c.Adapters, proxy.Adapter{Name: "more", Path: "/more"}) })
		if got := r.fakes[0].Adapters(); !slices.Equal(got, []string{"pirate", "more"}) {
			t.Errorf("%s: %v", dialect, got)
		}
		_, err := proxy.New(ctx, proxy.Config{Dialect: dialects[dialect](), URLs: []string{r.servers[0].URL}, Times: quick,
			Adapters: []proxy.Adapter{{Name: "nowhere"}}})
		if err == nil || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("%s: error %v", dialect, err)
		}
	}
}

// TestDisconnect: a client that leaves ends the upstream's work at once, in streams and in plain calls.
func TestDisconnect(t *testing.T) {
	for dialect := range dialects {
		for _, req := range []*engine.Request{ask("hang"), whole("hang"), ask("hang-first"), whole("hang-first")} {
			r := attach(t, dialect, 1)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan *said)
			go func() { done <- collect(ctx, r, req) }()
			eventually(t, "the upstream works", func() bool { _, running := r.fakes[0].Left(); return running == 1 })
			cancel()
			if s := <-done; s.err == nil || s.err.Code != engine.Canceled {
				t.Errorf("%s: %v", dialect, s.err)
			}
			eventually(t, "the upstream knows", func() bool { left, running := r.fakes[0].Left(); return left == 1 && running == 0 })
			if dialect != "vllm" { // where a closed connection is noticed late
				eventually(t, "the request is aborted by its id", func() bool {
					a := r.fakes[0].Aborted()
					return len(a) == 1 && a[0] == r.fakes[0].Last()["rid"]
				})
			}
			if got := r.count(t, "pagoda_upstream_requests_total", "outcome=canceled"); got != 1 {
				t.Errorf("%s: %v requests count as canceled", dialect, got)
			}
		}
	}
}

// TestLeftEarly: a caller that stops ranging is a client that leaves.
func TestLeftEarly(t *testing.T) {
	r := attach(t, "vllm", 1)
	for ev, err := range r.Generate(t.Context(), ask("hang")) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Text != "" {
			break
		}
	}
	eventually(t, "the upstream knows", func() bool { left, running := r.fakes[0].Left(); return left == 1 && running == 0 })
}

// TestStall: an upstream that gives no sign of life while it has requests loses them.
func TestStall(t *testing.T) {
	for _, text := range []string{"hang", "hang-first"} {
		r := attach(t, "vllm", 1, func(c *proxy.Config) { c.Times.Stall = 100 * time.Millisecond })
		s := collect(t.Context(), r, ask(text))
		if s.err == nil || s.err.Code != engine.Timeout || !strings.Contains(s.err.Message, "no sign of life") {
			t.Errorf("%s: %v", text, s.err)
		}
		if !strings.Contains(r.log.String(), "upstream gives no sign of life") {
			t.Errorf("%s: the log does not tell: %s", text, r.log)
		}
		if got := r.count(t, "pagoda_upstream_requests_total", "outcome=stalled"); got == 0 {
			t.Errorf("%s: no request counts as stalled", text)
		}
		if s := collect(t.Context(), r, ask("say fine")); s.text != "fine" {
			t.Errorf("%s: afterwards %+v, %v", text, s, s.err)
		}
	}
}

// TestIdleConnection: a connection that the upstream closed while nobody used it is no error for anybody.
func TestIdleConnection(t *testing.T) {
	r := attach(t, "vllm", 1)
	for i := range 200 {
		if s := collect(t.Context(), r, ask("say x")); s.err != nil {
			t.Fatalf("request %d: %v", i, s.err)
		}
		r.servers[0].CloseClientConnections()
	}
	if got := r.count(t, "pagoda_upstream_requests_total", "outcome=ok"); got != 200 {
		t.Errorf("%v of 200 ended well", got)
	}
}

// TestStaleConnections: where every kept connection turns out to be closed, while others are put back all the time, no
// request fails, of any kind.
func TestStaleConnections(t *testing.T) {
	srv := httptest.NewUnstartedServer(fakeupstream.New("vllm", "u"))
	fakeupstream.CloseReused(srv.Config)
	srv.Start()
	defer srv.Close()
	e := start(t, proxy.Config{Dialect: dialects["vllm"](), Name: "m", URLs: []string{srv.URL}, Times: quick})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for i := range 50 {
				req := ask("say x")
				req.Output.Whole = i%2 == 0
				if s := collect(t.Context(), e, req); s.err != nil {
					t.Errorf("generate: %v", s.err)
				}
				if _, err := e.Tokenize(t.Context(), &engine.Request{Model: "m", Text: new("a")}); err != nil {
					t.Errorf("tokenize: %v", err)
				}
				resp, err := e.Forward(t.Context(), &engine.RawRequest{Model: "m", Method: http.MethodPost, Path: "/pooling",
					ContentType: "application/json", Body: []byte(`{"model":"m"}`)})
				if err != nil {
					t.Errorf("forward: %v", err)
					continue
				}
				if resp.Status != http.StatusOK {
					t.Errorf("forward: %d", resp.Status)
				}
				resp.Body.Close()
			}
		})
	}
	clients.Wait()
}

// TestConnectionsAreKept: requests one after the other, streamed or not, use one connection.
func TestConnectionsAreKept(t *testing.T) {
	var opened atomic.Int64
	f := fakeupstream.New("vllm", "u")
	srv := httptest.NewUnstartedServer(f)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	times := quick
	times.Probe = time.Hour
	e := start(t, proxy.Config{Dialect: dialects["vllm"](), Name: "m", URLs: []string{srv.URL}, Times: times})
	for i := range 50 {
		req := ask("say x")
		req.Output.Whole = i%2 == 0
		if s := collect(t.Context(), e, req); s.err != nil {
			t.Fatal(s.err)
		}
	}
	if n := opened.Load(); n > 2 {
		t.Errorf("%d connections for 50 requests one after the other", n)
	}
}

func TestTokenize(t *testing.T) {
	for dialect := range dialects {
		r := attach(t, dialect, 1)
		ids, err := r.Tokenize(t.Context(), &engine.Request{Model: "m", Text: new("a bc")})
		if err != nil || !slices.Equal(ids, []int32{1, 11, 12}) {
			t.Errorf("%s: %v, %v", dialect, ids, err)
		}
		text, err := r.Detokenize(t.Context(), "m", []int32{5, 6})
		if err != nil || text != "t5 t6" {
			t.Errorf("%s: %q, %v", dialect, text, err)
		}
		texts, err := r.TokenText(t.Context(), "pirate", []int32{5, 6})
		if err != nil || !slices.Equal(texts, []string{"t5", "t6"}) {
			t.Errorf("%s: %q, %v", dialect, texts, err)
		}
		ids, err = r.Tokenize(t.Context(), ask("a bc"))
		if dialect == "vllm" && (err != nil || len(ids) != 3) || dialect != "vllm" && (engine.AsError(err) == nil || engine.AsError(err).Param != "messages") {
			t.Errorf("%s: %v, %v", dialect, ids, err)
		}
	}
}

func TestForward(t *testing.T) {
	for dialect := range dialects {
		r := attach(t, dialect, 1)
		resp, err := r.Forward(t.Context(), &engine.RawRequest{Model: "pirate", Method: http.MethodPost, Path: "/pooling",
			ContentType: "application/json", Body: []byte(`{"x":[1, 2],"model" : "pirate","y":null}`)})
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := "pirate"
		if dialect != "vllm" {
			want = "upstream-model:pirate"
		}
		if resp.Status != 200 || got["model"] != want || got["route"] != "/pooling" {
			t.Errorf("%s: %d %v", dialect, resp.Status, got)
		}
		for _, body := range []string{`{`, `[]`, `{"x":1}`, ``} {
			_, err := r.Forward(t.Context(), &engine.RawRequest{Model: "m", Method: http.MethodPost, Path: "/pooling", Body: []byte(body + " ")})
			if engine.AsError(err) == nil || engine.AsError(err).Code != engine.Invalid {
				t.Errorf("%s: body %q: %v", dialect, body, err)
			}
		}
	}
}

func TestUpstreamMetrics(t *testing.T) {
	r := attach(t, "vllm", 2)
	if s := collect(t.Context(), r, ask("say a b c")); s.err != nil {
		t.Fatal(s.err)
	}
	resp, err := r.Forward(t.Context(), &engine.RawRequest{Model: "m", Method: http.MethodGet, Path: "/metrics"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := fmt.Fprint(&b, readString(t, resp)); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, srv := range r.servers {
		label := `upstream="` + strings.TrimPrefix(srv.URL, "http://") + `"`
		if !strings.Contains(text, `vllm:generation_tokens_total{model_name="upstream-model",`+label+`}`) {
			t.Errorf("no series with %s in\n%s", label, text)
		}
	}
	if strings.Count(text, "# TYPE vllm:generation_tokens_total") != 1 {
		t.Errorf("a family is not together:\n%s", text)
	}
}

func readString(t *testing.T, resp *engine.RawResponse) string {
	t.Helper()
	var b strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := resp.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

func TestCloseDrains(t *testing.T) {
	r := attach(t, "vllm", 1)
	began, done := make(chan struct{}), make(chan *said)
	var once sync.Once
	go func() {
		s := &said{}
		for ev, err := range r.Generate(context.Background(), ask("wait")) {
			if err != nil {
				s.err = engine.AsError(err)
			}
			s.text += ev.Text
			once.Do(func() { close(began) })
		}
		done <- s
	}()
	<-began
	closed := make(chan error)
	go func() { closed <- r.Close(context.Background()) }()
	if s := <-done; s.err != nil || s.text != "one two" {
		t.Errorf("the running request: %+v", s)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if s := collect(t.Context(), r, ask("say x")); s.err == nil || s.err.Code != engine.Unavailable {
		t.Errorf("a new one: %v", s.err)
	}
}

// TestCloseCutsOff: what runs when the time is over ends with an error.
func TestCloseCutsOff(t *testing.T) {
	r := attach(t, "vllm", 1)
	done := make(chan *said)
	go func() { done <- collect(context.Background(), r, ask("hang")) }()
	eventually(t, "the upstream works", func() bool { _, running := r.fakes[0].Left(); return running == 1 })
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Close(over); err != nil {
		t.Error(err)
	}
	if s := <-done; s.err == nil || s.err.Code != engine.Canceled {
		t.Errorf("%v", s.err)
	}
}
