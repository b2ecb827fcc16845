package http1

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// bufferBefore is how much of an answer waits for the handler's end, which tells its length, as in net/http.
	bufferBefore = 2 << 10
	// chunkRoom is left free before the bytes that wait, for a chunk's size: 16 hexadecimal digits and CRLF.
	chunkRoom = 18
	sniffed   = 512 // bytes that http.DetectContentType looks at
)

var errReturned = errors.New("http1: the handler has returned")

// output is what a connection's writers send from.
type output struct {
	head []byte // a head that is not sent, without its last lines
	data []byte // chunkRoom and the bytes of the body that wait
}

// response is an http.ResponseWriter. Like net/http's it is for one goroutine at a time, except for the deadlines.
type response struct {
	c       *conn
	body    *body
	cancel  context.CancelFunc // the request's context
	isHead  bool
	closing bool // the connection closes after the answer

	header     http.Header // nil until the handler asks for it
	connection []string    // the handler's Connection header
	status     int         // 0 until WriteHeader
	bodyless   bool        // the status has no body
	typed      bool        // no Content-Type is to be guessed
	dated      bool        // the handler set Date
	length     int64       // Content-Length, -1 if there is none
	written    int64       // bytes of the body
	sent       bool        // the head is
	chunked    bool
	returned   bool  // the handler has
	err        error // of the first write that failed

	timed atomic.Bool // the handler has set a write deadline
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header, 16)
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter. Informational answers go out at once, all others with the first piece of the
// body, or at the handler's end.
func (w *response) WriteHeader(status int) {
	if w.status != 0 {
		file, line := caller()
		w.c.s.logf("http: superfluous response.WriteHeader call from %s:%d", file, line)
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	head := appendStatus(w.c.out.head[:0], status)
	if status < 200 && status != http.StatusSwitchingProtocols {
		for key, values := range w.header {
			if key != "Content-Length" && key != "Transfer-Encoding" {
				head = appendField(head, key, values)
			}
		}
		w.c.out.head = append(head, "\r\n"...)
		w.send(w.c.out.head)
		return
	}
	w.status = status
	w.bodyless = status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
	for key, values := range w.header {
		switch {
		case key == "Connection":
			w.connection = values
			continue
		case key == "Content-Length":
			w.declare(values)
			continue
		case key == "Transfer-Encoding" || key == "Trailer" || strings.HasPrefix(key, http.TrailerPrefix):
			w.c.s.logf("http1: the answer's header %q was left out", key)
			continue
		case key == "Content-Type":
			w.typed = true
			if status == http.StatusNotModified {
				continue
			}
		case key == "Content-Encoding":
			w.typed = w.typed || len(values) > 0 && values[0] != ""
		case key == "Date":
			w.dated = true
		}
		head = appendField(head, key, values)
	}
	w.c.out.head = head
}

// declare takes the handler's Content-Length.
func (w *response) declare(values []string) {
	if len(values) == 0 || values[0] == "" {
		return
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 {
		w.c.s.logf("http: invalid Content-Length of %q", values[0])
		return
	}
	w.length = n
}

// caller is who called this package.
func caller() (file string, line int) {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		if !strings.Contains(frame.Function, "/http1.(*response).") || !more {
			return path.Base(frame.File), frame.Line
		}
	}
}

func appendStatus(dst []byte, status int) []byte {
	dst = strconv.AppendInt(append(dst, "HTTP/1.1 "...), int64(status), 10)
	text := http.StatusText(status)
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	return append(append(append(dst, ' '), text...), "\r\n"...)
}

// appendField appends a header. Line ends in values become spaces, and names that are none are left out, as in net/http.
func appendField(dst []byte, key string, values []string) []byte {
	if !isToken(key) {
		return dst
	}
	for _, v := range values {
		dst = append(append(dst, key...), ": "...)
		start := len(dst)
		dst = append(dst, textproto.TrimString(v)...)
		for i, c := range dst[start:] {
			if c == '\r' || c == '\n' {
				dst[start+i] = ' '
			}
		}
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if err := w.admit(len(p)); err != nil || len(p) == 0 {
		return 0, err
	}
	if w.fits(len(p)) {
		w.c.out.data = append(w.c.out.data, p...)
		return len(p), nil
	}
	if err := w.flush(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (w *response) WriteString(s string) (int, error) {
	if err := w.admit(len(s)); err != nil || s == "" {
		return 0, err
	}
	if w.fits(len(s)) {
		w.c.out.data = append(w.c.out.data, s...)
		return len(s), nil
	}
	if err := w.flush([]byte(s), false); err != nil {
		return 0, err
	}
	return len(s), nil
}

// admit counts n bytes of the body.
func (w *response) admit(n int) error {
	if w.returned {
		return errReturned
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if n == 0 {
		return nil
	}
	if w.bodyless {
		return http.ErrBodyNotAllowed
	}
	w.written += int64(n)
	if w.length >= 0 && w.written > w.length {
		return http.ErrContentLength
	}
	return w.err
}

// fits says whether n more bytes may wait.
func (w *response) fits(n int) bool {
	if len(w.c.out.data) == 0 {
		w.c.out.data = append(w.c.out.data, make([]byte, chunkRoom)...)
	}
	return len(w.c.out.data)+n <= chunkRoom+bufferBefore
}

// waiting are the bytes of the body that wait.
func (w *response) waiting() []byte {
	return w.c.out.data[min(chunkRoom, len(w.c.out.data)):]
}

// FlushError implements what http.ResponseController looks for.
func (w *response) FlushError() error {
	if w.returned {
		return errReturned
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.flush(nil, false)
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// SetReadDeadline implements what http.ResponseController looks for.
func (w *response) SetReadDeadline(t time.Time) error { return w.c.wantReadBy(t) }

// SetWriteDeadline implements what http.ResponseController looks for.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.timed.Store(true)
	return w.c.laxWriteBy(t)
}

// finish sends what is left when the handler has returned.
func (w *response) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if n := len(w.waiting()); !w.sent && !w.bodyless && w.length < 0 && (!w.isHead || n > 0) && w.header["Content-Length"] == nil {
		w.length = int64(n)
	}
	_ = w.flush(nil, true)
	w.returned = true
}

// reusable says whether another request may follow, as far as the answer is concerned.
func (w *response) reusable() bool {
	short := !w.isHead && !w.bodyless && w.length >= 0 && w.written != w.length
	return !w.closing && !short && w.err == nil
}

// flush sends the head if it is not out, what waits, p, and with last the end of the body.
func (w *response) flush(p []byte, last bool) error {
	if w.err != nil {
		return w.err
	}
	out, first := &w.c.out, !w.sent
	if first {
		w.sent = true
		w.endHead(p)
	} else {
		out.head = out.head[:0]
	}
	waiting := w.waiting()
	if w.isHead || w.bodyless {
		waiting, p = nil, nil
	}
	var size, tail string
	if n := len(waiting) + len(p); w.chunked && n > 0 {
		size, tail = strconv.FormatInt(int64(n), 16)+"\r\n", "\r\n"
	}
	if w.chunked && last {
		tail += "0\r\n\r\n"
	}
	var buf []byte
	if first || len(waiting) == 0 {
		out.head = append(append(out.head, size...), waiting...)
		buf = out.head
	} else {
		buf = out.data[chunkRoom-len(size):]
		copy(buf, size)
	}
	if len(p) == 0 {
		buf = append(buf, tail...)
		w.send(buf)
	} else {
		w.sendParts(buf, p, tail)
	}
	out.data = out.data[:0]
	return w.err
}

// endHead ends the head; p is what the body begins with after what waits.
func (w *response) endHead(p []byte) {
	w.closing = w.closing || w.c.s.shutdown.Load() || len(w.connection) > 0 && w.connection[0] == "close"
	// A client that sends its whole request before it reads would never come to read a long answer.
	if !w.closing && !w.body.drain() {
		w.closing = true
	}
	head := w.c.out.head
	if !w.dated {
		head = append(append(append(head, "Date: "...), w.c.s.clock.date()...), "\r\n"...)
	}
	if !w.typed && !w.bodyless {
		if start := append(w.waiting(), p[:min(len(p), sniffed)]...); len(start) > 0 {
			head = append(append(append(head, "Content-Type: "...), http.DetectContentType(start)...), "\r\n"...)
		}
	}
	switch {
	case w.bodyless:
	case w.length >= 0:
		head = append(strconv.AppendInt(append(head, "Content-Length: "...), w.length, 10), "\r\n"...)
	case !w.isHead:
		w.chunked = true
		head = append(head, "Transfer-Encoding: chunked\r\n"...)
	}
	if w.closing {
		head = append(head, "Connection: close\r\n"...)
	} else {
		head = appendField(head, "Connection", w.connection)
	}
	w.c.out.head = append(head, "\r\n"...)
}

func (w *response) send(buf []byte) {
	if len(buf) == 0 || !w.ready() {
		return
	}
	_, err := w.c.rwc.Write(buf)
	w.fail(err)
}

// sendParts sends buf, p and tail, with one system call where there is one for that.
func (w *response) sendParts(buf, p []byte, tail string) {
	if !w.ready() {
		return
	}
	_, err := w.c.rwc.WriteParts([3][]byte{buf, p, []byte(tail)})
	w.fail(err)
}

// ready takes back the write deadline of an earlier request if this one's handler has set none.
func (w *response) ready() bool {
	if !w.timed.Load() {
		w.fail(w.c.laxWriteBy(time.Time{}))
	}
	return w.err == nil
}

func (w *response) fail(err error) {
	if err != nil && w.err == nil {
		w.err = err
		w.c.cancel()
	}
}

// clock makes the Date header once a second.
type clock struct{ last atomic.Pointer[stamp] }

type stamp struct {
	second int64
	text   string
}

func (c *clock) date() string {
	now := time.Now()
	s := c.last.Load()
	if s == nil || s.second != now.Unix() {
		s = &stamp{now.Unix(), now.UTC().Format(http.TimeFormat)}
		c.last.Store(s)
	}
	return s.text
}
