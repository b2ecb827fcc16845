package proxy

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// maxEventBytes bounds one event. Log-probabilities of a long prompt make lines of many megabytes; nothing honest makes
// this.
const maxEventBytes = 1 << 30

var errEventTooLarge = errors.New("an event is larger than 1 GiB")

// eventReader reads server-sent events: the values of "data:" fields, joined by newlines. Comments and all other fields
// are dropped. Lines may end in LF, CR LF or CR, be of any length, and come in pieces of any size. Source: WHATWG HTML
// standard, section 9.2.6.
type eventReader struct {
	r    io.Reader
	buf  []byte // read and not yet used: buf[at:]
	at   int
	cr   bool // the last line ended in CR: an LF that follows belongs to it
	data []byte
	err  error // of r, seen when buf runs out
}

func newEventReader(r io.Reader) *eventReader {
	return &eventReader{r: r, buf: make([]byte, 0, 4096)}
}

// next returns the data of the next event, valid until the call after. io.EOF is an end between two events,
// io.ErrUnexpectedEOF one within an event.
func (e *eventReader) next() ([]byte, error) {
	e.data = e.data[:0]
	hasData := false
	for {
		line, err := e.line()
		switch {
		case err == io.EOF && (hasData && string(e.data) == doneMark || string(line) == "data: "+doneMark):
			return []byte(doneMark), nil // nothing can be missing
		case err == io.EOF && (hasData || len(line) > 0):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case len(line) == 0 && hasData:
			return e.data, nil
		}
		value, ok := bytes.CutPrefix(line, []byte("data"))
		if !ok || len(value) > 0 && value[0] != ':' {
			continue
		}
		if len(value) > 0 {
			value = bytes.TrimPrefix(value[1:], []byte(" "))
		}
		if hasData {
			e.data = append(e.data, '\n')
		}
		hasData = true
		if len(e.data)+len(value) > maxEventBytes {
			return nil, errEventTooLarge
		}
		e.data = append(e.data, value...)
	}
}

// drainTime is how long the end of a body may take after its last event. net/http keeps a connection only if its answer was
// read to the end, which is normally there already.
const drainTime = 20 * time.Millisecond

// drain reads to the end of r if that comes soon.
func (e *eventReader) drain() {
	if e.err != nil {
		return
	}
	if c, ok := e.r.(io.Closer); ok {
		late := time.AfterFunc(drainTime, func() { c.Close() })
		defer late.Stop()
	}
	for e.err == nil && len(e.buf) < maxDrained {
		e.fill()
	}
}

// maxDrained bounds what is read after the last event.
const maxDrained = 64 << 10

// line returns the next line without its end, valid until the next call. At the end of r it returns what is left, with
// io.EOF.
func (e *eventReader) line() ([]byte, error) {
	searched := 0
	for {
		if e.cr && e.at < len(e.buf) {
			if e.cr = false; e.buf[e.at] == '\n' {
				e.at++
			}
		}
		rest := e.buf[e.at:]
		if i := lineEnd(rest[searched:]); i >= 0 {
			i += searched
			e.cr = rest[i] == '\r'
			e.at += i + 1
			return rest[:i], nil
		}
		searched = len(rest)
		if searched > maxEventBytes {
			return nil, errEventTooLarge
		}
		if e.err != nil {
			e.at = len(e.buf)
			return rest, e.err
		}
		e.fill()
	}
}

// lineEnd finds the first CR or LF, -1 if there is none.
func lineEnd(b []byte) int {
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return lf
}

// fill reads once.
func (e *eventReader) fill() {
	if e.at > 0 {
		e.buf = e.buf[:copy(e.buf, e.buf[e.at:])]
		e.at = 0
	}
	if len(e.buf) == cap(e.buf) {
		e.buf = append(e.buf, make([]byte, len(e.buf))...)[:len(e.buf)]
	}
	n, err := e.r.Read(e.buf[len(e.buf):cap(e.buf)])
	e.buf, e.err = e.buf[:len(e.buf)+n], err
}
