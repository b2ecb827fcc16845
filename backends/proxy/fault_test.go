package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pagoda/backends/proxy"
	"pagoda/engine"
)

// fakeProcess is a fake that runs as a process of its own.
type fakeProcess struct {
	cmd *exec.Cmd
	url string
}

func startFake(t testing.TB, args ...string) *fakeProcess {
	t.Helper()
	f := &fakeProcess{cmd: exec.Command(os.Args[0], append([]string{fakeArg, "vllm", "--host", "127.0.0.1", "--port", "0"}, args...)...)}
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, read, ended := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() { // on a thread that lives as long as the process: the kernel ends the one with the other
		runtime.LockOSThread()
		defer close(ended)
		err := f.cmd.Start()
		started <- err
		if err == nil {
			<-read
			_ = f.cmd.Wait() // it is killed
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.signal(t, syscall.SIGKILL)
		<-ended
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	close(read)
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		t.Fatalf("the fake said %q, %v", line, err)
	}
	f.url = "http://" + address
	return f
}

// id is what logs and metrics call it.
func (f *fakeProcess) id() string { return strings.TrimPrefix(f.url, "http://") }

func (f *fakeProcess) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	_ = f.cmd.Process.Signal(s) // it may have ended
	if s == syscall.SIGSTOP {
		eventually(t, "all of its threads have stopped", func() bool { return stopped(f.cmd.Process.Pid) })
	}
}

// stopped says whether no thread of a process runs; on a busy machine they stop some time after the signal.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, file := range threads {
		stat, readErr := os.ReadFile(file)
		_, state, _ := bytes.Cut(stat, []byte(") "))
		if readErr != nil || !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

// moment is long enough for a health check.
const moment = 100 * time.Millisecond

// freeze stops a process. On a busy machine some of its threads go on for a while.
func freeze(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all threads are stopped", func() bool {
		files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		return !slices.ContainsFunc(files, func(file string) bool {
			data, err := os.ReadFile(file)
			return err == nil && !strings.Contains(string(data), ") T ")
		})
	})
}

// attachTo makes an engine in front of processes. health is how long their health checks may take.
func attachTo(t testing.TB, times proxy.Times, health time.Duration, fakes ...*fakeProcess) *rig {
	t.Helper()
	r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics()}
	cfg := proxy.Config{Dialect: dialects["vllm"](), Name: "m", Times: times, Metrics: r.metrics, Log: zerolog.New(r.log)}
	cfg.Dialect.HealthTimeout = health
	for _, f := range fakes {
		cfg.URLs = append(cfg.URLs, f.url)
	}
	r.Engine = start(t, cfg)
	return r
}

// begin starts a request, and tells when its answer has begun. The answer comes when it has ended.
func begin(r *rig, req *engine.Request) (begun chan struct{}, ended chan *said) {
	begun, ended = make(chan struct{}), make(chan *said, 1)
	go func() {
		s := &said{}
		for ev, err := range r.Generate(context.Background(), req) {
			if err != nil {
				s.err = engine.AsError(err)
				break
			}
			if s.text == "" && ev.Text != "" {
				close(begun)
			}
			s.text += ev.Text
		}
		ended <- s
	}()
	return begun, ended
}

// atUpstream waits until n requests are there.
func (r *rig) atUpstream(t testing.TB, n float64) {
	t.Helper()
	eventually(t, "requests are at the upstream", func() bool { return r.count(t, "pagoda_upstream_in_flight") == n })
}

func (r *rig) wantLog(t testing.TB, messages ...string) {
	t.Helper()
	for _, m := range messages {
		eventually(t, "the log has "+m, func() bool { return strings.Contains(r.log.String(), m) })
	}
}

// wantFine asks many different things and wants the answer of each: none is that of another request.
func (r *rig) wantFine(t testing.TB) {
	t.Helper()
	for i := range 20 {
		req, want := ask("say fine "+strconv.Itoa(i)), "fine "+strconv.Itoa(i)
		req.Output.Whole = i%2 == 0
		if s := collect(t.Context(), r, req); s.text != want || s.err != nil {
			t.Errorf("%q, %v, want %q", s.text, s.err, want)
		}
	}
}

