package blackbox

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pagoda/backends/proxy/fakeupstream"
)

// kinds are the backends that are other servers.
var kinds = []string{"vllm", "sglang", "ktransformers"}

// fakeProgram is the path of the fake upstream.
func fakeProgram(t testing.TB) string {
	t.Helper()
	path, err := buildFake()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildFake = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "fakeupstream")
	cmd := exec.Command("go", "build", "-o", path, "./test/fakeupstream")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// fake is a running fake upstream.
type fake struct {
	cmd *exec.Cmd
	url string
}

const fakeKey = "upstream-key"

// startFake starts one that asks for fakeKey (SGLang takes its keys from a file).
func startFake(t testing.TB, kind string, args ...string) *fake {
	t.Helper()
	args = append([]string{kind, "--host", "127.0.0.1", "--port", "0", "--served-model-name", "upstream-model"}, args...)
	if kind != "vllm" {
		keys := filepath.Join(t.TempDir(), "keys.yaml")
		if err := os.WriteFile(keys, []byte("api-key: "+fakeKey+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", keys)
	}
	f := &fake{cmd: exec.Command(fakeProgram(t), args...)}
	f.cmd.Env = []string{"VLLM_API_KEY=" + fakeKey}
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := start{f.cmd, make(chan error, 1)}
	starts <- s
	if err := <-s.err; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // nothing to do if it has ended
		_ = f.cmd.Wait()         // it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		t.Fatalf("the fake said %q, %v", line, err)
	}
	if f.url = "http://" + addr; strings.HasPrefix(addr, "/") {
		f.url = "unix://" + addr
	}
	return f
}

// inFront starts a server in front of upstreams.
func inFront(t testing.TB, kind string, urls string, args ...string) *process {
	t.Helper()
	return serveIn(t, []string{"PAGODA_UPSTREAM_API_KEY=" + fakeKey}, append([]string{"--infer-backend", kind, "--served-model-name", "m",
		"--upstream-url", urls}, args...)...)
}

// inFrontOfFaults is inFront for tests after which the log holds errors.
func inFrontOfFaults(t testing.TB, kind string, urls string, args ...string) *process {
	t.Helper()
	p := listeningIn(t, []string{"PAGODA_UPSTREAM_API_KEY=" + fakeKey}, append([]string{"--infer-backend", kind, "--served-model-name", "m",
		"--upstream-url", urls}, args...)...)
	p.line(t, "ready")
	return p
}

func upstreamChat(text string, stream bool) fields {
	return fields{"model": "m", "stream": stream, "messages": []fields{{"role": "user", "content": text}}}
}

// TestUpstreams: every dialect and every kind of upstream, whole and streamed, answers in our form.
func TestUpstreams(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			p := inFront(t, kind, startFake(t, kind).url)
			for _, stream := range []bool{false, true} {
				a := p.must(t, chatPath, upstreamChat("say Hello wide world", stream))
				if c := a.choices[0]; c.text != "Hello wide world" || c.finish != "stop" || (a.usage == nil) != stream {
					t.Errorf("stream %t: %+v", stream, a)
				}
				a = p.must(t, chatPath, upstreamChat("think so", stream))
				if c := a.choices[0]; c.reasoning != "hmm" || c.text != "so" {
					t.Errorf("stream %t: %+v", stream, a)
				}
				a = p.must(t, chatPath, upstreamChat("tool", stream))
				if c := a.choices[0]; c.finish != "tool_calls" || len(c.calls) != 2 || c.calls[1].Function.Arguments != `{"a": 1}` || c.calls[0].ID != "call_a" {
					t.Errorf("stream %t: %+v", stream, a)
				}
				a = p.must(t, completionPath, fields{"model": "m", "prompt": "say a b", "stream": stream, "logprobs": 1, "return_token_ids": true})
				if c := a.choices[0]; c.text != "a b" || len(c.ids) != 2 || len(c.top) != 2 || len(a.promptIDs) == 0 {
					t.Errorf("stream %t: %+v", stream, a)
				}
			}
			a := p.must(t, chatPath, upstreamChat("say x", true).with(fields{"stream_options": fields{"include_usage": true}}))
			if a.usage == nil || a.usage.Completion != 1 {
				t.Errorf("usage %+v", a.usage)
			}
			p.wantRefused(t, chatPath, upstreamChat("say x", false).with(fields{"model": "upstream-model"}), http.StatusNotFound, "does not exist")
			p.wantRefused(t, chatPath, upstreamChat("say x", false).with(fields{"typical_p": 0.5}), http.StatusBadRequest, "typical_p is not supported by")
			// Fields that only the upstream knows, media as data, and forced calls go through; what it would fetch does not.
			image := func(url string) fields {
				return upstreamChat("", false).with(fields{"messages": []fields{{"role": "user", "content": []fields{
					{"type": "text", "text": "echo"}, {"type": "image_url", "image_url": fields{"url": url}}}}}})
			}
			got := p.must(t, chatPath, image("data:image/png;base64,AA==").with(fields{"brand_new": 7, "response_format": fields{"type": "json_object"},
				"reasoning_effort": "high"})).choices[0].text
			for _, want := range []string{`"brand_new":7`, `"response_format":{"type":"json_object"}`, `"reasoning_effort":"high"`, `data:image/png;base64,AA==`} {
				if !strings.Contains(got, want) {
					t.Errorf("the upstream got %s, without %s", got, want)
				}
			}
			p.wantRefused(t, chatPath, image("http://169.254.169.254/x"), http.StatusBadRequest, "must be a data: URL")
			var vectors struct {
				Data  []struct{ Embedding []float64 }
				Usage struct {
					Prompt int `json:"prompt_tokens"`
				}
			}
			p.call(t, "/v1/embeddings", fields{"model": "m", "input": []string{"a", "b"}}, &vectors)
			if len(vectors.Data) != 2 || len(vectors.Data[1].Embedding) != 2 || vectors.Usage.Prompt != 6 {
				t.Errorf("%+v", vectors)
			}
			var passed map[string]string
			p.call(t, "/pooling", fields{"model": "m", "input": "x"}, &passed)
			if passed["route"] != "/pooling" || passed["model"] != "upstream-model" {
				t.Errorf("%v", passed)
			}
			p.wantRefused(t, "/collective_rpc", fields{"model": "m"}, http.StatusNotFound, "no such route")
			adapter := fields{"lora_name": "new", "lora_path": "/adapters/new"}
			p.wantRefused(t, "/v1/load_lora_adapter", adapter, http.StatusForbidden, "allow_runtime_lora_updating")
			if status, text := p.get(t, "/metrics/upstream/m"); status != http.StatusOK || !strings.Contains(text, "generation_tokens_total{") ||
				!strings.Contains(text, `upstream="127.0.0.1:`) {
				t.Errorf("status %d: %s", status, text)
			}
			m := p.metrics(t)
			if m.sum(t, "pagoda_upstream_up") != 1 || m.sum(t, "pagoda_upstream_requests_total", `outcome="ok"`) < 9 ||
				m.sum(t, "vllm:generation_tokens_total", `model_name="m"`) == 0 || m.sum(t, "vllm:prompt_tokens_total", `model_name="m"`) == 0 {
				t.Errorf("%v", m)
			}
		})
	}
}

