package http1

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// pipes is a listener without a network, for tests in synctest's bubbles.
type pipes struct {
	feed
	writes atomic.Int64 // calls of Write by the server
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// client is the other end of a connection.
type client struct {
	net.Conn
	t    *testing.T
	in   *bufio.Reader
	from time.Time
}

func (p *pipes) dial(t *testing.T) *client {
	c, served := net.Pipe()
	p.put(countedConn{served, &p.writes})
	return &client{c, t, bufio.NewReader(c), time.Now()}
}

func (c *client) send(s string) *client {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("send %q: %v", s, err)
	}
	return c
}

// answer reads an answer and returns its status and body.
func (c *client) answer() string {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.Status + " " + string(b)
}

// closedAfter checks that the server closes without an answer, at a time since from between least and most.
func (c *client) closedAfter(least, most time.Duration) {
	c.t.Helper()
	b, err := io.ReadAll(c.in)
	if took := time.Since(c.from); len(b) > 0 || err != nil || !(least <= took && took <= most) {
		c.t.Errorf("%q, %v after %v, want it closed after %v to %v", b, err, took, least, most)
	}
}

// inBubble runs test with a server of pipes, which is closed at the end.
func inBubble(t *testing.T, s *Server, test func(*testing.T, *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{feed: feed{conns: make(chan net.Conn), closed: make(chan struct{})}}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		test(t, l)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}

func limited(h http.HandlerFunc) *Server {
	return &Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
}

func ok(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }

func TestTimeLimits(t *testing.T) {
	t.Run("nothing", func(t *testing.T) {
		inBubble(t, limited(ok), func(t *testing.T, l *pipes) {
			l.dial(t).closedAfter(10*time.Second, 10*time.Second)
		})
	})
	trickle := func(c *client, from time.Time, head string) {
		go io.Copy(io.Discard, c) // net/http may say 400
		for i := range len(head) {
			if _, err := c.Write([]byte{head[i]}); err != nil {
				break
			}
			time.Sleep(3 * time.Second)
		}
		if took := time.Since(from); took > 12*time.Second {
			t.Errorf("the server read for %v", took)
		}
	}
	t.Run("trickling head", func(t *testing.T) {
		inBubble(t, limited(ok), func(t *testing.T, l *pipes) { trickle(l.dial(t), time.Now(), get("/")) })
	})
	t.Run("trickling head of the second request", func(t *testing.T) {
		inBubble(t, limited(ok), func(t *testing.T, l *pipes) {
			c := l.dial(t).send(get("/"))
			c.answer()
			time.Sleep(30 * time.Second)
			trickle(c, time.Now(), get("/"))
		})
	})
	t.Run("trickling head that goes to net/http", func(t *testing.T) {
		inBubble(t, limited(ok), func(t *testing.T, l *pipes) {
			c := l.dial(t)
			time.Sleep(6 * time.Second)
			trickle(c, c.from, "propfind")
		})
	})
	t.Run("idle", func(t *testing.T) {
		inBubble(t, limited(ok), func(t *testing.T, l *pipes) {
			c := l.dial(t)
			for range 5 {
				time.Sleep(9 * time.Second)
				c.send(get("/")).answer()
			}
			c.from = time.Now()
			c.closedAfter(time.Minute, time.Minute+time.Minute/8)
		})
	})
	t.Run("long answer", func(t *testing.T) { // no limit of the connection's own is on
		slow := func(w http.ResponseWriter, r *http.Request) {
			for range 10 {
				time.Sleep(time.Minute)
				io.WriteString(w, "x")
				http.NewResponseController(w).Flush()
			}
		}
		inBubble(t, limited(slow), func(t *testing.T, l *pipes) {
			if got := l.dial(t).send(get("/")).answer(); got != "200 OK xxxxxxxxxx" {
				t.Error(got)
			}
		})
	})
}

// TestHandlersDeadlines: they hold at most an eighth longer than asked, and end with the request.
func TestHandlersDeadlines(t *testing.T) {
	type result struct {
		err  error
		took time.Duration
	}
	var got result
	server := limited(func(w http.ResponseWriter, r *http.Request) {
		rc, start := http.NewResponseController(w), time.Now()
		switch r.URL.Path {
		case "/read":
			rc.SetReadDeadline(start.Add(time.Second))
			_, err := io.ReadAll(r.Body)
			got = result{err, time.Since(start)}
		case "/write":
			rc.SetWriteDeadline(start.Add(time.Second))
			_, err := w.Write(make([]byte, 1<<20))
			got = result{err, time.Since(start)}
		case "/during": // the deadline comes while a read waits
			time.AfterFunc(time.Second, func() { rc.SetReadDeadline(time.Now()) })
			_, err := io.ReadAll(r.Body)
			got = result{err, time.Since(start)}
		case "/set":
			rc.SetReadDeadline(start.Add(time.Second))
			rc.SetWriteDeadline(start.Add(time.Second))
			io.Copy(w, r.Body)
		case "/none":
			io.Copy(w, r.Body)
		}
	})
	for _, path := range []string{"/read", "/write", "/during"} {
		t.Run(path, func(t *testing.T) {
			inBubble(t, server.fresh(), func(t *testing.T, l *pipes) {
				got = result{}
				c := l.dial(t).send(request("POST "+path+" HTTP/1.1", "Host: a", "Content-Length: 5") + "ab")
				if path == "/write" { // else the answer would wait for the body
					c.send("cde")
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if !errors.Is(got.err, os.ErrDeadlineExceeded) || !(time.Second <= got.took && got.took <= 1125*time.Millisecond) {
					t.Errorf("%v after %v", got.err, got.took)
				}
				c.Close()
			})
		})
	}
	t.Run("gone with the request", func(t *testing.T) {
		inBubble(t, server.fresh(), func(t *testing.T, l *pipes) {
			c := l.dial(t).send(post("/set", "abc"))
			c.answer()
			time.Sleep(5 * time.Second)
			c.send(request("POST /none HTTP/1.1", "Host: a", "Content-Length: 5"))
			time.Sleep(5 * time.Second)
			if got := c.send("abcde").answer(); got != "200 OK abcde" {
				t.Error(got)
			}
		})
	})
}

// fresh is a server like s that has not served.
func (s *Server) fresh() *Server {
	return &Server{Handler: s.Handler, ReadHeaderTimeout: s.ReadHeaderTimeout, IdleTimeout: s.IdleTimeout, ErrorLog: s.ErrorLog}
}

func TestClientGoesAway(t *testing.T) {
	var took time.Duration // by the last request
	server := limited(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		if r.URL.Path == "/short" {
			return
		}
		io.ReadAll(r.Body)
		if r.URL.Path == "/stream" {
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
		took = time.Since(start)
	})
	for name, input := range map[string]string{
		"without a body":    get("/"),
		"after the body":    post("/", "abc"),
		"before its end":    request("POST / HTTP/1.1", "Host: a", "Content-Length: 5") + "ab",
		"in a stream":       post("/stream", "abc"),
		"second request":    get("/short") + get("/"),
		"behind a next one": get("/") + "GET",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, server.fresh(), func(t *testing.T, l *pipes) {
				took = 0
				c := l.dial(t)
				go io.Copy(io.Discard, c)
				c.send(input)
				time.Sleep(time.Second)
				c.Close()
				synctest.Wait()
				if took != time.Second {
					t.Errorf("the context ended after %v", took)
				}
			})
		})
	}
}

