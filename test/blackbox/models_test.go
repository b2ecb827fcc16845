package blackbox

import (
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
