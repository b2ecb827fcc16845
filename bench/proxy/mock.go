package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	model      = "mock"
	streamSize = 128 // chunks of a streamed answer
	chunkGap   = 2 * time.Millisecond
)

// mock is the least that an upstream can do: one thread writes prepared bytes, so that most of the machine is left for what is
// measured.
type mock struct {
	listener int
	poll     *poller
	peers    map[int32]*peer // by socket
	streams  []*peer         // in the order in which their next chunks are due
}

// peer is a connection to the mock.
type peer struct {
	fd   int
	in   []byte // of a request
	size int    // of the whole request, 0 if not yet known
	sent int    // chunks of the stream that it is sent
	next time.Time
}

func newMock(listener int) (*mock, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &mock{listener: listener, poll: poll, peers: map[int32]*peer{}},
		unix.EpollCtl(poll.fd, unix.EPOLL_CTL_ADD, listener, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(listener)})
}

// serve ends when the listener is shut down.
func (m *mock) serve() error {
	for {
		events, err := m.poll.wait(m.stream())
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Fd == int32(m.listener) {
				if err := m.accept(); err != nil {
					return err
				}
			} else if p := m.peers[e.Fd]; p != nil {
				m.end(p, m.read(p))
			}
		}
	}
}

func (m *mock) accept() error {
	fd, _, err := unix.Accept4(m.listener, unix.SOCK_CLOEXEC)
	if err == unix.EAGAIN || err == unix.ECONNABORTED {
		return nil
	}
	if err != nil {
		return err
	}
	m.peers[int32(fd)] = &peer{fd: fd}
	return m.poll.add(fd)
}

// end closes a connection after an error, which its normal end is, too.
func (m *mock) end(p *peer, err error) {
	if err != nil {
		delete(m.peers, int32(p.fd))
		unix.Close(p.fd)
	}
}

// stream writes the chunks that are due and returns how long it is until the next one.
func (m *mock) stream() time.Duration {
	for len(m.streams) > 0 {
		p := m.streams[0]
		if m.peers[int32(p.fd)] == p {
			if wait := time.Until(p.next); wait > 0 {
				return wait
			}
			m.end(p, m.chunk(p))
		}
		m.streams = m.streams[1:]
	}
	return time.Hour
}

// chunk writes one that says when, and after the last one what ends a stream.
func (m *mock) chunk(p *peer) error {
	now := time.Now()
	strconv.AppendInt(chunk[:chunkTime], now.UnixNano(), 10)
	if err := write(p.fd, chunk); err != nil {
		return err
	}
	if p.sent++; p.sent < streamSize {
		p.next = now.Add(chunkGap)
		m.streams = append(m.streams, p)
		return nil
	}
	for _, event := range lastEvents {
		if err := write(p.fd, event); err != nil {
			return err
		}
	}
	return nil
}

func (m *mock) read(p *peer) error {
	p.in = slices.Grow(p.in, 32<<10)
	n, err := read(p.fd, p.in[len(p.in):cap(p.in)])
	if err != nil {
		return err
	}
	p.in = p.in[:len(p.in)+n]
	if p.size == 0 {
		if p.size, err = requestSize(p.in); err != nil {
			return err
		}
	}
	if p.size == 0 || len(p.in) < p.size {
		return nil
	}
	request := p.in
	p.in, p.size = p.in[:0], 0
	return m.answer(p, request)
}

// requestSize is the size of a request of which in is the beginning, 0 as long as its head is not complete.
func requestSize(in []byte) (int, error) {
	head, _, ok := bytes.Cut(in, endOfHead)
	if !ok {
		return 0, nil
	}
	size := len(head) + len(endOfHead)
	for line := range bytes.SplitSeq(head, endOfLine) {
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("content-length")) {
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return size + n, err
		}
	}
	return size, nil
}

func (m *mock) answer(p *peer, request []byte) error {
	method, rest, _ := bytes.Cut(request, []byte(" "))
	path, _, _ := bytes.Cut(rest, []byte(" "))
	switch {
	case string(path) == "/v1/models":
		return write(p.fd, modelsAnswer)
	case string(method) == "GET": // is it healthy, has it metrics
		return write(p.fd, emptyAnswer)
	case !bytes.Contains(request, []byte(`"stream":true`)):
		return write(p.fd, plainAnswer)
	}
	if err := write(p.fd, streamHead); err != nil {
		return err
	}
	p.sent = 0
	return m.chunk(p)
}

// What the mock writes, all of it made beforehand.
var (
	plainText   = []byte(strings.Repeat("word ", 100))
	plainAnswer = response(`{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"mock","choices":[{"index":0,"message":` +
		`{"role":"assistant","content":"` + string(plainText) + `"},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":` +
		`{"prompt_tokens":10,"completion_tokens":100,"total_tokens":110}}`)
	modelsAnswer = response(`{"object":"list","data":[{"id":"mock","object":"model","owned_by":"vllm","max_model_len":1000000}]}`)
	emptyAnswer  = response("")

	streamHead = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk      = event(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[{"index":0,` +
		`"delta":{"content":"1700000000000000000"},"logprobs":null,"finish_reason":null}]}`)
	chunkTime  = bytes.Index(chunk, []byte("1700000000000000000")) // where its nanoseconds stand
	lastEvents = [][]byte{
		event(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[{"index":0,"delta":{},` +
			`"finish_reason":"stop"}]}`),
		event(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[],"usage":` +
			`{"prompt_tokens":10,"completion_tokens":128,"total_tokens":138}}`),
		append(event("[DONE]"), "0\r\n\r\n"...),
	}
)

func response(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// event is an event in a chunk of the transfer encoding.
func event(data string) []byte {
	return fmt.Appendf(nil, "%x\r\ndata: %s\n\n\r\n", len(data)+8, data)
}
