package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"pagoda/backends/proxy"
	"pagoda/backends/templated"
	"pagoda/config"
	"pagoda/models/demo"
)

// commandOf is the command line that a configuration starts its server with, in one line.
func commandOf(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cfg, err := config.Load("serve", args, []string{})
	if err != nil {
		t.Fatal(err)
	}
	kind, ok := upstreamKinds[cfg.InferBackend]
	if !ok {
		t.Fatalf("no backend %q", cfg.InferBackend)
	}
	o, err := spawnOptions(&cfg.Config, kind)
	if err != nil {
		return "", err
	}
	s, err := kind.spawn(o)
	if err != nil {
		return "", err
	}
	dir := t.TempDir()
	l := proxy.Listen{Socket: "/run/s", Key: "KEY", AdminKey: "ADMIN", Dir: dir}
	if !s.Socket {
		l.Socket, l.Host, l.Port = "", "127.0.0.1", 1234
	}
	line, env, err := s.Command(l)
	if err != nil {
		return "", err
	}
	for _, secret := range []string{"KEY", "ADMIN"} {
		if slices.Contains(line, secret) {
			t.Errorf("a key is among the arguments: %q", line)
		}
	}
	if !s.Socket {
		if keys, err := os.ReadFile(filepath.Join(dir, "keys.yaml")); err != nil || string(keys) != "api-key: KEY\nadmin-api-key: ADMIN\n" {
			t.Errorf("keys %q, %v", keys, err)
		}
	} else if !slices.Contains(env, "VLLM_API_KEY=KEY") {
		t.Errorf("environment %q", env)
	}
	return strings.ReplaceAll(strings.Join(line, " "), dir, "DIR"), nil
}

const (
	vllmStart   = "vllm serve /m --served-model-name m --dtype auto --gpu-memory-utilization 0.9"
	vllmEnd     = " --enable-prompt-tokens-details --uds /run/s"
	sglangStart = "python3 -m sglang.launch_server --model-path /m --served-model-name m --dtype auto"
	sglangEnd   = " --enable-metrics --enable-cache-report --config DIR/keys.yaml --host 127.0.0.1 --port 1234"
	ktStart     = sglangStart + " --enable-metrics --enable-cache-report"
	ktFlags     = " --kt-weight-path /m --kt-cpuinfer 32 --chunked-prefill-size 8192"
	ktEnd       = " --config DIR/keys.yaml --host 127.0.0.1 --port 1234"
)

