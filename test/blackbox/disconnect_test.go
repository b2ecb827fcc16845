package blackbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDisconnect: clients that go away, streaming and not, running and waiting, free everything at once.
func TestDisconnect(t *testing.T) {
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream=%t", stream), func(t *testing.T) {
			p := serve(t, "--max-num-seqs", "8")
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			var clients sync.WaitGroup
			for i := range 12 { // two choices each: four run, eight wait
				clients.Go(func() {
					a, err := p.ask(ctx, completionPath, long(1000).with(fields{"n": 2, "seed": i, "stream": stream}))
					if err == nil {
						t.Errorf("a client got its whole answer: %d tokens", a.usage.Completion)
					}
				})
			}
			eventually(t, limit, "8 sequences run and 16 wait", func() bool {
				m := p.metrics(t)
				return m.sum(t, "vllm:num_requests_running") == 8 && m.sum(t, "vllm:num_requests_waiting") == 16 &&
					m.sum(t, "vllm:kv_cache_usage_perc") > 0
			})
			leave()
			clients.Wait()
			p.wantIdle(t)
			m := p.metrics(t)
			if got := m.sum(t, "vllm:iteration_tokens_total_sum"); got > 8000 {
				t.Errorf("%v of 24000 tokens were computed", got)
			}
			if got := m.sum(t, "pagoda_requests_canceled_total"); got != 12 {
				t.Errorf("%v requests canceled, want 12", got)
			}
			if got := m.sum(t, "vllm:request_success_total", `"abort"`); got != 24 {
				t.Errorf("%v choices aborted, want 24", got)
			}
			p.must(t, chatPath, say(demo, "hi"))
		})
	}
}

// rawRequest sends a request over a connection of its own.
func (p *process) rawRequest(t *testing.T, body fields) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		completionPath, len(data), data)
	return conn.(*net.TCPConn)
}

// TestReset: a connection that is cut off without a farewell.
func TestReset(t *testing.T) {
	p := serve(t)
	for _, stream := range []bool{false, true} {
		conn := p.rawRequest(t, long(1000).with(fields{"n": 8, "stream": stream}))
		eventually(t, limit, "8 sequences run", func() bool { return p.metrics(t).sum(t, "vllm:num_requests_running") == 8 })
		if err := conn.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		p.wantIdle(t)
	}
	if got := p.metrics(t).sum(t, "vllm:iteration_tokens_total_sum"); got > 8000 {
		t.Errorf("%v of 16000 tokens were computed", got)
	}
}

// TestVanishedClient: one that is gone without a word, as with its network, is dropped in time, also while nothing is sent to it.
func TestVanishedClient(t *testing.T) {
	for _, stream := range []bool{true, false} {
		p := serve(t, "--write-timeout", "500ms")
		conn := p.rawRequest(t, long(1000).with(fields{"n": 64, "stream": stream}))
		eventually(t, limit, "it is computed", func() bool { return p.metrics(t).sum(t, "vllm:num_requests_running") > 0 })
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K} // the kernel drops all that comes, before it acknowledges it
		controlErr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
		})
		if controlErr != nil || err != nil {
			t.Fatal(controlErr, err)
		}
		p.wantIdle(t)
		if got := p.metrics(t).sum(t, "pagoda_requests_canceled_total"); got != 1 {
			t.Errorf("stream %t: %v requests canceled, want 1", stream, got)
		}
	}
}

// TestStalledClient: one that stops reading holds up neither the engine nor the others, and is dropped in time.
func TestStalledClient(t *testing.T) {
	p := serve(t, "--write-timeout", "500ms")
	conn := p.rawRequest(t, long(1000).with(fields{"n": 8, "stream": true, "logprobs": 20}))
	if err := conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	status, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
	if err != nil || status != "HTTP/1.1 200 OK\r\n" {
		t.Fatal(status, err)
	}
	for range 20 {
		if got := p.must(t, chatPath, say(demo, "hi")).choices[0].text; got != "Hi! How can I help you?" {
			t.Errorf("got %q", got)
		}
	}
	p.wantIdle(t)
	if got := p.metrics(t).sum(t, "pagoda_requests_canceled_total"); got != 1 {
		t.Errorf("%v requests canceled, want 1", got)
	}
}
