package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"pagoda/engine"
	"pagoda/engine/fake"
)

const (
	chatPath   = "/v1/chat/completions"
	chatBody   = `{"model":"fake","messages":[{"role":"user","content":"SECRETPROMPT"}]}`
	streamBody = `{"model":"fake","stream":true,"messages":[{"role":"user","content":"SECRETPROMPT"}]}`
)

// logBuffer is a writer that a test may read while a server writes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// lines parses the log; a line that is not one JSON object fails the test.
func (b *logBuffer) lines(t *testing.T) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(b.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

// newTest makes a ready server with a log.
func newTest(t testing.TB, eng engine.Engine, cfg Config) (*Server, *logBuffer) {
	t.Helper()
	logs := &logBuffer{}
	cfg.AccessLog = true
	s, err := New(eng, cfg, zerolog.New(logs))
	if err != nil {
		t.Fatal(err)
	}
	s.SetReady(true)
	return s, logs
}

// do sends one request through the handler. Headers are "Name: value".
func do(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8000"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// wantError checks status and OpenAI's error shape and returns the message.
func wantError(t *testing.T, w *httptest.ResponseRecorder, status int) string {
	t.Helper()
	var body struct {
		Error *struct {
			Message, Type string
		}
	}
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error == nil || body.Error.Message == "" ||
		body.Error.Type == "" {
		t.Fatalf("not an error body: %s", w.Body)
	}
	return body.Error.Message
}

// hooked is a fake engine whose Generate can be replaced, and which says when one has ended.
type hooked struct {
	*fake.Engine
	generate func(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] // nil: the fake's
	ended    chan error                                                                    // the context's error at the end
}

func newHooked() *hooked { return &hooked{Engine: fake.New(), ended: make(chan error, 100)} }

func (h *hooked) Generate(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] {
	return func(yield func(engine.Event, error) bool) {
		defer func() { h.ended <- ctx.Err() }()
		generate := h.generate
		if generate == nil {
			generate = h.Engine.Generate
		}
		generate(ctx, req)(yield)
	}
}

// gated answers "Hel", waits for gate, and answers "lo".
func gated(gate <-chan struct{}) fake.Script {
	return func(req *engine.Request) []fake.Step {
		steps := fake.Text("Hel", "lo")(req)
		for i := range steps {
			if steps[i].Event.Text == "lo" {
				steps[i].Wait = gate
			}
		}
		return steps
	}
}

// readUntil reads from r until the text has come, or fails.
func readUntil(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var got strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(got.String(), text) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil && !strings.Contains(got.String(), text) {
			t.Fatalf("%v before %q in %q", err, text, got.String())
		}
	}
	return got.String()
}
