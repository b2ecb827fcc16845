package server

import (
	"bytes"
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// talker is an engine that costs nothing: it yields prepared events.
type talker struct {
	*engine.Router // for what is not asked
	events         []engine.Event
}

func (t *talker) Models() []engine.Model {
	return []engine.Model{{ID: "talker", MaxLen: 4096, ForwardsUnknown: true}}
}

func (t *talker) Close(context.Context) error { return nil }

func (t *talker) Generate(context.Context, *engine.Request) iter.Seq2[engine.Event, error] {
	return func(yield func(engine.Event, error) bool) {
		for i := range t.events {
			if !yield(t.events[i], nil) {
				return
			}
		}
	}
}

// discarder is an http.ResponseWriter, as a connection's, that keeps nothing.
type discarder struct {
	header http.Header
	bytes  int64
}

func (d *discarder) Header() http.Header { return d.header }
func (d *discarder) WriteHeader(int)     {}
func (d *discarder) Flush()              {}

func (d *discarder) Write(p []byte) (int, error) {
	d.bytes += int64(len(p))
	return len(p), nil
}

func (d *discarder) SetReadDeadline(time.Time) error  { return nil }
func (d *discarder) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkChat is what the server itself costs, from the parsed head of a request to the answer's last byte: prompts of 1
// and 100 KB, an answer of 500 bytes in one piece and one of 128 pieces.
func BenchmarkChat(b *testing.B) {
	now := time.Now()
	last := engine.Event{Finish: engine.FinishStop, Usage: &engine.Usage{Prompt: 10, Completion: 128},
		Timing: &engine.Timing{Arrived: now, Scheduled: now, FirstToken: now, Finished: now}}
	whole := []engine.Event{{Prompt: &engine.Prompt{}, Text: strings.Repeat("word ", 100)}, last}
	pieces := []engine.Event{{Prompt: &engine.Prompt{}}}
	for range 128 {
		pieces = append(pieces, engine.Event{Text: " word"})
	}
	pieces = append(pieces, last)
	for _, bc := range []struct {
		name   string
		events []engine.Event
		size   int
		stream string
		log    bool
	}{
		{"plain", whole, 1 << 10, "false", false}, {"logged", whole, 1 << 10, "false", true},
		{"large", whole, 100 << 10, "false", false}, {"stream", pieces, 1 << 10, "true", false},
	} {
		b.Run(bc.name, func(b *testing.B) {
			router := &engine.Router{}
			if err := router.Add(&talker{events: bc.events}); err != nil {
				b.Fatal(err)
			}
			s, err := New(router, Config{AccessLog: bc.log}, zerolog.New(io.Discard).With().Timestamp().Logger())
			if err != nil {
				b.Fatal(err)
			}
			s.SetReady(true)
			h := s.Handler()
			body := []byte(`{"model":"talker","stream":` + bc.stream + `,"messages":[{"role":"user","content":"` +
				strings.Repeat("word ", bc.size/5) + `"}]}`)
			in := bytes.NewReader(body)
			head := httptest.NewRequest("POST", chatPath, in)
			head.Host = "127.0.0.1:8000"
			head.Header.Set("Content-Type", "application/json")
			out := &discarder{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				in.Reset(body)
				clear(out.header)
				r := *head
				out.bytes = 0
				h.ServeHTTP(out, &r)
				if out.bytes < 500 {
					b.Fatal("no answer")
				}
			}
		})
	}
}
