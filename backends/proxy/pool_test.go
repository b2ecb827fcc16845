package proxy_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pagoda/backends/proxy"
	"pagoda/backends/proxy/fakeupstream"
	"pagoda/engine"
)

// allUp waits until all of a rig's upstreams get requests.
func (r *rig) allUp(t *testing.T) {
	t.Helper()
	eventually(t, "all upstreams are up", func() bool { return r.count(t, "pagoda_upstream_up") == float64(len(r.fakes)) })
}

// gone closes a request's context when the test ends.
func (r *rig) hang(t *testing.T, n int, text string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	before := r.running()
	for range n {
		wg.Go(func() { collect(ctx, r, ask(text)) })
	}
	eventually(t, "the requests run", func() bool { return r.running() == before+n })
}

func (r *rig) running() int {
	sum := 0
	for _, f := range r.fakes {
		_, running := f.Left()
		sum += running
	}
	return sum
}

func TestLeastLoaded(t *testing.T) {
	r := attach(t, "vllm", 3)
	r.allUp(t)
	for i := range 30 {
		r.hang(t, 1, fmt.Sprint("hang ", i)) // of different beginnings
	}
	for i, f := range r.fakes {
		if _, n := f.Left(); n != 10 {
			t.Errorf("upstream %d has %d of 30 requests", i, n)
		}
	}
}

// TestAffinity: what begins alike goes to one upstream, as long as that is not much busier than the others.
func TestAffinity(t *testing.T) {
	r := attach(t, "vllm", 3)
	r.allUp(t)
	system := strings.Repeat("You are a careful assistant. ", 40)
	turn := func(n int) *engine.Request {
		req := ask("say x")
		req.Chat.Messages = append([]engine.Message{{Role: "system", Content: &system}}, req.Chat.Messages...)
		for i := range n {
			req.Chat.Messages = append(req.Chat.Messages, engine.Message{Role: "assistant", Content: new(fmt.Sprint("turn ", i))},
				engine.Message{Role: "user", Content: new("say y")})
		}
		return req
	}
	for i := range 12 {
		if s := collect(t.Context(), r, turn(i)); s.err != nil {
			t.Fatal(s.err)
		}
	}
	var counts []int
	for _, f := range r.fakes {
		counts = append(counts, len(f.Requests()))
	}
	if max(counts[0], counts[1], counts[2]) != 12 {
		t.Errorf("a conversation went to upstreams %v", counts)
	}
	// Many at once are more than one upstream's share.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for range 30 {
		req := turn(0)
		req.Chat.Messages[1].Content = new("hang")
		wg.Go(func() { collect(ctx, r, req) })
	}
	eventually(t, "all run", func() bool { return r.running() == 30 })
	for i, f := range r.fakes {
		if _, n := f.Left(); n < 6 || n > 14 {
			t.Errorf("upstream %d has %d of 30 requests", i, n)
		}
	}
	cancel()
	wg.Wait()
}

func TestHealth(t *testing.T) {
	r := attach(t, "vllm", 2)
	r.allUp(t)
	r.fakes[0].Unhealthy.Store(true)
	eventually(t, "the first is out", func() bool { return r.count(t, "pagoda_upstream_up") == 1 })
	before := len(r.fakes[0].Requests())
	for i := range 20 {
		if s := collect(t.Context(), r, ask(fmt.Sprint("say ", i))); s.err != nil {
			t.Fatal(s.err)
		}
	}
	if n := len(r.fakes[0].Requests()) - before; n != 0 {
		t.Errorf("an unhealthy upstream got %d requests", n)
	}
	if !strings.Contains(r.log.String(), `"message":"upstream is down"`) {
		t.Errorf("the log does not tell: %s", r.log)
	}
	r.fakes[0].Unhealthy.Store(false)
	eventually(t, "it is back", func() bool { return r.count(t, "pagoda_upstream_up") == 2 })
}

// TestSlowHealth: SGLang's health check takes as long as it does under load; that is no failure.
func TestSlowHealth(t *testing.T) {
	r := attach(t, "sglang", 1, func(c *proxy.Config) { c.Dialect.HealthTimeout = limit })
	r.fakes[0].HealthDelay = 200 * time.Millisecond // 20 s, scaled
	for i := range 20 {
		if s := collect(t.Context(), r, ask(fmt.Sprint("say ", i))); s.err != nil {
			t.Fatal(s.err)
		}
	}
	if strings.Contains(r.log.String(), "is down") {
		t.Errorf("it was taken out: %s", r.log)
	}
}

