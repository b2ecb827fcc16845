package server

import (
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"pagoda/engine"
)

// limits bounds the size of a request's body and the time to read it. The deadline is per body and not
// http.Server.ReadTimeout, which would run on after the body and cancel long answers.
func (s *Server) limits(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // -1 is unknown
			i := requestInfo(r)
			i.body = timedBody{r.Body, &i.response.rc}
			if r.ContentLength < 0 || r.ContentLength > s.cfg.MaxBodyBytes {
				i.body.ReadCloser = http.MaxBytesReader(w, r.Body, s.cfg.MaxBodyBytes)
			}
			// An error means a writer without deadlines, as in tests.
			_ = i.body.rc.SetReadDeadline(after(i.start).Add(s.cfg.ReadTimeout))
			r.Body = &i.body
		}
		next.ServeHTTP(w, r)
	})
}

// timedBody lifts the read deadline at the end of the body, so that the connection's watch for the client's going
// away, which is a read too, has none.
type timedBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// jsonBody refuses bodies that are not plain JSON. A browser cannot send this content type to another site without
// asking first (CORS), which keeps foreign pages from posting here.
func (s *Server) jsonBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
			s.writeError(w, r, engine.Errorf(engine.UnsupportedMedia, "content encoding is not supported; send plain JSON"))
			return
		}
		if !isJSON(r.Header.Get("Content-Type")) {
			s.writeError(w, r, engine.Errorf(engine.UnsupportedMedia, "content type must be application/json in UTF-8"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	charset, given := params["charset"]
	return err == nil && media == "application/json" && (!given || strings.EqualFold(charset, "utf-8"))
}

// response counts what is written and gives each write its own time limit, so that a client that stops reading cannot
// hold a request for ever while a long stream may last as long as it needs.
type response struct {
	http.ResponseWriter
	rc      http.ResponseController
	timeout time.Duration
	start   time.Time // of the request
	armed   time.Time // when the write deadline was set
	status  int       // 0 until the header is written
	bytes   int64
}

// reset makes w, which is zero, a writer to next.
func (w *response) reset(next http.ResponseWriter, timeout time.Duration, start time.Time) {
	w.ResponseWriter, w.rc, w.timeout, w.start = next, *http.NewResponseController(next), timeout, start
}

// after is the time now, told from start with one look at the clock, where time.Now takes two.
func after(start time.Time) time.Time { return start.Add(time.Since(start)) }

// Unwrap lets http.ResponseController through.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// arm sets the deadline of the writes that follow. It is set an eighth later than it need be, so that the many writes of a
// stream do not set it each.
func (w *response) arm(now time.Time) {
	spare := w.timeout / 8
	if now.Sub(w.armed) < spare {
		return
	}
	w.armed = now
	_ = w.rc.SetWriteDeadline(now.Add(w.timeout + spare)) // an error means a writer without deadlines
}

// send writes p and flushes, now.
func (w *response) send(p []byte, now time.Time) error {
	w.arm(now)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	if err != nil {
		return err
	}
	return w.rc.Flush()
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx may come before
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.arm(after(w.start))
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// FlushError implements what http.ResponseController looks for.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.arm(after(w.start))
	return w.rc.Flush()
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }
