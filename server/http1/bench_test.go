package http1

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// canned is a connection on which n requests come, whose answers go nowhere.
type canned struct {
	net.Conn // has the addresses and deadlines
	request  []byte
	n        int
}

func (c *canned) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, io.EOF
	}
	c.n--
	return copy(p, c.request), nil
}

func (c *canned) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkRequest measures what a request takes besides the system calls and the handler.
func BenchmarkRequest(b *testing.B) {
	body := string(make([]byte, 1024))
	request := []byte(post("/v1/chat/completions", body, "Content-Type: application/json", "User-Agent: bench/1",
		"Accept: */*", "Accept-Encoding: gzip", "Authorization: Bearer sk-1"))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 2048)
		for {
			if _, err := r.Body.Read(buf); err != nil {
				break
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "req-1")
		w.Write(buf[:1000])
	})
	near, far := net.Pipe()
	defer far.Close()
	done := make(chan struct{})
	l := &pipes{feed: feed{conns: make(chan net.Conn, 1), closed: make(chan struct{})}}
	l.conns <- &closing{&canned{near, request, b.N}, sync.OnceFunc(func() { close(done) })}
	b.ReportAllocs()
	s := &Server{Handler: handler}
	go s.Serve(l)
	<-done
	s.Close()
}

// closing says when it is closed.
type closing struct {
	net.Conn
	done func()
}

func (c *closing) Close() error {
	c.done()
	return c.Conn.Close()
}