// TestCommandLines: what each option makes of the command line of the server that is started.
func TestCommandLines(t *testing.T) {
	t.Setenv("CUDA_VISIBLE_DEVICES", "") // so that the machine's GPUs are not in the result
	for _, tc := range []struct {
		backend string
		args    string // separated by spaces
		want    string
	}{
		{"vllm", "", vllmStart + vllmEnd},
		{"vllm", "served_model_name=x", strings.Replace(vllmStart, "-name m", "-name x", 1) + vllmEnd},
		{"vllm", "cache_dir=/c", "vllm serve /m --served-model-name m --download-dir /c --dtype auto --gpu-memory-utilization 0.9" + vllmEnd},
		{"vllm", "model_revision=v2", "vllm serve /m --served-model-name m --revision v2 --dtype auto --gpu-memory-utilization 0.9" + vllmEnd},
		{"vllm", "model_revision=main", vllmStart + vllmEnd},
		{"vllm", "infer_dtype=bfloat16", strings.Replace(vllmStart, "auto", "bfloat16", 1) + vllmEnd},
		{"vllm", "vllm_maxlen=4096", strings.Replace(vllmStart, "auto", "auto --max-model-len 4096", 1) + vllmEnd},
		{"vllm", "vllm_gpu_util=0.5", strings.Replace(vllmStart, "0.9", "0.5", 1) + vllmEnd},
		{"vllm", "vllm_enforce_eager=true", vllmStart + " --enforce-eager" + vllmEnd},
		{"vllm", "trust_remote_code=true", vllmStart + " --trust-remote-code" + vllmEnd},
		{"vllm", "adapter_name_or_path=/a/sql", vllmStart + ` --enable-lora --max-lora-rank 32 --max-loras 1 --lora-modules {"name":"sql","path":"/a/sql"}` + vllmEnd},
		{"vllm", "adapter_name_or_path=x=/a adapter_folder=sub", vllmStart + ` --enable-lora --max-lora-rank 32 --max-loras 1 --lora-modules {"name":"x","path":"/a/sub"}` + vllmEnd},
		{"vllm", "adapter_name_or_path=x=/a,y=/b vllm_max_lora_rank=33",
			vllmStart + ` --enable-lora --max-lora-rank 64 --max-loras 2 --lora-modules {"name":"x","path":"/a"} {"name":"y","path":"/b"}` + vllmEnd},
		{"vllm", "upstream_command=/venv/bin/vllm,serve", "/venv/bin/" + vllmStart + vllmEnd},
		{"vllm", "upstream_command=python,-m,vllm.entrypoints.openai.api_server",
			"python -m vllm.entrypoints.openai.api_server --model " + strings.TrimPrefix(vllmStart, "vllm serve ") + vllmEnd},
		{"vllm", `vllm_config={max_num_seqs:\ 64,enable_chunked_prefill:\ false,async_scheduling:\ true}`,
			strings.Replace(vllmStart+vllmEnd, " --uds", " --async-scheduling --no-enable-chunked-prefill --max-num-seqs 64 --uds", 1)},
		{"vllm", `vllm_config={gpu_memory_utilization:\ 0.3,tensor_parallel_size:\ 2}`,
			strings.Replace(strings.Replace(vllmStart, "0.9", "0.3", 1)+vllmEnd, " --uds", " --tensor-parallel-size 2 --uds", 1)},
		{"vllm", `vllm_config={enforce_eager:\ false} vllm_enforce_eager=true`, strings.Replace(vllmStart+vllmEnd, " --uds", " --no-enforce-eager --uds", 1)},
		{"vllm", `vllm_config={limit_mm_per_prompt:\ {image:\ 4},stop:\ [a,b],nothing:\ null}`,
			strings.Replace(vllmStart+vllmEnd, " --uds", ` --limit-mm-per-prompt {"image":4} --stop a b --uds`, 1)},
		{"vllm", `vllm_config={async_scheduling:\ "true",enable_chunked_prefill:\ "False",max_num_seqs:\ "64"}`,
			strings.Replace(vllmStart+vllmEnd, " --uds", " --async-scheduling --no-enable-chunked-prefill --max-num-seqs 64 --uds", 1)},
		{"vllm", `vllm_config={max_num_seqs:\ 64} vllm_config.max_num_seqs=8 vllm_config.hf_overrides.a=1`,
			strings.Replace(vllmStart+vllmEnd, " --uds", ` --hf-overrides {"a":1} --max-num-seqs 8 --uds`, 1)},
		{"vllm", "tool_call_parser=hermes reasoning_parser=gpt_oss",
			vllmStart + " --enable-auto-tool-choice --tool-call-parser hermes --reasoning-parser openai_gptoss" + vllmEnd},
		{"vllm", "tool_call_parser=none reasoning_parser=none", vllmStart + vllmEnd},
		{"vllm", "generation_config=none", vllmStart + " --generation-config vllm" + vllmEnd},
		{"sglang", "generation_config=none", sglangStart + " --sampling-defaults openai" + sglangEnd},
		{"vllm", "tool_call_parser=hermes reasoning_parser=qwen3 template=qwen3", vllmStart + vllmEnd},
		{"sglang", "", sglangStart + sglangEnd},
		{"sglang", "tool_call_parser=llama3_json reasoning_parser=deepseek_r1",
			sglangStart + " --tool-call-parser llama3 --reasoning-parser deepseek-r1" + sglangEnd},
		{"sglang", `sglang_config={lora_strict_loading:\ false,disable_radix_cache:\ false}`,
			strings.Replace(sglangStart+sglangEnd, " --config", " --no-lora-strict-loading --config", 1)},
		{"sglang", "sglang_maxlen=4096", strings.Replace(sglangStart, "auto", "auto --context-length 4096", 1) + sglangEnd},
		{"sglang", "max_model_len=100", strings.Replace(sglangStart, "auto", "auto --context-length 100", 1) + sglangEnd},
		{"sglang", "sglang_mem_fraction=0.7", sglangStart + " --mem-fraction-static 0.7" + sglangEnd},
		{"sglang", "sglang_tp_size=2", sglangStart + " --tp-size 2" + sglangEnd},
		{"sglang", "cache_dir=/c", strings.Replace(sglangStart, " --dtype", " --download-dir /c --dtype", 1) + sglangEnd},
		{"sglang", "trust_remote_code=true", sglangStart + " --trust-remote-code" + sglangEnd},
		{"sglang", "adapter_name_or_path=x=/a sglang_lora_backend=flashinfer",
			sglangStart + ` --enable-lora --lora-paths {"lora_name":"x","lora_path":"/a","pinned":false} --max-loras-per-batch 2 --lora-backend triton` + sglangEnd},
		{"sglang", `sglang_config={disable_cuda_graph:\ true,schedule_policy:\ lpm,enable_metrics:\ false}`, sglangStart +
			" --enable-cache-report --disable-cuda-graph --schedule-policy lpm --config DIR/keys.yaml --host 127.0.0.1 --port 1234"},
		{"ktransformers", "", ktStart + ktFlags + ktEnd},
		{"ktransformers", "cpu_infer=8", ktStart + strings.Replace(ktFlags, "32", "8", 1) + ktEnd},
		{"ktransformers", "chunk_size=512", ktStart + strings.Replace(ktFlags, "8192", "512", 1) + ktEnd},
		{"ktransformers", "kt_use_cuda_graph=false", ktStart + ktFlags + " --disable-cuda-graph" + ktEnd},
		{"ktransformers", "kt_weight_path=/w", ktStart + strings.Replace(ktFlags, "/m", "/w", 1) + ktEnd},
		{"ktransformers", "kt_method=AMXINT8", ktStart + strings.Replace(ktFlags, "/m", "/m --kt-method AMXINT8", 1) + ktEnd},
		{"ktransformers", "kt_threadpool_count=2", ktStart + strings.Replace(ktFlags, "32", "32 --kt-threadpool-count 2", 1) + ktEnd},
		{"ktransformers", "kt_num_gpu_experts=0", ktStart + strings.Replace(ktFlags, "32", "32 --kt-num-gpu-experts 0", 1) + ktEnd},
		{"ktransformers", "kt_maxlen=2048 sglang_maxlen=1024", strings.Replace(ktStart, "auto", "auto --context-length 2048", 1) + ktFlags + ktEnd},
	} {
		args := []string{"infer_backend=" + tc.backend, "model=/m"}
		for _, a := range strings.Split(strings.ReplaceAll(tc.args, `\ `, "\x00"), " ") {
			if a != "" {
				args = append(args, strings.ReplaceAll(a, "\x00", " "))
			}
		}
		got, err := commandOf(t, args...)
		if err != nil || got != tc.want {
			t.Errorf("%s %s:\ngot  %s\nwant %s\nerror %v", tc.backend, tc.args, got, tc.want, err)
		}
	}
}

