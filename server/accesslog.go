package server

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"

	"pagoda/engine"
)

// observe writes the access log, one line when a request ends, and the HTTP metrics. The line holds no prompt, no key
// and no body.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := requestInfo(r)
		rw := &i.response
		rw.reset(w, s.cfg.WriteTimeout, i.start)
		s.metrics.inFlight.Inc()
		defer func() { // also when a panic drops the connection
			now := after(i.start)
			s.metrics.inFlight.Dec()
			s.record(r, i, now.Sub(i.start))
			i.release(s.work)
			rw.arm(now) // what is buffered is flushed after the handler
		}()
		next.ServeHTTP(rw, r)
	})
}

func (s *Server) record(r *http.Request, i *info, took time.Duration) {
	w := &i.response
	route, status := routeLabel(i.route), w.status
	gone := r.Context().Err() != nil && !answered(i.generations())
	switch {
	case status == 0 && gone:
		status = statusClientClosed
	case status == 0:
		status = http.StatusOK // net/http sends it when the handler wrote nothing
	}
	s.metrics.request(route, methodLabel(r.Method), status, took)
	if i.err != nil {
		s.metrics.failed(i.err.Code)
	}
	if !s.cfg.AccessLog && !isOurFault(i.err) {
		return
	}
	ev := s.log.WithLevel(accessLevel(route, i.err))
	ev.Str("request_id", i.ID).Str("method", methodLabel(r.Method)).Str("route", route).Int("status", status).
		Dur("duration_ms", took).Int64("bytes", w.bytes)
	if i.Tenant != "" {
		ev.Str("tenant", i.Tenant)
	}
	if i.Stream {
		ev.Bool("stream", true)
	}
	logGenerations(ev, i.generations())
	if i.err != nil {
		logError(ev, i.err)
	}
	if gone {
		ev.Bool("canceled", true)
	}
	ev.Msg("request")
}

// answered says whether generations ended, and all of them well. A client that goes away after the last byte, perhaps
// before the server has closed its books, did not cancel.
func answered(gens []*generation) bool {
	for _, g := range gens {
		if g.usage == nil {
			return false
		}
	}
	return len(gens) > 0
}

// logError names the kind of an error. Its message may quote the client's input, so it is logged only where the fault is
// ours and the cause is needed.
func logError(ev *zerolog.Event, err *engine.Error) {
	ev.Str("error", codeName(err.Code))
	if err.Param != "" {
		ev.Str("param", clip(err.Param, 64))
	}
	if isOurFault(err) {
		ev.Str("message", clip(err.Message, 500))
		if err.Err != nil {
			ev.Str("cause", clip(err.Err.Error(), 2000))
		}
	}
}

func isOurFault(err *engine.Error) bool {
	return err != nil && (err.Code == engine.Internal || err.Code == engine.Upstream)
}

// accessLevel keeps what probes and scrapers ask for every few moments out of the normal log.
func accessLevel(route string, err *engine.Error) zerolog.Level {
	switch {
	case isOurFault(err):
		return zerolog.ErrorLevel
	case route == "/health" || route == "/ready" || route == "/metrics":
		return zerolog.DebugLevel
	}
	return zerolog.InfoLevel
}

// routeLabel is the route's pattern, of which there are few, never the path.
func routeLabel(c *chi.Context) string {
	if p := c.RoutePattern(); p != "" && p != "/*" {
		return p
	}
	return "none"
}

func methodLabel(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// codeName is the word for an error code in logs and metric labels.
func codeName(c engine.Code) string {
	names := [...]string{engine.Internal: "internal", engine.Invalid: "invalid", engine.Unauthorized: "unauthorized",
		engine.Forbidden: "forbidden", engine.NotFound: "not_found", engine.MethodNotAllowed: "method_not_allowed",
		engine.TooLarge: "too_large", engine.UnsupportedMedia: "unsupported_media", engine.TooLong: "too_long",
		engine.Busy: "busy", engine.Unavailable: "unavailable", engine.Timeout: "timeout", engine.Canceled: "canceled",
		engine.Upstream: "upstream"}
	if c < 0 || int(c) >= len(names) {
		return "internal"
	}
	return names[c]
}
