package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAreValid(t *testing.T) {
	c := Defaults()
	for _, p := range c.Validate() {
		t.Error(p)
	}
	if c.Port != 8000 || c.Host != "127.0.0.1" || !c.EnablePrefixCaching || c.DrainTimeout != 30*time.Second ||
		c.MaxBodyBytes != 32<<20 {
		t.Errorf("unexpected defaults: %+v", c)
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range Options() {
		for _, name := range append([]string{o.Name}, o.Aliases...) {
			if seen[name] || name != normal(name) || strings.HasPrefix(name, "no_") {
				t.Errorf("bad or repeated name %q", name)
			}
			seen[name] = true
		}
		if o.Help == "" || o.Group == "" || o.Commands == "" || strings.HasSuffix(o.Help, ".") {
			t.Errorf("%s: incomplete row", o.Name)
		}
		if len(o.Choices) > 0 && !slices.Contains(o.Choices, o.Default) {
			t.Errorf("%s: default %q is no choice", o.Name, o.Default)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "a.yaml", "port: 1\nthreads: 1\nmax_n: 1\nlog_level: warn\n")
	env := []string{"PAGODA_THREADS=2", "API_PORT=2", "PAGODA_MAX_N=2", "API_HOST=h", "PAGODA_HOST=own", "API_KEY="}
	r, err := Load("serve", []string{file, "port=3", "--max_n", "4", "max_n=5"}, env)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, value, source string }{
		{"log_level", "warn", "a.yaml:4"},
		{"threads", "2", "PAGODA_THREADS"},
		{"port", "3", "argument port"},
		{"max_n", "5", "argument max_n"},
		{"host", "own", "PAGODA_HOST"},
		{"api_key", "", "default"},
		{"max_queue", "512", "default"},
	} {
		i := slices.IndexFunc(r.Config.options(), func(o *Option) bool { return o.Name == tc.name })
		if got := r.Config.options()[i].Text(); got != tc.value || r.Source(tc.name) != tc.source {
			t.Errorf("%s = %q from %q, want %q from %q", tc.name, got, r.Source(tc.name), tc.value, tc.source)
		}
	}
}

func TestUseFastTokenizer(t *testing.T) {
	if _, err := Load("serve", []string{"--use_fast_tokenizer", "false"}, nil); err == nil || !strings.Contains(err.Error(), "use_fast_tokenizer") {
		t.Errorf("got %v", err)
	}
	if _, err := Load("serve", []string{"--use_fast_tokenizer"}, nil); err != nil {
		t.Error(err)
	}
}

func TestForms(t *testing.T) {
	cases := []struct {
		name string
		args []string
		want func(Config) bool
	}{
		{"underscore", []string{"--max_num_seqs", "7"}, func(c Config) bool { return c.MaxNumSeqs == 7 }},
		{"dash and equals", []string{"--max-num-seqs=7"}, func(c Config) bool { return c.MaxNumSeqs == 7 }},
		{"case", []string{"--Max_Num-Seqs", "7"}, func(c Config) bool { return c.MaxNumSeqs == 7 }},
		{"alias", []string{"--vllm_maxlen", "99"}, func(c Config) bool { return c.MaxModelLen == 99 }},
		{"bool alone", []string{"access_log=false", "--access-log"}, func(c Config) bool { return c.AccessLog }},
		{"bool with a value", []string{"--access_log", "No", "--port", "1"},
			func(c Config) bool { return !c.AccessLog && c.Port == 1 }},
		{"bool with equals", []string{"--access_log=f"}, func(c Config) bool { return !c.AccessLog }},
		{"no_ form", []string{"--no_access_log"}, func(c Config) bool { return !c.AccessLog }},
		{"no- form", []string{"--no-enable-prefix-caching"}, func(c Config) bool { return !c.EnablePrefixCaching }},
		{"key=value", []string{"max_num_seqs=7"}, func(c Config) bool { return c.MaxNumSeqs == 7 }},
		{"key=value with dashes", []string{"max-num-seqs=7"}, func(c Config) bool { return c.MaxNumSeqs == 7 }},
		{"value with equals", []string{"adapter_name_or_path=x=/y"},
			func(c Config) bool { return slices.Equal(c.AdapterNameOrPath, []string{"x=/y"}) }},
		{"null leaves the default", []string{"port=null"}, func(c Config) bool { return c.Port == 8000 }},
		{"repeated list", []string{"--api_key", "a", "--api_key", "b,c"},
			func(c Config) bool { return slices.Equal(c.APIKey, []string{"a", "b", "c"}) }},
		{"size", []string{"--kv_cache_memory", "1.5GiB"}, func(c Config) bool { return c.KVCacheMemory == 3<<29 }},
		{"duration in seconds", []string{"--drain_timeout", "5"},
			func(c Config) bool { return c.DrainTimeout == 5*time.Second }},
		{"duration", []string{"--drain_timeout", "1m30s"},
			func(c Config) bool { return c.DrainTimeout == 90*time.Second }},
		{"hex", []string{"--port", "0x10"}, func(c Config) bool { return c.Port == 16 }},
		{"dotted key", []string{"infer_backend=vllm", "model=m", "vllm_config={a: 1, b: {c: 2}}", "vllm_config.b.d=true", "--vllm-config.a", "x"},
			func(c Config) bool {
				b, _ := c.VLLMConfig["b"].(map[string]any)
				return c.VLLMConfig["a"] == "x" && b["c"] == 2 && b["d"] == true
			}},
		{"list with spaces", []string{"--lora_modules", "a=/x", "b=/y", "port=1", "--cors-origins", "http://a", "http://b", "threads=1"},
			func(c Config) bool {
				return slices.Equal(c.AdapterNameOrPath, []string{"a=/x", "b=/y"}) && len(c.CORSOrigins) == 2 && c.Port == 1 && c.Threads == 1
			}},
		{"last wins", []string{"--port", "1", "--port", "2"}, func(c Config) bool { return c.Port == 2 }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r, err := Load("serve", tc.args, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !tc.want(r.Config) {
				t.Errorf("wrong value: %+v", r.Config)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	cases := []struct {
		name, file, text string
		want             func(Config) bool
	}{
		{"yaml 1.1 words", "a.yaml", "access_log: off\nenable_prefix_caching: Yes\n",
			func(c Config) bool { return !c.AccessLog && c.EnablePrefixCaching }},
		{"yml", "a.yml", "port: 1_000", func(c Config) bool { return c.Port == 1000 }},
		{"null", "a.yaml", "port: ~\nhost:\nserved_model_name: null\n",
			func(c Config) bool { return c.Port == 8000 && c.ServedModelName == "" }},
		{"list", "a.yaml", "api_key: [a, b]\ncors_origins: 'https://a, https://b'\n",
			func(c Config) bool { return len(c.APIKey) == 2 && len(c.CORSOrigins) == 2 }},
		{"quoted word is text", "a.yaml", "served_model_name: 'on'\n",
			func(c Config) bool { return c.ServedModelName == "on" }},
		{"y is text", "a.yaml", "served_model_name: y\n", func(c Config) bool { return c.ServedModelName == "y" }},
		{"number for text", "a.yaml", "served_model_name: 7\n", func(c Config) bool { return c.ServedModelName == "7" }},
		{"anchors", "a.yaml", "served_model_name: &n x\nsystem: *n\n", func(c Config) bool { return c.System == "x" }},
		{"json", "a.json", "{\n\t\"port\": 5,\n\t\"access_log\": false, \"api_key\": [\"a\"]}",
			func(c Config) bool { return c.Port == 5 && !c.AccessLog && len(c.APIKey) == 1 }},
		{"merge", "a.yaml", "<<: [{port: 1, max_n: 2}, {max_n: 3, max_queue: 4}]\nport: 5\n",
			func(c Config) bool { return c.Port == 5 && c.MaxN == 2 && c.MaxQueue == 4 }},
		{"merged map and alias", "a.yaml", "vllm_config: &v {a: 1, b: {c: 2}}\nsglang_config:\n  <<: *v\n  d: 3\ninfer_backend: vllm\nmodel: m\n",
			func(c Config) bool { return len(c.VLLMConfig) == 2 && len(c.SGLangConfig) == 3 }},
		{"byte order mark", "a.json", "\xEF\xBB\xBF{\"port\": 5}", func(c Config) bool { return c.Port == 5 }},
		{"CRLF", "a.yaml", "port: 5\r\nhost: 'h'\r\n", func(c Config) bool { return c.Port == 5 && c.Host == "h" }},
		{"UTF-16", "a.yaml", "\xFF\xFEp\x00o\x00r\x00t\x00:\x00 \x005\x00", func(c Config) bool { return c.Port == 5 }},
		{"JSON's escapes", "a.json", `{"served_model_name": "a\/b\\/\n", "system": "\ud83d\ude00\uD800"}`,
			func(c Config) bool { return c.ServedModelName == "a/b\\/\n" && c.System == "😀\uFFFD" }},
		{"comment alone", "a.yaml", "# nothing\n", func(c Config) bool { return c.Port == 8000 }},
		{"scientific", "a.yaml", "temperature: 1e-1\ntop_p: '0.5'\nport: '8001'\n",
			func(c Config) bool { return *c.Temperature == 0.1 && *c.TopP == 0.5 && c.Port == 8001 }},
		{"empty", "a.yaml", "", func(c Config) bool { return c.Port == 8000 }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r, err := Load("serve", []string{write(t, tc.file, tc.text)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !tc.want(r.Config) {
				t.Errorf("wrong value: %+v", r.Config)
			}
		})
	}
}

// TestErrors: every problem is told, with its place.
func TestErrors(t *testing.T) {
	file := write(t, "bad.yaml", strings.Join([]string{
		"max_num_seq: 3",        // 1: a typo
		"port: eighty",          // 2
		"access_log: 'yes'",     // 3: text, not a boolean
		"served_model_name: on", // 4: a boolean, not text
		"threads: [1]",          // 5
		"infer_dtype: int3",     // 6
		"port: 3",               // 7: again
		"xyzzy_plugh: 1",        // 8: like nothing known
	}, "\n"))
	_, err := Load("serve", []string{file, "--max_n", "0", "stray", "-p", "--system", "x", "--port"},
		[]string{"API_PORT=x", "PAGODA_KV_CACHE_MEMORY=lots"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`bad.yaml:1: unknown option "max_num_seq"; did you mean "max_num_seqs"?`,
		`bad.yaml:2: port: "eighty" is not a whole number`,
		`bad.yaml:3: access_log: must be true or false, not "yes"`,
		`bad.yaml:4: served_model_name: must be text; on is a boolean in YAML`,
		`bad.yaml:5: threads: must be a whole number, not a list`,
		`bad.yaml:6: infer_dtype: "int3" is none of auto, float16, bfloat16, float32`,
		`bad.yaml:7: port stands at line 2 already`,
		`bad.yaml:8: unknown option "xyzzy_plugh"; pagoda flags lists all`,
		`API_PORT: "x" is not a whole number`,
		`PAGODA_KV_CACHE_MEMORY: "lots" is not a size`,
		`--max_n: 0 is not from 1 to 65536`,
		`stray: neither`,
		`-p: flags begin with --`,
		`--system: pagoda serve does not heed system`,
		`--port: needs a value (int)`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q", want)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 15 {
		t.Errorf("%d lines, want 15:\n%v", n, err)
	}
}

func TestBadFiles(t *testing.T) {
	for _, tc := range []struct{ name, file, text, want string }{
		{"list at the top", "a.yaml", "- a\n", "a.yaml:1: the file must be a map"},
		{"yaml syntax", "a.yaml", "a: b\n c: [\n", "a.yaml:2: mapping values"},
		{"json syntax", "a.json", "{\n\"port\": 5,\n}", "a.json:3: invalid"},
		{"yaml in a json file", "a.json", "port: 5", "a.json:1: invalid"},
		{"nested", "a.yaml", "port:\n  a: 1\n", "must be a whole number, not a map"},
		{"comma in a list entry", "a.yaml", "api_key: ['a,b']\n", "without commas"},
		{"two documents", "a.yaml", "port: 1\n---\nport: 2\n", "a.yaml:2: a second document begins"},
		{"latin-1", "a.yaml", "port: 1\nserved_model_name: caf\xe9\n", "a.yaml:2: the text is not UTF-8"},
		{"tab", "a.yaml", "port: 1\nlogs:\n\ta: b\n", "a.yaml:3: found character that cannot start any token"},
		{"deep", "a.yaml", "port: " + strings.Repeat("[", 20000), "depth"},
		{"alias of nothing", "a.yaml", "port: *x\n", "a.yaml: unknown anchor"},
		{"key twice in a map", "a.yaml", "port: 1\nvllm_config:\n  a: 1\n  a: 2\n",
			`a.yaml:2: vllm_config: line 4: mapping key "a" already defined at line 3`},
		{"key twice", "a.yaml", "lora_rank: 1\nport: 1\nlora-rank: 2\n", "a.yaml:3: lora_rank stands at line 1 already"},
		{"merge of a text", "a.yaml", "<<: x\n", "<< must merge maps"},
		{"merge without end", "a.yaml", "<<: &a\n  <<: *a\n", "merged into one another"},
		{"a key that is a list", "a.yaml", "? [a]\n: 1\n", "a.yaml:1: an option's name must be text"},
		{"a number as key", "a.yaml", "1: 1\n", `unknown option "1"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Load("serve", []string{write(t, tc.file, tc.text)}, nil); err == nil ||
				!strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := Load("serve", []string{"missing.yaml"}, nil); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestImpossible(t *testing.T) {
	empty := write(t, "keys", "# none\n\n")
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"bits", []string{"quantization_bit=3"}, "quantization_bit: 3 is none of 0, 4, 8"},
		{"other method", []string{"quantization_bit=4", "quantization_method=bnb"}, "quantization_method: bnb is not supported by this version; use rtn"},
		{"method alone", []string{"quantization_method=rtn"}, "quantization_method: rtn needs quantization_bit"},
		{"mapped weights built in", []string{"mmap=true"}, "argument mmap: needs model_name_or_path"},
		{"mapped weights rounded", []string{"mmap=true", "model=.", "quantization_bit=8"}, "mmap: quantization_bit"},
		{"backend without a model", []string{"infer_backend=vllm"}, "model_name_or_path: is required with infer_backend vllm"},
		{"upstream of our own engine", []string{"upstream_url=http://x:1"}, "upstream_url: needs infer_backend"},
		{"upstreams twice", []string{"infer_backend=vllm", "upstream_url=http://x:1", "upstream_url_file=f"}, "only one of upstream_url"},
		{"upstream's weights rounded", []string{"infer_backend=vllm", "model=m", "quantization_bit=4"}, "quantization_bit: vllm"},
		{"map that is none", []string{"vllm_config=[1]"}, "vllm_config"},
		{"no draft model", []string{"speculative_method=draft_model"}, "draft_model"},
		{"idle draft model", []string{"draft_model=folder"}, "speculative_method"},
		{"lookup of nothing", []string{"prompt_lookup_max=3", "prompt_lookup_min=4"}, "prompt_lookup_max"},
		{"step too small", []string{"max_num_seqs=8", "max_num_batched_tokens=7"}, "must not be below max_num_seqs"},
		{"key file without keys", []string{"api_key_file=" + empty}, "holds no key"},
		{"key file missing", []string{"api_key_file=" + empty + ".not"}, "api_key_file"},
		{"adapters of one name", []string{"adapter_name_or_path=a/x,b/x"}, `two adapters are named "x"`},
		{"adapter without a path", []string{"adapter_name_or_path=a="}, "is not [name=]path"},
		{"template missing", []string{"chat_template=" + empty + ".not"}, "chat_template"},
		{"host with brackets", []string{"--host", "[::1]"}, "is not an address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Load("serve", tc.args, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestAllAtOnce: values that cannot be together are told with their places, beside all other errors, and nothing twice.
func TestAllAtOnce(t *testing.T) {
	file := write(t, "qlora.yaml", "model_name_or_path: m\nquantization_bit: 4\nquantization_method: bnb\nportt: 1\nstage: rm\nthreads: x\n"+
		"max_num_seqs: 9\n")
	_, err := Load("serve", []string{file, "--max_num_batched_tokens", "4", "--max_n", "0"}, nil)
	want := `qlora.yaml:4: unknown option "portt"; did you mean "port"?
qlora.yaml:6: threads: "x" is not a whole number
--max_n: 0 is not from 1 to 65536
qlora.yaml:3: quantization_method: bnb is not supported by this version; use rtn
qlora.yaml:5: stage: a reward model (rm) is not supported by this version
--max_num_batched_tokens, qlora.yaml:7: max_num_batched_tokens: 4 must not be below max_num_seqs, 9: a step holds a token of every sequence`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestPrint: a value of several lines takes one, and entries of models are shown.
func TestPrint(t *testing.T) {
	file := write(t, "a.yaml", "default_system: |\n  one\n  two\nmodels:\n  - {served_model_name: x, threads: 3}\n")
	r, err := Load("serve", []string{file, "max_num_seqs=7"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.FieldsFunc(b.String(), func(r rune) bool { return r == ' ' }), " ")
	for _, want := range []string{`default_system "one\ntwo\n" a.yaml:1`, "models[0]\nserved_model_name x a.yaml:5: models[0]\n",
		"threads 3 a.yaml:5: models[0]", "\nport 8000 default\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Count(text, "\nmax_num_seqs 7 argument max_num_seqs") != 2 || strings.Contains(text, "model_name_or_path") {
		t.Errorf("shared options:\n%s", text)
	}
}

func TestKeysAndAdapters(t *testing.T) {
	keys := write(t, "keys", "# ops\nk1\n\n  k2  \n")
	r, err := Load("serve", []string{"api_key=k0", "api_key_file=" + keys, "--adapter_name_or_path", "n=/p, /dir/shout/"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Keys(); err != nil || !slices.Equal(got, []string{"k0", "k1", "k2"}) {
		t.Errorf("keys %v, %v", got, err)
	}
	want := []Adapter{{"n", "/p"}, {"shout", "/dir/shout/"}}
	if got, err := r.Adapters(); err != nil || !slices.Equal(got, want) {
		t.Errorf("adapters %v, %v", got, err)
	}
}

func TestSecretsStayHidden(t *testing.T) {
	r, err := Load("serve", []string{"--api_key", "s3cret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "s3cret") || !strings.Contains(b.String(), "********") {
		t.Error("the key is shown")
	}
	if _, err := Load("serve", []string{"api_keyy=s3cret", "--api_kay=s3cret"}, nil); err == nil ||
		strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the key is shown: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	file := write(t, "a.yaml", "system: hi\n")
	r, err := Load("serve", []string{file}, []string{"PAGODA_PROT=1", "PAGODA_PORT=tcp://10.0.0.1:8000",
		"PAGODA_SERVICE_HOST=10.0.0.1", "PAGODA_PORT_8000_TCP=tcp://10.0.0.1:8000"})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(r.Warnings, "\n")
	for _, want := range []string{"a.yaml:1: system has no effect on pagoda serve", "PAGODA_PROT names no option",
		"Kubernetes service link"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in:\n%s", want, all)
		}
	}
	if len(r.Warnings) != 3 || r.Port != 8000 {
		t.Errorf("port %d, warnings:\n%s", r.Port, all)
	}
}

func FuzzFile(f *testing.F) {
	f.Add("port: 8000\napi_key: [a, b]\n")
	f.Add("&a [*a]")
	f.Add("? {a: b}\n: c")
	f.Add("port: !!binary aGk=\nport: *x")
	f.Fuzz(func(t *testing.T, text string) {
		l := newLoader("serve", Defaults())
		l.mapping("f.yaml", []byte(text))
		for _, o := range l.opts {
			if err := o.check(); err != nil && len(l.errs) == 0 {
				t.Errorf("a bad value of %s passed: %v", o.Name, err)
			}
		}
	})
}

func TestArgs(t *testing.T) {
	file := write(t, "a.yaml", "threads: 1\nport: 9\nkv_cache_memory: 1.5GiB\nadapter_name_or_path: [a=/x, b=/y]\n")
	r, err := Load("bench", []string{file, "--json", "--requests", "3", "--no_enable_prefix_caching"}, []string{"API_KEY=k"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load("serve", r.Args("serve"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.Threads != 1 || again.KVCacheMemory != 3<<29 || again.EnablePrefixCaching || len(again.AdapterNameOrPath) != 2 ||
		len(again.APIKey) != 0 || again.Requests != Defaults().Requests {
		t.Errorf("%q makes %+v", r.Args("serve"), again.Config)
	}
}

// With url the engine's options have no effect, which is told.
func TestURLWarns(t *testing.T) {
	r, err := Load("chat", []string{"--url", "http://h/v1", "--model", "m", "--threads", "2", "--temperature", "0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) != 1 || r.Warnings[0] != "--threads: threads has no effect with url" {
		t.Errorf("warnings %q", r.Warnings)
	}
	if r.ModelID() != "m" {
		t.Errorf("model %q", r.ModelID())
	}
}

// TestIdleInFront: what is for a server that is started, or for prompts that are made here, is told where it has no effect.
func TestIdleInFront(t *testing.T) {
	const all = "infer_dtype=bfloat16 trust_remote_code=true vllm_gpu_util=0.5 upstream_command=x upstream_start_timeout=5m " +
		"generation_config=none tool_call_parser=hermes reasoning_parser=qwen3 max_model_len=100 hub_offline=true cache_dir=/c"
	const started = "infer_dtype, upstream_command, upstream_start_timeout, trust_remote_code, vllm_gpu_util"
	for args, want := range map[string]string{
		"infer_backend=vllm model=m":                                        "",
		"infer_backend=vllm model=m upstream_url=http://h:1 template=qwen3": "without effect in front of a running server: " + started,
		"infer_backend=vllm upstream_url_file=f": "without effect in front of a running server: generation_config, tool_call_parser, " +
			"reasoning_parser, cache_dir, hub_offline, infer_dtype, max_model_len, upstream_command, upstream_start_timeout, " +
			"trust_remote_code, vllm_gpu_util",
		"infer_backend=vllm model=m upstream_api_key=k": "without effect with a server that is started, which gets a random key: upstream_api_key",
	} {
		r, err := Load("serve", append(strings.Fields(args), strings.Fields(all)...), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Warnings, "\n"); got != want {
			t.Errorf("%s: warnings\n%s\nwant\n%s", args, got, want)
		}
	}
}