// TestCommandLinesRefused: what only the backends know of their options is told with the place, all at once, before anything starts.
func TestCommandLinesRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	list, template := file("list", "http://a:1\n# none\nftp://b\n"), file("bad.jinja", "{% if %}")
	config1 := file("a.yaml", "template: qwen33\ninfer_backend: vllm\ntokenizer: t\n"+
		"upstream_url: [localhost:1, http://u:secret@h:1, http://h:70000, unix://rel/s, \"unix:///s?k\", http://h:1, http://h:1/v1/]\n")
	config2 := file("b.yaml", "models:\n- model: a\n  infer_backend: vllm\n  vllm_config: {port: 1}\n- model: b\n  infer_backend: sglang\n  template: x\n")
	for args, want := range map[string]string{
		"infer_backend=vllm vllm_config={port:1}":                        `vllm_config: "port:1" is no option's name`,
		"infer_backend=vllm vllm_config={\"port\":1}":                    "port is set by this server",
		"infer_backend=vllm vllm_config={\"uds\":1}":                     "uds is set by this server",
		"infer_backend=sglang sglang_config={\"host\":1}":                "host is set by this server",
		"infer_backend=sglang sglang_config={\"api_key\":1}":             "api_key is set by this server",
		"infer_backend=sglang sglang_config={\"model\":1}":               "model is set by this server",
		"infer_backend=vllm tool_call_parser=glm4":                       "tool_call_parser: vLLM has none for glm4",
		"infer_backend=sglang reasoning_parser=granite":                  "reasoning_parser: SGLang has none for granite",
		"infer_backend=vllm upstream_url_file=" + list:                   `"ftp://b" must be like http://host:8000`,
		"infer_backend=vllm upstream_url_file=" + dir + "/no":            "no such file",
		"infer_backend=vllm upstream_url=http://h upstream_api_key=\x01": "API key that is not visible ASCII",
		"template=qwen3 tool_format=x":                                   "tool_format: there is no tool format",
		"chat_template=" + template:                                      "TemplateSyntaxError",
		config1: `a.yaml:1: template: there is no template named "qwen33"; the nearest are qwen3` + "\n" +
			`a.yaml:4: upstream_url: "localhost:1" must be like` + "\n" + "a.yaml:4: upstream_url: upstream 2 must not hold a password" + "\n" +
			`a.yaml:4: upstream_url: "http://h:70000" must have a port` + "\n" + `a.yaml:4: upstream_url: "unix://rel/s" must be like` + "\n" +
			"a.yaml:4: upstream_url: upstream 5 must not go on after the path" + "\n" + `a.yaml:4: upstream_url: "http://h:1/v1/" is given twice`,
		config2: "b.yaml:4: models[0]: vllm_config: port is set by this server\nb.yaml:7: models[1]: template: there is no template",
	} {
		words := strings.Fields(args)
		if !strings.HasSuffix(args, ".yaml") {
			words = append(words, "model=/m")
		}
		_, err := config.Load("serve", words, []string{}, checkPrompts, checkUpstreams)
		for _, line := range strings.Split(want, "\n") {
			if err == nil || !strings.Contains(err.Error(), line) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: error %v, want %q", args, err, line)
			}
		}
	}
}

