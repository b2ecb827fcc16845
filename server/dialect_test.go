package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pagoda/engine"
	"pagoda/engine/fake"
)

var rewrite = flag.Bool("rewrite", false, "write the golden transcripts anew")

// volatile is what differs from run to run.
var volatile = regexp.MustCompile(`"id":"(chatcmpl|cmpl)-[a-z0-9]+"|"created":\d+`)

// golden compares an answer with its transcript in testdata.
func golden(t *testing.T, name string, w *httptest.ResponseRecorder) {
	t.Helper()
	got := volatile.ReplaceAllStringFunc(w.Body.String(), func(s string) string {
		key, _, _ := strings.Cut(s, ":")
		return key + ":0"
	})
	file := filepath.Join("testdata", name+".txt")
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("answer differs from %s (go test -rewrite makes it anew):\n%s", file, got)
	}
}

// stopped ends every choice by a stop string, or a stop token id.
func stopped(text string, token *int32) fake.Script {
	return func(req *engine.Request) []fake.Step {
		steps := fake.Text("Hi")(req)
		for i := range steps {
			if steps[i].Event.Finish != "" {
				steps[i].Event.StopString, steps[i].Event.StopToken = text, token
			}
		}
		return steps
	}
}

// halfCharacters sends the two tokens of "é" one by one, the text with the second.
func halfCharacters(req *engine.Request) []fake.Step {
	half := func(id int32, b string) []engine.Logprob {
		return []engine.Logprob{{TokenLogprob: engine.TokenLogprob{Token: id, Logprob: math.Inf(-1), Bytes: []byte(b)}}}
	}
	steps := fake.Play(req, engine.FinishStop)
	return slices.Insert(steps, 1,
		fake.Step{Event: engine.Event{Tokens: []int32{1}, Logprobs: half(1, "\xc3")}},
		fake.Step{Event: engine.Event{Text: "é", Tokens: []int32{2}, Logprobs: half(2, "\xa9")}},
		fake.Step{Event: engine.Event{Text: "\xff</script>\u2028", Tokens: []int32{3}, Logprobs: half(3, "!")}})
}

func TestAnswers(t *testing.T) {
	stopToken := int32(7)
	for _, c := range []struct {
		name, path, members string
		script              fake.Script
	}{
		{"chat", "/v1/chat/completions", ``, nil},
		{"chat-n", "/v1/chat/completions", `"n":2,"max_tokens":2`, nil},
		{"chat-empty", "/v1/chat/completions", ``, fake.Text()},
		{"chat-thought", "/v1/chat/completions", ``, fake.Thought("Hmm", "Yes.")},
		{"chat-tool", "/v1/chat/completions", ``, fake.ToolCall("call_1", "weather", `{"city":`, `"Oslo"}`)},
		{"chat-logprobs", "/v1/chat/completions", `"logprobs":true,"top_logprobs":2`, fake.Text("a\n")},
		{"chat-logprobs-by-id", "/v1/chat/completions", `"logprobs":true,"top_logprobs":2,"return_tokens_as_token_ids":true`, fake.Text("a\n")},
		{"chat-bytes", "/v1/chat/completions", `"logprobs":true`, halfCharacters},
		{"chat-ids", "/v1/chat/completions", `"return_token_ids":true`, fake.Text("a", "b")},
		{"chat-stop", "/v1/chat/completions", `"stop":"!"`, stopped("!", nil)},
		{"chat-stop-id", "/v1/chat/completions", `"stop_token_ids":[7]`, stopped("", &stopToken)},
		{"chat-end-token", "/v1/chat/completions", `"stop_token_ids":[8]`, stopped("", &stopToken)},
		{"completion", "/v1/completions", ``, nil},
		{"completion-n", "/v1/completions", `"n":2`, fake.Text("a", "b")},
		{"completion-echo", "/v1/completions", `"echo":true`, nil},
		{"completion-echo-only", "/v1/completions", `"echo":true,"max_tokens":0,"logprobs":1`, nil},
		{"completion-by-id", "/v1/completions", `"echo":true,"logprobs":1,"return_tokens_as_token_ids":true`, fake.Text("a", "é", "b")},
		{"completion-logprobs", "/v1/completions", `"logprobs":1`, fake.Text("a", "é", "b")},
		{"completion-logprobs-0", "/v1/completions", `"logprobs":0`, fake.Text("a")},
		{"completion-bytes", "/v1/completions", `"logprobs":0`, halfCharacters},
		{"completion-ids", "/v1/completions", `"return_token_ids":true`, fake.Text("a", "b")},
		{"completion-stop", "/v1/completions", `"stop":"!"`, stopped("!", nil)},
	} {
		for _, stream := range []struct{ suffix, members string }{
			{"", `"stream":false`},
			{"-stream", `"stream":true,"stream_options":{"include_usage":true}`},
		} {
			t.Run(c.name+stream.suffix, func(t *testing.T) {
				eng := fake.New()
				if c.script != nil {
					eng.Scripts["fake"] = c.script
				}
				s, _ := newTest(t, eng, Config{})
				start := chatStart
				if c.path == "/v1/completions" {
					start = completionStart
				}
				members := strings.Trim(c.members+","+stream.members, ",")
				w := call(t, s, http.MethodPost, c.path, body(start, members))
				if w.Code != http.StatusOK {
					t.Errorf("status %d", w.Code)
				}
				golden(t, c.name+stream.suffix, w)
			})
		}
	}
}