// TestFrozen: the server's process is stopped (SIGSTOP, as a debugger or a full machine does) while it answers, and goes on later. An
// answer that has begun ends with an error; the others are given by whoever can, here by the same server once it goes on.
func TestFrozen(t *testing.T) {
	t.Parallel()
	times := quick
	times.Stall, times.Wait = time.Second, limit
	f := startFake(t, "--fake-chunk-ms", "5")
	r := attachTo(t, times, moment, f)
	begun, stream := begin(r, ask("count 1000"))
	_, plain := begin(r, whole("wait 200"))
	<-begun
	r.atUpstream(t, 2)
	freeze(t, f.cmd.Process.Pid)
	if s := <-stream; s.err == nil || s.err.Code != engine.Timeout || !strings.HasPrefix(s.text, " w0") {
		t.Errorf("the stream: %q, %v", s.text, s.err)
	}
	r.wantLog(t, "upstream gives no sign of life: its requests end", "sending the request again", "upstream is down")
	if n := r.count(t, "pagoda_upstream_requests_total", "outcome=stalled"); n != 2 {
		t.Errorf("%v requests count as stalled", n)
	}
	if n := r.count(t, "pagoda_upstream_up"); n != 0 {
		t.Errorf("%v upstreams are up", n)
	}
	f.signal(t, syscall.SIGCONT)
	if s := <-plain; s.text != "one two" || s.err != nil {
		t.Errorf("the plain one: %q, %v", s.text, s.err)
	}
	r.wantFine(t)
	if ok, retries := r.count(t, "pagoda_upstream_requests_total", "outcome=ok"), r.count(t, "pagoda_upstream_retries_total"); ok != 21 || retries != 1 {
		t.Errorf("%v answers, %v sent again", ok, retries)
	}
}

// TestFrozenIdle: a server that is stopped while it has nothing to do is noticed by its health checks. Requests then wait and are refused
// without being sent.
func TestFrozenIdle(t *testing.T) {
	t.Parallel()
	times := quick
	times.Wait = 100 * time.Millisecond
	f := startFake(t)
	r := attachTo(t, times, moment, f)
	freeze(t, f.cmd.Process.Pid)
	r.wantLog(t, `"message":"upstream is down"`, "deadline exceeded")
	s := collect(t.Context(), r, ask("say x"))
	if s.err == nil || s.err.Code != engine.Unavailable || s.err.RetryAfter == 0 || !strings.Contains(s.err.Message, "no server of this model is available") {
		t.Errorf("%+v, %v", s, s.err)
	}
	if r.Stats()[0].Ready {
		t.Error("it is called ready")
	}
	if n := r.count(t, "pagoda_upstream_requests_total"); n != 0 {
		t.Errorf("%v requests were sent", n)
	}
	f.signal(t, syscall.SIGCONT)
	eventually(t, "it is up again", func() bool { return r.count(t, "pagoda_upstream_up") == 1 })
	r.wantFine(t)
}

// TestFrozenSpawned: a server of ours that is stopped is killed and started again, whether it had requests or not.
func TestFrozenSpawned(t *testing.T) {
	for _, idle := range []bool{false, true} {
		t.Run("idle "+strconv.FormatBool(idle), func(t *testing.T) {
			t.Parallel()
			times := quick
			times.Stall, times.Wait = time.Second, limit
			r := spawnHere(t, times, map[string]any{"fake_chunk_ms": 5})
			old := pidOf(t, r)
			if idle {
				freeze(t, old)
			} else {
				begun, stream := begin(r, ask("count 1000"))
				_, plain := begin(r, whole("wait 200"))
				<-begun
				r.atUpstream(t, 2)
				freeze(t, old)
				if s := <-stream; s.err == nil || s.err.Code != engine.Timeout || !strings.HasPrefix(s.text, " w0") {
					t.Errorf("the stream: %q, %v", s.text, s.err)
				}
				if s := <-plain; s.text != "one two" || s.err != nil {
					t.Errorf("the plain one: %q, %v", s.text, s.err)
				}
			}
			r.wantLog(t, "killing the model's server", "signal: killed", "the model's server ended")
			eventually(t, "it is up again", func() bool { return r.count(t, "pagoda_upstream_up") == 1 })
			r.wantFine(t)
			if n := r.count(t, "pagoda_upstream_restarts_total"); n != 1 {
				t.Errorf("%v restarts", n)
			}
			if exists(old) {
				t.Error("the old one lives")
			}
		})
	}
}

