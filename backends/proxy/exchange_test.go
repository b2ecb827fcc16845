package proxy

import (
	"bufio"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// answers are what upstreams send, by whether the head is read the quick way.
var answers = map[string]bool{
	"HTTP/1.1 200 OK\r\ndate: Thu, 26 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}": true,
	"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n": true,
	"HTTP/1.1 200 OK\r\nContent-Length:0\r\nConnection: close\r\nContent-Type: a\r\nContent-Type: text/event-stream\r\n\r\nmore":                 true,
	"HTTP/1.1 200 \r\nContent-Length: 3 \t\r\nConnection: Keep-Alive\r\n\r\nab":                                                                  true,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\nTrailing: x\r\n\r\n":                                                  true,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n":                                                                     true,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n":                                                                true,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n":                                                                true,
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na":                                                                 false,
	"HTTP/1.1 503 Unavailable\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\na":                                                                   false,
	"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na":                                                                                              false,
	"HTTP/1.1 200 OK\nContent-Length: 1\n\na":                                                                                                    false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\nContent-Length: 2\r\n\r\nab":                                                                          false,
	"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na":                                                                                                 false,
	"HTTP/1.1 200 OK\r\n\r\nuntil the end":                                                                                                       false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na":                                                                         false,
	"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na":                                                                                             false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                                                        false,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n":                                                                       false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive, close\r\n\r\na":                                                             false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Folded: a\r\n b\r\n\r\na":                                                                         false,
	"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na":                                                                                             false,
	"HTTP/1.1 200 OK\r\nTrailer: Trailing\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                                                        false,
	"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 1\r\n\r\na":                                                                                   false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n":                                                                                                   false,
	"HTTP/1.1 200 OK\r\nno name\r\nContent-Length: 1\r\n\r\na":                                                                                   false,
	"": false,
}

// newExchange reads an answer from r.
func newExchange(r io.Reader) *exchange {
	c := &conn{}
	c.limit = io.LimitedReader{R: r, N: math.MaxInt64}
	c.in = bufio.NewReader(&c.limit)
	return &exchange{c: c}
}

// checkExchange compares the quick way of reading an answer with net/http's where it goes.
func checkExchange(t *testing.T, text string) (quick bool) {
	t.Helper()
	head, size := quickHead([]byte(text))
	if size == 0 {
		return false
	}
	in := bufio.NewReader(strings.NewReader(text))
	resp, err := http.ReadResponse(in, postRequest)
	if err != nil {
		t.Fatalf("%q: read, but %v", text, err)
	}
	if head.status != resp.StatusCode || head.closes != resp.Close || head.length != resp.ContentLength ||
		head.events != isEvents(resp.Header.Get("Content-Type")) || len(resp.Trailer) > 0 {
		t.Fatalf("%q: read as %+v, want %+v", text, head, resp)
	}
	want, wantErr := io.ReadAll(resp.Body)
	for _, read := range []struct {
		name string
		body func(x *exchange) ([]byte, error)
	}{
		{"all", func(x *exchange) ([]byte, error) { return x.all(math.MaxInt64) }},
		{"in pieces", func(x *exchange) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(x)) }},
	} {
		x := newExchange(strings.NewReader(text))
		if err := x.readHead(); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got, err := read.body(x)
		switch {
		case err != nil && wantErr == nil:
			t.Errorf("%q, %s: %v", text, read.name, err)
		case err == nil && string(got) != string(want):
			t.Errorf("%q, %s: %q, want %q", text, read.name, got, want)
		case err == nil && wantErr != nil && x.c.in.Buffered() == 0: // trailers are not looked at, and keep the connection from further use
			t.Errorf("%q, %s: read, but %v", text, read.name, wantErr)
		case err == nil && wantErr == nil && len(resp.Trailer) == 0 && x.c.in.Buffered() != in.Buffered():
			t.Errorf("%q, %s: %d bytes are left, want %d", text, read.name, x.c.in.Buffered(), in.Buffered())
		}
	}
	return true
}

func TestQuickHead(t *testing.T) {
	for text, want := range answers {
		if quick := checkExchange(t, text); quick != want {
			t.Errorf("%q: read the quick way: %v", text, quick)
		}
	}
}

// FuzzQuickHead: whatever the quick way reads, net/http reads alike.
func FuzzQuickHead(f *testing.F) {
	for text := range answers {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkExchange(t, text) })
}