// TestNextRequestDuringOne: bytes that come while a request runs are no client that goes away.
func TestNextRequestDuringOne(t *testing.T) {
	server := limited(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		b, _ := io.ReadAll(r.Body)
		if r.Context().Err() != nil {
			t.Error("the context ended")
		}
		w.Write(b)
	})
	inBubble(t, server, func(t *testing.T, l *pipes) {
		c := l.dial(t).send(post("/", "one"))
		for _, body := range []string{"two", "three", strings.Repeat("four", 5000)} {
			time.Sleep(500 * time.Millisecond)
			go io.WriteString(c, post("/", body))
			c.answer()
		}
		if got := c.answer(); got != "200 OK "+strings.Repeat("four", 5000) {
			t.Errorf("%.50s", got)
		}
	})
}

func TestContextEndsWithTheHandler(t *testing.T) {
	var last context.Context
	server := limited(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Err() != nil {
			t.Error("the context has ended")
		}
		if r.Context().Value(http.ServerContextKey).(*http.Server).Handler == nil || r.Context().Value(http.LocalAddrContextKey).(net.Addr) == nil {
			t.Error("the context lacks a value")
		}
		last = r.Context()
	})
	inBubble(t, server, func(t *testing.T, l *pipes) {
		c := l.dial(t)
		for range 2 {
			c.send(get("/")).answer()
			if synctest.Wait(); last.Err() != context.Canceled {
				t.Error(last.Err())
			}
		}
	})
}