// TestUpstreamAdapters: adapters come and go while the server runs.
func TestUpstreamAdapters(t *testing.T) {
	for _, kind := range kinds {
		p := inFront(t, kind, startFake(t, kind).url, "--allow-runtime-lora-updating")
		who := upstreamChat("who", false).with(fields{"model": "new"})
		p.wantRefused(t, chatPath, who, http.StatusNotFound, "does not exist")
		var got struct{ ID, Parent string }
		p.call(t, "/v1/load_lora_adapter", fields{"lora_name": "new", "lora_path": "/adapters/new"}, &got)
		if got.ID != "new" || got.Parent != "m" {
			t.Errorf("%s: %+v", kind, got)
		}
		if a := p.must(t, chatPath, who); a.choices[0].text != "new" {
			t.Errorf("%s: %q answers", kind, a.choices[0].text)
		}
		p.wantRefused(t, "/v1/load_lora_adapter", fields{"lora_name": "new", "lora_path": "/x"}, http.StatusBadRequest, "already")
		p.wantRefused(t, "/v1/load_lora_adapter", fields{"lora_name": "x"}, http.StatusBadRequest, "lora_path")
		p.wantRefused(t, "/v1/unload_lora_adapter", fields{"lora_name": "m"}, http.StatusBadRequest, "base model")
		p.wantRefused(t, "/v1/unload_lora_adapter", fields{"lora_name": "nobody"}, http.StatusNotFound, "nobody")
		p.call(t, "/v1/unload_lora_adapter", fields{"lora_name": "new"}, &got)
		p.wantRefused(t, chatPath, who, http.StatusNotFound, "does not exist")
	}
}

