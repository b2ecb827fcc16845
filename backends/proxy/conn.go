package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// maxHeadBytes bounds the head of an upstream's answer.
const maxHeadBytes = 1 << 20

// conn is a connection to an upstream that carries one request after another. The goroutine that has the request writes it and
// reads its answer; net/http's Transport hands both through two more goroutines, which costs as much as everything else that
// is done for a short request.
type conn struct {
	net.Conn
	raw   syscall.RawConn
	limit io.LimitedReader // of Conn; for heads
	in    *bufio.Reader    // of limit
	since time.Time        // when the last answer ended
	reuse bool             // it has carried a request before
	first [1]byte          // for usable
}

// usable says that the upstream has neither closed c nor sent what nobody asked for.
func (c *conn) usable() bool {
	if c.raw == nil {
		return true
	}
	waits := false
	err := c.raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), c.first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		waits = err == syscall.EAGAIN
		return true
	})
	return err == nil && waits
}

// conns are a replica's connections that nobody uses. It is safe for concurrent use.
type conns struct {
	mu     sync.Mutex // guards all below
	idle   []*conn    // the last used at the end
	closed bool
}

// take returns the connection that was used last, nil if there is none.
func (p *conns) take() *conn {
	for {
		c := p.pop()
		if c == nil || time.Since(c.since) < idleTimeout && c.usable() {
			return c
		}
		c.Close()
	}
}

func (p *conns) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	c := p.idle[n]
	p.idle[n], p.idle = nil, p.idle[:n]
	return c
}

func (p *conns) put(c *conn) {
	c.since, c.reuse = time.Now(), true
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdleConns {
		c.Close()
		return
	}
	p.idle = append(p.idle, c)
}

// expire closes what nobody has used for long.
func (p *conns) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].since) >= idleTimeout {
		p.idle[n].Close()
		n++
	}
	p.idle = slices.Delete(p.idle, 0, n)
}

// close closes all; what is used is closed when that ends.
func (p *conns) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
}

// connect makes a connection to r.
func (r *replica) connect(ctx context.Context) (*conn, error) {
	nc, err := r.dial(ctx, "tcp", r.address)
	if err != nil {
		return nil, &notSentError{err}
	}
	c := &conn{Conn: nc}
	if s, ok := nc.(syscall.Conn); ok {
		if c.raw, err = s.SyscallConn(); err != nil {
			nc.Close()
			return nil, &notSentError{err}
		}
	}
	if r.tls != nil {
		secure := tls.Client(nc, r.tls)
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := secure.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, &brokenError{err}
		}
		c.Conn = secure
	}
	c.limit.R = c.Conn
	c.in = bufio.NewReaderSize(&c.limit, readBuffer)
	return c, nil
}

// exchange is a request on its connection whose answer's head has been read. It reads the answer's body.
type exchange struct {
	*http.Response
	r        *replica
	c        *conn
	stop     func() bool // the request's context closes c no more
	complete bool        // all of the request was written, all of the answer was read
	unsent   bool        // not all of the request was written
}

// send sends a POST over a kept connection, if there is one and fresh does not forbid it, and reads the answer's head. The end
// of ctx closes the connection.
func (r *replica) send(ctx context.Context, fresh bool, path, id string, body []byte) (*exchange, error) {
	var c *conn
	if !fresh {
		c = r.conns.take()
	}
	if c == nil {
		var err error
		if c, err = r.connect(ctx); err != nil {
			return nil, err
		}
	}
	x := &exchange{r: r, c: c, stop: context.AfterFunc(ctx, func() { c.Close() })}
	parts := net.Buffers{r.head(path, id, len(body)), body}
	_, failed := parts.WriteTo(c.Conn)
	x.unsent = failed != nil
	var err error
	// Also after a failed write: an upstream may refuse a request before it has read all of it, and close.
	if x.Response, err = c.answer(); err == nil {
		return x, nil
	}
	x.end()
	if failed != nil {
		err = failed
	}
	if c.reuse && ctx.Err() == nil {
		return nil, &staleError{err}
	}
	return nil, &brokenError{err}
}

// head is the head of a POST.
func (r *replica) head(path, id string, length int) []byte {
	b := make([]byte, 0, 512)
	b = append(append(append(b, "POST "...), r.prefix...), path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), r.host...)
	b = append(b, "\r\nContent-Type: application/json\r\n"...)
	if r.key != "" {
		b = append(append(append(b, "Authorization: Bearer "...), r.key...), "\r\n"...)
	}
	b = append(append(append(b, "X-Request-Id: "...), id...), "\r\nContent-Length: "...)
	return append(strconv.AppendInt(b, int64(length), 10), "\r\n\r\n"...)
}

// postRequest tells http.ReadResponse what an answer is to.
var postRequest = &http.Request{Method: http.MethodPost}

// answer reads an answer's head, and what may come before: 100 Continue and the like.
func (c *conn) answer() (*http.Response, error) {
	c.limit.N = maxHeadBytes
	defer func() { c.limit.N = math.MaxInt64 }()
	for {
		resp, err := http.ReadResponse(c.in, postRequest)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

// Read implements io.Reader.
func (x *exchange) Read(p []byte) (int, error) {
	n, err := x.Body.Read(p)
	if err == io.EOF {
		x.complete = !x.unsent
	}
	return n, err
}

// Close implements io.Closer: nobody waits for the rest.
func (x *exchange) Close() error { return x.c.Close() }

// end keeps the connection for another request if it can carry one, and closes it if not, which tells the upstream that nobody
// waits any more.
func (x *exchange) end() {
	if x.stop() && x.complete && !x.Response.Close && x.c.in.Buffered() == 0 {
		x.r.conns.put(x.c)
		return
	}
	x.c.Close()
}
