package blackbox

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// slowLoad starts a server whose model cannot finish loading before the test writes the chat template into the pipe.
func slowLoad(t *testing.T) (p *process, finish func()) {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "template.jinja")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0) // for reading too, so that it does not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var tokenizer struct {
		ChatTemplate string `json:"chat_template"`
	}
	data, err := os.ReadFile(root + "/models/demo/tokenizer_config.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &tokenizer); err != nil || tokenizer.ChatTemplate == "" {
		t.Fatal("no chat template", err)
	}
	return listening(t, "--chat-template", pipe), func() {
		if _, err := f.WriteString(tokenizer.ChatTemplate); err != nil {
			t.Error(err)
		}
		f.Close()
	}
}

func (p *process) wantStatus(t *testing.T, path string, want int) {
	t.Helper()
	if got, body := p.get(t, path); got != want {
		t.Errorf("%s: status %d, want %d: %s", path, got, want, body)
	}
}

// wantUnavailable checks that new generations are refused as they should be by a server that is not ready.
func (p *process) wantUnavailable(t *testing.T) {
	t.Helper()
	a, err := p.ask(t.Context(), chatPath, say(demo, "hi"))
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusServiceUnavailable || a.err == nil || a.retryAfter == "" {
		t.Errorf("status %d, error %+v, Retry-After %q", a.status, a.err, a.retryAfter)
	}
}

func TestReadiness(t *testing.T) {
	p, finish := slowLoad(t)
	p.wantStatus(t, "/health", http.StatusOK)
	p.wantStatus(t, "/ready", http.StatusServiceUnavailable)
	p.wantStatus(t, "/metrics", http.StatusOK)
	p.wantUnavailable(t)
	finish()
	p.line(t, "ready")
	p.wantStatus(t, "/health", http.StatusOK)
	p.wantStatus(t, "/ready", http.StatusOK)
	p.must(t, chatPath, say(demo, "hi"))
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
}

func TestStopWhileLoading(t *testing.T) {
	p, _ := slowLoad(t)
	p.wantStatus(t, "/ready", http.StatusServiceUnavailable)
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
}

// streams starts n long streams and returns when all have begun. The function waits for their ends.
func (p *process) streams(t *testing.T, n, tokens int) func() []*answer {
	t.Helper()
	var began, ended sync.WaitGroup
	out := make([]*answer, n)
	for i := range n {
		began.Add(1)
		ended.Go(func() {
			resp, err := p.post(t.Context(), completionPath, long(tokens).with(fields{"stream": true, "seed": i}))
			began.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			a := &answer{status: resp.StatusCode}
			if err := a.stream(resp.Body); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
			out[i] = a
		})
	}
	began.Wait()
	return func() []*answer {
		ended.Wait()
		if t.Failed() {
			t.FailNow()
		}
		return out
	}
}

func TestDrain(t *testing.T) {
	p := serve(t, "--drain-timeout", "60s")
	wait := p.streams(t, 8, 900)
	p.signal(t, syscall.SIGTERM)
	p.line(t, "draining")
	p.wantStatus(t, "/health", http.StatusOK)
	p.wantStatus(t, "/ready", http.StatusServiceUnavailable)
	p.wantUnavailable(t)
	for i, a := range wait() {
		if a.err != nil || a.choices[0].finish != "length" || a.chunks < 500 {
			t.Errorf("stream %d: %d chunks, finish %q, error %+v", i, a.chunks, a.choices[0].finish, a.err)
		}
	}
	p.wantExit(t, limit, 0)
}

func TestDrainTimeout(t *testing.T) {
	p := serve(t, "--drain-timeout", "50ms")
	wait := p.streams(t, 8, 900)
	p.signal(t, syscall.SIGTERM)
	for i, a := range wait() {
		if a.err == nil || a.err.Code == nil || *a.err.Code != "service_unavailable" || a.choices[0].finish != "" {
			t.Errorf("stream %d: error %+v", i, a.err)
		}
	}
	p.wantExit(t, limit, 0)
	if took := p.line(t, "drained")["took_ms"].(float64); took > 2000 { // 50 ms and one second's grace
		t.Errorf("the drain took %v ms", took)
	}
}

func TestSecondSignal(t *testing.T) {
	p := listening(t, "--drain-timeout", "60s")
	p.line(t, "ready")
	resp, err := p.post(t.Context(), completionPath, long(1000).with(fields{"stream": true, "n": 32}))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p.signal(t, os.Interrupt)
	p.line(t, "draining")
	if !p.running() {
		t.Fatal("the stream did not hold the process")
	}
	p.signal(t, os.Interrupt)
	p.wantExit(t, limit, 1)
}

