package config

import (
	"strings"
	"testing"
)

func TestModels(t *testing.T) {
	file := write(t, "a.yaml", `threads: 2
temperature: 0.5
served_model_name: not inherited
models:
  - served_model_name: one
    quantization_bit: 8
  - served_model_name: two
    threads: 1
    infer_backend: vllm
    upstream_url: http://h:8000
port: 9
`)
	r, err := Load("serve", []string{file, "max_num_seqs=7"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Models) != 2 || r.Port != 9 {
		t.Fatalf("%d models, port %d", len(r.Models), r.Port)
	}
	one, two := r.Models[0], r.Models[1]
	if one.ServedModelName != "one" || one.QuantizationBit != 8 || one.Threads != 2 || one.MaxNumSeqs != 7 || *one.Temperature != 0.5 || one.Proxied() {
		t.Errorf("one: %+v", one)
	}
	if w := strings.Join(r.Warnings, "\n"); !strings.Contains(w, "models[1]: without effect with infer_backend vllm: ") ||
		!strings.Contains(w, "a.yaml:3: served_model_name has no effect beside models") {
		t.Errorf("warnings:\n%s", w)
	}
	if two.ServedModelName != "two" || two.QuantizationBit != 0 || two.Threads != 1 || !two.Proxied() || r.Threads != 2 {
		t.Errorf("two: %+v", two)
	}
}

func TestModelsErrors(t *testing.T) {
	file := write(t, "a.yaml", `models:
  - served_model_name: one
    port: 1
  - thread: 3
  - threads: many
  - 7
  - mmap: true
`)
	_, err := Load("serve", []string{file}, nil)
	for _, want := range []string{
		"a.yaml:3: models[0]: port is the server's, not a model's",
		`a.yaml:4: models[1]: unknown option "thread"; did you mean "threads"?`,
		`a.yaml:5: models[2]: threads: "many" is not a whole number`,
		"a.yaml:6: models[3]: must be a map",
		"a.yaml:7: models[4]: mmap: needs model_name_or_path",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	file = write(t, "d.yaml", "model: m\nupstream_url_file: f\nmmap: true\nmodels:\n  - allow_runtime_lora_updating: true\n  - {infer_backend: vllm}\n")
	_, err = Load("serve", []string{file, "host=[::1]"}, []string{"API_MODEL_NAME=x"})
	for _, line := range []string{"d.yaml:1: model_name_or_path: is for an entry of models to say", "d.yaml:2: upstream_url_file: is for an entry",
		"d.yaml:5: models[0]: allow_runtime_lora_updating is the server's, not a model's",
		"d.yaml:5: models[0]: mmap: needs model_name_or_path", "d.yaml:6: models[1]: model_name_or_path: is required with infer_backend vllm",
		"argument host: \"[::1]\" is not an address"} {
		if err == nil || strings.Count(err.Error(), line) != 1 {
			t.Errorf("the error lacks %q, or has it twice:\n%v", line, err)
		}
	}
	file = write(t, "e.yaml", `models:
  - {served_model_name: x, adapter_name_or_path: a=/p}
  - {infer_backend: vllm, upstream_url: http://h:1}
  - {served_model_name: x, adapter_name_or_path: b=/p}
  - {served_model_name: y, adapter_name_or_path: "a=/q,z=/q"}
  - {model: /p/n}
  - {model: /q/n, infer_backend: vllm}
  - {model: org/n}
  - {model: n, infer_backend: vllm, upstream_url: "http://h:1"}
  - {model: org/n, infer_backend: sglang}
`)
	_, err = Load("serve", []string{file}, nil)
	want := `e.yaml:3: models[1]: served_model_name: is required with upstream_url: beside other models its name must be known before its server is up
e.yaml:4: models[2]: served_model_name: models[0] has the name "x" already
e.yaml:5: models[3]: adapter_name_or_path: models[0] has the name "a" already
e.yaml:7: models[5]: model_name_or_path: models[4] has the name "n" already; served_model_name gives another
e.yaml:9: models[7]: model_name_or_path: models[5] has the name "n" already; served_model_name gives another
e.yaml:10: models[8]: model_name_or_path: models[6] has the name "org/n" already; served_model_name gives another`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	for _, text := range []string{"models: 3\n", "models: []\n", "models: {a: b}\n"} {
		if _, err := Load("serve", []string{write(t, "b.yaml", text)}, nil); err == nil || !strings.Contains(err.Error(), "b.yaml:1: models: must be a list") {
			t.Errorf("%q: %v", text, err)
		}
	}
	r, err := Load("chat", []string{write(t, "c.yaml", "models: [{threads: 1}]\n")}, nil)
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "models has no effect on pagoda chat") {
		t.Errorf("chat: %v, %v", r.Warnings, err)
	}
}
