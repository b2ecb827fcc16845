package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"

	"pagoda/engine"
	"pagoda/engine/fake"
)

// eachRoute calls f with a concrete path for every route.
func eachRoute(t *testing.T, s *Server, f func(method, path string)) {
	t.Helper()
	n := 0
	err := chi.Walk(s.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		n++
		f(method, strings.NewReplacer("{file}", "style.css", "*", "fake").Replace(route))
		return nil
	})
	if err != nil || n < 14 {
		t.Fatalf("walked %d routes: %v", n, err)
	}
}

func TestKeyIsWantedOnEveryRoute(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{Keys: []string{"right-key", "other-key"}})
	open := map[string]bool{"/health": true, "/ready": true}
	eachRoute(t, s, func(method, path string) {
		if open[path] {
			if w := do(s.Handler(), method, path, ""); w.Code != 200 {
				t.Errorf("%s %s: %d without a key", method, path, w.Code)
			}
			return
		}
		for _, header := range []string{"", "Authorization: Bearer wrong", "Authorization: Bearer ", "Authorization: right-key",
			"X-Api-Key: right-ke", "X-Api-Key: right-key2", "X-Forwarded-For: 127.0.0.1", "X-Original-URL: /health"} {
			wantError(t, do(s.Handler(), method, path, "{}", header), 401)
		}
		basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("me:other-key"))
		for _, header := range []string{"Authorization: Bearer right-key", "Authorization: bearer other-key",
			"X-Api-Key: right-key", basic} {
			if w := do(s.Handler(), method, path, "{}", header); w.Code == 401 {
				t.Errorf("%s %s with %s: 401", method, path, header)
			}
		}
	})
}

func TestKeyIsWantedWhateverTheSpelling(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{Keys: []string{"right-key"}})
	for _, tc := range []struct{ method, path string }{
		{"GET", "/nothing"}, {"GET", "/health/"}, {"GET", "//health"}, {"GET", "/HEALTH"}, {"GET", "/he%61lth"},
		{"GET", "/health/../v1/models"}, {"GET", "/health%2f..%2fv1/models"}, {"GET", "/v1/models?/health"},
		{"POST", "/health"}, {"DELETE", "/ready"}, {"GET", "/v1/models/health"}, {"GET", "/health;/v1/models"},
		{"OPTIONS", "/v1/models"}, {"HEAD", "/v1/models"},
	} {
		if w := do(s.Handler(), tc.method, tc.path, ""); w.Code != 401 {
			t.Errorf("%s %s: %d, want 401", tc.method, tc.path, w.Code)
		}
	}
	if w := do(s.Handler(), "GET", "/v1/models?key=right-key&api_key=right-key", ""); w.Code != 401 {
		t.Error("a key in the URL was accepted")
	}
}

func TestBasicIsOfferedToPagesOnly(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{Keys: []string{"right-key"}})
	for accept, want := range map[string]bool{"text/html,*/*": true, "application/json": false, "*/*": false} {
		w := do(s.Handler(), "GET", "/", "", "Accept: "+accept)
		got := strings.Contains(strings.Join(w.Header().Values("WWW-Authenticate"), ";"), "Basic")
		if got != want {
			t.Errorf("Accept %s: Basic offered: %v", accept, got)
		}
	}
}

func TestMatchKey(t *testing.T) {
	keys := hashKeys([]string{"a", "b", "a-longer-key"})
	for key, want := range map[string]int{"a": 0, "b": 1, "a-longer-key": 2, "": -1, "c": -1, "A": -1, "a-longer-ke": -1} {
		tenant, ok := matchKey(keys, key)
		if ok != (want >= 0) || ok && tenant != keys[want].tenant {
			t.Errorf("%q: %q %v", key, tenant, ok)
		}
	}
	if _, ok := matchKey(nil, ""); ok {
		t.Error("no keys: the empty key matched")
	}
	for _, k := range keys {
		if len(k.tenant) != 12 || strings.HasPrefix(fmt.Sprintf("%x", k.sum), k.tenant) {
			t.Errorf("tenant %q tells of the key's hash", k.tenant)
		}
	}
}

func TestConfigValidateReportsAll(t *testing.T) {
	err := Config{Keys: []string{"", "a b", "ok"}, CORSOrigins: []string{"example.org", "https://a.example/"},
		UnknownFields: "drop", MaxBodyBytes: -1, RequestTimeout: -1}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"key 1", "key 2", "example.org", "https://a.example/", "drop", "body limit", "request timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "a b") {
		t.Error("the key is in the error")
	}
	if _, err := New(nil, Config{}, zerolog.Nop()); err == nil {
		t.Error("no engine was accepted")
	}
}