// TestUpstreamFaults: what the client, the log and the metrics say of each fault.
func TestUpstreamFaults(t *testing.T) {
	for _, tc := range []struct {
		command string
		kinds   string
		status  int    // of a plain request
		stream  int    // of a streamed one; 200: the error is an event
		code    string // OpenAI's
		outcome string
	}{
		{"fail", "vllm sglang ktransformers", 502, 502, "upstream_error", "failed"},
		{"error-first", "vllm sglang ktransformers", 502, 502, "upstream_error", "failed"}, // an error inside of a 200 has a status of its own
		{"error", "vllm sglang ktransformers", 502, 200, "upstream_error", "failed"},
		{"half", "vllm sglang ktransformers", 502, 200, "upstream_error", "broken"},
		{"cut", "vllm sglang ktransformers", 502, 200, "upstream_error", "broken"},
		{"full", "sglang ktransformers", 429, 429, "rate_limit_exceeded", "refused"},
		{"abort", "vllm", 503, 503, "service_unavailable", "failed"},
		{"too-long", "vllm sglang ktransformers", 400, 400, "context_length_exceeded", "refused"},
	} {
		for kind := range strings.FieldsSeq(tc.kinds) {
			t.Run(tc.command+"/"+kind, func(t *testing.T) {
				t.Parallel()
				p := inFrontOfFaults(t, kind, startFake(t, kind).url)
				for _, stream := range []bool{false, true} {
					want := tc.status
					if stream {
						want = tc.stream
					}
					a, err := p.ask(t.Context(), chatPath, upstreamChat(tc.command, stream))
					if err != nil || a.status != want || a.err == nil || a.err.Code == nil || *a.err.Code != tc.code {
						t.Fatalf("stream %t: %+v, %v, want status %d and %s", stream, a, err, want, tc.code)
					}
					if strings.Contains(a.err.Message, "/opt") || strings.Contains(a.err.Message, "127.0.0.1") || len(a.choices) > 0 && a.choices[0].finish != "" {
						t.Errorf("stream %t: %+v", stream, a)
					}
					if (want == 429 || want == 503) && a.retryAfter == "" {
						t.Errorf("stream %t: no Retry-After", stream)
					}
				}
				if n := p.metrics(t).sum(t, "pagoda_upstream_requests_total", `outcome="`+tc.outcome+`"`); n < 2 {
					t.Errorf("%v requests count as %s", n, tc.outcome)
				}
				found := false
				for _, line := range p.lines() {
					var entry map[string]any
					if json.Unmarshal([]byte(line), &entry) == nil && entry["route"] == chatPath {
						found = found || entry["error"] != nil
					}
				}
				if !found {
					t.Errorf("the log names no error:\n%s", p.tail(20))
				}
			})
		}
	}
}

