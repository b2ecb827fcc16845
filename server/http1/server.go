package http1

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"pagoda/rawconn"
)

// Server is an http.Server for connections that are not TLS. The fields have the meaning that they have there, and must not
// change once Serve was called.
type Server struct {
	Handler           http.Handler // never nil
	ReadHeaderTimeout time.Duration
	IdleTimeout       time.Duration
	MaxHeaderBytes    int
	BaseContext       func(net.Listener) context.Context
	ErrorLog          *log.Logger

	shutdown atomic.Bool
	clock    clock

	mu       sync.Mutex // guards all below
	listener net.Listener
	conns    map[*conn]struct{}
	empty    chan struct{} // closed when conns is, after Shutdown began
	inner    *http.Server
	fed      *feed // inner's listener
}

// Serve serves the connections of l until Shutdown or Close, when it returns http.ErrServerClosed, or until l fails. It may
// be called once.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	base := context.Background()
	if s.BaseContext != nil {
		base = s.BaseContext(l)
	}
	if !s.begin(l, base) {
		return http.ErrServerClosed
	}
	base = context.WithValue(base, http.ServerContextKey, s.inner)
	var delay time.Duration
	for {
		rwc, err := l.Accept()
		if s.shutdown.Load() {
			if err == nil {
				rwc.Close()
			}
			return http.ErrServerClosed
		}
		//lint:ignore SA1019 what it was made for: too many open files, which may pass
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Temporary() {
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.logf("http: Accept error: %v; retrying in %v", err, delay)
			time.Sleep(delay)
			continue
		}
		if err != nil {
			return err
		}
		delay = 0
		if _, ok := rwc.(interface{ ConnectionState() tls.ConnectionState }); ok {
			s.fed.put(rwc)
			continue
		}
		if c := newConn(s, rawconn.New(rwc), base); s.remember(c) {
			go c.serve()
		}
	}
}

func (s *Server) begin(l net.Listener, base context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutdown.Load() {
		return false
	}
	s.listener = l
	s.conns = map[*conn]struct{}{}
	s.empty = make(chan struct{})
	s.fed = &feed{addr: l.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	s.inner = &http.Server{
		Handler:           s.Handler,
		ReadHeaderTimeout: s.ReadHeaderTimeout,
		IdleTimeout:       s.IdleTimeout,
		MaxHeaderBytes:    s.MaxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          s.ErrorLog,
	}
	go s.inner.Serve(s.fed) // until Shutdown or Close
	return true
}

// Shutdown stops listening, closes idle connections and waits until the others have answered, or until ctx ends, whose error
// it then returns; Close ends what is left. A connection that has brought nothing yet counts as one that is about to.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.shutdown.Store(true)
	if s.listener == nil {
		s.mu.Unlock()
		return nil
	}
	err := s.listener.Close()
	for c := range s.conns {
		if c.state.CompareAndSwap(int32(stateIdle), int32(stateClosed)) {
			c.rwc.Close()
		}
	}
	s.checkEmpty()
	s.mu.Unlock()

	s.inner.SetKeepAlivesEnabled(false)
	select {
	case <-s.empty: // before inner stops, since these may go there
	case <-ctx.Done():
		return ctx.Err()
	}
	if innerErr := s.inner.Shutdown(ctx); innerErr != nil {
		return innerErr
	}
	return err
}

// Close ends all connections.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shutdown.Store(true)
	if s.listener == nil {
		return nil
	}
	err := s.listener.Close()
	for c := range s.conns {
		c.rwc.Close()
	}
	return errors.Join(err, s.inner.Close())
}

func (s *Server) remember(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutdown.Load() {
		c.cancel()
		c.rwc.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.checkEmpty()
}

// checkEmpty is called with mu held.
func (s *Server) checkEmpty() {
	if !s.shutdown.Load() || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

func (s *Server) maxHeaderBytes() int {
	if s.MaxHeaderBytes > 0 {
		return s.MaxHeaderBytes
	}
	return http.DefaultMaxHeaderBytes
}

func (s *Server) logf(format string, args ...any) {
	if s.ErrorLog != nil {
		s.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

// feed is the inner server's listener.
type feed struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (f *feed) put(c net.Conn) {
	select {
	case f.conns <- c:
	case <-f.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (f *feed) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Addr implements net.Listener.
func (f *feed) Addr() net.Addr { return f.addr }

// replayed is a connection whose first bytes were read already. One goroutine reads it at a time.
type replayed struct {
	*rawconn.Conn
	bytes []byte
	by    time.Time // when the head must be there that has begun; zero: as net/http says
}

// Read implements net.Conn.
func (c *replayed) Read(p []byte) (int, error) {
	if len(c.bytes) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.bytes)
	if c.bytes = c.bytes[n:]; len(c.bytes) == 0 {
		c.bytes = nil
	}
	return n, nil
}

// SetReadDeadline implements net.Conn. The first is for the head, whose time has been running since its first byte.
func (c *replayed) SetReadDeadline(t time.Time) error {
	if !c.by.IsZero() && t.After(c.by) {
		t = c.by
	}
	c.by = time.Time{}
	return c.Conn.SetReadDeadline(t)
}