func TestBreaker(t *testing.T) {
	r := attach(t, "vllm", 1, func(c *proxy.Config) { c.Times.Cooldown = 300 * time.Millisecond })
	for range 5 {
		if s := collect(t.Context(), r, ask("fail")); s.err == nil || s.err.Code != engine.Upstream {
			t.Fatal(s.err)
		}
	}
	if r.count(t, "pagoda_upstream_breaker_open") != 1 || !strings.Contains(r.log.String(), "fails again and again") {
		t.Errorf("the breaker is closed after 5 failures; log %s", r.log)
	}
	began := time.Now()
	if s := collect(t.Context(), r, ask("say x")); s.err != nil {
		t.Errorf("after the pause: %v", s.err)
	}
	if waited := time.Since(began); waited < 50*time.Millisecond {
		t.Errorf("a request went through after %v", waited)
	}
	if r.count(t, "pagoda_upstream_breaker_open") != 0 {
		t.Error("the breaker is open after a success")
	}
	if s := collect(t.Context(), r, ask("too-long")); s.err == nil || s.err.Code != engine.TooLong {
		t.Error(s.err)
	}
	for range 10 { // a client's own mistakes are no failures
		collect(t.Context(), r, ask("too-long"))
	}
	if r.count(t, "pagoda_upstream_breaker_open") != 0 {
		t.Error("bad requests opened the breaker")
	}
}

// TestBreakerOpensOnce: many requests that break together keep an upstream away for one pause, not for one that each makes longer.
func TestBreakerOpensOnce(t *testing.T) {
	r := attach(t, "vllm", 1)
	const n = 40
	var begun atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			text, code := "", engine.Internal
			for ev, err := range r.Generate(t.Context(), ask("hang")) {
				if err != nil {
					code = engine.AsError(err).Code
				}
				if text += ev.Text; ev.Text == " two" {
					begun.Add(1)
				}
			}
			if text != "one two" || code != engine.Upstream {
				t.Errorf("%q, then error %v", text, code)
			}
		})
	}
	eventually(t, "all have begun", func() bool { return begun.Load() == n })
	r.servers[0].CloseClientConnections()
	wg.Wait()
	if s := collect(t.Context(), r, ask("say x")); s.err != nil { // it waits at most 5 s
		t.Error(s.err)
	}
}

// flaky closes the connections of the first n generations it gets, before it answers anything.
func flaky(next http.Handler, n int) (http.Handler, func() int) {
	var mu sync.Mutex
	seen := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/completions") {
				mu.Lock()
				seen++
				cut := seen <= n
				mu.Unlock()
				if cut {
					panic(http.ErrAbortHandler)
				}
			}
			next.ServeHTTP(w, r)
		}), func() int {
			mu.Lock()
			defer mu.Unlock()
			return seen
		}
}

// TestRetry: a request whose connection breaks before its answer begins is sent again, three times at most in all; one
// whose answer has begun never is.
func TestRetry(t *testing.T) {
	for _, tc := range []struct{ broken, sent int }{{1, 2}, {2, 3}, {3, 3}, {9, 3}} {
		for _, isWhole := range []bool{false, true} {
			h, seen := flaky(fakeupstream.New("vllm", "u"), tc.broken)
			srv := httptest.NewServer(h)
			defer srv.Close()
			r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics()}
			r.Engine = start(t, proxy.Config{Dialect: dialects["vllm"](), Name: "m", URLs: []string{srv.URL}, Times: quick, Metrics: r.metrics})
			req := ask("say x")
			req.Output.Whole = isWhole
			s := collect(t.Context(), r, req)
			if (s.err == nil) != (tc.broken < 3) || s.err != nil && s.err.Code != engine.Upstream {
				t.Errorf("%d broken: %v", tc.broken, s.err)
			}
			if n := seen(); n != tc.sent {
				t.Errorf("%d broken: sent %d times, want %d", tc.broken, n, tc.sent)
			}
			if got := r.count(t, "pagoda_upstream_retries_total"); got != float64(tc.sent-1) {
				t.Errorf("%d broken: %v retries", tc.broken, got)
			}
		}
	}
	for _, text := range []string{"cut", "half", "error"} {
		r := attach(t, "vllm", 2)
		r.allUp(t)
		if s := collect(t.Context(), r, ask(text)); s.err == nil || s.text != "one two" {
			t.Errorf("%s: %+v", text, s)
		}
		if n := len(r.fakes[0].Requests()) + len(r.fakes[1].Requests()); n != 1 {
			t.Errorf("%s: sent %d times", text, n)
		}
	}
}

// TestRetryElsewhere: an upstream that is gone, or that refuses while it shuts down, is no matter where there is another.
func TestRetryElsewhere(t *testing.T) {
	r := attach(t, "vllm", 2, func(c *proxy.Config) { c.Times.Probe = time.Hour }) // so that health checks do not help
	r.allUp(t)
	r.servers[1].Close()
	for i := range 20 {
		if s := collect(t.Context(), r, ask(fmt.Sprint("say ", i))); s.err != nil {
			t.Fatal(s.err)
		}
	}
	if n := len(r.fakes[0].Requests()); n != 20 {
		t.Errorf("the other one got %d requests", n)
	}
}