// TestUpstreamKilled: an upstream ends while it answers; what had begun ends with an error event, and the next request waits
// for the other one or for its return.
func TestUpstreamKilled(t *testing.T) {
	first, second := startFake(t, "vllm"), startFake(t, "vllm")
	p := inFrontOfFaults(t, "vllm", first.url+","+second.url)
	eventually(t, limit, "both are up", func() bool { return p.metrics(t).sum(t, "pagoda_upstream_up") == 2 })
	for _, command := range []string{"exit0", "say x", "exit137", "say x"} {
		a, err := p.ask(t.Context(), chatPath, upstreamChat(command, true))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case command != "say x" && (a.err == nil || a.status != http.StatusOK || a.choices[0].text != "one two"):
			t.Errorf("%s: %+v", command, a)
		case command == "say x" && p.metrics(t).sum(t, "pagoda_upstream_up") > 0 && a.err != nil:
			t.Errorf("afterwards: %+v", a.err)
		}
		if command == "exit137" {
			break
		}
	}
	if m := p.metrics(t); m.sum(t, "pagoda_upstream_requests_total", `outcome="broken"`) < 2 {
		t.Errorf("%v", m)
	}
	p.line(t, "upstream is down")
}

// TestUpstreamThousandStreams: a thousand streams run while one of two upstreams is killed and comes back. Those that it had begun
// end with an error event, all others are whole; the log and the metrics tell as much, and the upstream works again.
func TestUpstreamThousandStreams(t *testing.T) {
	const n = 1000
	socket := filepath.Join(t.TempDir(), "socket") // nobody else takes it while its server is gone, as they might a port
	first := startFake(t, "vllm", "--uds", socket, "--fake-chunk-ms", "20")
	second := startFake(t, "vllm", "--fake-chunk-ms", "20")
	p := inFrontOfFaults(t, "vllm", first.url+","+second.url, "--upstream-wait", "60s")
	isUp := func() bool { return p.metrics(t).sum(t, "pagoda_upstream_up", `upstream="unix:`+socket+`"`) == 1 }
	eventually(t, limit, "both are up", func() bool { return p.metrics(t).sum(t, "pagoda_upstream_up") == 2 })
	const want = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
	var broken, whole atomic.Int64
	done, killed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		parallel(n, n, func(i int) {
			if i >= n/2 {
				<-killed
			}
			a, err := p.ask(context.Background(), chatPath, upstreamChat("say "+want, true))
			switch {
			case err != nil || a.status != http.StatusOK:
				t.Errorf("stream %d: %+v, %v", i, a, err)
			case a.err == nil && a.choices[0].text == want && a.choices[0].finish == "stop":
				whole.Add(1)
			case a.err != nil && a.err.Type == "server_error" && a.choices[0].text != "" && strings.HasPrefix(want, a.choices[0].text):
				broken.Add(1)
			default:
				t.Errorf("stream %d: %+v, error %+v", i, a.choices, a.err)
			}
		})
	}()
	eventually(t, limit, "many run", func() bool { return p.metrics(t).sum(t, "pagoda_upstream_in_flight") > n/4 })
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	close(killed)
	p.line(t, "upstream is down")
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	startFake(t, "vllm", "--uds", socket)
	eventually(t, limit, "it is up again", isUp)
	<-done
	if broken.Load() == 0 || broken.Load()+whole.Load() != n {
		t.Errorf("%d broken off and %d whole of %d", broken.Load(), whole.Load(), n)
	}
	eventually(t, limit, "nothing is in flight", func() bool { return p.metrics(t).sum(t, "pagoda_upstream_in_flight") == 0 })
	m := p.metrics(t)
	ok, retries := m.sum(t, "pagoda_upstream_requests_total", `outcome="ok"`), m.sum(t, "pagoda_upstream_retries_total")
	if tries := m.sum(t, "pagoda_upstream_requests_total"); ok != float64(whole.Load()) || tries != n+retries {
		t.Errorf("metrics: %v tries, %v ok, %v retries; %d whole", tries, ok, retries, whole.Load())
	}
	eventually(t, limit, "the log tells of each that broke off", func() bool {
		told := int64(0)
		for _, line := range p.lines() {
			if strings.Contains(line, `"level":"error"`) && strings.Contains(line, `"stream":true`) && strings.Contains(line, "broke") {
				told++
			}
		}
		return told == broken.Load()
	})
	t.Logf("%d broken off, %d whole, %v sent again", broken.Load(), whole.Load(), retries)
}

