package blackbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLogGone: who reads the log ends first, as a broken log collector does. The server lives on.
func TestLogGone(t *testing.T) {
	p := listening(t)
	p.line(t, "ready")
	if err := p.stderr.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 { // each of which writes a line
		p.wantText(t, say("pagoda-demo", "hi"), "Hi! How can I help you?")
	}
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
}

// TestFewFiles: the server may open few more files than it has open, and gets requests that need more, two each. All are answered, some
// later; the upstream is not blamed, and the log names the lack.
func TestFewFiles(t *testing.T) {
	const n, more = 12, 16
	p := inFrontOfFaults(t, "vllm", startFake(t, "vllm", "--fake-chunk-ms", "2").url, "--upstream-wait", "60s")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(len(open) + more), Max: uint64(len(open) + more)}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	p.client.Transport.(*http.Transport).DisableKeepAlives = true // else those that wait for a connection would get those of others
	var whole atomic.Int64
	parallel(n, n, func(i int) {
		a, err := p.ask(context.Background(), chatPath, upstreamChat("count 100", true))
		if err != nil || a.err != nil || !strings.HasSuffix(a.choices[0].text, " w99") {
			t.Errorf("request %d: %+v, %v", i, a, err)
			return
		}
		whole.Add(1)
	})
	m := p.metrics(t)
	if ok := m.sum(t, "pagoda_upstream_requests_total", `outcome="ok"`); ok != n || whole.Load() != n {
		t.Errorf("%v count as ok, %d are whole, of %d", ok, whole.Load(), n)
	}
	lack := 0
	for _, line := range p.lines() {
		if strings.Contains(line, "too many open files") {
			if lack++; !strings.Contains(line, `"level":"warn"`) {
				t.Errorf("no warning: %s", line)
			}
		}
		if strings.Contains(line, "upstream is down") || strings.Contains(line, "fails again and again") {
			t.Errorf("the upstream is blamed: %s", line)
		}
	}
	if lack == 0 || lack > 20*n {
		t.Errorf("%d lines of the log tell what is lacking", lack)
	}
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
}

// TestUpstreamFrozen: what a client, the log and the metrics say of an upstream whose process is stopped, before it goes on and after.
func TestUpstreamFrozen(t *testing.T) {
	f := startFake(t, "vllm", "--fake-chunk-ms", "2")
	p := inFrontOfFaults(t, "vllm", f.url, "--upstream-timeout", "1s", "--upstream-wait", "60s")
	resp, err := p.post(t.Context(), chatPath, upstreamChat("count 100000", true)) // its head comes with the first event
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	plain := make(chan *answer)
	go func() {
		a, err := p.ask(context.Background(), chatPath, upstreamChat("wait 500", false))
		if err != nil {
			t.Error(err)
			a = &answer{}
		}
		plain <- a
	}()
	eventually(t, limit, "both are at the upstream", func() bool { return p.metrics(t).sum(t, "pagoda_upstream_in_flight") == 2 })
	if err := f.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	a := &answer{}
	if err := a.stream(resp.Body); err != nil || resp.StatusCode != http.StatusOK || a.err == nil || a.err.Message != "the model's server gives no sign of life" || len(a.choices) == 0 ||
		!strings.HasPrefix(a.choices[0].text, " w0") || a.choices[0].finish != "" {
		t.Errorf("the stream: %+v, %v", a, err)
	}
	p.line(t, "upstream gives no sign of life: its requests end")
	if down := p.line(t, "upstream is down"); down["reason"] != "no sign of life from the upstream" {
		t.Errorf("%v", down)
	}
	if again := p.line(t, "sending the request again"); !strings.Contains(fmt.Sprint(again["error"]), "no sign of life") {
		t.Errorf("%v", again)
	}
	if m := p.metrics(t); m.sum(t, "pagoda_upstream_requests_total", `outcome="stalled"`) != 2 || m.sum(t, "pagoda_upstream_up") != 0 {
		t.Errorf("%v", m)
	}
	if err := f.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if a := <-plain; a.status != http.StatusOK || a.choices[0].text != "one two" {
		t.Errorf("the plain one: %+v", a)
	}
	for i := range 20 { // none of which gets what is left of the stream
		want := fmt.Sprint("fine ", i)
		if a := p.must(t, chatPath, upstreamChat("say "+want, i%2 == 0)); a.choices[0].text != want {
			t.Errorf("%q, want %q", a.choices[0].text, want)
		}
	}
	told := false
	for _, line := range p.lines() {
		var entry map[string]any
		told = told || json.Unmarshal([]byte(line), &entry) == nil && entry["route"] == chatPath && entry["stream"] == true && entry["error"] == "timeout"
	}
	if !told {
		t.Error("the request's line does not tell")
	}
}

// TestFaultsTable: the tests that docs/faults.md names are there.
func TestFaultsTable(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, pattern := range []string{"test/blackbox/*_test.go", "backends/proxy/*_test.go", "hub/*_test.go"} {
		files, err := filepath.Glob(root + "/" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(data)
		}
	}
	names := regexp.MustCompile(`Test[A-Z]\w+`).FindAllString(string(text), -1)
	for _, name := range names {
		if !strings.Contains(code.String(), "\nfunc "+name+"(") {
			t.Errorf("there is no %s", name)
		}
	}
	if len(names) < 30 {
		t.Errorf("%d names", len(names))
	}
}
