package proxy

import (
	"context"
	"io"
	"sync"
)

// lifeline is what a request at an upstream hangs on: the client's patience, the upstream's signs of life, the engine that is open.
// Whoever cuts it first says why, and closes the request's connection, which is how the upstream and the goroutine that has the request
// hear of it. It is safe for concurrent use.
type lifeline struct {
	mu    sync.Mutex // guards all below
	cause error      // nil: not cut
	conn  io.Closer  // to close when it is cut, nil: none yet, or no more
}

func (l *lifeline) cut(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	if l.cause = cause; l.conn != nil {
		l.conn.Close()
	}
}

// hold ties c to l. It fails, with c closed, if l is cut.
func (l *lifeline) hold(c io.Closer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		c.Close()
		return l.cause
	}
	l.conn = c
	return nil
}

// release unties what l holds. It returns false if l was cut before.
func (l *lifeline) release() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = nil
	return l.cause == nil
}

// why is the cause, nil if l is not cut.
func (l *lifeline) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// tie makes a context that ends with ctx, or when its lifeline is cut.
func tie(ctx context.Context) (*lifeline, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	return &lifeline{conn: canceler(cancel)}, ctx, cancel
}

// canceler closes by ending a context.
type canceler context.CancelFunc

// Close implements io.Closer.
func (c canceler) Close() error {
	c()
	return nil
}

// lifelines are those of an engine's requests. It is safe for concurrent use.
type lifelines struct {
	mu     sync.Mutex // guards all below
	at     map[*lifeline]*replica
	closed bool
}

// join takes l in, which is of a request at r, and cuts it if the engine is closed.
func (s *lifelines) join(l *lifeline, r *replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.cut(errClosed)
	}
	if s.at == nil {
		s.at = map[*lifeline]*replica{}
	}
	s.at[l] = r
}

func (s *lifelines) leave(l *lifeline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, l)
}

// cut ends all requests at r.
func (s *lifelines) cut(r *replica, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, at := range s.at {
		if at == r {
			l.cut(cause)
		}
	}
}

// close ends all requests, and those to come.
func (s *lifelines) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.at {
		l.cut(errClosed)
	}
}