// spawnHere is a vLLM of ours whose health checks take no longer than moments.
func spawnHere(t testing.TB, times proxy.Times, flags map[string]any) *rig {
	t.Helper()
	r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics()}
	cfg, err := spawnConfig("vllm", flags)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Times, cfg.Metrics, cfg.Log = times, r.metrics, zerolog.New(r.log)
	cfg.Dialect.HealthTimeout = moment
	r.Engine = start(t, cfg)
	return r
}

// busy is the one of two that has the request, and the other, which may have it as soon as that one is killed.
func (r *rig) busy(t testing.TB, fakes []*fakeProcess) (busy, idle *fakeProcess) {
	t.Helper()
	if r.count(t, "pagoda_upstream_in_flight", "upstream="+fakes[0].id()) == 1 {
		return fakes[0], fakes[1]
	}
	return fakes[1], fakes[0]
}

// TestKilledWhole: a server is killed while it makes an answer in one piece, of which nothing has come: another gives it, or the next one
// of ours.
func TestKilledWhole(t *testing.T) {
	t.Run("attached", func(t *testing.T) {
		t.Parallel()
		fakes := []*fakeProcess{startFake(t), startFake(t)}
		r := attachTo(t, quick, moment, fakes...)
		eventually(t, "both are up", func() bool { return r.count(t, "pagoda_upstream_up") == 2 })
		_, plain := begin(r, whole("wait 200"))
		r.atUpstream(t, 1)
		busy, _ := r.busy(t, fakes)
		busy.signal(t, syscall.SIGKILL)
		if s := <-plain; s.text != "one two" || s.err != nil {
			t.Errorf("%q, %v", s.text, s.err)
		}
		r.wantLog(t, "sending the request again", `"reason":"its connection broke","message":"upstream is down"`)
		if broken, again := r.count(t, "pagoda_upstream_requests_total", "outcome=broken"), r.count(t, "pagoda_upstream_retries_total"); broken != 1 || again != 1 {
			t.Errorf("%v broken, %v sent again", broken, again)
		}
		if n := r.count(t, "pagoda_upstream_up"); n != 1 {
			t.Errorf("%v upstreams are up", n)
		}
	})
	t.Run("spawned", func(t *testing.T) {
		t.Parallel()
		r := spawnHere(t, quick, nil)
		_, plain := begin(r, whole("wait 200"))
		r.atUpstream(t, 1)
		if err := syscall.Kill(pidOf(t, r), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if s := <-plain; s.text != "one two" || s.err != nil {
			t.Errorf("%q, %v", s.text, s.err)
		}
		r.wantLog(t, "sending the request again", "signal: killed")
		if broken, again := r.count(t, "pagoda_upstream_requests_total", "outcome=broken"), r.count(t, "pagoda_upstream_retries_total"); broken != 1 || again != 1 {
			t.Errorf("%v broken, %v sent again", broken, again)
		}
	})
}

// TestLeavings: what a server has started and left to itself is killed with it, also in a session of its own; only what has put off its
// environment as well lives on, and does not hold the next server up.
func TestLeavings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	daemonFile, strangerFile := filepath.Join(dir, "daemon"), filepath.Join(dir, "stranger")
	r := mustSpawn(t, "vllm", map[string]any{"fake_daemon": daemonFile, "fake_stranger": strangerFile})
	daemon, stranger := pidIn(t, daemonFile), pidIn(t, strangerFile)
	kill := func(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }
	defer func() { kill(stranger) }()
	if s := collect(t.Context(), r, ask("exit137")); s.err == nil || s.err.Code != engine.Upstream {
		t.Errorf("%+v, %v", s, s.err)
	}
	r.wantFine(t)
	if exists(daemon) || !exists(stranger) {
		t.Errorf("daemon %t, stranger %t", exists(daemon), exists(stranger))
	}
	r.wantLog(t, "something holds on to the log of the model's server, which has ended", "exit status 137")
	next := pidIn(t, strangerFile)
	defer kill(next)
	daemon = pidIn(t, daemonFile)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
	if exists(daemon) {
		t.Error("the second daemon lives on")
	}
}

