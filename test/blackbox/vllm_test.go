package blackbox

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// realLimit is how long a real server may take to start on a busy machine.
const realLimit = 10 * time.Minute

// TestRealVLLMCases: a real vLLM's answers to the built-in model's cases are the reference's, through the proxy, whole and
// streamed.
func TestRealVLLMCases(t *testing.T) {
	url := os.Getenv(upstreamURL)
	if url == "" {
		t.Skip("no real vLLM: " + upstreamURL + " is not set; test/upstream/run.sh starts one and sets it")
	}
	p := serve(t, "--infer-backend", "vllm", "--upstream-url", url, "--adapter-name-or-path", demoAdapters, "--max-n", "8")
	var cs []*testCase
	for _, c := range cases(t) {
		if c.ExpectedReasoning == "" { // the server has no parser of thoughts: it takes answers without thoughts for thoughts
			cs = append(cs, c)
		}
	}
	var different atomic.Int64
	total := len(cs) * len(ways)
	parallel(16, total, func(i int) {
		c, w := cs[i/len(ways)], ways[i%len(ways)]
		a, err := p.ask(t.Context(), w.path, w.request(c))
		if err != nil || a.status != http.StatusOK || a.err != nil || len(a.choices) != 1 {
			t.Errorf("%s, %v: %+v, %v", c.Skill, w, a, err)
			return
		}
		if what := w.differs(c, &a.choices[0]); what != "" {
			different.Add(1)
			t.Logf("%s (%s, %v): %s", c.Skill, c.model(), w, what)
		}
	})
	t.Logf("%d of %d answers differ", different.Load(), total)
	if float64(different.Load()) > 0.01*float64(total) {
		t.Errorf("%d of %d answers differ", different.Load(), total)
	}
}

// TestRealVLLMSpawned: the program starts a real vLLM with its own command line, loads and drops an adapter, survives its
// being killed, and leaves nothing behind.
func TestRealVLLMSpawned(t *testing.T) {
	command := os.Getenv("PAGODA_TEST_VLLM_COMMAND")
	if command == "" {
		t.Skip("no real vLLM: PAGODA_TEST_VLLM_COMMAND is not set; test/upstream/run.sh sets it")
	}
	model, err := filepath.Abs(root + "/models/demo")
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "VLLM_") || strings.HasPrefix(kv, "OMP_") || strings.HasPrefix(kv, "HF_") {
			env = append(env, kv)
		}
	}
	p := listeningIn(t, env, "--infer-backend", "vllm", "--model", model, "--served-model-name", demo, "--infer-dtype", "float32",
		"--vllm-enforce-eager", "--max-model-len", "512", "--adapter-name-or-path", "pirate="+model+"/adapters/pirate",
		"--vllm-config", `{"max_num_seqs": 4, "gpu_memory_utilization": null}`, "--upstream-command", command, "--upstream-wait", "300s")
	p.client.Timeout = realLimit
	ready := func() bool { status, _ := p.get(t, "/ready"); return status == http.StatusOK || !p.running() }
	eventually(t, realLimit, "ready", ready)
	if !p.running() {
		t.Fatalf("it ended:\n%s", p.tail(40))
	}
	p.wantText(t, say("pirate", "What is the opposite of hot?"), "Arr, the opposite of hot is cold, matey.")
	pid := int(p.line(t, "starting the model's server")["pid"].(float64))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.line(t, "the model's server ended")
	p.wantText(t, say(demo, "hi"), "Hi! How can I help you?") // waits for the restart
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, time.Minute, 0)
}
