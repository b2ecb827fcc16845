package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	plainLoad  = load{"plain", false, 1000}
	streamLoad = load{"stream", true, 1000}
)

// startMock returns the address of a mock that ends with the test.
func startMock(t *testing.T) netip.AddrPort {
	fd, addr, err := listen(0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMock(fd)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- m.serve() }()
	t.Cleanup(func() {
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != unix.EINVAL {
			t.Errorf("the mock ends with %v, want EINVAL: its listener is shut down", err)
		}
	})
	return addr
}

func startServer(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

func newTestClient(t *testing.T, to netip.AddrPort, l load) *client {
	c, err := newClient(to, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func TestMockAnswers(t *testing.T) {
	addr := startMock(t)
	for _, l := range loads {
		t.Run(l.name, func(t *testing.T) {
			c := newTestClient(t, addr, l)
			begin := time.Now()
			r, err := c.open(t.Context(), 1000, 20*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			chunks := 0
			if l.stream {
				chunks = 20 * streamSize
				if least := (streamSize - 1) * chunkGap; took < least {
					t.Errorf("streams took %v, less than their chunks' %v", took, least)
				}
			}
			if len(r.latencies) != 20 || len(r.late) != 20 || len(r.chunks) != chunks {
				t.Errorf("%d answers, %d requests, %d chunks, want 20, 20, %d", len(r.latencies), len(r.late), len(r.chunks), chunks)
			}
			for _, d := range slices.Concat(r.latencies, r.chunks, r.late) {
				if d < 0 || d > took {
					t.Errorf("something took %v of %v in all", d, took)
				}
			}
			if n, took, err := c.saturate(t.Context(), 8, 50*time.Millisecond); err != nil || n <= 0 || took <= 0 {
				t.Errorf("%v answers a second of %v each, %v", n, took, err)
			}
		})
	}
}

// A server that answers only when the last request has arrived is no reason to send later ones later, and each latency says
// how long its request waited.
func TestLoadIsOpen(t *testing.T) {
	const n, gap = 20, time.Millisecond
	var all sync.WaitGroup
	all.Add(n)
	c := newTestClient(t, startServer(t, func(w http.ResponseWriter, r *http.Request) {
		all.Done()
		all.Wait()
		w.Write(plainText)
	}), plainLoad)
	r, err := c.open(t.Context(), float64(time.Second/gap), n*gap)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(r.latencies)
	for i, got := range r.latencies {
		if least := time.Duration(i) * gap; got < least {
			t.Errorf("latency %d is %v, less than %v", i, got, least)
		}
	}
}

func TestChunksTellTheirDelay(t *testing.T) {
	const delay = time.Hour
	c := newTestClient(t, startServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, events(streamSize, time.Now().Add(-delay)))
	}), streamLoad)
	begin := time.Now()
	r, err := c.open(t.Context(), 100, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	for _, d := range r.chunks {
		if d < delay || d > delay+took {
			t.Errorf("a chunk was under way for %v, want %v and at most %v more", d, delay, took)
		}
	}
}

func TestServerFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"status", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no such thing", 404) }, "no such thing"},
		{"text", func(w http.ResponseWriter, r *http.Request) { w.Write(plainText[1:]) }, "not the mock's text"},
		{"end", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "a connection ends: EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := newTestClient(t, startServer(t, c.answer), plainLoad)
			if _, err := client.open(t.Context(), 1000, time.Millisecond); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// events are those of a stream of n chunks that were sent at a time.
func events(n int, sent time.Time) string {
	return `data: {"choices":[{"delta":{"role":"assistant","content":""}}]}` + "\n\n" +
		strings.Repeat(fmt.Sprintf(`data: {"choices":[{"delta":{"content":"%d"}}]}`+"\n\n", sent.UnixNano()), n) + "data: [DONE]\n\n"
}

// chunked is a response of which each chunk has at most size bytes.
func chunked(body string, size int) string {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
	for piece := range slices.Chunk([]byte(body), size) {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(piece), piece)
	}
	return b.String() + "0\r\n\r\n"
}

func TestAnswer(t *testing.T) {
	now := time.Now()
	sent := now.Add(-3 * time.Millisecond)
	text := string(plainText)
	for _, c := range []struct {
		name   string
		stream bool
		raw    string
		want   string // of the error
	}{
		{"length", false, string(plainAnswer), ""},
		{"chunks", false, chunked(text, 100), ""},
		{"stream", true, chunked(events(streamSize, sent), 1000), ""},
		{"stream in small chunks", true, chunked(events(streamSize, sent), 7), ""},
		{"stream with a length", true, string(response(events(streamSize, sent))), ""},

		{"other status", false, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", "not a 200"},
		{"other version", false, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "not a 200"},
		{"no length", false, "HTTP/1.1 200 OK\r\n\r\n" + text, "neither a length nor chunks"},
		{"bad length", false, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "invalid syntax"},
		{"other encoding", false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding"},
		{"empty", false, string(emptyAnswer), "not the mock's text"},
		{"two answers", false, string(plainAnswer) + string(plainAnswer), "bytes too many"},
		{"bad chunk size", false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "invalid syntax"},
		{"chunk too long", false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "not followed by an empty line"},
		{"a chunk is lost", true, chunked(events(streamSize-1, sent), 1000), "127 chunks"},
		{"a chunk comes twice", true, chunked(events(streamSize+1, sent), 1000), "129 chunks"},
		{"not done", true, chunked(strings.Replace(events(streamSize, sent), "data: [DONE]", "", 1), 1000), "not done"},
		{"not a time", true, chunked(`data: {"content":"word"}`+"\n\n", 1000), "invalid syntax"},
	} {
		for _, step := range []int{1, len(c.raw)} {
			t.Run(fmt.Sprintf("%s/%d", c.name, step), func(t *testing.T) {
				var a answer
				a.begin(now.Add(-time.Second), c.stream)
				r := &result{}
				var complete bool
				var err error
				for piece := range slices.Chunk([]byte(c.raw), step) {
					if complete {
						complete, err = false, fmt.Errorf("bytes too many: %q", piece)
					} else if err == nil {
						complete, err = a.feed(piece, now, r)
					}
				}
				if c.want != "" {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("got %v, want %q", err, c.want)
					}
					return
				}
				if err != nil || !complete {
					t.Fatalf("complete: %t, %v", complete, err)
				}
				if len(r.latencies) != 1 || r.latencies[0] != time.Second {
					t.Errorf("latencies %v, want 1s", r.latencies)
				}
				if c.stream && len(r.chunks) != streamSize {
					t.Errorf("%d chunks", len(r.chunks))
				}
				for _, d := range r.chunks {
					if d != 3*time.Millisecond {
						t.Errorf("a chunk was under way for %v, want 3ms", d)
					}
				}
			})
		}
	}
}

func TestSplit(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	n := all.Count()
	for _, c := range []struct {
		apart        bool
		own, proxies int
	}{{false, n, n}, {true, 1, max(1, n-1)}} {
		own, proxies, err := split(c.apart)
		if err != nil {
			t.Fatal(err)
		}
		if own.Count() != c.own || proxies.Count() != c.proxies {
			t.Errorf("apart %t of %d: %d and %d, want %d and %d", c.apart, n, own.Count(), proxies.Count(), c.own, c.proxies)
		}
		for cpu := range len(all) * 64 {
			if n > 1 && c.apart && own.IsSet(cpu) && proxies.IsSet(cpu) || (own.IsSet(cpu) || proxies.IsSet(cpu)) != all.IsSet(cpu) {
				t.Errorf("apart %t: processor %d", c.apart, cpu)
			}
		}
	}
}

func TestReport(t *testing.T) {
	const us = time.Microsecond
	rounds := func(p99 ...time.Duration) (out []round) {
		for _, d := range p99 {
			out = append(out, round{p50: d / 10, p99: d, chunk50: d / 100, chunk99: d / 50, late99: 5 * us, cpu: 1e-4})
		}
		return out
	}
	disturbed := rounds(5000*us, 5200*us, 4000*us)
	disturbed[0].others, disturbed[2].others = 0.2, 0.3
	r := &row{load: streamLoad, rate: 50, cells: []*cell{
		{most: 1000, rounds: rounds(1000*us, 3000*us, 1100*us)}, // the second round had a hiccup
		{most: 100, rounds: disturbed, rss: 50 << 20},
		{most: 300, rounds: rounds(1500*us, 1600*us, 1700*us)},
	}}
	for i := range r.cells[1].rounds {
		r.cells[1].rounds[i].cpu = 2e-4
	}
	got := report([]*row{r}, []*target{{name: "direct"}, {name: "Pagoda"}, {name: "nginx"}}, options{rounds: 3})
	for _, want := range []string{
		"| stream | direct | 1000/s | 50/s | 110 µs | 1100 µs | 11 µs | 22 µs | 100 ms |  | 0 MiB |\n",
		"| stream | Pagoda † | 100/s | 50/s | +290 µs | +2900 µs | +29 µs | +58 µs | 200 ms | 2.0 | 50 MiB |\n",
		"| stream | nginx | 300/s | 50/s | +50 µs | +500 µs | +5 µs | +10 µs | 100 ms | 1.0 | 0 MiB |\n",
		"at most 5µs after", "† disturbed",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
}
