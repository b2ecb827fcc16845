package http1

import (
	"context"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"pagoda/rawconn"
)

const (
	readBuffer = 4 << 10 // most heads, with their bodies of a few sentences, come with one read
	// watchAfter is how long a request runs before somebody watches for its client's going away.
	watchAfter = 100 * time.Millisecond
	// lingerTime is how long a connection that closes with input unread is read on, as in net/http: else the reset that
	// closing sends could overtake the answer.
	lingerTime = 500 * time.Millisecond
)

var longAgo = time.Unix(1, 0)

// connState says what Shutdown may do with a connection.
type connState int32

const (
	stateNew    connState = iota // no byte has come
	stateActive                  // a request is being read or answered
	stateIdle                    // between two requests
	stateClosed                  // Shutdown closed it while idle
)

// conn is a connection. Its goroutine runs serve; watcher runs beside it while a request takes long.
type conn struct {
	s          *Server
	rwc        *rawconn.Conn
	remoteAddr string
	accepted   time.Time
	state      atomic.Int32 // a connState
	ctx        context.Context
	cancel     context.CancelFunc // ends ctx and so the running request's

	head   head
	headBy time.Time // when the head must be there; zero as long as that is not said
	target string    // of the last request
	url    *url.URL  // what it parses to; nobody else has it
	posted bool      // the last request was a POST
	least  int       // bytes without which there is no request: 4 after the first, as in net/http
	out    output

	// The bytes read and not taken are buf[r:w]. While watcher reads, these are its own.
	buf  []byte
	r, w int

	mu        sync.Mutex // guards all below
	done      sync.Cond  // watcher has ended
	readBy    time.Time  // the connection's read deadline
	readWant  time.Time  // the one that the handler asked for
	writeBy   time.Time  // the connection's write deadline
	reading   bool       // a read of the body or the watcher's is under way
	watching  bool       // a request runs whose body has been read
	inWatch   bool       // watcher is reading
	aborted   bool       // watcher's read was made to fail
	watchTime *time.Timer
}

func newConn(s *Server, rwc *rawconn.Conn, base context.Context) *conn {
	c := &conn{s: s, rwc: rwc, accepted: time.Now(), buf: make([]byte, readBuffer)}
	c.done.L = &c.mu
	if addr := rwc.RemoteAddr(); addr != nil {
		c.remoteAddr = addr.String()
	}
	c.ctx, c.cancel = context.WithCancel(context.WithValue(base, http.LocalAddrContextKey, rwc.LocalAddr()))
	return c
}

// serve serves requests until the connection closes or goes to net/http.
func (c *conn) serve() {
	handedOver := false
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			c.s.logf("http: panic serving %v: %v\n%s", c.remoteAddr, p, debug.Stack())
		}
		c.cancel()
		c.unwatch()
		if !handedOver {
			c.rwc.Close()
		}
		c.s.forget(c)
	}()
	for {
		switch c.readHead() {
		case incomplete: // and never will be
			return
		case complete:
			if x, ok := c.request(); ok {
				if !c.answer(x) {
					return
				}
				continue
			}
		}
		handedOver = true
		c.handOver()
		return
	}
}

// answer runs the handler. It returns false if the connection closes.
func (c *conn) answer(x *exchange) (keep bool) {
	c.readWant = time.Time{}
	if x.body.left == 0 {
		c.watch()
	}
	c.s.Handler.ServeHTTP(&x.w, x.req)
	x.w.cancel()
	x.w.finish()
	c.unwatch()
	read := x.body.end()
	if x.w.err == nil && !read {
		c.linger()
	}
	return read && x.w.reusable() && !c.s.shutdown.Load()
}

// readHead waits for a request and reads its head, which is then at the beginning of the buffer. It returns incomplete when
// the connection is to be closed.
func (c *conn) readHead() verdict {
	c.head.reset()
	c.headBy = time.Time{}
	c.w = copy(c.buf, c.buf[c.r:c.w])
	c.r = 0
	if c.w == 0 && !c.await() {
		return incomplete
	}
	for {
		if c.w >= c.least {
			if v := c.head.parse(c.buf[:c.w]); v != incomplete {
				return v
			}
		}
		if c.headBy.IsZero() {
			c.limitHead(time.Now())
		}
		if c.w == len(c.buf) {
			if len(c.buf) >= c.s.maxHeaderBytes() {
				return foreign
			}
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
		n, err := c.rwc.Read(c.buf[c.w:])
		c.w += n
		if n == 0 && err != nil {
			if c.w < c.least {
				return incomplete
			}
			return foreign // net/http meets the same error and knows what to answer
		}
	}
}

// await waits for the first bytes of a request.
func (c *conn) await() bool {
	if len(c.buf) > readBuffer {
		c.buf, c.head = make([]byte, readBuffer), head{} // long heads are rare, idle connections many
	}
	if connState(c.state.Load()) == stateNew {
		c.limitHead(c.accepted)
	} else {
		c.state.Store(int32(stateIdle))
		if c.s.shutdown.Load() {
			return false
		}
		c.idle()
	}
	n, err := c.rwc.Read(c.buf)
	c.w = n
	closed := connState(c.state.Swap(int32(stateActive))) == stateClosed
	return err == nil && !closed
}

// limitHead sets when the head must be there that began at start.
func (c *conn) limitHead(start time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headBy = deadline(start, c.s.ReadHeaderTimeout)
	if !c.readBy.Equal(c.headBy) {
		c.readBy = c.headBy
		c.rwc.SetReadDeadline(c.headBy)
	}
}

func (c *conn) idle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	lax(&c.readBy, deadline(time.Now(), c.s.IdleTimeout), c.rwc.SetReadDeadline)
}

