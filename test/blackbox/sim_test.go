package blackbox

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// startSim starts llm-d-inference-sim, a server of the llm-d project that answers as vLLM does, and returns it as a process to post to.
// It answers with the last message.
func startSim(t *testing.T) *process {
	t.Helper()
	program := os.Getenv("PAGODA_TEST_SIM")
	if program == "" {
		t.Skip("no llm-d-inference-sim: PAGODA_TEST_SIM is not set; SIM=path test/upstream/run.sh sets it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--port", strconv.Itoa(port), "--model", "sim", "--served-model-name", "upstream-model", "--mode", "echo",
		"--max-model-len", "512", "--force-dummy-tokenizer", "--lora-modules", `{"name":"pirate","path":"/adapters/pirate"}`)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s := start{cmd, make(chan error, 1)}
	starts <- s
	if err := <-s.err; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // nothing to do if it has ended
		_ = cmd.Wait()         // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return &process{url: "http://127.0.0.1:" + strconv.Itoa(port), client: http.DefaultClient}
}

// TestSim: in front of llm-d-inference-sim, all that a client may meet is as in front of vLLM itself.
func TestSim(t *testing.T) {
	sim := startSim(t)
	p := inFrontOfFaults(t, "vllm", sim.url, "--adapter-name-or-path", "pirate=already", "--allow-runtime-lora-updating")
	for _, stream := range []bool{false, true} {
		a := p.must(t, chatPath, upstreamChat("Hello wide world", stream).with(fields{"stream_options": usageIf(stream)}))
		if c := a.choices[0]; c.text != "Hello wide world" || c.finish != "stop" || a.usage == nil || a.usage.Prompt == 0 || a.usage.Completion == 0 {
			t.Errorf("stream %t: %+v, usage %+v", stream, a, a.usage)
		}
		a = p.must(t, chatPath, upstreamChat("one two three four five six", stream).with(fields{"max_tokens": 3}))
		if c := a.choices[0]; c.finish != "length" || !strings.HasPrefix("one two three four five six", c.text) || c.text == "" {
			t.Errorf("stream %t: %+v", stream, a)
		}
		a = p.must(t, completionPath, fields{"model": "m", "prompt": "Hello wide world", "stream": stream, "logprobs": 2, "max_tokens": 50})
		if c := a.choices[0]; c.text != "Hello wide world" || c.finish != "stop" || len(c.top) == 0 {
			t.Errorf("stream %t: %+v", stream, a)
		}
		a = p.must(t, chatPath, upstreamChat("x", stream).with(fields{"tool_choice": "required", "tools": []fields{{"type": "function",
			"function": fields{"name": "get_time", "description": "Get the time.", "parameters": fields{"type": "object",
				"properties": fields{"city": fields{"type": "string", "description": "The city"}}, "required": []string{"city"}}}}}}))
		if c := a.choices[0]; c.finish != "tool_calls" || len(c.calls) == 0 || c.calls[0].Function.Name != "get_time" ||
			!strings.Contains(c.calls[0].Function.Arguments, `"city"`) || c.calls[0].ID == "" {
			t.Errorf("stream %t: %+v", stream, a)
		}
		a = p.must(t, chatPath, upstreamChat("I am an adapter", stream).with(fields{"model": "pirate"}))
		if c := a.choices[0]; c.text != "I am an adapter" {
			t.Errorf("stream %t: %+v", stream, a)
		}
	}
	p.wantRefused(t, chatPath, upstreamChat(strings.Repeat("word ", 1000), false), http.StatusBadRequest, "")
	if status, text := p.get(t, "/metrics/upstream/m"); status != http.StatusOK || !strings.Contains(text, "vllm:num_requests_running") {
		t.Errorf("status %d: %.300s", status, text)
	}
	// Adapters come and go.
	p.done(t, "/v1/load_lora_adapter", fields{"lora_name": "new", "lora_path": "/adapters/new"})
	if a := p.must(t, chatPath, upstreamChat("me too", false).with(fields{"model": "new"})); a.choices[0].text != "me too" {
		t.Errorf("%+v", a)
	}
	p.done(t, "/v1/unload_lora_adapter", fields{"lora_name": "new"})
	p.wantRefused(t, chatPath, upstreamChat("x", false).with(fields{"model": "new"}), http.StatusNotFound, "does not exist")
	// It tells no token ids, which a template needs.
	model, err := filepath.Abs(root + "/models/demo")
	if err != nil {
		t.Fatal(err)
	}
	inFrontOfFaults(t, "vllm", sim.url, "--template", "qwen3", "--tokenizer", model).wantRefused(t, chatPath, upstreamChat("x", false),
		http.StatusBadGateway, "return_token_ids")
	// Each of its faults is one of ours.
	for _, fault := range []struct {
		kind string
		want int
	}{{"rate_limit", http.StatusTooManyRequests}, {"invalid_request", http.StatusBadRequest}, {"context_length", http.StatusBadRequest},
		{"invalid_api_key", http.StatusBadGateway}, {"server_error", http.StatusServiceUnavailable}} { // its own is 503
		var out map[string]any
		sim.call(t, "/admin/config", fields{"failure-injection-rate": 100, "failure-types": []string{fault.kind}}, &out)
		for _, stream := range []bool{false, true} {
			a, err := p.ask(t.Context(), chatPath, upstreamChat("x", stream))
			if err != nil || a.status != fault.want || a.err == nil {
				t.Errorf("%s, stream %t: %+v, %v, want status %d", fault.kind, stream, a, err, fault.want)
			}
		}
		sim.call(t, "/admin/config", fields{"failure-injection-rate": 0}, &out)
	}
}

func usageIf(stream bool) any {
	if !stream {
		return nil
	}
	return fields{"include_usage": true}
}

// done posts what is answered by a text.
func (p *process) done(t *testing.T, path string, body fields) {
	t.Helper()
	resp, err := p.post(t.Context(), path, body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
}