func TestNoUpstream(t *testing.T) {
	r := attach(t, "vllm", 1, func(c *proxy.Config) { c.Times.Wait = 50 * time.Millisecond })
	r.servers[0].Close()
	for range 3 {
		if s := collect(t.Context(), r, ask("say x")); s.err == nil || s.err.Code != engine.Unavailable || s.err.RetryAfter <= 0 {
			t.Errorf("%v", s.err)
		}
	}
}

// TestWaitsForUpstream: a request that comes while no upstream is up waits for one.
func TestWaitsForUpstream(t *testing.T) {
	r := attach(t, "vllm", 1)
	r.fakes[0].Unhealthy.Store(true)
	eventually(t, "it is out", func() bool { return r.count(t, "pagoda_upstream_up") == 0 })
	done := make(chan *said)
	go func() { done <- collect(context.Background(), r, ask("say x")) }()
	r.fakes[0].Unhealthy.Store(false)
	if s := <-done; s.text != "x" {
		t.Errorf("%+v %v", s, s.err)
	}
}

// TestList: the file's upstreams are the pool's, and a wrong file changes nothing.
func TestList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "urls")
	var urls []string
	var fakes []*fakeupstream.Server
	for range 3 {
		f := fakeupstream.New("vllm", "u")
		srv := httptest.NewServer(f)
		defer srv.Close()
		fakes, urls = append(fakes, f), append(urls, srv.URL)
	}
	write := func(lines ...string) {
		t.Helper()
		next := file + ".new"
		if err := os.WriteFile(next, []byte("# upstreams\n"+strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	write(urls[0])
	r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics(), fakes: fakes}
	r.Engine = start(t, proxy.Config{Dialect: dialects["vllm"](), Name: "m", ListFile: file, Times: quick, Metrics: r.metrics})
	ups := func(n float64) func() bool { return func() bool { return r.count(t, "pagoda_upstream_up") == n } }
	eventually(t, "one is up", ups(1))
	// What runs on an upstream that leaves goes on.
	done := make(chan *said)
	go func() { done <- collect(context.Background(), r, ask("wait")) }()
	eventually(t, "it runs", func() bool { return r.running() == 1 })
	write(urls[1], "", "  "+urls[2])
	eventually(t, "two others are up", ups(2))
	if s := <-done; s.text != "one two" {
		t.Errorf("%+v %v", s, s.err)
	}
	for i := range 10 {
		if s := collect(t.Context(), r, ask(fmt.Sprint("say ", i))); s.err != nil {
			t.Fatal(s.err)
		}
	}
	if n := len(fakes[0].Requests()); n != 1 {
		t.Errorf("one that left got %d requests", n)
	}
	write("gopher://x")
	write("")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if s := collect(t.Context(), r, ask("say x")); s.err != nil || r.count(t, "pagoda_upstream_up") != 2 {
		t.Errorf("a wrong list: %v", s.err)
	}
}

// TestAddresses: several upstreams may be behind one host, each below a path of its own, and a host may be an IPv6 address.
func TestAddresses(t *testing.T) {
	mux := http.NewServeMux()
	var fakes []*fakeupstream.Server
	for _, path := range []string{"/a", "/b/c"} {
		f := fakeupstream.New("vllm", "u")
		fakes = append(fakes, f)
		mux.Handle(path+"/", http.StripPrefix(path, f))
	}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Log("this machine has no IPv6: the test takes IPv4")
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	srv.Start()
	defer srv.Close()
	r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics(), fakes: fakes}
	r.Engine = start(t, proxy.Config{Dialect: dialects["vllm"](), URLs: []string{srv.URL + "/a/", srv.URL + "/b/c/v1"}, Times: quick,
		Metrics: r.metrics, Log: zerolog.New(r.log)})
	for _, path := range []string{"/a", "/b/c"} {
		eventually(t, path+" is up", func() bool { return r.count(t, "pagoda_upstream_up", "upstream="+l.Addr().String()+path) == 1 })
	}
	for i := range 4 {
		req := ask(fmt.Sprint("say ", i))
		req.Model = "u"
		if s := collect(t.Context(), r, req); s.err != nil {
			t.Fatal(s.err)
		}
	}
	if len(fakes[0].Requests())+len(fakes[1].Requests()) != 4 {
		t.Error("requests went elsewhere")
	}
}

