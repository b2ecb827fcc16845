package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pagoda/engine"
	"pagoda/engine/fake"
)

// running is a server under Run with a client of its own.
type running struct {
	*Server
	t      *testing.T
	client *http.Client
	url    string
	stop   context.CancelFunc // as SIGTERM does
	done   chan error
	logs   *logBuffer
}

func run(t *testing.T, eng engine.Engine, cfg Config, drainTimeout time.Duration) *running {
	t.Helper()
	s, logs := newTest(t, eng, cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Server: s, t: t, client: &http.Client{Transport: &http.Transport{}}, url: "http://" + l.Addr().String(),
		stop: stop, done: make(chan error, 1), logs: logs}
	go func() { r.done <- s.Run(ctx, l, drainTimeout) }()
	t.Cleanup(stop)
	return r
}

// send posts a chat; the caller closes the body.
func (r *running) send(ctx context.Context, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", r.url+chatPath, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return r.client.Do(req)
}

func (r *running) status(path string) int {
	r.t.Helper()
	resp, err := r.client.Get(r.url + path)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// ended waits for Run and checks that nothing of it is left.
func (r *running) ended(ignore goleak.Option) {
	r.t.Helper()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	r.client.CloseIdleConnections()
	if err := goleak.Find(ignore); err != nil {
		r.t.Error(err)
	}
}

func TestDrainLetsRunningRequestsFinish(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	eng, gate := fake.New(), make(chan struct{})
	eng.Scripts["fake"] = gated(gate)
	r := run(t, eng, Config{}, time.Minute)
	if got := r.status("/ready"); got != 200 {
		t.Fatalf("ready: %d", got)
	}
	stream, err := r.send(t.Context(), streamBody)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	readUntil(t, stream.Body, "Hel")

	r.stop()
	for r.status("/ready") != 503 { // Run is told by another goroutine
	}
	if got := r.status("/health"); got != 200 {
		t.Errorf("health while draining: %d", got)
	}
	for _, body := range []string{chatBody, streamBody} {
		resp, err := r.send(t.Context(), body)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(text), `"error"`) {
			t.Errorf("new request: %d %v %s", resp.StatusCode, resp.Header, text)
		}
	}
	select {
	case err := <-r.done:
		t.Fatalf("Run ended before the stream: %v", err)
	default:
	}
	close(gate)
	rest, err := io.ReadAll(stream.Body)
	if err != nil || !strings.Contains(string(rest), "lo") || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	r.ended(ignore)
	if _, err := r.client.Get(r.url + "/health"); err == nil {
		t.Error("still serving")
	}
}

// A drain finishes a request with many prompts, those included that had not begun.
func TestDrainFinishesAllPrompts(t *testing.T) {
	eng, gate := newHooked(), make(chan struct{})
	begun := make(chan struct{}, 200)
	eng.Scripts["fake"] = func(req *engine.Request) []fake.Step {
		begun <- struct{}{}
		return gated(gate)(req)
	}
	r := run(t, eng, Config{}, time.Minute)
	prompts := `"p"` + strings.Repeat(`,"p"`, 3*maxPromptsAtOnce-1)
	answer := make(chan string)
	go func() {
		resp, err := r.client.Post(r.url+"/v1/completions", "application/json",
			strings.NewReader(`{"model":"fake","prompt":[`+prompts+`]}`))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- resp.Status + " " + string(body)
	}()
	<-begun
	r.stop()
	for r.status("/ready") != 503 {
	}
	close(gate)
	if got := <-answer; !strings.HasPrefix(got, "200") || strings.Count(got, "Hello") != 3*maxPromptsAtOnce {
		t.Errorf("%d answers: %.300s", strings.Count(got, "Hello"), got)
	}
	r.client.CloseIdleConnections()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestDrainCutsOffAtTheTimeout(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	eng := newHooked()
	eng.Scripts["fake"] = gated(make(chan struct{}))
	r := run(t, eng, Config{}, 50*time.Millisecond)
	stream, err := r.send(t.Context(), streamBody)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	readUntil(t, stream.Body, "Hel")
	r.stop()
	rest, _ := io.ReadAll(stream.Body)
	if !strings.Contains(string(rest), `"error"`) || strings.Contains(string(rest), "[DONE]") {
		t.Errorf("the stream ended with %q", rest)
	}
	if err := <-eng.ended; err == nil {
		t.Error("the engine was not told")
	}
	r.ended(ignore)
}

func TestIdleServerStopsAtOnce(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	r := run(t, fake.New(), Config{}, time.Hour)
	r.status("/health") // leaves an idle connection
	r.stop()
	r.ended(ignore)
}

func TestListenerFailure(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Run(t.Context(), l, time.Second); err == nil {
		t.Error("no error")
	}
}

func TestReady(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	for _, ready := range []bool{false, true, false} {
		s.SetReady(ready)
		want := 503
		if ready {
			want = 200
		}
		if w := do(s.Handler(), "GET", "/ready", ""); w.Code != want {
			t.Errorf("ready %v: %d", ready, w.Code)
		}
		if w := do(s.Handler(), "HEAD", "/health", ""); w.Code != 200 {
			t.Errorf("health: %d", w.Code)
		}
	}
}

func TestClientGoesAway(t *testing.T) {
	for name, body := range map[string]string{"stream": streamBody, "plain": chatBody} {
		t.Run(name, func(t *testing.T) {
			ignore := goleak.IgnoreCurrent()
			eng := newHooked()
			begun := make(chan struct{})
			eng.Scripts["fake"] = func(req *engine.Request) []fake.Step {
				close(begun)
				return gated(make(chan struct{}))(req) // never opened
			}
			r := run(t, eng, Config{}, time.Minute)
			ctx, leave := context.WithCancel(t.Context())
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				if resp, err := r.send(ctx, body); err == nil {
					_, _ = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
			}()
			<-begun
			leave()
			if err := <-eng.ended; err == nil {
				t.Error("the engine's context had not ended")
			}
			<-answered
			r.stop() // the drain waits for the handler, so that log and metrics are complete
			r.ended(ignore)
			f := gather(t, r.Server)
			if v := sampleOf(t, f["pagoda_requests_canceled_total"]); v != 1 {
				t.Errorf("canceled = %v", v)
			}
			if v := sampleOf(t, f["vllm:request_success_total"], "finished_reason=abort"); v != 1 {
				t.Errorf("abort = %v", v)
			}
			if !strings.Contains(r.logs.String(), `"canceled":true`) {
				t.Error(r.logs)
			}
		})
	}
}

func TestRequestTimeout(t *testing.T) {
	eng := newHooked()
	eng.Scripts["fake"] = fake.Gate(make(chan struct{}), fake.Text("never"))
	s, _ := newTest(t, eng, Config{RequestTimeout: 20 * time.Millisecond})
	msg := wantError(t, do(s.Handler(), "POST", chatPath, chatBody), 504)
	if !strings.Contains(msg, "longer") {
		t.Error(msg)
	}
}
