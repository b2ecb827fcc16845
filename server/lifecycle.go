package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"pagoda/engine"
	"pagoda/server/http1"
)

const (
	drainRetryAfter = 5 * time.Second // by then a balancer has another server, or this one is back
	closeGrace      = time.Second     // for the last bytes and the error answers of requests cut off by the drain's end
)

var (
	errDrained   = errors.New("the drain's time ran out")
	errTimeLimit = errors.New("the request's time ran out")
)

// drainer counts the requests that generate and stops new ones. It is safe for concurrent use.
type drainer struct {
	mu       sync.Mutex // guards all below
	running  int
	draining bool
	idle     chan struct{} // closed when draining and nothing runs
}

func newDrainer() *drainer { return &drainer{idle: make(chan struct{})} }

// begin counts a generation in, unless draining. Every begin needs an end.
func (d *drainer) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return &engine.Error{Code: engine.Unavailable, RetryAfter: drainRetryAfter,
			Message: "the server is shutting down; try again shortly"}
	}
	d.running++
	return nil
}

func (d *drainer) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running--; d.draining && d.running == 0 {
		close(d.idle)
	}
}

// drain refuses new generations from now on. The channel is closed when none is running any more.
func (d *drainer) drain() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.draining {
		d.draining = true
		if d.running == 0 {
			close(d.idle)
		}
	}
	return d.idle
}

func (d *drainer) isDraining() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.draining
}

// Run serves on l until ctx ends, then drains: /ready answers 503 and new generations are refused at once, running ones
// have drainTimeout to finish, what is left is cut off, and the engine is closed. It returns nil after a drain, cut off
// or not, and an error if l fails or the engine does not close.
func (s *Server) Run(ctx context.Context, l net.Listener, drainTimeout time.Duration) error {
	// Requests outlive ctx: they end by themselves, or with cut.
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	srv := &http1.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          stdlog.New(warnings{s.log}, "", 0),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		s.work.drain()
		cut(errDrained)
		srv.Close()
		return errors.Join(fmt.Errorf("serve: %w", err), s.eng.Close(base))
	case <-ctx.Done():
	}

	started := time.Now()
	s.SetReady(false)
	idle := s.work.drain()
	s.log.Info().Dur("timeout_ms", drainTimeout).Msg("draining")
	limit, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer stop()
	select {
	case <-idle:
	case <-limit.Done():
		s.log.Warn().Msg("drain timeout: cutting off what still runs")
		cut(errDrained)
	}
	err := s.eng.Close(limit)

	// Finished handlers may still be writing; a stalled client must not hold the exit up.
	grace, stopGrace := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer stopGrace()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
	<-failed
	s.log.Info().Dur("took_ms", time.Since(started)).Msg("drained")
	if err != nil && limit.Err() == nil {
		return fmt.Errorf("close engine: %w", err)
	}
	return nil
}

// warnings writes lines of the HTTP server's to the log.
type warnings struct{ log zerolog.Logger }

// Write implements io.Writer.
func (w warnings) Write(line []byte) (int, error) {
	w.log.Warn().Str("from", "http").Msg(string(bytes.TrimSpace(line)))
	return len(line), nil
}

// health answers as long as the process lives.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	writeStatus(w, http.StatusOK, `{"status":"ok"}`)
}

func (s *Server) isReady() bool { return s.ready.Load() && !s.work.isDraining() }

// getReady answers 200 when the model answers and 503 before that and from the beginning of the drain.
func (s *Server) getReady(w http.ResponseWriter, _ *http.Request) {
	switch {
	case s.work.isDraining():
		writeStatus(w, http.StatusServiceUnavailable, `{"status":"draining"}`)
	case !s.ready.Load():
		writeStatus(w, http.StatusServiceUnavailable, `{"status":"loading"}`)
	default:
		writeStatus(w, http.StatusOK, `{"status":"ready"}`)
	}
}

func writeStatus(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintln(w, body) // an error means that the client is gone
}
