package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// script is a connection on which each request gets the same answer, in given pieces.
type script struct {
	net.Conn
	pieces []string
	next   int
}

func (s *script) Write(p []byte) (int, error) {
	s.next = 0
	return len(p), nil
}

func (s *script) Read(p []byte) (int, error) {
	s.next++
	return copy(p, s.pieces[s.next-1]), nil
}

func (s *script) Close() error { return nil }

// BenchmarkGenerate is the processor time of a request here, without the system's for its connection.
func BenchmarkGenerate(b *testing.B) {
	text := strings.Repeat("word ", 100)
	whole := `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant",` +
		`"content":"` + text + `"},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":10,"completion_tokens":100}}`
	plain := []string{fmt.Sprintf("HTTP/1.1 200 OK\r\ndate: Thu, 26 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\n"+
		"content-type: application/json\r\n\r\n%s", len(whole), whole)}
	event := func(data string) string { return fmt.Sprintf("%x\r\ndata: %s\n\n\r\n", len(data)+8, data) }
	streamed := []string{"HTTP/1.1 200 OK\r\ndate: Thu, 26 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\n" +
		"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"}
	for range 128 {
		streamed = append(streamed, event(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":`+
			`[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}`))
	}
	streamed = append(streamed, event(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":`+
		`[{"index":0,"delta":{},"finish_reason":"stop"}]}`)+event(doneMark)+"0\r\n\r\n")
	for _, c := range []struct {
		name   string
		prompt int // bytes
		pieces []string
	}{{"plain/1KB", 1 << 10, plain}, {"plain/100KB", 100 << 10, plain}, {"stream/1KB", 1 << 10, streamed}} {
		b.Run(c.name, func(b *testing.B) {
			e := newScripted(b, c.pieces)
			content := strings.Repeat("word ", c.prompt/5)
			req := &engine.Request{ID: "r", Model: "m", Chat: &engine.Chat{Messages: []engine.Message{{Role: "user", Content: &content}}},
				Output: engine.Output{Whole: len(c.pieces) == 1}}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range e.Generate(ctx, req) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// newScripted is an engine in front of an upstream that answers each generation with pieces.
func newScripted(b *testing.B, pieces []string) *Engine {
	b.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"data":[{"id":"m"}]}`)
	}))
	b.Cleanup(srv.Close)
	e, err := New(b.Context(), Config{Dialect: &Dialect{Health: "/health", HealthTimeout: time.Minute}, URLs: []string{srv.URL}, Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	for _, r := range e.pool.list() {
		r.dial = func(context.Context, string, string) (net.Conn, error) { return &script{pieces: pieces}, nil }
	}
	return e
}
