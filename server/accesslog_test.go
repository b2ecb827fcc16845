package server

import (
	"strings"
	"testing"

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
	for _, key := range []string{"tenant", "duration_ms", "ttft_ms", "queue_ms", "prompt_tokens", "cached_tokens", "bytes", "finish"} {
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