// TestForgotten: the series of an upstream that is gone go too, also where the upstream gave the model its name.
func TestForgotten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "urls")
	a, b := httptest.NewServer(fakeupstream.New("vllm", "u")), httptest.NewServer(fakeupstream.New("vllm", "u"))
	defer a.Close()
	defer b.Close()
	list := func(url string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(url+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list(a.URL)
	r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics()}
	r.Engine = start(t, proxy.Config{Dialect: dialects["vllm"](), ListFile: file, Times: quick, Metrics: r.metrics, Log: zerolog.New(r.log)})
	req := ask("say x")
	req.Model = "u"
	if s := collect(t.Context(), r, req); s.err != nil || r.count(t, "pagoda_upstream_requests_total", "model=u") != 1 {
		t.Fatal(s.err)
	}
	list(b.URL + "/")
	eventually(t, "the list has changed", func() bool { return strings.Contains(r.log.String(), "the list of upstreams has changed") })
	if n := r.count(t, "pagoda_upstream_requests_total"); n != 0 {
		t.Errorf("%v requests of an upstream that is gone", n)
	}
}

// TestNoWait: a model whose upstream is down is there; requests wait for it.
func TestNoWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cfg := proxy.Config{Dialect: dialects["vllm"](), URLs: []string{"http://" + addr}, NoWait: true, Times: quick,
		Adapters: []proxy.Adapter{{Name: "pirate", Path: "/p"}}}
	if _, err := proxy.New(t.Context(), cfg); err == nil {
		t.Error("a model without a name")
	}
	cfg.UpstreamModel, cfg.Times.Wait = "u", 20*time.Millisecond
	e := start(t, cfg)
	if m := e.Models(); len(m) != 2 || m[0].ID != "u" || m[0].Root != "u" || m[1].ID != "pirate" {
		t.Errorf("models %+v", m)
	}
	req := ask("who")
	req.Model = "pirate"
	if s := collect(t.Context(), e, req); s.err == nil || s.err.Code != engine.Unavailable {
		t.Errorf("%+v", s)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: fakeupstream.New("vllm", "u")}}
	srv.Start()
	defer srv.Close()
	eventually(t, "it answers", func() bool { return collect(t.Context(), e, req).text == "pirate" })
}

// TestWrongKey: a key that upstreams do not accept is this server's trouble, not the client's.
func TestWrongKey(t *testing.T) {
	fake := fakeupstream.New("vllm", "u")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost { // the key was taken back after the start
			http.Error(w, `{"error":"Unauthorized"}`, http.StatusUnauthorized)
			return
		}
		fake.ServeHTTP(w, r)
	}))
	defer srv.Close()
	r := attach(t, "vllm", 0, func(c *proxy.Config) { c.URLs, c.Adapters = []string{srv.URL}, nil })
	const want = "the model's server does not accept this server's key"
	if s := collect(t.Context(), r, ask("say x")); s.err == nil || s.err.Code != engine.Upstream || s.err.Message != want {
		t.Errorf("%+v", s.err)
	}
	_, err := r.Forward(t.Context(), &engine.RawRequest{Model: "m", Method: http.MethodPost, Path: "/pooling", Body: []byte(`{"model":"m"}`)})
	if e := engine.AsError(err); err == nil || e.Code != engine.Upstream || e.Message != want {
		t.Errorf("forwarded: %v", err)
	}
	if n := r.count(t, "pagoda_upstream_retries_total"); n != 0 {
		t.Errorf("%v retries", n)
	}
}

// TestDuplicateNames: no name means two things.
func TestDuplicateNames(t *testing.T) {
	r := attach(t, "sglang", 1)
	for name, cfg := range map[string]proxy.Config{
		"an adapter has the model's name": {Name: "pirate", URLs: []string{r.servers[0].URL}, Adapters: []proxy.Adapter{{Name: "pirate"}}},
		"is given twice":                  {URLs: []string{r.servers[0].URL, r.servers[0].URL + "/v1/"}},
		"it serves no model":              {URLs: []string{r.servers[0].URL}, UpstreamModel: "other"},
	} {
		cfg.Dialect, cfg.Times, cfg.Log = dialects["sglang"](), quick, zerolog.New(r.log)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := proxy.New(ctx, cfg)
		cancel()
		if err == nil || !strings.Contains(err.Error()+r.log.String(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
	// The upstream lists an adapter under the name that clients give to the base model: our table decides.
	r = attach(t, "sglang", 1, func(c *proxy.Config) { c.Name, c.Adapters = "pirate", nil })
	req := ask("who")
	req.Model = "pirate"
	if s := collect(t.Context(), r, req); s.text != "upstream-model" {
		t.Errorf("%q answers, %v", s.text, s.err)
	}
}

func TestBadURLs(t *testing.T) {
	for _, u := range []string{"localhost:1", "ftp://x", "http://", "http://user:secret@x", "unix://", "://", "http://x?key=secret", "http://x#a"} {
		_, err := proxy.New(t.Context(), proxy.Config{Dialect: dialects["vllm"](), URLs: []string{u}, Times: quick})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", u, err)
		}
	}
}