// TestServersHub: what is said of hubs counts for a server that is started: Hugging Face's is its own business, told by the
// environment; from others the model is downloaded here.
func TestServersHub(t *testing.T) {
	for _, backend := range []string{"vllm", "sglang", "ktransformers"} {
		cfg, err := config.Load("serve", []string{"infer_backend=" + backend, "model=/m", "hf_hub_token=hf_x", "hub_offline=true"}, []string{})
		if err != nil {
			t.Fatal(err)
		}
		kind := upstreamKinds[backend]
		o, err := spawnOptions(&cfg.Config, kind)
		if err != nil {
			t.Fatal(err)
		}
		s, err := kind.spawn(o)
		if err != nil {
			t.Fatal(err)
		}
		line, env, err := s.Command(proxy.Listen{Dir: t.TempDir()})
		if err != nil || !slices.Contains(env, "HF_TOKEN=hf_x") || !slices.Contains(env, "HF_HUB_OFFLINE=1") || strings.Contains(strings.Join(line, " "), "hf_x") {
			t.Errorf("%s: %q, environment %q, %v", backend, line, env, err)
		}
	}
	cfg, err := config.Load("serve", []string{"infer_backend=vllm", "model=org/none", "hub_offline=true", "cache_dir=" + t.TempDir(), "upstream_command=false"},
		[]string{"USE_MODELSCOPE_HUB=1"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = newProxy(t.Context(), &cfg.Config, false, proxy.NewMetrics(), zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), "model_name_or_path: there is no folder org/none: pull org/none from modelscope") {
		t.Error(err)
	}
}

// TestProgramMissing: a server that is not installed is told in words.
func TestProgramMissing(t *testing.T) {
	cfg, err := config.Load("serve", []string{"infer_backend=sglang", "model=/m", "upstream_command=no-such-program-anywhere"}, []string{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = newProxy(t.Context(), &cfg.Config, false, proxy.NewMetrics(), zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), "install SGLang, or name the program that starts it in upstream_command") {
		t.Error(err)
	}
}

// TestExampleFilesStart: LlamaFactory's example files for serving, with each backend, start a server.
func TestExampleFilesStart(t *testing.T) {
	t.Setenv("CUDA_VISIBLE_DEVICES", "")
	const model = "Qwen/Qwen3-4B-Instruct-2507"
	for name, tc := range map[string]struct{ text, want string }{
		"qwen3.yaml": {"model_name_or_path: " + model + "\ntemplate: qwen3_nothink\ninfer_backend: vllm  # choices: [huggingface, vllm]\ntrust_remote_code: true\n",
			"vllm serve " + model + " --served-model-name " + model + " --dtype auto --gpu-memory-utilization 0.9 --trust-remote-code" + vllmEnd},
		"qwen3_lora_sft.yaml": {"model_name_or_path: " + model + "\nadapter_name_or_path: saves/qwen3-4b/lora/sft\ntemplate: qwen3_nothink\ninfer_backend: sglang\ntrust_remote_code: true\n",
			"python3 -m sglang.launch_server --model-path " + model + " --served-model-name " + model + " --dtype auto --trust-remote-code" +
				` --enable-lora --lora-paths {"lora_name":"sft","lora_path":"saves/qwen3-4b/lora/sft","pinned":false} --max-loras-per-batch 2 --lora-backend triton` + sglangEnd},
		"eager.yaml": {"model_name_or_path: " + model + "\ntemplate: qwen3\ninfer_backend: vllm\nvllm_enforce_eager: true\nvllm_config:\n  max_num_seqs: 16\n  quantization: fp8\n",
			"vllm serve " + model + " --served-model-name " + model + " --dtype auto --gpu-memory-utilization 0.9 --enforce-eager" +
				" --enable-prompt-tokens-details --max-num-seqs 16 --quantization fp8 --uds /run/s"},
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := commandOf(t, file); err != nil || got != tc.want {
			t.Errorf("%s:\ngot  %s\nwant %s\nerror %v", name, got, tc.want, err)
		}
	}
}

// TestTemplatedOptions: what a configuration says of prompts and sampling, and nothing where it says nothing.
func TestTemplatedOptions(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, demo.FS()); err != nil {
		t.Fatal(err)
	}
	advice := `{"eos_token_id": 2041, "do_sample": true, "temperature": 0.6, "top_k": 20, "min_p": 0.1}`
	if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(advice), 0o600); err != nil {
		t.Fatal(err)
	}
	log := zerolog.Nop()
	options := func(args ...string) (templated.Options, error) {
		cfg, err := config.Load("serve", append(args, "infer_backend=sglang"), []string{})
		if err != nil {
			return templated.Options{}, err
		}
		if len(cfg.Warnings) > 0 {
			t.Errorf("%s: %q", args, cfg.Warnings)
		}
		o, err := templatedOptions(t.Context(), &cfg.Config, log)
		if o.Codec != nil {
			t.Cleanup(func() { o.Codec.Close() })
		}
		return o, err
	}
	if o, err := options("model=/m"); err != nil || o != (templated.Options{}) {
		t.Errorf("%+v, %v", o, err)
	}
	o, err := options("model=/m", "default_system=x", "enable_thinking=false", "temperature=0.5")
	if err != nil || o.Codec != nil || o.System != "x" || *o.Thinking || *o.Sampling.Temperature != 0.5 || o.Sampling.TopK != nil {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"model=" + dir}, {"model=name", "upstream_url=http://x", "tokenizer=" + dir}} {
		o, err := options(append(args, "template=qwen3", "top_k=5", "tool_call_parser=none")...)
		if err != nil || o.Codec == nil || *o.Sampling.Temperature != 0.6 || *o.Sampling.TopK != 5 || *o.Sampling.MinP != 0.1 {
			t.Errorf("%s: %+v, %v", args, o, err)
		}
	}
	o, err = options("model="+dir, "template=qwen3", "generation_config=none")
	if err != nil || o.Sampling.Temperature != nil || o.Sampling.TopK != nil || o.Sampling.MinP != nil {
		t.Errorf("without the advice: %+v, %v", o, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"text_config": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	log = zerolog.New(&told)
	if _, err := options("model="+dir, "template=qwen3"); err != nil || !strings.Contains(told.String(), "this model takes more than text") {
		t.Errorf("of a model that also sees: %s, %v", &told, err)
	}
	for args, want := range map[string]string{
		"model=/none template=qwen3":                "tokenizer: there is no folder /none",
		"upstream_url=http://x template=qwen3":      "tokenizer says where they are",
		"model=/m tokenizer=/m":                     "belongs to template",
		"model=" + dir + " template=no_such_format": "template: ",
	} {
		if _, err := options(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", args, err, want)
		}
	}
}
