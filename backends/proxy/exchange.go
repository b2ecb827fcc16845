package proxy

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
)

// maxHeadBytes bounds the head of an upstream's answer.
const maxHeadBytes = 1 << 20

// exchange is a request on its connection whose answer's head has been read. It reads the answer's body.
type exchange struct {
	r        *replica
	c        *conn
	line     *lifeline // c hangs on it
	unsent   bool      // not all of the request was written
	complete bool      // all of the request was written, all of the answer was read

	answerHead
	retryAfter string    // the header of an answer whose status is not 200
	body       io.Reader // nil: the next length bytes of the connection
}

// answerHead is what counts of the head of an answer.
type answerHead struct {
	status int
	events bool  // it is a stream of server-sent events
	closes bool  // the connection ends with this answer
	length int64 // of the body that is not read yet; negative: its end is told otherwise
}

// readHead reads an answer's head, and what may come before: 100 Continue and the like.
func (x *exchange) readHead() error {
	in := x.c.in
	if _, err := in.Peek(1); err != nil {
		return noEOF(err)
	}
	begun, _ := in.Peek(in.Buffered()) // as much as there is
	head, size := quickHead(begun)
	if size == 0 {
		return x.readUnusual()
	}
	_, _ = in.Discard(size) // it is in the buffer
	x.answerHead = head
	if head.length < 0 {
		x.body = &chunkedBody{in: in, chunks: httputil.NewChunkedReader(in)}
	}
	return nil
}

// postRequest tells http.ReadResponse what an answer is to.
var postRequest = &http.Request{Method: http.MethodPost}

// readUnusual reads any answer's head.
func (x *exchange) readUnusual() error {
	x.c.limit.N = maxHeadBytes
	defer func() { x.c.limit.N = math.MaxInt64 }()
	for {
		resp, err := http.ReadResponse(x.c.in, postRequest)
		if err != nil {
			return err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			x.answerHead = answerHead{status: resp.StatusCode, events: isEvents(resp.Header.Get("Content-Type")), closes: resp.Close, length: -1}
			x.retryAfter, x.body = resp.Header.Get("Retry-After"), resp.Body
			return nil
		}
	}
}

func isEvents(contentType string) bool { return strings.HasPrefix(contentType, "text/event-stream") }

// quickHead reads a head of the kind that nearly all answers have: status 200 in HTTP/1.1, a body of a given length or in chunks,
// nothing else about the connection but whether it ends, and all of it there and well-formed. It returns how long the head is; 0 if b
// begins with anything else, which http.ReadResponse reads, or refuses. What it reads, http.ReadResponse reads alike.
func quickHead(b []byte) (h answerHead, size int) {
	first, rest, _ := bytes.Cut(b, crlf)
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 200 ")) || !isText(first) {
		return h, 0
	}
	const unknown = -2
	h = answerHead{status: http.StatusOK, length: unknown}
	for seenType := false; ; {
		line, after, ok := bytes.Cut(rest, crlf)
		if rest = after; !ok {
			return h, 0
		}
		if len(line) == 0 {
			if h.length == unknown {
				return h, 0
			}
			return h, len(b) - len(rest)
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !isToken(name) || !isText(value) {
			return h, 0
		}
		value = bytes.Trim(value, " \t")
		switch {
		case bytes.EqualFold(name, []byte("Content-Type")):
			if !seenType {
				seenType, h.events = true, isEvents(string(value))
			}
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.ParseUint(string(value), 10, 62)
			if h.length != unknown || err != nil {
				return h, 0
			}
			h.length = int64(n)
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			if h.length != unknown || !bytes.EqualFold(value, []byte("chunked")) {
				return h, 0
			}
			h.length = -1
		case bytes.EqualFold(name, []byte("Connection")):
			switch {
			case bytes.EqualFold(value, []byte("close")):
				h.closes = true
			case !bytes.EqualFold(value, []byte("keep-alive")):
				return h, 0
			}
		case bytes.EqualFold(name, []byte("Trailer")):
			return h, 0
		}
	}
}

var crlf = []byte("\r\n")

// isToken says that name is a header's name of letters, digits and hyphens, as those that are used.
func isToken(name []byte) bool {
	for _, c := range name {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(name) > 0
}

// isText says that value is visible ASCII, spaces and tabs.
func isText(value []byte) bool {
	for _, c := range value {
		if (c < ' ' || c > '~') && c != '\t' {
			return false
		}
	}
	return true
}

// chunkedBody is a body in chunks.
type chunkedBody struct {
	in     *bufio.Reader
	chunks io.Reader
	ended  bool
}

// Read implements io.Reader.
func (b *chunkedBody) Read(p []byte) (int, error) {
	n, err := b.chunks.Read(p)
	if err != io.EOF || b.ended {
		return n, err
	}
	b.ended = true
	if end, err := b.in.Peek(len(crlf)); err != nil {
		return n, noEOF(err)
	} else if bytes.Equal(end, crlf) {
		_, _ = b.in.Discard(len(crlf))
	} // else it has trailers, which nobody wants: they stay, so that the connection is not used again
	return n, io.EOF
}

// noEOF is err where there must be more.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read implements io.Reader.
func (x *exchange) Read(p []byte) (n int, err error) {
	switch {
	case x.body != nil:
		n, err = x.body.Read(p)
	case x.length > 0:
		n, err = x.c.in.Read(p[:min(int64(len(p)), x.length)])
		x.length -= int64(n)
		err = noEOF(err)
	}
	if x.body == nil && x.length == 0 && err == nil {
		err = io.EOF
	}
	if err == io.EOF {
		x.complete = !x.unsent
	}
	return n, err
}

// all reads the whole body, of most bytes at most. What it returns is valid until the exchange ends.
func (x *exchange) all(most int64) ([]byte, error) {
	if x.body == nil && x.length <= int64(x.c.in.Size()) { // no copy of what fits into the connection's buffer
		text, err := x.c.in.Peek(int(x.length))
		if err != nil {
			return nil, noEOF(err)
		}
		_, _ = x.c.in.Discard(len(text)) // it is in the buffer
		x.length, x.complete = 0, !x.unsent
		return text, nil
	}
	var text bytes.Buffer
	text.Grow(int(min(max(x.length, usualAnswer), maxPrepared)) + bytes.MinRead)
	_, err := text.ReadFrom(io.LimitReader(x, most))
	return text.Bytes(), err
}

const (
	usualAnswer = 4 << 10
	maxPrepared = 1 << 20 // of what an answer says of its length
)

// Close implements io.Closer: nobody waits for the rest.
func (x *exchange) Close() error { return x.c.Close() }

// end keeps the connection for another request if it can carry one, and closes it if not, which tells the upstream that nobody
// waits any more.
func (x *exchange) end() {
	if x.line.release() && x.complete && !x.closes && x.c.in.Buffered() == 0 {
		x.r.conns.put(x.c)
		return
	}
	x.c.Close()
}