// The rest of a chunk's optional parts, in one transcript.
func TestContinuousUsage(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	w := call(t, s, http.MethodPost, "/v1/chat/completions",
		body(chatStart, `"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`))
	golden(t, "chat-continuous-usage", w)
}

type completionAnswer struct {
	Choices []struct {
		Index    int
		Text     string
		Logprobs *struct{ Tokens []string }
	}
	Usage struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	}
}

func completionOf(t *testing.T, s *Server, body string) completionAnswer {
	t.Helper()
	w := call(t, s, http.MethodPost, "/v1/completions", body)
	var a completionAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	return a
}

// echoing answers with the prompt, so that answers tell their prompts apart.
func echoing(req *engine.Request) []fake.Step {
	text := string(req.Tokens)
	if req.Text != nil {
		text = *req.Text
	}
	return fake.Text(text)(req)
}

func TestPrompts(t *testing.T) {
	for _, c := range []struct {
		name, prompt string
		want         []string
	}{
		{"text", `"a"`, []string{"a", "a"}},
		{"texts", `["a","b","c"]`, []string{"a", "a", "b", "b", "c", "c"}},
		{"tokens", `[97,98]`, []string{"ab", "ab"}},
		{"lists of tokens", `[[97],[98,99]]`, []string{"a", "a", "bc", "bc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eng := fake.New()
			eng.Scripts["fake"] = echoing
			s, _ := newTest(t, eng, Config{})
			a := completionOf(t, s, `{"model":"fake","n":2,"prompt":`+c.prompt+`}`)
			for i, want := range c.want {
				if i >= len(a.Choices) || a.Choices[i].Index != i || a.Choices[i].Text != want {
					t.Fatalf("choice %d of %+v, want %q", i, a.Choices, want)
				}
			}
			if tokens := len(strings.Join(c.want, "")); len(a.Choices) != len(c.want) ||
				a.Usage.PromptTokens != tokens/2 || a.Usage.CompletionTokens != tokens {
				t.Errorf("%d choices, usage %+v", len(a.Choices), a.Usage)
			}
			w := call(t, s, http.MethodPost, "/v1/completions", `{"model":"fake","n":2,"stream":true,"prompt":`+c.prompt+`}`)
			texts := make([]string, len(c.want))
			for _, data := range events(t, w.Body.Bytes()) {
				var chunk completionAnswer
				if json.Unmarshal([]byte(data), &chunk) == nil {
					texts[chunk.Choices[0].Index] += chunk.Choices[0].Text
				}
			}
			if !slices.Equal(texts, c.want) {
				t.Errorf("streamed %q, want %q", texts, c.want)
			}
		})
	}
}

