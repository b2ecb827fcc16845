package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pagoda/backends/ktransformers"
	"pagoda/backends/proxy"
	"pagoda/backends/sglang"
	"pagoda/backends/vllm"
	"pagoda/engine"
)

// spawned starts an engine with a server of its own: this test's binary as a fake, with further flags.
func spawned(t testing.TB, dialect string, times proxy.Times, flags map[string]any) (*rig, error) {
	t.Helper()
	r := &rig{log: &logBuffer{}, metrics: proxy.NewMetrics()}
	cfg, err := spawnConfig(dialect, flags)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Times, cfg.Metrics, cfg.Log = times, r.metrics, zerolog.New(r.log)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if r.Engine, err = proxy.New(ctx, cfg); err != nil {
		return r, err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return r, nil
}

func spawnConfig(dialect string, flags map[string]any) (proxy.Config, error) {
	o := proxy.ServerOptions{Program: []string{os.Args[0], fakeArg, dialect}, Model: "/models/x", Name: "m", Config: flags,
		Adapters: []proxy.Adapter{{Name: "pirate", Path: "/adapters/pirate"}}, KT: proxy.KTOptions{GPUExperts: -1}}
	cfg := proxy.Config{Dialect: dialects[dialect](), Name: "m", Adapters: o.Adapters}
	var err error
	switch dialect {
	case "vllm":
		cfg.Spawn, err = vllm.Spawn(o)
	case "sglang":
		cfg.Spawn, err = sglang.Spawn(o)
	default:
		cfg.Spawn, err = ktransformers.Spawn(o)
	}
	return cfg, err
}

func mustSpawn(t testing.TB, dialect string, flags map[string]any) *rig {
	t.Helper()
	r, err := spawned(t, dialect, quick, flags)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func exists(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || !strings.Contains(string(stat), ") Z ") // a zombie is no process any more
}

func pidIn(t testing.TB, file string) int {
	t.Helper()
	var pid int
	eventually(t, "a process's number in "+file, func() bool {
		data, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
		return err == nil
	})
	return pid
}

func TestSpawn(t *testing.T) {
	for dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "orphan")
			r := mustSpawn(t, dialect, map[string]any{"fake_orphan": file})
			for _, model := range []string{"m", "pirate"} {
				req := ask("who")
				req.Model = model
				if s := collect(t.Context(), r, req); s.text != model {
					t.Errorf("%s: %+v %v", model, s, s.err)
				}
			}
			pid := pidIn(t, file)
			if !exists(pid) {
				t.Fatal("the fake has no child of its own")
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := r.Close(ctx); err != nil {
				t.Error(err)
			}
			if exists(pid) {
				t.Error("a child of the server lives on")
			}
		})
	}
}

// TestSpawnFailsAtOnce: a program that ends before anything is known of it is an error like any other.
func TestSpawnFailsAtOnce(t *testing.T) {
	for range 30 {
		cfg, err := spawnConfig("vllm", nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Spawn.Command = func(proxy.Listen) (args, env []string, err error) { return []string{"/bin/false"}, nil, nil }
		cfg.Times = quick
		if _, err := proxy.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "false did not start: exit status 1") {
			t.Fatalf("error %v", err)
		}
	}
}

// TestSpawnFails: the error has the server's last words.
func TestSpawnFails(t *testing.T) {
	_, err := spawned(t, "vllm", quick, map[string]any{"fake_fail": true})
	if err == nil || !strings.Contains(err.Error(), "Free memory on device is less than desired") || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("error %v", err)
	}
	times := quick
	times.Start = 200 * time.Millisecond
	if _, err = spawned(t, "sglang", times, map[string]any{"fake_never_ready": true}); err == nil || !strings.Contains(err.Error(), "not ready after 200ms") {
		t.Errorf("error %v", err)
	}
	cfg, err := spawnConfig("vllm", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Spawn.Command = func(proxy.Listen) ([]string, []string, error) { return []string{"/no/such/program"}, nil, nil }
	cfg.Times = quick
	if _, err = proxy.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error %v", err)
	}
}

// TestSpawnedEnds: a server that ends, whatever its exit code, is started again, after all that it left behind is killed.
func TestSpawnedEnds(t *testing.T) {
	for _, dialect := range []string{"vllm", "sglang"} {
		for _, text := range []string{"exit0", "exit137"} {
			t.Run(dialect+"/"+text, func(t *testing.T) {
				t.Parallel()
				file := filepath.Join(t.TempDir(), "orphan")
				r := mustSpawn(t, dialect, map[string]any{"fake_orphan": file})
				orphan := pidIn(t, file)
				s := collect(t.Context(), r, ask(text))
				if s.err == nil || s.err.Code != engine.Upstream || s.text != "one two" {
					t.Errorf("the request: %+v %v", s, s.err)
				}
				if s := collect(t.Context(), r, ask("say again")); s.text != "again" {
					t.Errorf("the next one: %+v %v", s, s.err)
				}
				if exists(orphan) {
					t.Error("what the first one left behind lives")
				}
				if got := r.count(t, "pagoda_upstream_restarts_total"); got != 1 {
					t.Errorf("%v restarts", got)
				}
				if log := r.log.String(); !strings.Contains(log, `"message":"the model's server ended"`) {
					t.Errorf("the log does not tell: %s", log)
				}
			})
		}
	}
}