// TestKilled: nothing is left behind that would stop the next server.
func TestKilled(t *testing.T) {
	p := listening(t)
	p.line(t, "ready")
	p.must(t, chatPath, say(demo, "hi"))
	p.signal(t, syscall.SIGKILL)
	p.wantExit(t, limit, -1)
	again := serve(t, "--port", p.url[strings.LastIndex(p.url, ":")+1:])
	again.must(t, chatPath, say(demo, "hi"))
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := command(t, nil, "serve", "--port", fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	p.wantExit(t, limit, 1)
	p.wantMessage(t, l.Addr().String(), "address already in use")
}

// wantMessage checks that the process said what is wrong, in a line or two.
func (p *process) wantMessage(t *testing.T, parts ...string) {
	t.Helper()
	var plain []string // what is not a log line
	for _, line := range p.lines() {
		if !strings.HasPrefix(line, "{") {
			plain = append(plain, line)
		}
	}
	text := strings.Join(plain, "\n")
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in the message:\n%s", part, text)
		}
	}
	if len(plain) > 4 || strings.Contains(text, "goroutine ") || strings.Contains(text, "panic") || !strings.HasPrefix(text, "pagoda: ") {
		t.Errorf("not a clear message:\n%s", text)
	}
}

func TestBadOptions(t *testing.T) {
	config := filepath.Join(t.TempDir(), "serve.yaml")
	if err := os.WriteFile(config, []byte("port: 8000\nmax_num_seq: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		want []string
	}{
		{name: "unknown flag", args: []string{"--frobnicate"}, want: []string{"frobnicate"}},
		{name: "unknown key", args: []string{"frobnicate=1"}, want: []string{"frobnicate"}},
		{name: "bad number", args: []string{"--port", "http"}, want: []string{"--port", "http"}},
		{name: "out of range", args: []string{"--port", "70000"}, want: []string{"--port", "70000"}},
		{name: "bad duration", args: []string{"--drain-timeout", "soon"}, want: []string{"--drain-timeout", "soon"}},
		{name: "bad choice", args: []string{"--infer-dtype", "int3"}, want: []string{"--infer-dtype", "int3", "float32"}},
		{name: "value missing", args: []string{"--port"}, want: []string{"--port"}},
		{name: "environment", env: []string{"PAGODA_MAX_QUEUE=many"}, want: []string{"PAGODA_MAX_QUEUE", "many"}},
		{name: "file", args: []string{config}, want: []string{"serve.yaml:2", "max_num_seq"}},
		{name: "no file", args: []string{"nothing.yaml"}, want: []string{"nothing.yaml"}},
		{name: "two problems", args: []string{"--port", "x", "--threads", "y"}, want: []string{"--port", "--threads"}},
		{name: "idle draft model", args: []string{"--draft-model", "."}, want: []string{"speculative_method"}},
		{name: "backend", args: []string{"--infer-backend", "vllm"}, want: []string{"infer", "vllm"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := command(t, tt.env, append([]string{"serve"}, tt.args...)...)
			p.wantExit(t, limit, 2) // before it listens anywhere
			p.wantMessage(t, tt.want...)
		})
	}
}

// copyModel copies the built-in model's folder, without adapters and recipe.
func copyModel(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
		"tokenizer_config.json"} {
		data, err := os.ReadFile(filepath.Join(root, "models/demo", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBadModel(t *testing.T) {
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		args  []string // with DIR for the folder
		want  []string
	}{
		{name: "no folder", args: []string{"--model", "DIR/nothing"}, want: []string{"model_name_or_path", "nothing"}},
		{name: "a file", args: []string{"--model", "DIR/config.json"}, want: []string{"config.json", "not a folder"}},
		{name: "no config", spoil: remove("config.json"), want: []string{"config.json"}},
		{name: "no tokenizer", spoil: remove("tokenizer.json"), want: []string{"tokenizer.json"}},
		{name: "no weights", spoil: remove("model.safetensors"), want: []string{"safetensors"}},
		{name: "config is not JSON", spoil: write("config.json", "{"), want: []string{"config.json"}},
		{name: "unknown architecture", spoil: write("config.json", `{"architectures": ["GrokForCausalLM"]}`),
			want: []string{"GrokForCausalLM"}},
		{name: "tokenizer is not JSON", spoil: write("tokenizer.json", "{"), want: []string{"tokenizer"}},
		{name: "weights are something else", spoil: write("model.safetensors", "<html>not found</html>"),
			want: []string{"model.safetensors"}},
		{name: "weights cut off", spoil: func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "model.safetensors"), 1<<20); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"model.safetensors"}},
		{name: "no adapter", args: []string{"--model", "DIR", "--adapter-name-or-path", "a=DIR/nothing"},
			want: []string{"adapter_name_or_path", "nothing"}},
		{name: "adapter without files", args: []string{"--model", "DIR", "--adapter-name-or-path", "poems=DIR"},
			want: []string{"poems", "adapter_config.json"}},
		{name: "no draft model", args: []string{"--speculative-method", "draft_model", "--draft-model", "DIR/nothing"},
			want: []string{"draft_model", "nothing"}},
		{name: "template with an error", spoil: write("chat_template.jinja", "{% if %}"),
			want: []string{"template"}},
		{name: "too little memory", args: []string{"--model", "DIR", "--kv-cache-memory", "64KiB"},
			want: []string{"kv_cache_memory"}},
		{name: "no such kernels", args: []string{"--cpu-kernels", "sse9"}, want: []string{"sse9"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := copyModel(t)
			if tt.spoil != nil {
				tt.spoil(t, dir)
			}
			if tt.args == nil {
				tt.args = []string{"--model", dir}
			}
			args := []string{"serve", "--port", "0"}
			for _, a := range tt.args {
				args = append(args, strings.ReplaceAll(a, "DIR", dir))
			}
			p := command(t, nil, args...)
			p.wantExit(t, limit, 1)
			p.wantMessage(t, tt.want...)
		})
	}
}

