package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"pagoda/client"
	"pagoda/engine"
	"pagoda/engine/fake"
	"pagoda/server"
)

// script answers the n-th request, counted from 0.
type script func(w http.ResponseWriter, n int, body map[string]any)

// scripted serves what a script says and checks what every request must have.
func scripted(t *testing.T, path string, s script) *client.Client {
	var mu sync.Mutex
	n := 0
	seen := map[string]bool{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		text, _ := json.Marshal([]any{body["prompt"], body["messages"]})
		if r.URL.Path != path || body["stream"] != true || body["model"] != "m" || seen[string(text)] {
			t.Errorf("request to %s: %v", r.URL.Path, body)
		}
		seen[string(text)] = true
		w.Header().Set("Content-Type", "text/event-stream")
		s(w, n, body)
		n++
	}))
	t.Cleanup(web.Close)
	return client.New(web.URL+"/v1", "")
}

// OpenAI's stream of two tokens, the first chunk with the role only, the last with the usage.
const openAIStream = `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}],"usage":null}

data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}],"usage":null}

data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}],"usage":null}

data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":3,"total_tokens":23,"prompt_tokens_details":{"cached_tokens":5}}}

data: [DONE]

`

func TestURLOpenAI(t *testing.T) {
	c := scripted(t, "/v1/chat/completions", func(w http.ResponseWriter, n int, body map[string]any) {
		if _, ok := body["ignore_eos"]; ok {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error":{"message":"Unrecognized request argument supplied: ignore_eos"}}`)
			return
		}
		io.WriteString(w, openAIStream)
	})
	target := NewURLTarget(c, "m", true)
	notes, err := target.Probe(context.Background(), 40)
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "ignore_eos") {
		t.Fatalf("notes %q, error %v", notes, err)
	}
	if target.wordsPerToken != 2 {
		t.Errorf("%v words per token, want 40/20", target.wordsPerToken)
	}
	a := target.Ask(context.Background(), 40, 3)
	if a.Err != nil || len(a.Pieces) != 2 || a.PromptTokens != 20 || a.CachedTokens != 5 || a.OutputTokens != 3 {
		t.Errorf("answer %+v", a)
	}
	if a.Pieces[0].At.Before(a.Sent) || a.Done.Before(a.Pieces[1].At) {
		t.Errorf("times %+v", a)
	}
}

func TestURLWithoutUsage(t *testing.T) {
	c := scripted(t, "/v1/completions", func(w http.ResponseWriter, _ int, _ map[string]any) {
		io.WriteString(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: [DONE]\n\n")
	})
	target := NewURLTarget(c, "m", false)
	notes, err := target.Probe(context.Background(), 8)
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "does not count") {
		t.Errorf("notes %q, error %v", notes, err)
	}
	if a := target.Ask(context.Background(), 8, 4); a.OutputTokens != 2 || a.PromptTokens != 0 {
		t.Errorf("answer %+v", a)
	}
}

func TestURLErrors(t *testing.T) {
	c := scripted(t, "/v1/chat/completions", func(w http.ResponseWriter, n int, _ map[string]any) {
		switch n % 4 {
		case 0:
			io.WriteString(w, openAIStream)
		case 1:
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"error":{"message":"full"}}`)
		case 2:
			io.WriteString(w, openAIStream[:400]) // cut off
		case 3:
			io.WriteString(w, `data: {"error":{"message":"it broke"}}`+"\n\n")
		}
	})
	target := NewURLTarget(c, "m", true)
	done := 0
	l, err := Drive(context.Background(), target, LoadOptions{Requests: 16, Concurrency: 3, InputTokens: 5, OutputTokens: 3},
		func(n int) { done = n })
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"the server says: full (429)": 4, "the server's stream: unexpected EOF": 4, "the server's stream: it broke": 4}
	for message, n := range want {
		if l.Errors[message] != n {
			t.Errorf("%d errors %q, want %d; all: %v", l.Errors[message], message, n, l.Errors)
		}
	}
	if done != 16 || l.E2E.Count != 4 || l.GotTokens != 12 {
		t.Errorf("%d done, %+v", done, l)
	}
	_, err = NewURLTarget(client.New("http://127.0.0.1:1", ""), "m", true).Probe(context.Background(), 4)
	if err == nil || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "Post") {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestURLServer drives our own server over a scripted engine, whose tokens are characters.
func TestURLServer(t *testing.T) {
	eng := fake.New()
	eng.Scripts["fake"] = fake.Text("He", "l", "lo")
	srv, err := server.New(eng, server.Config{Keys: []string{"k"}}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	srv.SetReady(true)
	web := httptest.NewServer(srv.Handler())
	defer web.Close()
	for _, chat := range []bool{true, false} {
		t.Run(fmt.Sprintf("chat=%v", chat), func(t *testing.T) {
			target := NewURLTarget(client.New(web.URL, "k"), "fake", chat)
			notes, err := target.Probe(context.Background(), 100)
			if err != nil || len(notes) != 0 {
				t.Fatalf("notes %q, error %v", notes, err)
			}
			l, err := Drive(context.Background(), target, LoadOptions{Requests: 9, Concurrency: 4, InputTokens: 100, OutputTokens: 4},
				func(int) {})
			if err != nil || len(l.Errors) > 0 {
				t.Fatalf("%v, %v", l.Errors, err)
			}
			if l.GotTokens != 9*4 || l.TTFT.Count != 9 || l.ITL.Count != 9*2 {
				t.Errorf("load %+v", l)
			}
			if per := l.PromptTokens / 9; per < 60 || per > 140 {
				t.Errorf("%d prompt tokens, asked for 100", per)
			}
			if s := eng.Last().Sampling; !s.IgnoreEOS || *s.MaxTokens != 4 || *s.Temperature != 0 {
				t.Errorf("sampling %+v", s)
			}
		})
	}
	if _, err := NewURLTarget(client.New(web.URL, "wrong"), "fake", true).Probe(context.Background(), 4); err == nil ||
		!strings.Contains(err.Error(), "(401)") {
		t.Errorf("a wrong key: %v", err)
	}
}

// TestDriveStops: the end of the context ends the load and cancels what runs.
func TestDriveStops(t *testing.T) {
	eng := fake.New()
	ctx, cancel := context.WithCancelCause(context.Background())
	stopped := errors.New("stopped")
	var asked atomic.Int32
	eng.Scripts["fake"] = func(*engine.Request) []fake.Step {
		if asked.Add(1) == 2 {
			cancel(stopped)
		}
		return []fake.Step{{Wait: make(chan struct{})}}
	}
	target, err := NewEngineTarget(context.Background(), eng, "fake")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Drive(ctx, target, LoadOptions{Requests: 99, Concurrency: 2, InputTokens: 3, OutputTokens: 2},
		func(int) {}); err != stopped {
		t.Errorf("error %v", err)
	}
	if n := eng.Canceled(); n != 2 {
		t.Errorf("%d canceled, want 2", n)
	}
}