func TestManyPromptsFailTogether(t *testing.T) {
	eng := fake.New()
	eng.Scripts["fake"] = func(req *engine.Request) []fake.Step {
		if *req.Text == "bad" {
			return []fake.Step{{Err: engine.Errorf(engine.Busy, "queue full")}}
		}
		return []fake.Step{{Wait: make(chan struct{})}} // waits to be canceled
	}
	s, _ := newTest(t, eng, Config{})
	w := call(t, s, http.MethodPost, "/v1/completions", `{"model":"fake","prompt":["a","b","bad","c"]}`)
	wantError(t, w, http.StatusTooManyRequests)
	if eng.Running() != 0 {
		t.Errorf("%d still run", eng.Running())
	}
}

// A request with many prompts and choices must not be what fills the engine's queue.
func TestChoicesAtOnce(t *testing.T) {
	for _, c := range []struct{ prompts, n, most int }{{100, 1, maxPromptsAtOnce}, {16, 64, maxChoicesAtOnce / 64}, {3, 128, 1}} {
		eng := newHooked()
		var running, most atomic.Int64
		eng.generate = func(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] {
			return func(yield func(engine.Event, error) bool) {
				n := running.Add(1)
				defer running.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				eng.Engine.Generate(ctx, req)(yield)
			}
		}
		s, _ := newTest(t, eng, Config{})
		go func() {
			for range eng.ended {
			}
		}()
		prompts := strings.TrimSuffix(strings.Repeat(`"p",`, c.prompts), ",")
		a := completionOf(t, s, fmt.Sprintf(`{"model":"fake","n":%d,"prompt":[%s],"max_tokens":1}`, c.n, prompts))
		close(eng.ended)
		if len(a.Choices) != c.prompts*c.n || most.Load() > int64(c.most) {
			t.Errorf("%d prompts, n %d: %d choices, %d prompts at once", c.prompts, c.n, len(a.Choices), most.Load())
		}
	}
}

func TestPanicOfOnePrompt(t *testing.T) {
	eng := fake.New()
	eng.Scripts["fake"] = func(req *engine.Request) []fake.Step {
		if *req.Text == "bad" {
			panic("scripted, secret")
		}
		return fake.Text("x")(req)
	}
	s, _ := newTest(t, eng, Config{})
	w := call(t, s, http.MethodPost, "/v1/completions", `{"model":"fake","prompt":["a","bad"]}`)
	if message := wantError(t, w, http.StatusInternalServerError); strings.Contains(message, "secret") {
		t.Errorf("message %q", message)
	}
}

func TestBestOf(t *testing.T) {
	eng := fake.New()
	eng.Scripts["fake"] = func(req *engine.Request) []fake.Step {
		steps := fake.Text("x")(req)
		for i, logprob := range []float64{-3, -1, -2} {
			ev := &steps[1+i].Event // after the prompt
			ev.Text, ev.Logprobs[0].Logprob = string(rune('a'+i)), logprob
		}
		return steps
	}
	s, _ := newTest(t, eng, Config{})
	a := completionOf(t, s, `{"model":"fake","prompt":"p","best_of":3,"n":2}`)
	if len(a.Choices) != 2 || a.Choices[0].Text != "b" || a.Choices[1].Text != "c" || a.Choices[1].Index != 1 ||
		a.Choices[0].Logprobs != nil || a.Usage.CompletionTokens != 3 {
		t.Errorf("got %+v", a)
	}
}

func TestEchoOfTokens(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	a := completionOf(t, s, `{"model":"fake","prompt":[104,105],"echo":true}`)
	if a.Choices[0].Text != "hiHello!" {
		t.Errorf("got %+v", a)
	}
}