// TestSpawnedHangs: a server without a sign of life is killed and started again.
func TestSpawnedHangs(t *testing.T) {
	times := quick
	times.Stall = 300 * time.Millisecond
	r, err := spawned(t, "vllm", times, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := collect(t.Context(), r, ask("hang")); s.err == nil || s.err.Code != engine.Timeout {
		t.Errorf("%v", s.err)
	}
	if s := collect(t.Context(), r, ask("say again")); s.text != "again" {
		t.Errorf("the next one: %+v %v", s, s.err)
	}
	eventually(t, "a restart", func() bool { return r.count(t, "pagoda_upstream_restarts_total") == 1 })
}

// TestStubborn: one that does not heed SIGTERM is killed.
func TestStubborn(t *testing.T) {
	times := quick
	times.Stop = 100 * time.Millisecond
	r, err := spawned(t, "vllm", times, map[string]any{"fake_stubborn": true})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < times.Stop {
		t.Errorf("it was killed after %v", took)
	}
}

// runParent is what TestDiesWithUs kills.
func runParent(orphan string) int {
	cfg, err := spawnConfig("vllm", map[string]any{"fake_orphan": orphan, "fake_stubborn": true})
	if err == nil {
		cfg.Times = quick
		cfg.Log = zerolog.New(os.Stdout)
		_, err = proxy.New(context.Background(), cfg)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	select {}
}

// TestDiesWithUs: when this program is killed, the server and all that it started end, and its folder goes.
func TestDiesWithUs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orphan")
	parent := exec.Command(os.Args[0], parentArg, file)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	server, dir := 0, ""
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
		if _, after, ok := strings.Cut(lines.Text(), `"pid":`); ok {
			server, _ = strconv.Atoi(strings.SplitN(after, ",", 2)[0])
		}
		if _, after, ok := strings.Cut(lines.Text(), `"--uds","`); ok {
			dir = filepath.Dir(strings.SplitN(after, `"`, 2)[0])
		}
	}
	orphan := pidIn(t, file)
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	if server == 0 || !exists(server) || !exists(orphan) {
		t.Fatalf("server %d, its child %d", server, orphan)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	eventually(t, "the server is gone", func() bool { return !exists(server) })
	eventually(t, "what it started is gone", func() bool { return !exists(orphan) })
	eventually(t, "its folder is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
}

// TestThousandStreams: a thousand requests run while their only server is killed and comes back. Those whose answer had
// begun end with an error, all others are answered in full.
func TestThousandStreams(t *testing.T) {
	const n = 1000
	times := quick
	times.Wait = limit
	r, err := spawned(t, "vllm", times, map[string]any{"fake_chunk_ms": 10})
	if err != nil {
		t.Fatal(err)
	}
	want := collect(t.Context(), r, ask("count 20")).text
	var begun, whole, broken, other atomic.Int64
	var wg sync.WaitGroup
	kill := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			if i >= n/2 {
				<-kill // these meet a server that is gone or just coming back
			}
			started, text := false, ""
			var failed *engine.Error
			for ev, err := range r.Generate(context.Background(), ask("count 20")) {
				if err != nil {
					failed = engine.AsError(err)
					break
				}
				text += ev.Text
				if !started && ev.Text != "" {
					started = true
					begun.Add(1)
				}
			}
			switch {
			case failed == nil && text == want:
				whole.Add(1)
			case failed != nil && failed.Code == engine.Upstream && started && strings.HasPrefix(want, text):
				broken.Add(1)
			default:
				other.Add(1)
				t.Errorf("request %d: %q, error %v, begun %t", i, text, failed, started)
			}
		})
	}
	eventually(t, "answers have begun", func() bool { return begun.Load() > 10 })
	if err := syscall.Kill(pidOf(t, r), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	close(kill)
	wg.Wait()
	t.Logf("%d answers whole, %d broken off, %v sent again", whole.Load(), broken.Load(), r.count(t, "pagoda_upstream_retries_total"))
	if whole.Load()+broken.Load() != n || whole.Load() < n/2 || broken.Load() == 0 {
		t.Errorf("%d whole, %d broken, %d other of %d", whole.Load(), broken.Load(), other.Load(), n)
	}
}

// pidOf is the server's process.
func pidOf(t testing.TB, r *rig) int {
	t.Helper()
	_, after, ok := strings.Cut(r.log.String(), `"pid":`)
	pid, err := strconv.Atoi(strings.SplitN(after, ",", 2)[0])
	if !ok || err != nil {
		t.Fatalf("no process in the log: %s", r.log)
	}
	return pid
}
