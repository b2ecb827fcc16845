package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// load is one kind of request.
type load struct {
	name   string
	stream bool
	bytes  int // of the prompt
}

var loads = []load{
	{"plain-1KB", false, 1 << 10}, {"plain-100KB", false, 100 << 10},
	{"stream-1KB", true, 1 << 10}, {"stream-100KB", true, 100 << 10},
}

// request is what is sent, from the first byte to the last.
func (l load) request(host string) []byte {
	body := fmt.Sprintf(`{"model":"%s","stream":%t,"messages":[{"role":"user","content":"%s"}]}`, model, l.stream,
		strings.Repeat("word ", l.bytes/5))
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		host, len(body), body)
}

// result is what requests took.
type result struct {
	latencies []time.Duration // from the schedule to the end of the answer; of a stream, to its first chunk
	chunks    []time.Duration // how long each chunk was under way
	late      []time.Duration // how long after the schedule each request left
}

// newResult has room for n requests.
func newResult(n int, stream bool) *result {
	r := &result{latencies: make([]time.Duration, 0, n), late: make([]time.Duration, 0, n)}
	if stream {
		r.chunks = make([]time.Duration, 0, n*streamSize)
	}
	return r
}

func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(float64(len(list))*p))]
}

// patience is for a server that answers nothing any more.
const patience = 30 * time.Second

// client sends a load to one address. It is one thread's, writes each request at once and reads what has arrived.
type client struct {
	to      netip.AddrPort
	load    load
	request []byte
	poll    *poller
	conns   map[int32]*conn // by socket
	free    []*conn         // those that wait for no answer; the last is the one that was used last
	busy    int             // how many wait
	in      [64 << 10]byte
}

// conn is a kept connection.
type conn struct {
	fd int
	answer
}

func newClient(to netip.AddrPort, l load) (*client, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &client{to: to, load: l, request: l.request(to.String()), poll: poll, conns: map[int32]*conn{}}, nil
}

func (c *client) close() {
	for _, conn := range c.conns {
		unix.Close(conn.fd)
	}
	unix.Close(c.poll.fd)
}

// connect takes a free connection, or makes one.
func (c *client) connect() (*conn, error) {
	if last := len(c.free) - 1; last >= 0 {
		got := c.free[last]
		c.free = c.free[:last]
		return got, nil
	}
	fd, err := dial(c.to)
	if err != nil {
		return nil, err
	}
	got := &conn{fd: fd}
	c.conns[int32(fd)] = got
	return got, c.poll.add(fd)
}

// send sends the request that was due at due.
func (c *client) send(due time.Time, r *result) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	conn.begin(due, c.load.stream)
	r.late = append(r.late, time.Since(due))
	c.busy++
	return write(conn.fd, c.request)
}

// receive waits for answers, not longer than d, and reads what there is.
func (c *client) receive(d time.Duration, r *result) error {
	begin := time.Now()
	events, err := c.poll.wait(min(d, patience))
	if err == nil && len(events) == 0 && time.Since(begin) >= patience {
		err = fmt.Errorf("%d requests without an answer for %v", c.busy, patience)
	}
	for _, e := range events {
		if err == nil {
			err = c.read(c.conns[e.Fd], r)
		}
	}
	return err
}

func (c *client) read(conn *conn, r *result) error {
	n, err := read(conn.fd, c.in[:])
	if err != nil {
		return fmt.Errorf("a connection ends: %w", err)
	}
	if conn.due.IsZero() {
		return errors.New("an answer to no request")
	}
	complete, err := conn.feed(c.in[:n], time.Now(), r)
	if complete {
		conn.due = time.Time{}
		c.busy--
		c.free = append(c.free, conn)
	}
	return err
}

// open sends requests on a schedule of rate per second for a time, whatever becomes of the ones before, and waits for all
// answers.
func (c *client) open(ctx context.Context, rate float64, during time.Duration) (*result, error) {
	n := max(1, int(rate*during.Seconds()))
	r := newResult(n, c.load.stream)
	begin := time.Now()
	for sent := 0; sent < n || c.busy > 0; {
		wait := patience
		if sent < n {
			due := begin.Add(time.Duration(float64(sent) / rate * float64(time.Second)))
			if wait = time.Until(due); wait <= 0 {
				if err := c.send(due, r); err != nil {
					return nil, err
				}
				sent++
			}
		}
		if err := errors.Join(ctx.Err(), c.receive(wait, r)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// saturate keeps that many requests under way for a time, or longer until there are answers. It returns how many came each
// second of its second half, and the median of how long they took or, in streams, of how long their chunks did.
func (c *client) saturate(ctx context.Context, requests int, during time.Duration) (perSecond float64, took time.Duration, err error) {
	r := newResult(0, c.load.stream)
	times, each := &r.latencies, 1.0
	if c.load.stream {
		times, each = &r.chunks, streamSize
	}
	begin := time.Now()
	var half time.Time
	var before int
	for now := begin; perSecond == 0 || c.busy > 0; now = time.Now() {
		switch {
		case perSecond > 0: // the rest is waited for
		case half.IsZero() && now.Sub(begin) >= during/2:
			half, before = now, len(*times)
		case !half.IsZero() && now.Sub(half) >= during/2 && len(*times) > before:
			perSecond = float64(len(*times)-before) / each / now.Sub(half).Seconds()
			took = percentile((*times)[before:], 0.5)
		}
		for perSecond == 0 && c.busy < requests {
			if err := c.send(now, r); err != nil {
				return 0, 0, err
			}
		}
		if c.busy > 0 {
			if err := errors.Join(ctx.Err(), c.receive(patience, r)); err != nil {
				return 0, 0, err
			}
		}
	}
	return perSecond, took, nil
}
