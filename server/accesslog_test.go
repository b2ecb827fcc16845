package server

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
	"pagoda/engine/fake"
)

func TestAccessLog(t *testing.T) {
	s, logs := newTest(t, fake.New(), Config{Keys: []string{"SECRETKEY"}})
	w := do(s.Handler(), "POST", chatPath, streamBody, "Authorization: Bearer SECRETKEY", "X-Request-Id: my-id-1")
	if w.Code != 200 || w.Header().Get("X-Request-Id") != "my-id-1" {
		t.Fatal(w.Code, w.Header())
	}
	lines := logs.lines(t)
	if len(lines) != 1 {
		t.Fatalf("%d lines, want 1: %s", len(lines), logs)
	}
	l := lines[0]
	for key, want := range map[string]any{"request_id": "my-id-1", "method": "POST", "route": chatPath, "status": 200.0,
		"model": "fake", "stream": true, "completion_tokens": 6.0, "level": "info"} {
		if l[key] != want {
			t.Errorf("%s is %v, want %v", key, l[key], want)
		}
	}
	for _, key := range []string{"tenant", "duration_ms", "ttft_ms", "prompt_tokens", "cached_tokens", "bytes", "finish"} {
		if l[key] == nil {
			t.Errorf("%s is missing", key)
		}
	}
	for _, secret := range []string{"SECRET", "Hello", "Bearer"} {
		if strings.Contains(logs.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, logs)
		}
	}
}

// TestUnknownTimes: a time that nobody knows is not told, as of an upstream's answer in one piece, whose tokens came at once.
func TestUnknownTimes(t *testing.T) {
	eng := fake.New()
	s, logs := newTest(t, eng, Config{})
	began := time.Now()
	for _, known := range []bool{false, true} {
		var timing engine.Timing
		if known {
			timing = engine.Timing{Arrived: began, Scheduled: began.Add(time.Millisecond), FirstToken: began.Add(2 * time.Millisecond)}
		}
		eng.Scripts["fake"] = func(*engine.Request) []fake.Step {
			text := engine.Event{Prompt: &engine.Prompt{}, Text: "Hello"}
			if known {
				text.Tokens = []int32{1}
			}
			return []fake.Step{{Event: text}, {Event: engine.Event{Finish: engine.FinishStop, Usage: &engine.Usage{Completion: 1}, Timing: &timing}}}
		}
		if w := do(s.Handler(), "POST", chatPath, chatBody); w.Code != 200 {
			t.Fatal(w.Code, w.Body)
		}
		lines := logs.lines(t)
		for _, key := range []string{"ttft_ms", "queue_ms"} {
			if told := lines[len(lines)-1][key] != nil; told != known {
				t.Errorf("%s is told: %v, known: %v", key, told, known)
			}
		}
	}
}

func TestProbesAreNotLogged(t *testing.T) {
	logs := &logBuffer{}
	s, err := New(fake.New(), Config{AccessLog: true}, zerolog.New(logs).Level(zerolog.InfoLevel))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/health", "/ready", "/metrics"} {
		do(s.Handler(), "GET", path, "")
	}
	if logs.String() != "" {
		t.Error(logs)
	}
}

func TestFaultsAreLoggedWithoutAccessLog(t *testing.T) {
	logs, eng := &logBuffer{}, fake.New()
	eng.Scripts["fake"] = fake.Fail(&engine.Error{Code: engine.Internal, Message: "m", Err: errTimeLimit})
	s, err := New(eng, Config{}, zerolog.New(logs))
	if err != nil {
		t.Fatal(err)
	}
	do(s.Handler(), "POST", chatPath, strings.Replace(chatBody, "fake", "missing", 1))
	do(s.Handler(), "POST", chatPath, chatBody)
	lines := logs.lines(t)
	if len(lines) != 1 || lines[0]["cause"] != errTimeLimit.Error() || lines[0]["level"] != "error" {
		t.Error(logs)
	}
}

func TestLogInjection(t *testing.T) {
	s, logs := newTest(t, fake.New(), Config{})
	evil := "x\n{\"level\":\"error\",\"forged\":true}\r\n\x1b[31m\u2028"
	sent := 0
	for _, headers := range [][]string{
		{"X-Request-Id: " + evil}, {"X-Request-Id: " + strings.Repeat("x", 129)}, {"X-Request-Id: caf\u00e9"},
		{"User-Agent: " + evil}, {"Content-Type: " + evil}, {"Host: " + evil}, {"Origin: " + evil},
	} {
		w := do(s.Handler(), "POST", chatPath, chatBody, headers...)
		sent++
		if id := w.Header().Get("X-Request-Id"); !strings.HasPrefix(id, "req-") {
			t.Errorf("id %q", id)
		}
	}
	for _, body := range []string{
		strings.Replace(chatBody, "fake", `a\n{\"forged\":true}\u0000\u001b`, 1),
		`{"model":"fake","messages":[],"\n{\"forged\":true}":1}`,
		evil,
	} {
		do(s.Handler(), "POST", chatPath, body)
		sent++
	}
	do(s.Handler(), "GET", "/%0a%7b%22forged%22:true%7d", "")
	sent++
	lines := logs.lines(t)
	if len(lines) != sent {
		t.Errorf("%d lines for %d requests:\n%s", len(lines), sent, logs)
	}
	for _, l := range lines {
		if l["forged"] != nil || l["message"] != "request" {
			t.Errorf("forged: %v", l)
		}
	}
	if strings.Contains(logs.String(), "\x1b") {
		t.Error("terminal escapes in the log")
	}
}

// hangUp is a client that goes away as soon as it has read the last event.
type hangUp struct {
	*httptest.ResponseRecorder
	leave context.CancelFunc
}

func (h hangUp) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("[DONE]")) {
		h.leave()
	}
	return h.ResponseRecorder.Write(p)
}

func TestAnsweredIsNotCanceled(t *testing.T) {
	s, logs := newTest(t, fake.New(), Config{})
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "POST", chatPath, strings.NewReader(streamBody))
	r.Host = "127.0.0.1:8000"
	r.Header.Set("Content-Type", "application/json")
	s.Handler().ServeHTTP(hangUp{httptest.NewRecorder(), leave}, r)
	if l := logs.lines(t)[0]; ctx.Err() == nil || l["canceled"] != nil || l["status"] != 200.0 {
		t.Error(ctx.Err(), logs)
	}
}

func TestLoading(t *testing.T) {
	s, _ := newTest(t, &engine.Router{}, Config{})
	for _, r := range [][3]string{{"POST", chatPath, chatBody}, {"POST", "/v1/completions", `{"model":"fake","prompt":"a"}`},
		{"POST", "/tokenize", `{"prompt":"a"}`}, {"GET", "/v1/models/fake", ""}} {
		w := do(s.Handler(), r[0], r[1], r[2])
		wantError(t, w, 503)
		if w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", r[1])
		}
	}
}