// handOver gives the connection to net/http, which reads again what was read.
func (c *conn) handOver() {
	for i := 0; i < 4 && c.posted && c.r < c.w && (c.buf[c.r] == '\r' || c.buf[c.r] == '\n'); i++ {
		c.r++ // old clients end bodies with a line end that is not of the body; net/http knows that of its own connections
	}
	c.mu.Lock()
	lax(&c.readBy, time.Time{}, c.rwc.SetReadDeadline)
	lax(&c.writeBy, time.Time{}, c.rwc.SetWriteDeadline)
	c.mu.Unlock()
	c.s.fed.put(&replayed{Conn: c.rwc, bytes: c.buf[c.r:c.w], by: c.headBy})
}

// deadline is a time limit's end; no limit has none.
func deadline(from time.Time, limit time.Duration) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	return from.Add(limit)
}

// readBody reads what follows the head.
func (c *conn) readBody(p []byte) (int, error) {
	if c.r < c.w {
		n := copy(p, c.buf[c.r:c.w])
		c.r += n
		return n, nil
	}
	c.mu.Lock()
	c.reading = true
	lax(&c.readBy, c.readWant, c.rwc.SetReadDeadline)
	c.mu.Unlock()
	n, err := c.rwc.Read(p)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	if err != nil {
		c.cancel()
	}
	return n, err
}

// lax makes want the deadline, or lets the present one be if it is later by not more than an eighth of the time that is left
// until want. Timers cost more than short requests do.
func lax(present *time.Time, want time.Time, set func(time.Time) error) error {
	if want.IsZero() {
		if present.IsZero() {
			return nil
		}
		*present = want
		return set(want)
	}
	spare := max(0, time.Until(want)/8)
	if late := present.Sub(want); 0 <= late && late <= spare {
		return nil
	}
	*present = want.Add(spare)
	return set(*present)
}

// wantReadBy is the handler's deadline. It is set when something is read.
func (c *conn) wantReadBy(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readWant = t
	if c.reading {
		c.readBy = t
		return c.rwc.SetReadDeadline(t)
	}
	return nil
}

func (c *conn) laxWriteBy(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return lax(&c.writeBy, t, c.rwc.SetWriteDeadline)
}

// watch begins to watch for the client's going away, after a while.
func (c *conn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watching = true
	if c.watchTime == nil {
		c.watchTime = time.AfterFunc(watchAfter, c.watcher)
	} else {
		c.watchTime.Reset(watchAfter)
	}
}

// watcher reads on while a request runs. Bytes that come are the next request's; they end the watch, as in net/http. An
// error ends the request.
func (c *conn) watcher() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watching || c.inWatch {
		return
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if c.w == len(c.buf) {
		return // a client that has sent so much ahead is still there
	}
	c.inWatch, c.reading = true, true
	if !c.readBy.IsZero() {
		c.readBy = time.Time{}
		c.rwc.SetReadDeadline(c.readBy)
	}
	c.mu.Unlock()
	n, err := c.rwc.Read(c.buf[c.w:])
	c.mu.Lock()
	c.w += n
	c.inWatch, c.reading = false, false
	if err != nil && !c.aborted {
		c.cancel()
	}
	c.done.Broadcast()
}

// unwatch ends the watch. The buffer is the caller's again.
func (c *conn) unwatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watching = false
	if c.watchTime != nil {
		c.watchTime.Stop()
	}
	if !c.inWatch {
		return
	}
	c.aborted = true
	c.readBy = longAgo
	c.rwc.SetReadDeadline(longAgo)
	for c.inWatch {
		c.done.Wait()
	}
	c.aborted = false
}

// linger ends the answer and reads on for a moment.
func (c *conn) linger() {
	c.rwc.CloseWrite()
	c.rwc.SetReadDeadline(time.Now().Add(lingerTime))
	for {
		if _, err := c.rwc.Read(c.buf); err != nil {
			return
		}
	}
}