// TestUpstreamTLS: an upstream behind https, whose authority the environment names; without it nothing is sent.
func TestUpstreamTLS(t *testing.T) {
	srv := httptest.NewTLSServer(fakeupstream.New("vllm", "upstream-model"))
	defer srv.Close()
	authority := filepath.Join(t.TempDir(), "authority.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(authority, text, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--infer-backend", "vllm", "--served-model-name", "m", "--upstream-url", srv.URL}
	p := serveIn(t, []string{"SSL_CERT_FILE=" + authority}, args...)
	if a := p.must(t, chatPath, upstreamChat("say x", true)); a.choices[0].text != "x" {
		t.Errorf("%+v", a)
	}
	p = listening(t, args...)
	if line := p.line(t, "waiting for the upstream"); !strings.Contains(fmt.Sprint(line["error"]), "certificate") {
		t.Errorf("%v", line)
	}
}

// TestUpstreamIdle: an upstream that closes idle connections sooner than anybody expects costs no request, not even where
// each one that is kept is stale.
func TestUpstreamIdle(t *testing.T) {
	p := inFront(t, "vllm", startFake(t, "vllm", "--fake-close-reused").url)
	parallel(8, 400, func(i int) {
		a, err := p.ask(context.Background(), chatPath, upstreamChat(fmt.Sprint("say ", i), i%2 == 0))
		if err != nil || a.status != http.StatusOK || a.err != nil {
			t.Errorf("request %d: %+v, %v", i, a, err)
		}
	})
}

func TestUpstreamList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "urls")
	write := func(url string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(url+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, second := startFake(t, "vllm"), startFake(t, "vllm")
	write(first.url)
	p := serveIn(t, []string{"PAGODA_UPSTREAM_API_KEY=" + fakeKey}, "--infer-backend", "vllm", "--served-model-name", "m", "--upstream-url-file", file)
	p.must(t, chatPath, upstreamChat("say x", false))
	write(second.url)
	p.line(t, "the list of upstreams has changed")
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.must(t, chatPath, upstreamChat("say x", false))
}

func TestUpstreamWait(t *testing.T) {
	f := startFake(t, "vllm")
	p := inFrontOfFaults(t, "vllm", f.url, "--upstream-wait", "0.1s")
	if err := f.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, limit, "a refusal", func() bool {
		a, err := p.ask(t.Context(), chatPath, upstreamChat("say x", false))
		return err == nil && a.status == http.StatusServiceUnavailable && a.retryAfter != ""
	})
}

func TestUpstreamStall(t *testing.T) {
	f := startFake(t, "vllm")
	p := inFrontOfFaults(t, "vllm", f.url, "--upstream-timeout", "0.3s")
	a, err := p.ask(t.Context(), chatPath, upstreamChat("hang-first", true))
	if err != nil || a.status != http.StatusGatewayTimeout || a.err == nil {
		t.Errorf("%+v, %v", a, err)
	}
	p.line(t, "upstream gives no sign of life: its requests end")
}

// TestUpstreamChatCommand: pagoda chat talks to an upstream as well.
func TestUpstreamChatCommand(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), program(t), "chat", "--infer-backend", "vllm", "--upstream-url", startFake(t, "vllm").url)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PAGODA_UPSTREAM_API_KEY=" + fakeKey}
	cmd.Stdin = strings.NewReader("say hello you\nthink so\n")
	got, err := cmd.Output()
	if err != nil || string(got) != "hello you\nso\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestUpstreamNotYet: a server whose upstream is not there yet waits for it, alive and not ready.