func TestErrorBeforeTheStream(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		status int
		kind   string
		code   string
		retry  string
	}{
		{"busy", &engine.Error{Code: engine.Busy, Message: "m", RetryAfter: 1500 * time.Millisecond}, 429,
			"rate_limit_error", "rate_limit_exceeded", "2"},
		{"unavailable", &engine.Error{Code: engine.Unavailable, Message: "m", RetryAfter: time.Second}, 503,
			"server_error", "service_unavailable", "1"},
		{"too long", engine.Errorf(engine.TooLong, "m"), 400, "invalid_request_error", "context_length_exceeded", ""},
		{"upstream", engine.Errorf(engine.Upstream, "m"), 502, "server_error", "upstream_error", ""},
		{"timeout", engine.Errorf(engine.Timeout, "m"), 504, "server_error", "timeout", ""},
		{"ours", engine.Errorf(engine.Internal, "/etc/secret"), 500, "server_error", "internal_error", ""},
		{"foreign", errors.New("dial 10.0.0.1"), 500, "server_error", "internal_error", ""},
	} {
		for _, stream := range []string{"false", "true"} {
			t.Run(c.name+" stream="+stream, func(t *testing.T) {
				eng := fake.New()
				eng.Scripts["fake"] = func(*engine.Request) []fake.Step { return []fake.Step{{Err: c.err}} }
				s, _ := newTest(t, eng, Config{})
				w := call(t, s, http.MethodPost, "/v1/chat/completions", body(chatStart, `"stream":`+stream))
				message := wantError(t, w, c.status)
				var e struct{ Error struct{ Type, Code string } }
				if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
					t.Fatal(err)
				}
				if e.Error.Type != c.kind || e.Error.Code != c.code || w.Header().Get("Retry-After") != c.retry {
					t.Errorf("got %+v, Retry-After %q", e, w.Header().Get("Retry-After"))
				}
				if strings.Contains(message, "secret") || strings.Contains(message, "10.0") {
					t.Errorf("message %q tells too much", message)
				}
			})
		}
	}
}

func TestErrorWithinTheStream(t *testing.T) {
	eng := fake.New()
	eng.Scripts["fake"] = fake.Fail(errors.New("secret"), "Hel")
	s, _ := newTest(t, eng, Config{})
	w := call(t, s, http.MethodPost, "/v1/chat/completions", body(chatStart, `"stream":true`))
	got := events(t, w.Body.Bytes())
	last := got[len(got)-1]
	if w.Code != http.StatusOK || !strings.HasPrefix(last, `{"error":`) || strings.Contains(w.Body.String(), "[DONE]") ||
		strings.Contains(last, "secret") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	wantError(t, call(t, s, http.MethodPost, "/v1/chat/completions", body(chatStart, "")), 500)
}

// A broken engine breaks the contract of engine.Engine; the client must be told, never given a half answer as a whole.
func TestBrokenEngine(t *testing.T) {
	for name, script := range map[string]fake.Script{
		"ends early": func(req *engine.Request) []fake.Step { return fake.Text("Hel")(req)[:2] },
		"one choice never ends": func(req *engine.Request) []fake.Step {
			steps := fake.Text("Hel")(req)
			return append(steps[:len(steps)-2], steps[len(steps)-1])
		},
		"choice out of range": func(*engine.Request) []fake.Step {
			return []fake.Step{{Event: engine.Event{Index: 7, Text: "x"}}}
		},
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/completions"} {
			t.Run(name+path, func(t *testing.T) {
				eng := fake.New()
				eng.Scripts["fake"] = script
				s, _ := newTest(t, eng, Config{})
				start := chatStart
				if path == "/v1/completions" {
					start = completionStart
				}
				wantError(t, call(t, s, http.MethodPost, path, body(start, `"n":2`)), http.StatusInternalServerError)
				w := call(t, s, http.MethodPost, path, body(start, `"n":2,"stream":true`))
				if text := w.Body.String(); !strings.Contains(text, `"error"`) || strings.Contains(text, "[DONE]") {
					t.Errorf("got %s", text)
				}
			})
		}
	}
}