// TestWrites: a short answer and a piece of a stream are one write each.
func TestWrites(t *testing.T) {
	server := limited(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "one")
		if r.URL.Path == "/stream" {
			for range 3 {
				http.NewResponseController(w).Flush()
				io.WriteString(w, "one")
			}
		}
	})
	inBubble(t, server, func(t *testing.T, l *pipes) {
		c := l.dial(t)
		for path, want := range map[string]int64{"/": 1, "/stream": 4} {
			l.writes.Store(0)
			c.send(get(path)).answer()
			synctest.Wait()
			if got := l.writes.Load(); got != want {
				t.Errorf("%s takes %d writes, want %d", path, got, want)
			}
		}
	})
}

// TestShutdown: idle connections close at once, running requests get their answers, ours and net/http's.
func TestShutdown(t *testing.T) {
	server := limited(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(time.Second)
		}
		io.WriteString(w, "ok")
	})
	for name, patience := range map[string]time.Duration{"in time": time.Minute, "too late": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			server := server.fresh()
			inBubble(t, server, func(t *testing.T, l *pipes) {
				old := "Pragma: no-cache" // brings net/http in
				idle := []*client{l.dial(t).send(get("/")), l.dial(t).send(request("GET / HTTP/1.1", "Host: a", old))}
				for _, c := range idle {
					c.answer()
				}
				busy := []*client{l.dial(t).send(get("/slow")), l.dial(t).send(request("GET /slow HTTP/1.1", "Host: a", old))}
				synctest.Wait()
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				stopped := make(chan error, 1)
				go func() { stopped <- server.Shutdown(ctx) }()
				for _, c := range idle {
					c.from = time.Now()
					c.closedAfter(0, 0)
				}
				if patience < time.Second {
					if err := <-stopped; err != context.DeadlineExceeded || time.Since(start) != patience {
						t.Errorf("%v after %v", err, time.Since(start))
					}
					time.Sleep(time.Second) // the handlers end
					return
				}
				for _, c := range busy {
					resp, err := http.ReadResponse(c.in, nil)
					if err != nil || !resp.Close {
						t.Fatal(err, resp)
					}
					io.Copy(io.Discard, resp.Body)
					c.closedAfter(time.Second, time.Second)
				}
				if err := <-stopped; err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("before Serve", func(t *testing.T) {
		s := limited(ok)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.Serve(&pipes{feed: feed{closed: make(chan struct{})}}); err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}

type flakyListener struct {
	net.Listener
	errs chan error
}

func (l flakyListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	default:
		return l.Listener.Accept()
	}
}

type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := flakyListener{&pipes{feed: feed{closed: make(chan struct{})}}, make(chan error, 3)}
		l.errs <- passing{errors.New("too many files")}
		l.errs <- passing{errors.New("too many files")}
		l.errs <- errors.New("broken")
		var logs strings.Builder
		s := &Server{Handler: http.HandlerFunc(ok), ErrorLog: log.New(&logs, "", 0)}
		start := time.Now()
		err := s.Serve(l)
		if err == nil || err.Error() != "broken" || strings.Count(logs.String(), "too many files") != 2 || time.Since(start) != 15*time.Millisecond {
			t.Errorf("%v after %v, log %q", err, time.Since(start), &logs)
		}
		s.Close()
	})
}

