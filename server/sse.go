package server

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"pagoda/engine"
	"pagoda/jsonstring"
)

// keepAliveEvery is how long a stream may be silent: load balancers cut connections that are, commonly after 60 s.
const keepAliveEvery = 15 * time.Second

// sse writes server-sent events. Its header goes out with the first event, so that an error before has a status of
// its own; from then on a comment is sent whenever nothing else was for a while.
type sse struct {
	w   *response
	buf []byte // the events that send writes, reused; only the request's goroutine touches it

	mu     sync.Mutex  // guards writes to w, and what follows
	timer  *time.Timer // runs keepAlive; nil until the first event
	wrote  time.Time   // when anything was last
	closed bool        // the handler is returning: w must not be used any more
	err    error       // the first failed write
}

// started says whether the header is out.
func (s *sse) started() bool { return s.timer != nil }

// send writes buf, which may be empty, and flushes.
func (s *sse) send() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		h := s.w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // nginx would collect events
		s.w.WriteHeader(http.StatusOK)
		s.timer = time.AfterFunc(keepAliveEvery, s.keepAlive)
		s.write(s.buf)
		return s.err
	}
	if len(s.buf) > 0 {
		s.write(s.buf)
	}
	return s.err
}

func (s *sse) keepAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.err != nil {
		return
	}
	if silent := time.Since(s.wrote); silent < keepAliveEvery { // events do not set the timer, of which there are many
		s.timer.Reset(keepAliveEvery - silent)
		return
	}
	s.write([]byte(": keep-alive\n\n"))
	s.timer.Reset(keepAliveEvery)
}

// write is called with mu held.
func (s *sse) write(p []byte) {
	s.wrote = after(s.w.start)
	if s.err == nil {
		s.err = s.w.send(p, s.wrote)
	}
}

// close ends the keep-alive comments; nothing touches w after it.
func (s *sse) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// streamer turns the events of one request into the chunks of one dialect.
type streamer interface {
	// begin is called once, before the first event.
	begin(fingerprint string, created time.Time)
	// event appends the chunks of ev, if it makes any.
	event(dst []byte, ev *promptEvent) ([]byte, error)
	// end appends what comes after the last event; ok is false if a choice has not ended.
	end(dst []byte) (_ []byte, ok bool)
}

// stream answers with the events of reqs.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, reqs []*engine.Request, d streamer) {
	i := requestInfo(r)
	i.Stream = true
	out := &sse{w: &i.response}
	defer out.close()
	d.begin(s.fingerprint(), time.Now())
	err := s.generateAll(r, reqs, func(ev *promptEvent) (err error) {
		if out.buf, err = d.event(out.buf[:0], ev); err != nil {
			return err
		}
		if out.send() != nil {
			return errGone
		}
		return nil
	})
	switch {
	case err == errGone:
		return
	case err != nil:
		s.streamError(w, r, out, err)
		return
	}
	buf, ok := d.end(out.buf[:0])
	if !ok {
		s.streamError(w, r, out, endedEarly(r))
		return
	}
	out.buf = append(buf, "data: [DONE]\n\n"...)
	_ = out.send()
}

// streamError answers with err: with a status if nothing was sent yet, else as an event and without [DONE].
func (s *Server) streamError(w http.ResponseWriter, r *http.Request, out *sse, err error) {
	if !out.started() {
		s.writeError(w, r, err)
		return
	}
	e := engine.AsError(err)
	requestInfo(r).fail(e)
	out.buf = append(appendJSON(append(out.buf[:0], "data: "...), errorBody(e)), "\n\n"...)
	_ = out.send()
}

// chunks appends chunks that all begin alike. A stream's text goes through here token by token, so nothing is
// allocated but the growth of dst.
type chunks struct {
	head []byte // `data: {"id":...,"choices":[`
}

func newChunks(id, object, model, fingerprint string, created time.Time) chunks {
	return chunks{appendHead([]byte("data: "), id, object, model, fingerprint, created)}
}

// open begins a chunk with one choice; key names what follows: "delta" or "text".
func (c *chunks) open(dst []byte, index int, key string) []byte {
	dst = append(append(dst, c.head...), `{"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	return append(append(append(dst, `,"`...), key...), `":`...)
}

func quote(s string) []byte { return jsonstring.AppendQuote(nil, s) }

// appendJSON appends v, one of the types of package openapi, which always encode.
func appendJSON(dst []byte, v any) []byte {
	b := bytes.NewBuffer(dst)
	if err := json.MarshalWrite(b, v, jsonOptions); err != nil {
		panic("server: " + err.Error())
	}
	return b.Bytes()
}

func appendIDs(dst []byte, ids []int32) []byte {
	dst = append(dst, '[')
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(id), 10)
	}
	return append(dst, ']')
}
