package blackbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a pagoda that a test started. It ends with the test at the latest.
type process struct {
	cmd    *exec.Cmd
	url    string // of a server
	key    string // sent where a test gives no other
	client *http.Client
	stdout bytes.Buffer // complete when ended is closed
	stderr io.Closer
	ended  chan struct{}
	err    error // of Wait, set when ended is closed

	mu   sync.Mutex // guards what follows
	log  []string   // lines of standard error
	more chan struct{}
}

// command starts pagoda with a clean environment, extended by env.
func command(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program(t), args...), ended: make(chan struct{}), more: make(chan struct{})}
	p.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 2 * time.Minute}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout = &p.stdout
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stderr = stderr
	s := start{p.cmd, make(chan error, 1)}
	starts <- s
	if err := <-s.err; err != nil {
		t.Fatal(err)
	}
	go p.follow(stderr)
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		_ = p.cmd.Process.Kill() // nothing to do if it has ended
		<-p.ended
		if t.Failed() {
			t.Logf("pagoda %s wrote at last:\n%s", strings.Join(args, " "), p.tail(8))
		}
	})
	return p
}

// follow reads standard error to its end and then waits for the process.
func (p *process) follow(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		p.mu.Lock()
		p.log = append(p.log, lines.Text())
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

// listening starts a server on a free port and waits until it listens.
func listening(t testing.TB, args ...string) *process {
	t.Helper()
	return listeningIn(t, nil, args...)
}

func listeningIn(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	all := []string{"serve"}
	if len(args) > 0 && strings.HasSuffix(args[0], ".yaml") { // which comes first
		all, args = append(all, args[0]), args[1:]
	}
	p := command(t, env, append(append(all, "--port", "0", "--log-format", "json"), args...)...)
	p.url = p.line(t, "listening, loading the model")["url"].(string)
	return p
}

// serve starts a server on a free port and waits until it is ready. Whatever the test does to it, it must end well when
// the test ends, and must not have complained.
func serve(t testing.TB, args ...string) *process {
	t.Helper()
	return serveIn(t, nil, args...)
}

// serveIn does so with more in the environment.
func serveIn(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := listeningIn(t, env, args...)
	p.line(t, "ready")
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		if p.running() {
			p.signal(t, syscall.SIGTERM)
			p.wantExit(t, limit, 0)
		}
		for _, line := range p.lines() {
			var entry struct{ Level string }
			if json.Unmarshal([]byte(line), &entry) != nil || entry.Level == "error" || entry.Level == "panic" {
				t.Errorf("the server complained: %s", line)
			}
		}
	})
	return p
}

// line waits for a log line with that message and returns it.
func (p *process) line(t testing.TB, message string) map[string]any {
	t.Helper()
	deadline := time.After(limit)
	for seen := 0; ; {
		p.mu.Lock()
		lines, more := p.log[seen:], p.more
		p.mu.Unlock()
		for _, line := range lines {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && entry["message"] == message {
				return entry
			}
		}
		seen += len(lines)
		select {
		case <-more:
		case <-p.ended:
			if len(p.lines()) == seen {
				t.Fatalf("the process ended without the line %q:\n%s", message, p.tail(30))
			}
		case <-deadline:
			t.Fatalf("no line %q:\n%s", message, p.tail(30))
		}
	}
}

func (p *process) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

// tail is the last n lines of the log.
func (p *process) tail(n int) string {
	lines := p.lines()
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wantExit waits for the process to end with that code; -1 is an end by signal.
func (p *process) wantExit(t testing.TB, within time.Duration, code int) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		t.Fatalf("the process runs on after %v:\n%s", within, p.tail(30))
	}
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](p.err); ok {
		got = exit.ExitCode()
	} else if p.err != nil {
		t.Fatal(p.err)
	}
	if got != code {
		t.Fatalf("exit code %d, want %d:\n%s", got, code, p.tail(30))
	}
}