func TestUpstreamNotYet(t *testing.T) {
	p := listeningIn(t, nil, "--infer-backend", "sglang", "--upstream-url", "http://127.0.0.1:1")
	p.line(t, "waiting for the upstream")
	for path, want := range map[string]int{"/health": 200, "/ready": 503} {
		if status, _ := p.get(t, path); status != want {
			t.Errorf("%s: status %d", path, status)
		}
	}
	a, err := p.ask(t.Context(), chatPath, upstreamChat("say x", false))
	if err != nil || a.status != http.StatusServiceUnavailable {
		t.Errorf("%+v, %v", a, err)
	}
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
}

// spawning starts a server that starts a fake.
func spawning(t testing.TB, kind string, args ...string) *process {
	t.Helper()
	return spawningIn(t, nil, kind, args...)
}

func spawningIn(t testing.TB, env []string, kind string, args ...string) *process {
	t.Helper()
	return listeningIn(t, env, append([]string{"--infer-backend", kind, "--model", "/models/m", "--upstream-command", fakeProgram(t) + "," + kind}, args...)...)
}

// TestSpawned: the server is started with our options, answers, is started again when it ends, and ends with us.
func TestSpawned(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			orphan := filepath.Join(t.TempDir(), "orphan")
			config := "--sglang-config"
			if kind == "vllm" {
				config = "--vllm-config"
			}
			p := spawning(t, kind, config, `{"fake_orphan": "`+orphan+`"}`, "--adapter-name-or-path", "pirate=/adapters/pirate")
			p.line(t, "ready")
			a := p.must(t, chatPath, upstreamChat("who", false).with(fields{"model": "pirate"}))
			if a.choices[0].text != "pirate" {
				t.Errorf("%+v", a)
			}
			if a, err := p.ask(t.Context(), chatPath, upstreamChat("exit0", true)); err != nil || a.err == nil {
				t.Errorf("%+v, %v", a, err)
			}
			p.must(t, chatPath, upstreamChat("say again", false))
			if n := p.metrics(t).sum(t, "pagoda_upstream_restarts_total"); n != 1 {
				t.Errorf("%v restarts", n)
			}
			p.signal(t, syscall.SIGTERM)
			p.wantExit(t, limit, 0)
			var pid int
			if data, err := os.ReadFile(orphan); err != nil {
				t.Fatal(err)
			} else if _, err := fmt.Sscan(string(data), &pid); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, 0); err == nil {
				t.Error("what the server had started lives on")
			}
		})
	}
}

// TestSpawnedTooSlow: a server that does not become ready, or ends at once, is an error with its last words.
func TestSpawnedTooSlow(t *testing.T) {
	p := spawning(t, "vllm", "--vllm-config", `{"fake_never_ready": true}`, "--upstream-start-timeout", "0.3s")
	p.wantExit(t, limit, 1)
	if !strings.Contains(p.tail(10), "not ready after 300ms") {
		t.Errorf("%s", p.tail(10))
	}
	p = spawning(t, "sglang", "--sglang-config", `{"fake_fail": true}`)
	p.wantExit(t, limit, 1)
	if !strings.Contains(p.tail(10), "Free memory on device is less than desired") {
		t.Errorf("%s", p.tail(10))
	}
	began, tmp := time.Now(), t.TempDir()
	p = spawningIn(t, []string{"TMPDIR=" + tmp}, "vllm", "--vllm-config", `{"fake_never_ready": true}`)
	p.line(t, "starting the model's server")
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
	if took := time.Since(began); took > limit {
		t.Errorf("a stop while starting took %v", took)
	}
	for deadline := time.Now().Add(limit); ; { // what ends after this program removes it
		left, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is left", left[0].Name())
		}
		runtime.Gosched()
	}
}