func TestHostWithoutKey(t *testing.T) {
	open, _ := newTest(t, fake.New(), Config{AllowedHosts: []string{"llm.example.org"}})
	keyed, _ := newTest(t, fake.New(), Config{Keys: []string{"k"}})
	for host, ok := range map[string]bool{
		"localhost:8000": true, "127.0.0.1": true, "[::1]:8000": true, "10.1.2.3:80": true, "pagoda:8000": true,
		"LOCALHOST": true, "app.localhost": true, "box.local": true, "pagoda.default.svc": true,
		"pagoda.default.svc.cluster.local:80": true, "llm.example.org": true, "LLM.example.org.:8000": true,
		"evil.example": false, "evil.example:8000": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false,
		"evil.example.": false, "xllm.example.org": false,
	} {
		w := do(open.Handler(), "GET", "/v1/models", "", "Host: "+host)
		if (w.Code == 200) != ok || !ok && w.Code != 403 {
			t.Errorf("%s: %d", host, w.Code)
		}
		if w := do(open.Handler(), "GET", "/health", "", "Host: "+host); w.Code != 200 {
			t.Errorf("%s: health %d", host, w.Code)
		}
		if w := do(keyed.Handler(), "GET", "/v1/models", "", "Host: "+host, "Authorization: Bearer k"); w.Code != 200 {
			t.Errorf("%s with a key: %d", host, w.Code)
		}
	}
	w := do(open.Handler(), "GET", "/v1/models", "", "Host: evil.example", "X-Forwarded-Host: localhost")
	wantError(t, w, 403)
}

func TestOtherSitesCannotPost(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{CORSOrigins: []string{"https://app.example"}})
	for _, tc := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"no browser", nil, 200},
		{"own page", []string{"Sec-Fetch-Site: same-origin", "Origin: http://127.0.0.1:8000"}, 200},
		{"own page, old browser", []string{"Origin: http://127.0.0.1:8000"}, 200},
		{"other site", []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"}, 403},
		{"other site, old browser", []string{"Origin: https://evil.example"}, 403},
		{"opaque origin", []string{"Origin: null"}, 403},
		{"allowed site", []string{"Sec-Fetch-Site: cross-site", "Origin: https://app.example"}, 200},
	} {
		if w := do(s.Handler(), "POST", chatPath, chatBody, tc.headers...); w.Code != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, w.Code, tc.want)
		}
	}
}

func TestCORS(t *testing.T) {
	preflight := []string{"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization, x-stainless-os"}
	for _, tc := range []struct {
		name    string
		origins []string
		origin  string
		allow   string
	}{
		{"off", nil, "https://app.example", ""},
		{"exact", []string{"https://app.example"}, "https://app.example", "https://app.example"},
		{"other", []string{"https://app.example"}, "https://evil.example", ""},
		{"suffix", []string{"https://app.example"}, "https://app.example.evil.example", ""},
		{"other scheme", []string{"https://app.example"}, "http://app.example", ""},
		{"null", []string{"https://app.example"}, "null", ""},
		{"any", []string{"*"}, "https://whoever.example", "*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newTest(t, fake.New(), Config{Keys: []string{"k"}, CORSOrigins: tc.origins})
			get := do(s.Handler(), "GET", "/v1/models", "", "Origin: "+tc.origin, "Authorization: Bearer k")
			opt := do(s.Handler(), "OPTIONS", chatPath, "", append(preflight, "Origin: "+tc.origin)...)
			for _, w := range []http.Header{get.Header(), opt.Header()} {
				if got := w.Get("Access-Control-Allow-Origin"); got != tc.allow {
					t.Errorf("allows %q, want %q", got, tc.allow)
				}
				if w.Get("Access-Control-Allow-Credentials") != "" {
					t.Error("credentials are allowed")
				}
				if len(tc.origins) > 0 && w.Get("Vary") != "Origin" {
					t.Error("answers could be cached for another origin")
				}
			}
			if tc.allow == "" && opt.Code != 401 || tc.allow != "" && opt.Code != 204 {
				t.Errorf("preflight: %d", opt.Code)
			}
			if tc.allow != "" && !strings.Contains(opt.Header().Get("Access-Control-Allow-Headers"), "authorization") {
				t.Error("the key's header is not allowed")
			}
		})
	}
}