// TestModelFolder: the same model from a folder, with an adapter, under other names, copied to memory and used from its file.
func TestModelFolder(t *testing.T) {
	dir := copyModel(t)
	adapter, err := filepath.Abs(root + "/models/demo/adapters/shout")
	if err != nil {
		t.Fatal(err)
	}
	weights := map[bool]float64{}
	for _, mapped := range []bool{false, true} {
		p := serve(t, "--model_name_or_path", dir, "served_model_name=mine", "--adapter-name-or-path", "loud="+adapter,
			fmt.Sprintf("mmap=%v", mapped))
		if got := p.must(t, chatPath, say("mine", "hi")).choices[0].text; got != "Hi! How can I help you?" {
			t.Errorf("mmap=%v: got %q", mapped, got)
		}
		if got := p.must(t, chatPath, say("loud", "hi")).choices[0].text; got != "HI! HOW CAN I HELP YOU!" {
			t.Errorf("mmap=%v: got %q", mapped, got)
		}
		if a, err := p.ask(t.Context(), chatPath, say(demo, "hi")); err != nil || a.status != http.StatusNotFound {
			t.Errorf("mmap=%v: %+v, %v", mapped, a, err)
		}
		weights[mapped], _ = p.line(t, "ready")["weight_bytes"].(float64)
		p.signal(t, syscall.SIGTERM)
		p.wantExit(t, limit, 0)
	}
	if !(weights[true] > 0 && weights[true] < weights[false]/4) {
		t.Errorf("weights take %v bytes mapped, %v copied", weights[true], weights[false])
	}
}

// TestDraftModel: the model as its own draft says the same, and guesses.
func TestDraftModel(t *testing.T) {
	p := serve(t, "--speculative-method", "draft_model", "--draft-model", copyModel(t))
	for _, model := range []string{demo, "shout"} {
		want := map[string]string{demo: "Hi! How can I help you?", "shout": "HI! HOW CAN I HELP YOU!"}[model]
		if got := p.must(t, chatPath, say(model, "hi")).choices[0].text; got != want {
			t.Errorf("%s: got %q", model, got)
		}
	}
	m := p.metrics(t)
	if m.sum(t, "vllm:spec_decode_num_accepted_tokens_total") == 0 || m.sum(t, "pagoda_spec_decode_num_draft_tokens_total") == 0 {
		t.Error("nothing was guessed")
	}
}

// TestIdleConnections: a client that keeps its connection open does not hold the end up.
func TestIdleConnections(t *testing.T) {
	p := serve(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
	if took := p.line(t, "drained")["took_ms"].(float64); took > 2000 {
		t.Errorf("the drain took %v ms", took)
	}
}
