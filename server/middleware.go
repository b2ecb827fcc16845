package server

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"pagoda/engine"
)

// secureHeaders are shared by all answers: Set and Add of a header leave the old value as it is.
var secureHeaders = []struct {
	name  string // in its canonical form
	value []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"X-Frame-Options", []string{"DENY"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"Cross-Origin-Resource-Policy", []string{"same-origin"}},
	{"Content-Security-Policy", []string{"default-src 'none'; frame-ancestors 'none'"}},
	{"Cache-Control", []string{"no-store"}},
}

// secure sets headers that keep browsers from guessing types, framing pages and sharing answers. Pages of ours replace
// the content security policy with their own.
func (s *Server) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		for _, h := range secureHeaders {
			header[h.name] = h.value
		}
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
