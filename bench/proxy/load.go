package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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

func (l load) body() []byte {
	return fmt.Appendf(nil, `{"model":"%s","stream":%t,"messages":[{"role":"user","content":"%s"}]}`, model, l.stream,
		strings.Repeat("word ", l.bytes/5))
}

// result is what a run of requests took.
type result struct {
	latencies []time.Duration // from the schedule to the end of the answer; of a stream, to its first chunk
	chunks    []time.Duration // how long each chunk was under way
	failed    int
	first     error // the first failure
}

func (r *result) add(other *result) {
	r.latencies = append(r.latencies, other.latencies...)
	r.chunks = append(r.chunks, other.chunks...)
	r.failed += other.failed
	if r.first == nil {
		r.first = other.first
	}
}

func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(float64(len(list))*p))]
}

// client sends a load to one address.
type client struct {
	url  string
	http *http.Client
	load load
	body []byte
}

func newClient(url string, l load) *client {
	return &client{url: url, load: l, body: l.body(), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4096,
		DisableCompression: true}}}
}

// ask sends one request that was due at due.
func (c *client) ask(ctx context.Context, due time.Time) *result {
	r := &result{}
	err := c.send(ctx, due, r)
	if err != nil {
		r.failed, r.first = 1, err
	}
	return r
}

func (c *client) send(ctx context.Context, due time.Time, r *result) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v1/chat/completions", bytes.NewReader(c.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // a cut-off message is better than none
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	if !c.load.stream {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		r.latencies = append(r.latencies, time.Since(due))
		return nil
	}
	return readChunks(resp.Body, due, r)
}

var contentMark = []byte(`"content":"`)

func readChunks(body io.Reader, due time.Time, r *result) error {
	in := bufio.NewReader(body)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, []byte("data: [DONE]")) {
			if len(r.chunks) != streamSize {
				return fmt.Errorf("%d chunks", len(r.chunks))
			}
			_, err := io.Copy(io.Discard, in)
			return err
		}
		_, rest, ok := bytes.Cut(line, contentMark)
		digits, _, end := bytes.Cut(rest, []byte(`"`))
		if !ok || !end || len(digits) == 0 {
			continue
		}
		sent, err := strconv.ParseInt(string(digits), 10, 64)
		if err != nil {
			return err
		}
		if len(r.chunks) == 0 {
			r.latencies = append(r.latencies, time.Since(due))
		}
		r.chunks = append(r.chunks, time.Duration(time.Now().UnixNano()-sent))
	}
}

// open sends requests on a schedule of rate per second for a time, and waits for all answers.
func (c *client) open(ctx context.Context, rate float64, during time.Duration) *result {
	total := &result{}
	var mu sync.Mutex // guards total
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range max(1, int(rate*during.Seconds())) {
		due := begin.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		time.Sleep(time.Until(due))
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			r := c.ask(ctx, due)
			mu.Lock()
			defer mu.Unlock()
			total.add(r)
		})
	}
	wg.Wait()
	return total
}

// saturate sends requests from that many clients, each after its last one's answer, and returns how many a second were answered.
func (c *client) saturate(ctx context.Context, clients int, during time.Duration) (perSecond float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	var done atomic.Int64
	var failure atomic.Pointer[error]
	var wg sync.WaitGroup
	begin := time.Now()
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				r := c.ask(ctx, time.Now())
				if r.failed > 0 && ctx.Err() == nil {
					failure.CompareAndSwap(nil, &r.first)
				}
				if r.failed == 0 {
					done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if f := failure.Load(); f != nil {
		return 0, *f
	}
	return float64(done.Load()) / time.Since(begin).Seconds(), nil
}
