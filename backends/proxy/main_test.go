package proxy_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"pagoda/backends/ktransformers"
	"pagoda/backends/proxy"
	"pagoda/backends/proxy/fakeupstream"
	"pagoda/backends/sglang"
	"pagoda/backends/vllm"
	"pagoda/engine"
)

// fakeArg makes the test's binary a fake upstream, parentArg one that starts a fake.
const (
	fakeArg   = "fake-upstream"
	parentArg = "fake-parent"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fakeArg {
		os.Exit(fakeupstream.Main(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == parentArg {
		os.Exit(runParent(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

// limit is how long something that takes moments may take on a busy machine.
const limit = 30 * time.Second

var dialects = map[string]func() *proxy.Dialect{"vllm": vllm.Dialect, "sglang": sglang.Dialect, "ktransformers": ktransformers.Dialect}

// logBuffer may be read while it is written.
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

// rig is an engine in front of fakes.
type rig struct {
	*proxy.Engine
	fakes   []*fakeupstream.Server
	servers []*httptest.Server
	log     *logBuffer
	metrics *proxy.Metrics
}

// quick are times for tests: nothing waits long.
var quick = proxy.Times{Probe: 20 * time.Millisecond, ProbeDown: 5 * time.Millisecond, Cooldown: 10 * time.Millisecond,
	Wait: 5 * time.Second, Stall: -1, Start: limit, Stop: time.Second, Restart: time.Millisecond, ListRefresh: 5 * time.Millisecond}

// attach starts n fakes of a dialect in this process and an engine in front of them.
func attach(t testing.TB, dialect string, n int, change ...func(*proxy.Config)) *rig {
	t.Helper()
	r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics()}
	cfg := proxy.Config{Dialect: dialects[dialect](), Name: "m", Times: quick, Metrics: r.metrics, Log: zerolog.New(r.log)}
	for range n {
		f := fakeupstream.New(dialect, "upstream-model", "pirate")
		srv := httptest.NewServer(f)
		t.Cleanup(srv.Close)
		r.fakes, r.servers = append(r.fakes, f), append(r.servers, srv)
		cfg.URLs = append(cfg.URLs, srv.URL)
	}
	cfg.Adapters = []proxy.Adapter{{Name: "pirate"}}
	for _, c := range change {
		c(&cfg)
	}
	r.Engine = start(t, cfg)
	return r
}

func start(t testing.TB, cfg proxy.Config) *proxy.Engine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	e, err := proxy.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return e
}

// said is an answer put together.
type said struct {
	text, reasoning string
	calls           []engine.ToolCallDelta // joined
	deltas          []engine.ToolCallDelta
	tokens          []int32
	logprobs        []engine.Logprob
	finish          engine.FinishReason
	stop            string
	usage           *engine.Usage
	timing          *engine.Timing
	prompt          *engine.Prompt
	events          int
	err             *engine.Error
}

// collect reads the first choice's events to the end, or to the error.
func collect(ctx context.Context, e engine.Engine, req *engine.Request) *said {
	s := &said{}
	for ev, err := range e.Generate(ctx, req) {
		if err != nil {
			s.err = engine.AsError(err)
			return s
		}
		s.events++
		if ev.Prompt != nil {
			s.prompt = ev.Prompt
		}
		s.text += ev.Text
		s.reasoning += ev.Reasoning
		s.tokens = append(s.tokens, ev.Tokens...)
		s.logprobs = append(s.logprobs, ev.Logprobs...)
		s.deltas = append(s.deltas, ev.ToolCalls...)
		for _, d := range ev.ToolCalls {
			for len(s.calls) <= d.Index {
				s.calls = append(s.calls, engine.ToolCallDelta{Index: len(s.calls)})
			}
			c := &s.calls[d.Index]
			c.ID, c.Name, c.Arguments = c.ID+d.ID, c.Name+d.Name, c.Arguments+d.Arguments
		}
		if ev.Finish != "" {
			s.finish, s.stop = ev.Finish, ev.StopString
		}
		if ev.Usage != nil {
			s.usage, s.timing = ev.Usage, ev.Timing
		}
	}
	return s
}

// ask is a chat with one message.
func ask(text string) *engine.Request {
	return &engine.Request{ID: "r", Model: "m", Chat: &engine.Chat{Messages: []engine.Message{{Role: "user", Content: &text}}}}
}

// whole is ask for an answer in one piece.
func whole(text string) *engine.Request {
	req := ask(text)
	req.Output.Whole = true
	return req
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(limit)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !cond() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// count is the sum of a metric's series whose labels contain all of want ("outcome=ok").
func (r *rig) count(t testing.TB, name string, want ...string) float64 {
	t.Helper()
	return countIn(t, r.metrics, name, want...)
}

func countIn(t testing.TB, m *proxy.Metrics, name string, want ...string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, s := range f.GetMetric() {
			have := ""
			for _, l := range s.GetLabel() {
				have += l.GetName() + "=" + l.GetValue() + ";"
			}
			for _, w := range want {
				if !strings.Contains(have, w+";") {
					continue series
				}
			}
			sum += s.GetCounter().GetValue() + s.GetGauge().GetValue() + float64(s.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

var _ http.Handler = (*fakeupstream.Server)(nil)