func TestBodiesAreJSON(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	for _, tc := range []struct {
		headers []string
		want    int
	}{
		{[]string{"Content-Type: application/json"}, 200},
		{[]string{"Content-Type: Application/JSON; charset=UTF-8"}, 200},
		{[]string{"Content-Type: application/json", "Content-Encoding: identity"}, 200},
		{[]string{"Content-Type: text/plain"}, 415},
		{[]string{"Content-Type: "}, 415},
		{[]string{"Content-Type: application/x-www-form-urlencoded"}, 415},
		{[]string{"Content-Type: multipart/form-data; boundary=x"}, 415},
		{[]string{"Content-Type: text/plain; application/json"}, 415},
		{[]string{"Content-Type: application/json; charset=utf-16"}, 415},
		{[]string{"Content-Type: application/json", "Content-Encoding: gzip"}, 415},
		{[]string{"Content-Type: application/json", "Content-Encoding: deflate, gzip"}, 415},
	} {
		if w := do(s.Handler(), "POST", chatPath, chatBody, tc.headers...); w.Code != tc.want {
			t.Errorf("%v: %d, want %d", tc.headers, w.Code, tc.want)
		}
	}
}

// dial starts s on a real connection, where the limits of net/http hold, and returns connections to it.
func dial(t *testing.T, s *Server) func() net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l, time.Second) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func TestLimits(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{MaxBodyBytes: 2000, MaxHeaderBytes: 8000, ReadHeaderTimeout: 200 * time.Millisecond,
		ReadTimeout: 200 * time.Millisecond, IdleTimeout: 200 * time.Millisecond})
	connect := dial(t, s)
	post := func(length int, rest string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s",
			chatPath, length, rest)
	}
	for _, tc := range []struct {
		name, send string
		want       string // beginning of the answer; "" is a connection closed without one
	}{
		{"fits", post(len(chatBody), "\r\n"+chatBody), "HTTP/1.1 200 "},
		{"large header", post(2, "X-Large: "+strings.Repeat("x", 20000)+"\r\n\r\n{}"), "HTTP/1.1 431 "},
		{"large body", post(3000, "\r\n"+`{"user":"`+strings.Repeat("x", 2989)+`"}`), "HTTP/1.1 413 "},
		{"large body in chunks", strings.Replace(post(0, "\r\nbb8\r\n{"+strings.Repeat(" ", 2999)+"\r\n0\r\n\r\n"),
			"Content-Length: 0", "Transfer-Encoding: chunked", 1), "HTTP/1.1 413 "},
		{"slow header", "GET /health HTTP/1.1\r\nHost: loc", ""},
		{"slow body", post(1000, "\r\n{"), "HTTP/1.1 4"},
		{"slow body nobody reads", "GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", "HTTP/1.1 200 "},
		{"idle", "", ""},
		{"length and chunks", post(5, "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "HTTP/1.1 4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := connect()
			if _, err := io.WriteString(c, tc.send); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			got, err := io.ReadAll(c) // ends only when the server hangs up
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("the server keeps the connection")
			}
			if !strings.HasPrefix(string(got), tc.want) || tc.want == "" && len(got) > 0 {
				t.Errorf("answer %.200q, want %q", got, tc.want)
			}
		})
	}
}

// A client that stops reading must not hold its request.
func TestWriteTimeLimit(t *testing.T) {
	eng := newHooked()
	eng.generate = func(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] {
		return func(yield func(engine.Event, error) bool) {
			ok := yield(engine.Event{Prompt: &engine.Prompt{Tokens: []int32{1}}}, nil)
			for text := strings.Repeat("x", 1<<16); ok; {
				ok = yield(engine.Event{Text: text, Tokens: []int32{'x'}}, nil)
			}
		}
	}
	s, _ := newTest(t, eng, Config{WriteTimeout: 100 * time.Millisecond})
	c := dial(t, s)()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		chatPath, len(streamBody), streamBody)
	<-eng.ended
}

