package http1

import "bytes"

// span is a part of the bytes of a head.
type span struct{ from, to int }

func (s span) of(head string) string { return head[s.from:s.to] }

// head reads the head of a request line by line, as its bytes come. It takes what RFC 9112 has one reading of, and less:
// see parse.
type head struct {
	line    int // where the line begins that is not complete
	scanned int // up to where it has no line feed
	method  span
	target  span
	fields  []struct{ name, value span }
}

// verdict is what parse says.
type verdict int

const (
	incomplete verdict = iota
	complete
	foreign // nothing for this package
)

func (h *head) reset() { *h = head{fields: h.fields[:0]} }

// parse goes on with buf, which begins with the head and is what it was the last time and more. When the head is complete,
// h.line is its length. Lines end in CRLF. The first is METHOD TARGET HTTP/1.1 with single spaces, the target an
// origin-form of visible ASCII. Names are tokens of RFC 9110, values visible ASCII, spaces and tabs.
func (h *head) parse(buf []byte) verdict {
	if len(buf) > 0 && (buf[0] < 'A' || buf[0] > 'Z') {
		return foreign
	}
	for {
		n := bytes.IndexByte(buf[h.scanned:], '\n')
		if n < 0 {
			h.scanned = len(buf)
			return incomplete
		}
		from, to := h.line, h.scanned+n-1 // without CRLF
		if to < from || buf[to] != '\r' {
			return foreign
		}
		h.line = to + 2
		h.scanned = h.line
		switch {
		case from == 0:
			if !h.request(buf[:to]) {
				return foreign
			}
		case from == to:
			return complete
		case !h.field(buf, from, to):
			return foreign
		}
	}
}

func (h *head) request(line []byte) bool {
	first := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	if first < 0 || first == last || string(line[last+1:]) != "HTTP/1.1" {
		return false
	}
	switch string(line[:first]) {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		return false
	}
	target := line[first+1 : last]
	for _, c := range target {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	h.method, h.target = span{0, first}, span{first + 1, last}
	return len(target) > 0 && target[0] == '/'
}

func (h *head) field(buf []byte, from, to int) bool {
	colon := from
	for ; colon < to && tokens[buf[colon]]; colon++ {
	}
	if colon == from || colon == to || buf[colon] != ':' {
		return false
	}
	value := span{colon + 1, to}
	for value.from < value.to && blank(buf[value.from]) {
		value.from++
	}
	for value.from < value.to && blank(buf[value.to-1]) {
		value.to--
	}
	for _, c := range buf[value.from:value.to] {
		if c < ' ' && c != '\t' || c > '~' {
			return false
		}
	}
	h.fields = append(h.fields, struct{ name, value span }{span{from, colon}, value})
	return true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// tokens are the bytes of a token, RFC 9110 section 5.6.2.
var tokens = func() (set [256]bool) {
	for c := range set {
		set[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		set[c] = true
	}
	return set
}()

func isToken(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}
