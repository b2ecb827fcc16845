package proxy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// newTestReplica is a replica of srv, trusted if it has a certificate.
func newTestReplica(t *testing.T, srv *httptest.Server) *replica {
	t.Helper()
	r, err := newReplica(srv.URL+"/below/v1/", "key", &Dialect{}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if r.tls != nil {
		r.tls.RootCAs = x509.NewCertPool()
		r.tls.RootCAs.AddCert(srv.Certificate())
	}
	t.Cleanup(r.conns.close)
	return r
}

// exchangeOf sends a request and reads the whole answer.
func exchangeOf(t *testing.T, r *replica, body string) (status int, answer string, x *exchange) {
	t.Helper()
	x, err := r.send(t.Context(), &lifeline{}, false, "/v1/x", "id-1", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(x)
	if err != nil {
		t.Fatal(err)
	}
	x.end()
	return x.status, string(text), x
}

// TestExchange: requests come as net/http's servers expect them, and a connection is used again if it can be.
func TestExchange(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusEarlyHints)
		switch {
		case strings.HasPrefix(string(body), "close"):
			w.Header().Set("Connection", "close")
		case strings.HasPrefix(string(body), "chunked"):
			_ = http.NewResponseController(w).Flush() // the answer's length is not known then
		}
		fmt.Fprint(w, r.Method, " ", r.URL.Path, " ", r.Host, " ", r.Header.Get("Authorization"), " ", r.Header.Get("X-Request-Id"), " ",
			r.Header.Get("Content-Type"), " ", len(body))
	})
	large := "large" + strings.Repeat("x", 4<<20)
	for name, make := range map[string]func(http.Handler) *httptest.Server{"plain": httptest.NewServer, "TLS": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			srv := make(echo)
			defer srv.Close()
			r := newTestReplica(t, srv)
			var last *conn
			for _, c := range []struct {
				body  string
				reuse bool // of the connection before
			}{{"", false}, {"a", true}, {"chunked", true}, {large, true}, {"close", true}, {"after", false}} {
				status, got, x := exchangeOf(t, r, c.body)
				want := fmt.Sprintf("POST /below/v1/x %s Bearer key id-1 application/json %d", strings.SplitAfter(srv.URL, "//")[1], len(c.body))
				if status != http.StatusOK || got != want {
					t.Errorf("%d %q, want %q", status, got, want)
				}
				if reused := x.c == last; reused != c.reuse {
					t.Errorf("%.10s: the connection was used again: %v", c.body, reused)
				}
				last = x.c
			}
		})
	}
}

// TestExchangeRefusedEarly: an answer that comes before the upstream has read the request, which it then closes the connection
// on, is heard.
func TestExchangeRefusedEarly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.ReadFull(nc, make([]byte, 100))
		_, _ = io.WriteString(nc, "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
		nc.Close()
	}()
	r, err := newReplica("http://"+l.Addr().String(), "", &Dialect{}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer r.conns.close()
	status, text, x := exchangeOf(t, r, strings.Repeat("x", 64<<20))
	if status != http.StatusRequestEntityTooLarge || text != "large" {
		t.Errorf("%d %q", status, text)
	}
	if r.conns.pop() != nil || !x.unsent {
		t.Error("a connection that closed within a request was kept")
	}
}

// TestExchangeStale: a kept connection that the upstream closes is not used; one that breaks within the request is told apart
// from one that was new.
func TestExchangeStale(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := newReplica("http://"+l.Addr().String(), "", &Dialect{}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer r.conns.close()
	accept := func() *conn {
		c, err := r.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	kept := accept()
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r.conns.put(kept)
	if c := r.conns.take(); c != kept {
		t.Fatalf("took %v", c)
	}
	r.conns.put(kept)
	if _, err := io.WriteString(theirs, "HTTP/1.1 408 Request Timeout\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	for kept.sock.Untouched() { // until it has come
	}
	if c := r.conns.take(); c != nil {
		t.Fatal("took a closed connection")
	}

	for _, reuse := range []bool{true, false} {
		c := accept()
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		r.conns.put(c)
		c.reuse = reuse
		go func() {
			_, _ = io.ReadFull(theirs, make([]byte, 10))
			theirs.Close()
		}()
		_, err = r.send(t.Context(), &lifeline{}, false, "/", "id", []byte("{}"))
		_, stale := errors.AsType[*staleError](err)
		_, broken := errors.AsType[*brokenError](err)
		if stale != reuse || broken == reuse {
			t.Errorf("%T: %v", err, err)
		}
	}
}

// TestPassword: a key that begins with Basic is sent as it is, in both ways in which requests go.
func TestPassword(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		fmt.Fprint(w, user, " ", password)
	}))
	defer srv.Close()
	r, err := newReplica(srv.URL, "Basic dTpwIHc=", &Dialect{}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if head := string(r.appendHead(nil, "/x", "id", 0)); !strings.Contains(head, "\r\nAuthorization: Basic dTpwIHc=\r\n") {
		t.Errorf("head %q", head)
	}
	resp, err := r.do(t.Context(), http.MethodGet, "/x", r.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "u p w" {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := newReplica(srv.URL, "Basic a b", &Dialect{}, time.Second); err == nil {
		t.Error("a key with a space is taken")
	}
}