// TestFolderGone: somebody clears the server's folder away, with its socket. Its next start has another.
func TestFolderGone(t *testing.T) {
	t.Parallel()
	times := quick
	times.Stall, times.Wait = 500*time.Millisecond, limit
	r := spawnHere(t, times, nil)
	_, after, ok := strings.Cut(r.log.String(), `"--uds","`)
	socket, _, _ := strings.Cut(after, `"`)
	if !ok {
		t.Fatalf("no socket in the log: %s", r.log)
	}
	if err := os.RemoveAll(filepath.Dir(socket)); err != nil {
		t.Fatal(err)
	}
	if s := collect(t.Context(), r, ask("say x")); s.text != "x" || s.err != nil {
		t.Errorf("%+v, %v", s, s.err)
	}
	if n := r.count(t, "pagoda_upstream_restarts_total"); n != 1 {
		t.Errorf("%v restarts", n)
	}
	r.wantFine(t)
	r.wantLog(t, "upstream is down", "no such file or directory", "it has not been healthy for too long")
}

// TestZombie: an orphan of a running server that ends is reaped, since this program is its reaper (in a container for want of another).
func TestZombie(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "zombie")
	r := mustSpawn(t, "vllm", map[string]any{"fake_zombie": file})
	pid := pidIn(t, file)
	if !exists(pid) {
		t.Fatal("there is no orphan")
	}
	if err := os.WriteFile(file, []byte("gone"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is no zombie any more", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	r.wantFine(t)
}

// TestOutput: a server may write megabytes without an end of line, or nothing at all.
func TestOutput(t *testing.T) {
	t.Parallel()
	r := mustSpawn(t, "vllm", map[string]any{"fake_shout": 8, "fake_silent": true})
	r.wantFine(t)
	for line := range strings.Lines(r.log.String()) {
		if len(line) > 10<<10 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if _, err := spawned(t, "vllm", proxy.Times{Start: 300 * time.Millisecond}, map[string]any{"fake_shout": 8, "fake_mute": true}); err == nil ||
		len(err.Error()) > 40<<10 || !strings.Contains(err.Error(), "not ready after 300ms") {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

// TestMute: a server that takes connections and never answers is not up.
func TestMute(t *testing.T) {
	t.Parallel()
	f := startFake(t, "--fake-mute")
	log := &logBuffer{}
	cfg := proxy.Config{Dialect: dialects["vllm"](), Name: "m", Times: quick, URLs: []string{f.url}, NoWait: true, Log: zerolog.New(log)}
	cfg.Dialect.HealthTimeout = 50 * time.Millisecond
	cfg.Times.Wait = 100 * time.Millisecond
	r := &rig{Engine: start(t, cfg), log: log}
	r.wantLog(t, "waiting for the upstream", "deadline exceeded")
	if s := collect(t.Context(), r, ask("say x")); s.err == nil || s.err.Code != engine.Unavailable {
		t.Errorf("%+v, %v", s, s.err)
	}
}

// TestLostPackets: nothing comes through to an upstream's host any more, without a word from anybody. Connections break when nothing has
// been acknowledged for long enough, which upstream_timeout has nothing to do with, and what has not begun goes elsewhere.
func TestLostPackets(t *testing.T) {
	t.Parallel()
	times := quick
	times.Lost, times.Wait = time.Second, limit
	first, second := startFake(t, "--fake-loses-packets"), startFake(t)
	r := attachTo(t, times, moment, first, second)
	eventually(t, "both are up", func() bool { return r.count(t, "pagoda_upstream_up") == 2 })
	var streams []chan *said
	for range 2 { // one each
		begun, ended := begin(r, ask("hang"))
		<-begun
		streams = append(streams, ended)
	}
	first.signal(t, syscall.SIGUSR1)
	began := time.Now()
	var lost *said
	select {
	case lost = <-streams[0]:
	case lost = <-streams[1]:
	case <-time.After(limit):
		t.Fatal("both streams hang")
	}
	if lost.err == nil || lost.err.Code != engine.Upstream || lost.text != "one two" {
		t.Errorf("%q, %v", lost.text, lost.err)
	}
	t.Logf("it broke after %v", time.Since(began))
	r.wantFine(t)
	r.wantLog(t, "upstream is down")
	if n := r.count(t, "pagoda_upstream_requests_total", "outcome=broken", "upstream="+first.id()); n < 1 {
		t.Errorf("%v count as broken", n)
	}
	first.signal(t, syscall.SIGUSR2)
	eventually(t, "it is up again", func() bool { return r.count(t, "pagoda_upstream_up") == 2 })
}

// TestFrozenCalls: requests that are no generations end as well when their server is stopped: those that may be sent again are, by the
// server once it goes on, what is passed on as it is fails.
func TestFrozenCalls(t *testing.T) {
	t.Parallel()
	times := quick
	times.Stall, times.Wait = 500*time.Millisecond, limit
	f := startFake(t)
	r := attachTo(t, times, limit, f)
	embedded, forwarded := make(chan error, 1), make(chan error, 1)
	freeze(t, f.cmd.Process.Pid)
	go func() {
		_, err := r.Embed(context.Background(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Inputs: []engine.Input{{Text: "a"}}})
		embedded <- err
	}()
	go func() {
		_, err := r.Forward(context.Background(), &engine.RawRequest{Model: "m", Method: http.MethodPost, Path: "/pooling", Body: []byte(`{"model":"m"}`)})
		forwarded <- err
	}()
	if err := <-forwarded; err == nil || engine.AsError(err).Code != engine.Timeout {
		t.Errorf("passed on: %v", err)
	}
	r.wantLog(t, "upstream gives no sign of life: its requests end", "sending the request again")
	f.signal(t, syscall.SIGCONT)
	if err := <-embedded; err != nil {
		t.Errorf("embedded: %v", err)
	}
	if stalled, ok := r.count(t, "pagoda_upstream_requests_total", "outcome=stalled"), r.count(t, "pagoda_upstream_requests_total", "outcome=ok"); stalled != 2 || ok != 1 {
		t.Errorf("%v stalled, %v ok", stalled, ok)
	}
	eventually(t, "nothing is in flight", func() bool { return r.count(t, "pagoda_upstream_in_flight") == 0 })
}

// TestKilledEmbedding: a server is killed before it answers; another does.
func TestKilledEmbedding(t *testing.T) {
	t.Parallel()
	fakes := []*fakeProcess{startFake(t), startFake(t)}
	r := attachTo(t, quick, limit, fakes...)
	eventually(t, "both are up", func() bool { return r.count(t, "pagoda_upstream_up") == 2 })
	for _, f := range fakes {
		freeze(t, f.cmd.Process.Pid) // so that it cannot answer before it is killed
	}
	embedded := make(chan error, 1)
	go func() {
		_, err := r.Embed(context.Background(), &engine.EmbedRequest{Pooling: engine.Pooling{Model: "m"}, Inputs: []engine.Input{{Text: "a"}}})
		embedded <- err
	}()
	r.atUpstream(t, 1)
	busy, idle := r.busy(t, fakes)
	busy.signal(t, syscall.SIGKILL)
	idle.signal(t, syscall.SIGCONT)
	if err := <-embedded; err != nil {
		t.Error(err)
	}
	r.wantLog(t, "sending the request again")
	if broken := r.count(t, "pagoda_upstream_requests_total", "outcome=broken"); broken != 1 {
		t.Errorf("%v broken", broken)
	}
}
