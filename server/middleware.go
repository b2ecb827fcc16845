package server

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"pagoda/engine"
)

// secure sets headers that keep browsers from guessing types, framing pages and sharing answers. Pages of ours replace
// the content security policy with their own.
func (s *Server) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// recoverer turns a panic into a 500 and a log entry. The client never sees what happened; other requests go on.
func (s *Server) recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(http.ErrAbortHandler) // net/http's own way to drop a connection
			}
			s.metrics.panics.Inc()
			s.log.Error().Str("request_id", requestInfo(r).ID).Str("panic", fmt.Sprint(p)).
				Bytes("stack", debug.Stack()).Msg("a request handler panicked")
			err := engine.Errorf(engine.Internal, "internal error")
			requestInfo(r).fail(err)
			if rw, ok := w.(*response); ok && rw.status != 0 {
				panic(http.ErrAbortHandler) // too late for a status: the client must see that the answer is cut
			}
			s.writeError(w, r, err)
		}()
		next.ServeHTTP(w, r)
	})
}
