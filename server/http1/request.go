package http1

import (
	"context"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// maxDrain is how much of a body that a handler left is read to keep the connection, as in net/http.
const maxDrain = 256 << 10

// exchange is what a request needs, made at once. Handlers may keep any of it.
type exchange struct {
	req  *http.Request
	url  url.URL
	body body
	w    response
}

// blank is what all requests are copied from: a request's context can be set by copying only.
var blankRequest = &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody}

// request makes the request of the head that is complete in the buffer, and takes it from there. It returns false if net/http
// must read it.
func (c *conn) request() (x *exchange, ok bool) {
	text := string(c.buf[:c.head.line])
	header := make(http.Header, len(c.head.fields))
	values := make([]string, len(c.head.fields))
	var host string
	var length int64
	var closing bool
	for i, f := range c.head.fields {
		key, value := textproto.CanonicalMIMEHeaderKey(f.name.of(text)), f.value.of(text)
		known := header[key]
		switch key {
		case "Host":
			if host != "" || !plainHost(value) {
				return nil, false
			}
			host = value
			continue // it is no header of a request's
		case "Content-Length":
			length, ok = plainLength(value)
			if known != nil || !ok {
				return nil, false
			}
		case "Connection":
			closing = strings.EqualFold(value, "close")
			if known != nil || !closing && !strings.EqualFold(value, "keep-alive") {
				return nil, false
			}
		case "Transfer-Encoding", "Trailer", "Te", "Upgrade", "Expect", "Pragma": // net/http makes Cache-Control of the last
			return nil, false
		}
		if known == nil {
			values[i] = value
			header[key] = values[i : i+1 : i+1]
		} else {
			header[key] = append(known, value)
		}
	}
	target := c.head.target.of(text)
	if host == "" || !c.parseTarget(target) {
		return nil, false
	}

	ctx, cancel := context.WithCancel(c.ctx)
	x = &exchange{req: blankRequest.WithContext(ctx), url: *c.url}
	x.req.Method = c.head.method.of(text)
	x.req.URL = &x.url
	x.req.RequestURI = target
	x.req.Header = header
	x.req.Host = host
	x.req.RemoteAddr = c.remoteAddr
	x.req.ContentLength = length
	x.req.Close = closing
	x.body = body{c: c, left: length}
	if length > 0 {
		x.req.Body = &x.body
	}
	x.w = response{c: c, body: &x.body, cancel: cancel, isHead: x.req.Method == http.MethodHead, closing: closing, length: -1}
	c.r, c.posted, c.least = c.head.line, x.req.Method == http.MethodPost, 4
	return x, true
}

// parseTarget sets c.url. Most connections ask for one thing again and again.
func (c *conn) parseTarget(target string) bool {
	if c.url != nil && c.target == target {
		return true
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return false
	}
	c.target, c.url = strings.Clone(target), u
	return true
}

func plainHost(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_:[]", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func plainLength(s string) (int64, bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// body is the body of a request, of known length. Like net/http's it may be read and closed at the same time.
type body struct {
	c *conn

	mu     sync.Mutex // guards all below
	left   int64      // bytes that are not read
	closed bool       // by the handler, or since it has returned
	err    error      // the connection's
}

// Read implements io.Reader. io.EOF comes with the last bytes.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.left == 0:
		return 0, io.EOF
	case b.err != nil || len(p) == 0:
		return 0, b.err
	}
	n := b.read(p)
	if b.left == 0 {
		return n, io.EOF
	}
	return n, b.err
}

// read is called with mu held and something left. It sets err if the connection fails.
func (b *body) read(p []byte) int {
	n, err := b.c.readBody(p[:min(int64(len(p)), b.left)])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.err = err
	if b.left -= int64(n); b.left == 0 {
		b.c.watch()
	}
	return n
}

// skim reads what is left. It is called with mu held.
func (b *body) skim() {
	scratch := make([]byte, min(b.left, 32<<10))
	for b.left > 0 && b.err == nil {
		b.read(scratch)
	}
}

// Close implements io.Closer. It reads what is left, if it is not too much.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if b.left <= maxDrain {
		b.skim()
	}
	return b.err
}

// drain ends the body before the answer begins. It returns false if the connection cannot be used for another request.
func (b *body) drain() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.left == 0 || b.err == io.ErrUnexpectedEOF: // the handler met the end, and nothing follows
		return true
	case b.left >= maxDrain:
		return false
	}
	b.skim()
	b.closed = b.left == 0
	return b.closed
}

// end ends the body for a handler that may still hold it, and says whether all of it was read.
func (b *body) end() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.left == 0
}
