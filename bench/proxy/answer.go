package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// answer reads a response of HTTP/1.1 as it arrives. What is not the mock's answer, whole and once, is an error.
type answer struct {
	due    time.Time // when the request should have left
	stream bool

	at     place
	left   int    // bytes of the body or chunk that are to come
	raw    []byte // arrived and not yet read
	body   []byte // read; of a stream, only its last, unfinished line
	chunks int
	done   bool // a stream said so
}

// place is where in a response the reader stands.
type place int

const (
	inHead place = iota
	inBody
	inChunkSize
	inChunk
	afterChunk
	afterChunks
	atEnd
)

// begin makes a ready for the answer to a new request.
func (a *answer) begin(due time.Time, stream bool) {
	*a = answer{due: due, stream: stream, raw: a.raw[:0], body: a.body[:0]}
}

// feed adds what arrived now, writes into r how long it was under way, and says whether the answer is complete.
func (a *answer) feed(data []byte, now time.Time, r *result) (complete bool, err error) {
	a.raw = append(a.raw, data...)
	rest := a.raw
	for more := true; more && err == nil; {
		rest, more, err = a.step(rest, now, r)
	}
	switch {
	case err != nil:
	case a.at != atEnd:
		a.raw = a.raw[:copy(a.raw, rest)]
		return false, nil
	case len(rest) > 0:
		err = fmt.Errorf("%d bytes too many", len(rest))
	default:
		err = a.check(now, r)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %.1000q", err, a.raw)
	}
	return true, nil
}

var (
	endOfLine = []byte("\r\n")
	endOfHead = []byte("\r\n\r\n")
)

// step reads one part from in and says whether there may be another one in the rest.
func (a *answer) step(in []byte, now time.Time, r *result) (rest []byte, more bool, err error) {
	switch a.at {
	case inHead:
		head, rest, ok := bytes.Cut(in, endOfHead)
		if !ok {
			return in, false, nil
		}
		return rest, true, a.readHead(head)
	case inChunkSize, afterChunk, afterChunks:
		line, rest, ok := bytes.Cut(in, endOfLine)
		if !ok {
			return in, false, nil
		}
		return rest, true, a.readLine(line)
	case inBody, inChunk:
		n := min(a.left, len(in))
		if a.left -= n; a.left == 0 && a.at == inChunk {
			a.at = afterChunk
		} else if a.left == 0 {
			a.at = atEnd
		}
		return in[n:], a.left == 0, a.readBody(in[:n], now, r)
	}
	return in, false, nil // at the end
}

func (a *answer) readHead(head []byte) error {
	status, lines, _ := bytes.Cut(head, endOfLine)
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return errors.New("not a 200 of HTTP/1.1")
	}
	for more := true; more; {
		var line []byte
		line, lines, more = bytes.Cut(lines, endOfLine)
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.ParseUint(string(value), 10, 31)
			if err != nil {
				return err
			}
			a.at, a.left = inBody, int(n)
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			if string(value) != "chunked" {
				return errors.New("a transfer encoding that is not chunked")
			}
			a.at = inChunkSize
		}
	}
	if a.at == inHead {
		return errors.New("neither a length nor chunks")
	}
	return nil
}

// readLine reads a line of the chunked transfer encoding.
func (a *answer) readLine(line []byte) error {
	if a.at == inChunkSize {
		n, err := strconv.ParseUint(string(line), 16, 31)
		a.at, a.left = inChunk, int(n)
		if n == 0 {
			a.at = afterChunks
		}
		return err
	}
	if len(line) > 0 {
		return errors.New("a chunk is not followed by an empty line")
	}
	if a.at == afterChunks {
		a.at = atEnd
	} else {
		a.at = inChunkSize
	}
	return nil
}

func (a *answer) readBody(piece []byte, now time.Time, r *result) error {
	a.body = append(a.body, piece...)
	if !a.stream {
		return nil
	}
	lines := a.body
	for {
		line, rest, ok := bytes.Cut(lines, []byte("\n"))
		if !ok {
			a.body = a.body[:copy(a.body, lines)]
			return nil
		}
		if err := a.readEvent(line, now, r); err != nil {
			return err
		}
		lines = rest
	}
}

// readEvent reads a line of a stream, which may hold a chunk: the time when the mock wrote it.
func (a *answer) readEvent(line []byte, now time.Time, r *result) error {
	if string(line) == "data: [DONE]" {
		a.done = true
		return nil
	}
	_, content, _ := bytes.Cut(line, []byte(`"content":"`))
	digits, _, ok := bytes.Cut(content, []byte(`"`))
	if !ok || len(digits) == 0 {
		return nil // it only says who speaks, or how the stream ended
	}
	sent, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return err
	}
	if a.chunks == 0 {
		r.latencies = append(r.latencies, now.Sub(a.due))
	}
	a.chunks++
	r.chunks = append(r.chunks, time.Duration(now.UnixNano()-sent))
	return nil
}

// check is for a complete answer.
func (a *answer) check(now time.Time, r *result) error {
	switch {
	case a.stream && !a.done:
		return errors.New("the stream is not done")
	case a.stream && a.chunks != streamSize:
		return fmt.Errorf("%d chunks", a.chunks)
	case a.stream:
		return nil
	case !bytes.Contains(a.body, plainText):
		return fmt.Errorf("not the mock's text: %.1000q", a.body)
	}
	r.latencies = append(r.latencies, now.Sub(a.due))
	return nil
}
