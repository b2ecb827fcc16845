package blackbox

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestModels: a list of models is served behind one address, each with options of its own; names that clash end the start.
func TestModels(t *testing.T) {
	file := filepath.Join(t.TempDir(), "models.yaml")
	if err := os.WriteFile(file, []byte(`
max_num_seqs: 4
models:
  - served_model_name: plain
  - served_model_name: rounded
    model_name_or_path: `+copyModel(t)+`
    quantization_bit: 8
    default_system: Be kind.
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, file)
	for _, name := range []string{"plain", "rounded"} {
		p.wantText(t, say(name, "hi"), "Hi! How can I help you?")
	}
	p.wantPrompt(t, say("plain", "hi"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
	p.wantPrompt(t, say("rounded", "hi"), "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
	p.wantRefused(t, chatPath, say(demo, "hi"), http.StatusNotFound, "does not exist")
	if _, text := p.get(t, "/metrics"); !strings.Contains(text, `model_name="plain"`) || !strings.Contains(text, `model_name="rounded"`) {
		t.Error("the metrics do not tell the models apart")
	}
}

// TestModelsMixed: models of our own engine and of other servers stand side by side, each by its name with its adapters. A server
// that is down at the start keeps no other model away: requests for its model are answered 503 until it is there.
func TestModelsMixed(t *testing.T) {
	up := startFake(t, "vllm")
	later, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := later.Addr().String()
	later.Close()
	file := filepath.Join(t.TempDir(), "models.yaml")
	if err := os.WriteFile(file, []byte(`
upstream_wait: 0.2s
models:
  - served_model_name: absent
    infer_backend: sglang
    upstream_url: http://`+addr+`
  - served_model_name: large
    infer_backend: vllm
    upstream_url: `+up.url+`
    upstream_api_key: `+fakeKey+`
    adapter_name_or_path: pirates=/adapters/pirates
    upstream_routes: [/pooling]
  - served_model_name: small
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, file)
	_, list := p.get(t, "/v1/models")
	for _, id := range []string{"absent", "large", "pirates", "small", "pirate"} {
		if !strings.Contains(list, `"id":"`+id+`"`) {
			t.Errorf("no model %s in %s", id, list)
		}
	}
	p.wantText(t, say("small", "hi"), "Hi! How can I help you?")
	for model, want := range map[string]string{"large": "upstream-model", "pirates": "pirates"} {
		if a := p.must(t, chatPath, upstreamChat("who", false).with(fields{"model": model})); a.choices[0].text != want {
			t.Errorf("%s: %+v", model, a)
		}
	}
	p.wantRefused(t, chatPath, say("absent", "hi"), http.StatusServiceUnavailable, "no server of this model is available")
	p.wantRefused(t, chatPath, say("nobody", "hi"), http.StatusNotFound, "does not exist")
	// What only a server has is reached by its model's name alone.
	if a, err := p.ask(t.Context(), "/pooling", fields{"model": "large"}); err != nil || a.status != http.StatusOK {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := p.ask(t.Context(), "/pooling", fields{"model": "small"}); err != nil || a.status == http.StatusOK {
		t.Errorf("%+v, %v", a, err)
	}
	if status, text := p.get(t, "/metrics/upstream/large"); status != http.StatusOK || !strings.Contains(text, "vllm:") {
		t.Errorf("status %d: %s", status, text)
	}
	m := p.metrics(t)
	if n := m.sum(t, "pagoda_upstream_up"); n != 1 {
		t.Errorf("%v upstreams are up", n)
	}
}
