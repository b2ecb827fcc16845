package proxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"pagoda/rawconn"
)

// conn is a connection to an upstream that carries one request after another. The goroutine that has the request writes it and
// reads its answer; net/http's Transport hands both through two more goroutines, which costs as much as everything else that
// is done for a short request.
type conn struct {
	net.Conn
	sock  *rawconn.Conn    // Conn, or what lies below its TLS
	limit io.LimitedReader // of Conn; for heads
	in    *bufio.Reader    // of limit
	since time.Time        // when the last answer ended
	reuse bool             // it has carried a request before
	head  []byte           // of the last request
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
		if c == nil || time.Since(c.since) < idleTimeout && c.sock.Untouched() {
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
	c := &conn{sock: rawconn.New(nc)}
	c.Conn = c.sock
	if r.tls != nil {
		secure := tls.Client(c.sock, r.tls)
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := secure.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, &brokenError{err}
		}
		c.Conn = secure
	}
	c.limit.R = c.Conn
	c.limit.N = math.MaxInt64
	c.in = bufio.NewReaderSize(&c.limit, readBuffer)
	return c, nil
}

// send sends a POST over a kept connection, if there is one and fresh does not forbid it, and reads the answer's head. The
// connection hangs on l until the exchange ends.
func (r *replica) send(ctx context.Context, l *lifeline, fresh bool, path, id string, body []byte) (*exchange, error) {
	var c *conn
	if !fresh {
		c = r.conns.take()
	}
	if c == nil {
		dialing, cancel := context.WithCancel(ctx)
		defer cancel()
		err := l.hold(canceler(cancel))
		if err == nil {
			c, err = r.connect(dialing)
		}
		if err != nil {
			return nil, err
		}
	}
	x := &exchange{r: r, c: c, line: l}
	err := l.hold(c)
	if err == nil {
		if err = c.write(r, path, id, body); err != nil {
			x.unsent = true
		}
		// Also after a failed write: an upstream may refuse a request before it has read all of it, and close.
		readErr := x.readHead()
		if readErr == nil {
			return x, nil
		}
		err = cmp.Or(err, readErr)
	}
	x.end()
	if c.reuse && ctx.Err() == nil && l.why() == nil {
		return nil, &staleError{err}
	}
	return nil, &brokenError{err}
}

// write sends a POST.
func (c *conn) write(r *replica, path, id string, body []byte) error {
	c.head = r.appendHead(c.head[:0], path, id, len(body))
	if r.tls == nil {
		_, err := c.sock.WriteParts([3][]byte{c.head, body})
		return err
	}
	parts := net.Buffers{c.head, body}
	_, err := parts.WriteTo(c.Conn)
	return err
}

// appendHead appends the head of a POST.
func (r *replica) appendHead(b []byte, path, id string, length int) []byte {
	b = append(append(append(b, "POST "...), r.prefix...), path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), r.host...)
	b = append(b, "\r\nContent-Type: application/json\r\n"...)
	if r.key != "" {
		b = append(append(append(append(b, "Authorization: "...), scheme(r.key)...), r.key...), "\r\n"...)
	}
	b = append(append(append(b, "X-Request-Id: "...), id...), "\r\nContent-Length: "...)
	return append(strconv.AppendInt(b, int64(length), 10), "\r\n\r\n"...)
}