// The client leaves; the engine must be told at once, in both modes.
func TestClientGone(t *testing.T) {
	for _, stream := range []string{"false", "true"} {
		t.Run("stream="+stream, func(t *testing.T) {
			eng := newHooked()
			reached := make(chan struct{})
			gate := make(chan struct{}) // never opened
			eng.Scripts["fake"] = func(req *engine.Request) []fake.Step {
				close(reached)
				return gated(gate)(req)
			}
			s, _ := newTest(t, eng, Config{})
			server := httptest.NewServer(s.Handler())
			defer server.Close()
			ctx, cancel := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/chat/completions",
				strings.NewReader(body(chatStart, `"stream":`+stream)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			left := make(chan struct{})
			go func() {
				defer close(left)
				if resp, err := http.DefaultClient.Do(r); err == nil {
					_, _ = bufio.NewReader(resp.Body).ReadString('\n')
					cancel()
					resp.Body.Close()
				}
			}()
			if stream == "false" {
				<-reached
				cancel()
			}
			<-left
			if err := <-eng.ended; err == nil {
				t.Error("the engine's context was not canceled")
			}
		})
	}
}

// slowWriter records what is written and when, in the bubble's time.
type slowWriter struct {
	header http.Header
	writes []string
	start  time.Time
}

func (w *slowWriter) Header() http.Header { return w.header }
func (w *slowWriter) WriteHeader(int)     {}
func (w *slowWriter) Flush()              {}
func (w *slowWriter) Write(p []byte) (int, error) {
	w.writes = append(w.writes, time.Since(w.start).String()+" "+string(p))
	return len(p), nil
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{header: http.Header{}, start: time.Now()}
		out := &sse{w: &response{}}
		out.w.reset(w, time.Minute, time.Now())
		time.Sleep(40 * time.Second) // nothing is sent before the first event
		out.buf = []byte("first")
		if err := out.send(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		out.buf = []byte("second")
		if err := out.send(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		out.close()
		time.Sleep(time.Minute) // nothing is sent after the end
		synctest.Wait()
		want := []string{"40s first", "50s second", "1m5s : keep-alive\n\n", "1m20s : keep-alive\n\n"}
		if !slices.Equal(w.writes, want) {
			t.Errorf("got %q, want %q", w.writes, want)
		}
		if got := w.header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("content type %q", got)
		}
	})
}