// The limit on reading a body must not cut the answer off.
func TestAnswerOutlivesReadTimeout(t *testing.T) {
	eng, gate := newHooked(), make(chan struct{})
	eng.Scripts["fake"] = gated(gate)
	s, _ := newTest(t, eng, Config{ReadTimeout: 50 * time.Millisecond})
	c := dial(t, s)()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		chatPath, len(streamBody), streamBody)
	readUntil(t, c, "Hel")
	select {
	case err := <-eng.ended:
		t.Fatal("cut off:", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(gate)
	readUntil(t, c, "[DONE]")
}

func TestForwardedHeadersHaveNoEffect(t *testing.T) {
	eng := fake.New()
	s, _ := newTest(t, eng, Config{Keys: []string{"k1", "k2"}})
	tenants := map[string]string{}
	for _, key := range []string{"k1", "k2"} {
		for _, header := range []string{"X-Forwarded-For: 1.2.3.4", "X-Real-Ip: 5.6.7.8", "Forwarded: for=9.9.9.9",
			"True-Client-Ip: 1.1.1.1", "X-Tenant: other"} {
			if w := do(s.Handler(), "POST", chatPath, chatBody, "Authorization: Bearer "+key, header); w.Code != 200 {
				t.Fatal(w.Code, w.Body)
			}
			tenant := eng.Last().Tenant
			if before, ok := tenants[key]; ok && before != tenant || tenant == "" {
				t.Errorf("%s with %s: tenant %q, before %q", key, header, tenant, before)
			}
			tenants[key] = tenant
		}
	}
	if tenants["k1"] == tenants["k2"] {
		t.Error("two keys are one tenant")
	}
}

func TestErrorsTellNothingOfUs(t *testing.T) {
	secrets := []string{"/srv/models/weights", "10.9.8.7:5432", "0xc000", "goroutine", ".go:"}
	cause := fmt.Errorf("open /srv/models/weights: dial 10.9.8.7:5432 0xc000123 goroutine 7 x.go:12")
	eng := newHooked()
	for name, script := range map[string]fake.Script{
		"plain":   fake.Fail(cause),
		"hidden":  fake.Fail(&engine.Error{Code: engine.Internal, Message: "step failed", Err: cause}),
		"late":    fake.Fail(cause, "Hel"),
		"panics":  func(*engine.Request) []fake.Step { panic(cause) },
		"invalid": fake.Fail(&engine.Error{Code: engine.Invalid, Message: "bad", Err: cause}),
	} {
		eng.ModelList = append(eng.ModelList, engine.Model{ID: name, MaxLen: 100})
		eng.Scripts[name] = script
	}
	s, logs := newTest(t, eng, Config{})
	for _, name := range []string{"plain", "hidden", "late", "panics", "invalid", "missing"} {
		for _, body := range []string{chatBody, streamBody} {
			func() {
				defer func() { // a panic after the first byte drops the connection
					if p := recover(); p != nil && p != http.ErrAbortHandler {
						panic(p)
					}
				}()
				w := do(s.Handler(), "POST", chatPath, strings.Replace(body, `"fake"`, `"`+name+`"`, 1))
				for _, secret := range secrets {
					if strings.Contains(w.Body.String(), secret) || strings.Contains(fmt.Sprint(w.Header()), secret) {
						t.Errorf("%s: %q in %s", name, secret, w.Body)
					}
				}
				if !strings.Contains(w.Body.String(), `"error"`) {
					t.Errorf("%s: no error in %s", name, w.Body)
				}
			}()
		}
	}
	if !strings.Contains(logs.String(), "/srv/models/weights") || !strings.Contains(logs.String(), "a request handler panicked") {
		t.Error("the log does not say what happened")
	}
	if w := do(s.Handler(), "POST", chatPath, chatBody); w.Code != 200 {
		t.Errorf("after all that: %d", w.Code)
	}
}

func TestSecurityHeaders(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	for _, path := range []string{"/", "/docs", "/ui/chat.js", "/v1/models", "/nothing", "/metrics"} {
		h := do(s.Handler(), "GET", path, "").Header()
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", path, h)
		}
		csp := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
}

func TestAssetsStayInTheirFolder(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	for _, path := range []string{"/ui/..", "/ui/.", "/ui/%2e%2e%2fui.go", "/ui/..%2fserver.go", "/ui/%2fetc%2fpasswd", "/ui/none.js"} {
		wantError(t, do(s.Handler(), "GET", path, ""), 404)
	}
}

func TestMethodNotAllowed(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	for _, c := range []struct{ method, path, allow string }{
		{"GET", chatPath, "POST"}, {"OPTIONS", chatPath, "POST"}, {"HEAD", "/tokenize", "POST"},
		{"POST", "/v1/models", "GET, HEAD"}, {"DELETE", "/v1/models/org%2Fname", "GET, HEAD"},
		{"PUT", "/ui/chat.js", "GET, HEAD"}, {"TRACE", "/health", "GET, HEAD"}, {"BREW", "/", "GET, HEAD"},
	} {
		w := do(s.Handler(), c.method, c.path, "")
		wantError(t, w, http.StatusMethodNotAllowed)
		if got := w.Header().Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
}
