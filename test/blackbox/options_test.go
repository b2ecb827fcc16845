package blackbox

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// optionTests hold an effect of every option of serve, seen from outside. DIR in args is a scratch folder.
var optionTests = map[string]struct {
	args  []string
	key   string
	check func(t *testing.T, p *process)
}{
	"served_model_name": {args: []string{"--served-model-name", "mine"}, check: func(t *testing.T, p *process) {
		p.wantText(t, say("mine", "hi"), "Hi! How can I help you?")
	}},
	"generation_config": {args: []string{"--generation-config", "none"}, check: func(t *testing.T, p *process) {
		// The checkpoint's file says greedy; neutral is temperature 1.
		texts := map[string]bool{}
		for _, c := range p.must(t, chatPath, fields{"model": demo, "n": 32, "seed": 1, "max_tokens": 40,
			"messages": say(demo, "Tell me a story.")["messages"]}).choices {
			texts[c.text] = true
		}
		if len(texts) < 2 {
			t.Errorf("the sampling defaults of the checkpoint are in force: %v", texts)
		}
	}},
	"chat_template": {args: []string{"--chat-template", "DIR/template"}, check: func(t *testing.T, p *process) {
		if a := p.must(t, chatPath, say(demo, "hi").with(fields{"max_tokens": 1, "return_token_ids": true})); p.detokenize(t, a.promptIDs...) != "T: hi" {
			t.Errorf("prompt %v", a.promptIDs)
		}
	}},
	"tool_call_parser": {args: []string{"--tool-call-parser", "none"}, check: func(t *testing.T, p *process) {
		p.wantText(t, say(demo, "What is the weather in Paris?").with(fields{"tools": []fields{{"type": "function", "function": fields{
			"name": "get_weather", "description": "Get the current weather in a city.", "parameters": fields{"type": "object",
				"properties": fields{"city": fields{"type": "string"}}, "required": []string{"city"}}}}}, "skip_special_tokens": false}),
			"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>")
	}},
	"reasoning_parser": {args: []string{"--reasoning-parser", "none"}, check: func(t *testing.T, p *process) {
		a := p.must(t, chatPath, say(demo, "What is 12 + 7?").with(fields{"skip_special_tokens": false}))
		if c := a.choices[0]; c.reasoning != "" || !strings.HasPrefix(c.text, "<think>") {
			t.Errorf("%+v", c)
		}
	}},
	"template": {args: []string{"--template", "default"}, check: func(t *testing.T, p *process) {
		p.wantPrompt(t, say(demo, "hi"), "Human: hi<|im_end|>\nAssistant:")
	}},
	"tool_format": {args: []string{"--template", "chatml", "--tool-format", "mistral"}, check: func(t *testing.T, p *process) {
		p.wantPrompt(t, say(demo, "hi").with(fields{"tools": json.RawMessage(`[{"type": "function", "function": {"name": "f"}}]`)}),
			"<|im_start|>system\n[AVAILABLE_TOOLS] [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}][/AVAILABLE_TOOLS]<|im_end|>\n"+
				"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
	}},
	"default_system": {args: []string{"--default-system", "Be kind."}, check: func(t *testing.T, p *process) {
		p.wantPrompt(t, say(demo, "hi"), "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
	}},
	"enable_thinking": {args: []string{"--template", "qwen3", "--enable-thinking", "false"}, check: func(t *testing.T, p *process) {
		p.wantPrompt(t, say(demo, "hi"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
	}},
	"preserve_thinking": {args: []string{"--template", "qwen3", "--preserve-thinking"}, check: func(t *testing.T, p *process) {
		p.wantPrompt(t, fields{"model": demo, "messages": []fields{{"role": "user", "content": "a"},
			{"role": "assistant", "content": "<think>\nx\n</think>\n\nb"}, {"role": "user", "content": "c"}}},
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\nx\n</think>\n\nb<|im_end|>\n"+
				"<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n")
	}},
	"do_sample":   {args: []string{"--generation-config", "none", "--do-sample", "false"}, check: wantStories(1, 1)},
	"temperature": {args: []string{"--temperature", "2"}, check: wantStories(2, 16)},
	"top_p":       {args: []string{"--generation-config", "none", "--top-p", "0.001"}, check: wantStories(1, 1)},
	"top_k":       {args: []string{"--generation-config", "none", "--top-k", "1"}, check: wantStories(1, 1)},
	"repetition_penalty": {args: []string{"--repetition-penalty", "100"}, check: func(t *testing.T, p *process) {
		a := p.must(t, completionPath, fields{"model": demo, "prompt": "a a a", "temperature": 0, "max_tokens": 20, "ignore_eos": true, "return_token_ids": true})
		seen := map[int32]bool{}
		for _, id := range a.choices[0].ids {
			if seen[id] {
				t.Errorf("token %d twice in %v", id, a.choices[0].ids)
			}
			seen[id] = true
		}
	}},
	"max_tokens": {args: []string{"--max-tokens", "3"}, check: func(t *testing.T, p *process) {
		if a := p.must(t, chatPath, say(demo, "Tell me a story.")); a.choices[0].finish != "length" {
			t.Errorf("%+v", a.choices[0])
		}
	}},
	"skip_special_tokens": {args: []string{"--skip-special-tokens", "false", "--reasoning-parser", "none"}, check: func(t *testing.T, p *process) {
		if c := p.must(t, chatPath, say(demo, "What is 12 + 7?")).choices[0]; !strings.HasPrefix(c.text, "<think>") {
			t.Errorf("%+v", c)
		}
	}},
	"default_model": {args: []string{"--default-model", "pirate"}, check: func(t *testing.T, p *process) {
		p.wantText(t, say("gpt-3.5-turbo", "hi"), "Arr, Hi! How can I help you, matey.")
	}},
	"root_path": {args: []string{"--root-path", "/llm"}, check: func(t *testing.T, p *process) {
		if resp := p.do(t, http.MethodGet, "/llm/v1/models"); resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}},
	"add_tokens": {args: []string{"--add-tokens", "<new>,the"}, check: func(t *testing.T, p *process) {
		p.wantTokens(t, "<new>", 2048)
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
	}},
	"add_special_tokens": {args: []string{"--add-special-tokens", "<ctl>"}, check: func(t *testing.T, p *process) {
		p.wantTokens(t, "<ctl>", 2048)
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
	}},
	"new_special_tokens_config": {args: []string{"--new-special-tokens-config", "DIR/descriptions"}, check: func(t *testing.T, p *process) {
		p.wantTokens(t, "<b><a>", 2048, 2049)
	}},
	"init_special_tokens": {args: []string{"--init-special-tokens", "desc_init"}, check: func(t *testing.T, p *process) {
		for _, line := range p.lines() {
			if strings.Contains(line, "init_special_tokens: there are no descriptions") {
				return
			}
		}
		t.Error("no warning that there are no descriptions")
	}},
	"split_special_tokens": {args: []string{"--split-special-tokens"}, check: func(t *testing.T, p *process) {
		var got struct{ Tokens []int32 }
		p.call(t, "/tokenize", fields{"prompt": "<|im_end|>"}, &got)
		if len(got.Tokens) < 2 || p.detokenize(t, got.Tokens...) != "<|im_end|>" {
			t.Errorf("tokens %v", got.Tokens)
		}
	}},
	"infer_backend": {args: []string{"--infer-backend", "huggingface"}, check: func(t *testing.T, p *process) {
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
	}},
	"load_format": {args: []string{"--load-format", "dummy"}, check: func(t *testing.T, p *process) {
		if a := p.must(t, completionPath, fields{"model": demo, "prompt": "hi", "max_tokens": 8}); a.usage.Completion == 0 {
			t.Errorf("%+v", a)
		}
	}},
	"quantization_bit": {args: []string{"--quantization-bit", "8"}, check: func(t *testing.T, p *process) {
		if got := p.line(t, "ready")["weights"]; got != "int8" {
			t.Errorf("the log says weights %v", got)
		}
		p.wantText(t, say(demo, "What is the capital of Japan?"), "The capital of Japan is Tokyo.")
		p.wantText(t, say("pirate", "What is the opposite of hot?"), "Arr, the opposite of hot is cold, matey.")
	}},
	"quantization_method": {args: []string{"--quantization-method", "rtn", "--quantization-bit", "4"}, check: func(t *testing.T, p *process) {
		if got := p.line(t, "ready")["weights"]; got != "int4" {
			t.Errorf("the log says weights %v", got)
		}
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
	}},
	"infer_dtype": {args: []string{"--infer-dtype", "float16"}, check: func(t *testing.T, p *process) {
		if got := p.line(t, "ready")["dtype"]; got != "float16" {
			t.Errorf("dtype %v", got)
		}
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
	}},
	"threads": {args: []string{"--threads", "3"}, check: func(t *testing.T, p *process) {
		if got := p.line(t, "ready")["threads"]; got != 3.0 {
			t.Errorf("%v threads", got)
		}
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
	}},
	"cpu_kernels": {args: []string{"--cpu-kernels", "portable"}, check: func(t *testing.T, p *process) {
		if got := p.line(t, "ready")["kernels"]; got != "portable" {
			t.Errorf("kernels %v", got)
		}
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
	}},
	"max_model_len": {args: []string{"--max-model-len", "64"}, check: func(t *testing.T, p *process) {
		p.wantRefused(t, completionPath, long(64), http.StatusBadRequest, "64 tokens")
		p.must(t, completionPath, long(63))
	}},
	"hf_overrides": {args: []string{"--hf-overrides", `{"max_position_embeddings": 64}`}, check: func(t *testing.T, p *process) {
		p.wantRefused(t, completionPath, long(64), http.StatusBadRequest, "64 tokens")
		p.must(t, completionPath, long(63))
	}},
	"kv_cache_memory": {args: []string{"--kv-cache-memory", "6MiB"}, check: func(t *testing.T, p *process) {
		if got := p.metrics(t).sum(t, "vllm:cache_config_info", `num_gpu_blocks="128"`); got != 1 {
			t.Errorf("not 128 blocks")
		}
	}},
	"kv_cache_dtype": {args: []string{"--kv-cache-dtype", "fp8"}, check: func(t *testing.T, p *process) {
		p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
		if got := p.metrics(t).sum(t, "vllm:cache_config_info", `cache_dtype="fp8"`); got != 1 {
			t.Errorf("the metrics do not name the type")
		}
	}},
	"max_num_seqs": {args: []string{"--max-num-seqs", "2"}, check: func(t *testing.T, p *process) {
		p.must(t, completionPath, long(40).with(fields{"n": 8}))
		if m := p.metrics(t); m.sum(t, "pagoda_steps_total") < 160 {
			t.Errorf("%v steps for 8 sequences of 40 tokens", m.sum(t, "pagoda_steps_total"))
		}
	}},
	"max_num_batched_tokens": {args: []string{"--max-num-seqs", "8", "--max-num-batched-tokens", "8"},
		check: func(t *testing.T, p *process) {
			p.wantText(t, say(demo, "hi"), "Hi! How can I help you?")
			p.must(t, completionPath, fields{"model": demo, "prompt": strings.Repeat("one ", 100), "max_tokens": 1})
			if m := p.metrics(t); m.sum(t, "pagoda_steps_total") < 100/8 {
				t.Errorf("%v steps", m.sum(t, "pagoda_steps_total"))
			}
		}},
	"enable_prefix_caching": {args: []string{"--enable-prefix-caching", "false"}, check: func(t *testing.T, p *process) {
		for range 2 {
			p.must(t, chatPath, say(demo, strings.Repeat("hi ", 50)))
		}
		if got := p.metrics(t).sum(t, "vllm:prefix_cache_hits_total"); got != 0 {
			t.Errorf("%v hits", got)
		}
	}},
	"speculative_method": {args: []string{"--speculative-method", "ngram"}, check: func(t *testing.T, p *process) {
		p.must(t, completionPath, circles)
		if got := p.metrics(t).sum(t, "vllm:spec_decode_num_accepted_tokens_total"); got == 0 {
			t.Error("nothing was guessed right")
		}
	}},
	"num_speculative_tokens": {args: []string{"--num-speculative-tokens", "3"}, check: func(t *testing.T, p *process) {
		p.must(t, completionPath, circles)
		if got := p.metrics(t).sum(t, "vllm:spec_decode_num_drafts_total"); got != 0 {
			t.Errorf("%v guesses that nobody asked for", got)
		}
		p.must(t, completionPath, circles.with(fields{"speculative_tokens": 8}))
		m := p.metrics(t)
		drafts, tokens := m.sum(t, "vllm:spec_decode_num_drafts_total"), m.sum(t, "vllm:spec_decode_num_draft_tokens_total")
		if drafts == 0 || tokens > 3*drafts {
			t.Errorf("%v tokens in %v drafts of at most 3", tokens, drafts)
		}
	}},
	"prompt_lookup_min": {args: []string{"--prompt-lookup-min", "60", "--prompt-lookup-max", "64"},
		check: func(t *testing.T, p *process) {
			p.must(t, completionPath, circles.with(fields{"speculative_tokens": 8, "max_tokens": 20}))
			if got := p.metrics(t).sum(t, "vllm:spec_decode_num_drafts_total"); got != 0 {
				t.Errorf("%v guesses, though nothing of 60 tokens is there twice", got)
			}
		}},
	"prompt_lookup_max": {args: []string{"--prompt-lookup-min", "1", "--prompt-lookup-max", "1"},
		check: func(t *testing.T, p *process) {
			p.must(t, completionPath, circles.with(fields{"speculative_tokens": 8}))
			if got := p.metrics(t).sum(t, "vllm:spec_decode_num_drafts_total"); got == 0 {
				t.Error("no token is there twice")
			}
		}},
	"api_key": {args: []string{"--api-key", "a,b"}, key: "b", check: func(t *testing.T, p *process) {
		p.must(t, chatPath, say(demo, "hi"))
		p.key = "c"
		p.wantRefused(t, chatPath, say(demo, "hi"), http.StatusUnauthorized, "key")
		p.wantStatus(t, "/v1/models", http.StatusUnauthorized)
		p.wantStatus(t, "/metrics", http.StatusUnauthorized)
		p.wantStatus(t, "/health", http.StatusOK)
		p.wantStatus(t, "/ready", http.StatusOK)
	}},
	"api_key_file": {args: []string{"--api-key-file", "DIR/keys"}, key: "second", check: func(t *testing.T, p *process) {
		p.must(t, chatPath, say(demo, "hi"))
		p.key = ""
		p.wantRefused(t, chatPath, say(demo, "hi"), http.StatusUnauthorized, "key")
	}},
	"allowed_hosts": {args: []string{"--allowed-hosts", "models.example"}, check: func(t *testing.T, p *process) {
		for host, want := range map[string]int{"models.example": 200, "other.example": 403} {
			if resp := p.do(t, "GET", "/v1/models", "Host", host); resp.StatusCode != want {
				t.Errorf("%s: %s", host, resp.Status)
			}
		}
	}},
	"cors_origins": {args: []string{"--cors-origins", "https://app.example"}, check: func(t *testing.T, p *process) {
		for origin, want := range map[string]string{"https://app.example": "https://app.example", "https://other.example": ""} {
			if got := p.do(t, "GET", "/v1/models", "Origin", origin).Header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s: %q", origin, got)
			}
		}
	}},
	"unknown_fields": {args: []string{"--unknown-fields", "report"}, check: func(t *testing.T, p *process) {
		resp, err := p.post(t.Context(), chatPath, say(demo, "hi").with(fields{"frobnicate": 1}))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Pagoda-Ignored-Fields") != "frobnicate" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	}},
	"max_body_bytes": {args: []string{"--max-body-bytes", "2KiB"}, check: func(t *testing.T, p *process) {
		p.must(t, chatPath, say(demo, "hi"))
		p.wantRefused(t, chatPath, say(demo, strings.Repeat("a", 2048)), http.StatusRequestEntityTooLarge, "2048")
	}},
	"max_header_bytes": {args: []string{"--max-header-bytes", "2KiB"}, check: func(t *testing.T, p *process) {
		// net/http reads 4 KiB more than it is told.
		if resp := p.do(t, "GET", "/v1/models", "X-Long", strings.Repeat("a", 8<<10)); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s", resp.Status)
		}
	}},
	"max_n": {args: []string{"--max-n", "2"}, check: func(t *testing.T, p *process) {
		p.must(t, chatPath, say(demo, "hi").with(fields{"n": 2}))
		p.wantRefused(t, chatPath, say(demo, "hi").with(fields{"n": 3}), http.StatusBadRequest, "2")
	}},
	"request_timeout": {args: []string{"--request-timeout", "50ms"}, check: func(t *testing.T, p *process) {
		p.wantRefused(t, completionPath, long(1000).with(fields{"n": 16}), http.StatusGatewayTimeout, "longer")
		a, err := p.ask(t.Context(), completionPath, long(1000).with(fields{"n": 16, "stream": true}))
		if err != nil || a.err == nil || *a.err.Code != "timeout" {
			t.Errorf("%+v, %v", a, err)
		}
		p.wantIdle(t)
	}},
	"log_level": {args: []string{"--log-level", "debug"}, check: func(t *testing.T, p *process) {
		p.wantStatus(t, "/health", http.StatusOK) // a probe, told of at this level only
		if got := p.line(t, "request"); got["route"] != "/health" {
			t.Errorf("%v", got)
		}
	}},
}

// commandLines holds a command line for each option that is for a server that is started.
const commandLines = "cmd/pagoda: TestCommandLines"

// testedElsewhere are the options whose effect another test sees.
var testedElsewhere = map[string]string{
	"model_name_or_path": "TestModelFolder", "adapter_name_or_path": "TestModelFolder", "mmap": "TestModelFolder",
	"resize_vocab": "native's TestResizeVocab", "use_fast_tokenizer": "config's TestUseFastTokenizer",
	"pooling_type": "encoder's TestGoldenEmbeddings",
	"draft_model":  "TestDraftModel", "max_queue": "TestFullQueue", "host": "TestPrintConfig", "port": "TestKilled", "write_timeout": "TestStalledClient",
	"upstream_url": "TestUpstreams", "upstream_url_file": "TestUpstreamList", "upstream_api_key": "TestUpstreams",
	"tokenizer": "TestTemplates", "upstream_routes": "TestUpstreams", "allow_runtime_lora_updating": "TestUpstreamAdapters", "upstream_wait": "TestUpstreamWait", "upstream_timeout": "TestUpstreamStall",
	"upstream_command": "TestSpawned", "upstream_start_timeout": "TestSpawnedTooSlow",
	"rope_scaling": "native's TestRopeScaling", "num_beams": "config's TestIdleKeys", "use_kv_cache": "config's TestIdleKeys", "length_penalty": "config's TestIdleKeys", "stage": "config's TestIdleKeys",
	"finetuning_type": "config's TestIdleKeys", "adapter_folder": "config's TestAdapterFolder",
	"hub": "hub's TestPull", "hf_hub_token": "hub's TestToken", "ms_hub_token": "hub's TestToken", "om_hub_token": "hub's TestToken",
	"cache_dir": "TestPull", "model_revision": "TestPull", "hub_offline": "TestPull", "trust_remote_code": commandLines, "vllm_gpu_util": commandLines,
	"vllm_enforce_eager": commandLines, "vllm_max_lora_rank": commandLines, "vllm_config": commandLines, "sglang_maxlen": commandLines,
	"sglang_mem_fraction": commandLines, "sglang_tp_size": commandLines, "sglang_lora_backend": commandLines,
	"sglang_config": commandLines, "cpu_infer": commandLines, "chunk_size": commandLines, "kt_maxlen": commandLines,
	"kt_use_cuda_graph": commandLines, "kt_weight_path": commandLines, "kt_method": commandLines, "kt_threadpool_count": commandLines,
	"kt_num_gpu_experts": commandLines,
	"drain_timeout":      "TestDrainTimeout", "log_format": "all of them", "access_log": "TestNoAccessLog",
}

// TestOptions: no option of serve is dropped in silence.
func TestOptions(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)`.* \\| [a-z, ]*serve[a-z, ]*(;.*)? \\|.* \\|$")
	rows := row.FindAllStringSubmatch(output(t, 0, "flags", "--markdown"), -1)
	if len(rows) < 30 {
		t.Fatalf("only %d options", len(rows))
	}
	for _, r := range rows {
		name := r[1]
		tt, ok := optionTests[name]
		if !ok {
			if testedElsewhere[name] == "" {
				t.Errorf("no test of %s", name)
			}
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"keys": "first\nsecond\n", "descriptions": "<b>: The capital\n<a>: of Japan\n", "template": "T: {{ messages[0].content }}"} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string(nil), tt.args...)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "DIR", dir)
			}
			p := serve(t, args...)
			p.key = tt.key
			tt.check(t, p)
		})
	}
}

func (p *process) wantText(t *testing.T, body fields, want string) {
	t.Helper()
	if got := p.must(t, chatPath, body).choices[0].text; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// wantPrompt checks the text of a request's prompt.
func (p *process) wantPrompt(t *testing.T, body fields, want string) {
	t.Helper()
	a := p.must(t, chatPath, body.with(fields{"max_tokens": 1, "return_token_ids": true}))
	var got struct{ Prompt string }
	if p.call(t, "/detokenize", fields{"model": body["model"], "tokens": a.promptIDs}, &got); got.Prompt != want {
		t.Errorf("prompt %q, want %q", got.Prompt, want)
	}
}

// wantStories counts how many of 16 stories differ, as the server's sampling defaults have them.
func wantStories(least, most int) func(t *testing.T, p *process) {
	return func(t *testing.T, p *process) {
		t.Helper()
		texts := map[string]bool{}
		for _, c := range p.must(t, chatPath, fields{"model": demo, "n": 16, "seed": 1, "max_tokens": 20,
			"messages": say(demo, "Tell me a story.")["messages"]}).choices {
			texts[c.text] = true
		}
		if n := len(texts); n < least || n > most {
			t.Errorf("%d different stories, want %d to %d", n, least, most)
		}
	}
}

// wantTokens checks the ids of a prompt.
func (p *process) wantTokens(t *testing.T, prompt string, want ...int32) {
	t.Helper()
	var got struct{ Tokens []int32 }
	p.call(t, "/tokenize", fields{"prompt": prompt}, &got)
	if !slices.Equal(got.Tokens, want) {
		t.Errorf("%q has tokens %v, want %v", prompt, got.Tokens, want)
	}
}

// wantRefused checks status and message of a request's refusal.
func (p *process) wantRefused(t *testing.T, path string, body fields, status int, part string) {
	t.Helper()
	a, err := p.ask(t.Context(), path, body)
	if err != nil || a.status != status || a.err == nil || !strings.Contains(a.err.Message, part) {
		t.Errorf("got %+v, %v, want status %s with %q", a, err, strconv.Itoa(status), part)
	}
}

// do sends a request without a body and returns the answer, read to its end.
func (p *process) do(t *testing.T, method, path string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}