func TestModels(t *testing.T) {
	eng := fake.New()
	slashed := eng.ModelList[0]
	slashed.ID = "org/name"
	eng.ModelList = append(eng.ModelList, slashed)
	s, _ := newTest(t, eng, Config{})
	golden(t, "models", call(t, s, http.MethodGet, "/v1/models", ""))
	golden(t, "model", call(t, s, http.MethodGet, "/v1/models/fake-adapter", ""))
	for _, path := range []string{"/v1/models/org/name", "/v1/models/org%2Fname"} {
		if w := call(t, s, http.MethodGet, path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"org/name"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	w := call(t, s, http.MethodGet, "/v1/models/nope", "")
	wantError(t, w, http.StatusNotFound)
	if !strings.Contains(w.Body.String(), `"code":"model_not_found"`) {
		t.Errorf("got %s", w.Body)
	}
}

// textOnly is an engine without the optional abilities.
type textOnly struct{ engine.Engine }

func TestTokenize(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	without, _ := newTest(t, textOnly{fake.New()}, Config{})
	two := fake.New()
	two.ModelList[1].Parent = ""
	ambiguous, _ := newTest(t, two, Config{})
	for _, c := range []struct {
		name, path, body string
		server           *Server
		status           int
		want             string // the body, or the param of an error
	}{
		{"prompt", "/tokenize", `{"prompt":"hi"}`, s, 200,
			`{"count":2,"max_model_len":4096,"tokens":[104,105],"token_strs":null}`},
		{"model", "/tokenize", `{"model":"fake-adapter","prompt":"hi","return_token_strs":true,"add_special_tokens":false}`,
			s, 200, `{"count":2,"max_model_len":4096,"tokens":[104,105],"token_strs":["h","i"]}`},
		{"empty prompt", "/tokenize", `{"prompt":"","return_token_strs":true}`, s, 200,
			`{"count":0,"max_model_len":4096,"tokens":[],"token_strs":[]}`},
		{"messages", "/tokenize", `{"messages":[{"role":"user","content":"h"}],"tools":null,"add_generation_prompt":true,
			"chat_template_kwargs":{"enable_thinking":false}}`, s, 200,
			`{"count":8,"max_model_len":4096,"tokens":[117,115,101,114,58,32,104,10],"token_strs":null}`},
		{"detokenize", "/detokenize", `{"tokens":[104,105]}`, s, 200, `{"prompt":"hi"}`},
		{"detokenize nothing", "/detokenize", `{"tokens":[]}`, s, 200, `{"prompt":""}`},
		{"neither", "/tokenize", `{}`, s, 400, "prompt"},
		{"both", "/tokenize", `{"prompt":"a","messages":[{"role":"user","content":"h"}]}`, s, 400, "prompt"},
		{"no messages", "/tokenize", `{"messages":[]}`, s, 400, "messages"},
		{"tools with a prompt", "/tokenize", `{"prompt":"a","add_generation_prompt":false}`, s, 400, "add_generation_prompt"},
		{"unknown field", "/tokenize", `{"prompt":"a","x":1}`, s, 400, "x"},
		{"unknown model", "/tokenize", `{"model":"x","prompt":"a"}`, s, 404, "model"},
		{"empty model", "/tokenize", `{"model":"","prompt":"a"}`, s, 400, "model"},
		{"which model", "/tokenize", `{"prompt":"a"}`, ambiguous, 400, "model"},
		{"no tokenizer", "/tokenize", `{"prompt":"a"}`, without, 404, ""},
		{"no detokenizer", "/detokenize", `{"tokens":[1]}`, without, 404, ""},
		{"no tokens", "/detokenize", `{}`, s, 400, "tokens"},
		{"null token", "/detokenize", `{"tokens":[null]}`, s, 400, "tokens"},
		{"negative token", "/detokenize", `{"tokens":[1,-5]}`, s, 400, "tokens[1]"},
		{"token out of vocabulary", "/detokenize", `{"tokens":[2147483647]}`, s, 400, "tokens"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := call(t, c.server, http.MethodPost, c.path, c.body)
			if c.status == 200 {
				if w.Code != 200 || w.Body.String() != c.want {
					t.Errorf("status %d: %s\nwant %s", w.Code, w.Body, c.want)
				}
				return
			}
			wantError(t, w, c.status)
			if got := errorParam(t, w.Body.Bytes()); got != c.want {
				t.Errorf("param %q, want %q", got, c.want)
			}
		})
	}
}

func BenchmarkTextDelta(b *testing.B) {
	c := newChatStream(&engine.Request{}, &reply{model: "pagoda-demo", n: 1})
	c.begin("pagoda-1", time.Unix(0, 0))
	c.opened[0] = true
	ev := &promptEvent{Event: engine.Event{Text: " token", Tokens: []int32{1}}}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = c.event(buf[:0], ev)
	}
}

func TestTextDeltaDoesNotAllocate(t *testing.T) {
	c := newChatStream(&engine.Request{}, &reply{model: "pagoda-demo", n: 1})
	c.begin("pagoda-1", time.Unix(0, 0))
	c.opened[0] = true
	ev := &promptEvent{Event: engine.Event{Text: " token", Tokens: []int32{1}}}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf, _ = c.event(buf[:0], ev) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