// TestLogs: what net/http logs about handlers is logged here.
func TestLogs(t *testing.T) {
	var logs strings.Builder
	server := limited(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/twice":
			w.WriteHeader(200)
			w.WriteHeader(500)
		case "/panic":
			panic("of the test")
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/length":
			w.Header().Set("Content-Length", "many")
		case "/trailer":
			w.Header().Set("Trailer", "X")
		}
	})
	server.ErrorLog = log.New(&logs, "", 0)
	for path, want := range map[string]string{
		"/twice":   "http: superfluous response.WriteHeader call from server_test.go:",
		"/panic":   "http: panic serving pipe: of the test\ngoroutine ",
		"/abort":   "",
		"/length":  `http: invalid Content-Length of "many"`,
		"/trailer": `http1: the answer's header "Trailer" was left out`,
	} {
		logs.Reset()
		inBubble(t, server.fresh(), func(t *testing.T, l *pipes) {
			io.ReadAll(l.dial(t).send(request("GET "+path+" HTTP/1.1", "Host: a", "Connection: close")))
		})
		if got := logs.String(); !strings.HasPrefix(got, want) || (want == "") != (got == "") {
			t.Errorf("%s logs %q, want %q", path, got, want)
		}
	}
}

// TestAnswerBeforeALongBody: a client that is still sending gets its answer, and no reset.
func TestAnswerBeforeALongBody(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	for name, h := range map[string]http.HandlerFunc{
		"unread": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		},
		"limit": func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1000))
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		},
	} {
		s := &side{}
		server := &Server{Handler: h}
		t.Run(name, func(t *testing.T) {
			s.serve(t, server.Serve, server.Close)
			resp, err := (&http.Client{Transport: &http.Transport{}}).Post("http://"+s.addr, "x/y", strings.NewReader(strings.Repeat("x", 8<<20)))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
				t.Error(err, resp)
			}
		})
	}
	goleak.VerifyNone(t, ignore)
}

// TestTLS: such connections are net/http's.
func TestTLS(t *testing.T) {
	lent := httptest.NewUnstartedServer(nil)
	lent.StartTLS() // for its certificate
	defer lent.Close()
	s := &side{}
	server := &Server{Handler: s}
	s.serve(t, func(l net.Listener) error { return server.Serve(tls.NewListener(l, lent.TLS)) }, server.Close)
	resp, err := lent.Client().Get("https://" + s.addr + "/echo")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := s.seen[0].writer; got == "*http1.response" {
		t.Error("served here")
	}
}

// TestManyClients is for the race detector: kept connections of net/http's client, whose requests take shorter and longer
// than the watch for its going away.
func TestManyClients(t *testing.T) {
	s := &side{}
	server := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Context().Err() != nil {
			t.Error(err, r.Context().Err())
		}
		if len(b)%10 == 0 {
			time.Sleep(watchAfter + time.Duration(len(b)%100)*time.Microsecond)
		}
		w.Write(b)
	}), IdleTimeout: time.Minute}
	s.serve(t, server.Serve, server.Close)
	done := make(chan error)
	for i := range 8 {
		go func() {
			c := &http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for j := range 50 {
				body := strings.Repeat("x", i*1000+j)
				resp, err := c.Post("http://"+s.addr, "x/y", strings.NewReader(body))
				if err != nil {
					done <- err
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil && string(b) != body {
					err = errors.New("another body came back")
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
