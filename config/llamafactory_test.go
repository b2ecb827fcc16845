package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// The files of LlamaFactory's examples/inference and examples/merge_lora, by their keys.
var exampleFiles = map[string]string{
	"qwen3.yaml": `model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
template: qwen3_nothink
infer_backend: huggingface  # choices: [huggingface, vllm, sglang, ktransformers]
trust_remote_code: true
`,
	"qwen3_lora_sft.yaml": `model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
adapter_name_or_path: saves/qwen3-4b/lora/sft
template: qwen3_nothink
infer_backend: huggingface  # choices: [huggingface, vllm, sglang, ktransformers]
trust_remote_code: true
`,
	"merge.yaml": `### Note: DO NOT use quantized model or quantization_bit when merging lora adapters

### model
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
adapter_name_or_path: saves/qwen3-4b/lora/sft
template: qwen3_nothink
trust_remote_code: true

### export
export_dir: saves/qwen3_sft_merged
export_size: 5
export_device: cpu  # choices: [cpu, auto]
export_legacy_format: false
`,
	"gptq.yaml": `model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
template: qwen3_nothink
trust_remote_code: true
export_dir: saves/qwen3_gptq
export_quantization_bit: 4
export_quantization_dataset: data/c4_demo.jsonl
export_size: 5
export_device: cpu
export_legacy_format: false
`,
}

// trainingFile is a file that trains, with keys of each of LlamaFactory's sections.
const trainingFile = `### model
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
image_max_pixels: 262144
video_max_pixels: 16384
trust_remote_code: true

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
deepspeed: examples/deepspeed/ds_z3_config.json  # choices: [ds_z0_config.json, ds_z2_config.json, ds_z3_config.json]

### dataset
dataset: identity,alpaca_en_demo
template: qwen3_nothink
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
dataloader_num_workers: 4
packing: null

### output
output_dir: saves/qwen3-4b/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none  # choices: [none, wandb, tensorboard, swanlab, mlflow]

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
lr_scheduler_kwargs: {min_lr: 1.0e-6}
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
`

func TestExampleFiles(t *testing.T) {
	for name, text := range exampleFiles {
		r, err := Load("serve", []string{write(t, name, text)}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.ModelNameOrPath != "Qwen/Qwen3-4B-Instruct-2507" || r.Template != "qwen3_nothink" || r.InferBackend == "" {
			t.Errorf("%s: %+v", name, r.Config)
		}
		if !slices.ContainsFunc(r.Warnings, func(w string) bool {
			return strings.Contains(w, ": trust_remote_code") // no code of a checkpoint is ever run
		}) {
			t.Errorf("%s: warnings %q", name, r.Warnings)
		}
	}
}

// A training file may be served as it is: one warning lists what has no effect.
func TestTrainingFile(t *testing.T) {
	r, err := Load("serve", []string{write(t, "train.yaml", trainingFile)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) != 2 || !strings.Contains(r.Warnings[0], "infer_backend native: trust_remote_code") {
		t.Fatalf("warnings %q", r.Warnings)
	}
	r.Warnings = r.Warnings[1:]
	for _, key := range []string{"do_train", "deepspeed", "learning_rate", "cutoff_len (", "image_max_pixels (our own engine takes no media",
		"lr_scheduler_kwargs", "resume_from_checkpoint"} {
		if !strings.Contains(r.Warnings[0], key) {
			t.Errorf("%q is not told in %q", key, r.Warnings[0])
		}
	}
	for _, key := range []string{"stage", "finetuning_type", "template", "model_name_or_path"} {
		if strings.Contains(r.Warnings[0], key) {
			t.Errorf("%s has an effect, but %q", key, r.Warnings[0])
		}
	}
}

// TestV1File: LlamaFactory's v1 has other names, and maps of options: what of these counts is heeded, the rest told.
func TestV1File(t *testing.T) {
	file := write(t, "v1.yaml", `model: Qwen/Qwen3-0.6B
model_class: llm
template: qwen3_nothink
kernel_config: {name: auto}
peft_config:
  name: lora
  r: 16
  adapter_name_or_path: [out/a, out/b]
quant_config:
  name: auto
  quantization_bit: 8
dist_config:
  name: fsdp2
init_config: null
train_dataset: data/v1_sft_demo.yaml
micro_batch_size: 1
sample_backend: hf
max_new_tokens: 128
`)
	r, err := Load("serve", []string{file, "peft_config.lora_alpha=32"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.ModelNameOrPath != "Qwen/Qwen3-0.6B" || !slices.Equal(r.AdapterNameOrPath, []string{"out/a", "out/b"}) || r.QuantizationBit != 8 ||
		r.MaxTokens != 128 || r.Proxied() || r.Source("adapter_name_or_path") != "v1.yaml:8" {
		t.Errorf("%+v, adapters from %s", r.Config, r.Source("adapter_name_or_path"))
	}
	const idle = "without effect on pagoda serve: model_class (the checkpoint says what it is), kernel_config (the native engine has its own kernels), " +
		"peft_config.r, dist_config, init_config (weights are packed one by one, never two copies at once), train_dataset, micro_batch_size, peft_config.lora_alpha"
	if !slices.Equal(r.Warnings, []string{idle}) {
		t.Errorf("warnings %q", r.Warnings)
	}
	_, err = Load("serve", []string{write(t, "bad.yaml", "model: m\npeft_config:\n  name: freeze\n  adapter_name_or_path: a\nquant_config:\n  name: bnb\n  quantization_bit: 4\n"),
		"quant_config.quantization_bit=x"}, nil)
	for _, want := range []string{"bad.yaml:4, bad.yaml:3: adapter_name_or_path: adapters go with finetuning_type lora, not freeze",
		"bad.yaml:6: quantization_method: bnb is not supported", `argument quant_config.quantization_bit: "x" is not a whole number`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := Load("serve", []string{write(t, "list.yaml", "peft_config: [a]\n")}, nil); err == nil || !strings.Contains(err.Error(), "list.yaml:1: peft_config: must be a map") {
		t.Errorf("a list: %v", err)
	}
}

// TestModelNameBesideAdapters: LlamaFactory's variable names what has the adapters in it; here the name is the base model's.
func TestModelNameBesideAdapters(t *testing.T) {
	for args, want := range map[string]string{
		"model=m": "",
		"model=m adapter_name_or_path=saves/sft,x=/y":                  `API_MODEL_NAME: "gpt" answers without adapters, where LlamaFactory merges them; by their own names they answer here: sft, x`,
		"model=m adapter_name_or_path=saves/sft served_model_name=own": "",
	} {
		r, err := Load("serve", strings.Fields(args), []string{"API_MODEL_NAME=gpt"})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Warnings, "\n"); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

func TestIdleKeys(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		want string // in the warnings; an error if it begins with !
	}{
		{"flag", []string{"--per_device_train_batch_size", "2", "--port", "1"}, nil, "per_device_train_batch_size"},
		{"flag with dashes", []string{"--learning-rate=1e-4"}, nil, "learning_rate"},
		{"several values", []string{"--report_to", "wandb", "tensorboard", "--port", "1"}, nil, "report_to"},
		{"boolean flag and a pair", []string{"--do_train", "lora_rank=8"}, nil, "do_train, lora_rank"},
		{"boolean flag turned off", []string{"--no-train-on-prompt", "--port", "1"}, nil, "train_on_prompt"},
		{"boolean flag alone", []string{"--bf16", "--port", "1"}, nil, "bf16"},
		{"key=value", []string{"lora_rank=8"}, nil, "lora_rank"},
		{"wrong type", []string{"lora_rank=eight"}, nil, "!lora_rank: \"eight\" is not a whole number"},
		{"wrong type of a flag", []string{"--bf16=maybe"}, nil, "!bf16: \"maybe\" is not true or false"},
		{"a typo of one", []string{"learning_rat=1"}, nil, "!unknown option \"learning_rat\"; did you mean \"learning_rate\"?"},
		{"an old name", []string{"checkpoint_dir=x"}, nil, "!it is called adapter_name_or_path now"},
		{"extra keys allowed", []string{"xyzzy=1"}, []string{"ALLOW_EXTRA_ARGS=1"}, "xyzzy (unknown, but ALLOW_EXTRA_ARGS is set)"},
		{"extra keys not allowed", []string{"xyzzy=1"}, []string{"ALLOW_EXTRA_ARGS=0"}, "!xyzzy"},
		{"variable", nil, []string{"MAX_CONCURRENT=4"}, "MAX_CONCURRENT (requests run together, see max_num_seqs)"},
		{"trained fully, with an adapter", []string{"finetuning_type=full", "adapter_name_or_path=x"}, nil, "!adapters go with finetuning_type lora, not full"},
		{"reward model", []string{"stage=rm"}, nil, "!stage: a reward model"},
		{"offload folder", []string{"offload_folder=off"}, nil, "offload_folder (mmap uses the checkpoint's own files"},
		{"memory", []string{"low_cpu_mem_usage=true"}, nil, "low_cpu_mem_usage (weights are packed one by one"},
		{"no cache", []string{"use_kv_cache=false"}, nil, "!use_kv_cache: the native engine always has a KV cache"},
		{"beams", []string{"num_beams=4"}, nil, "!num_beams: 4 is not from 1 to 1"},
		{"two templates", []string{"template=qwen3", "chat_template=load.go"}, nil, "!only one of template"},
		{"tools without a template", []string{"tool_format=qwen"}, nil, "!set template too"},
		{"root path", []string{"root_path=llm/"}, nil, "!must begin with /"},
		{"adapter's folder alone", []string{"adapter_folder=x"}, nil, "!there is no adapter_name_or_path"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Load("serve", tt.args, tt.env)
			if want, bad := strings.CutPrefix(tt.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want one with %q", err, want)
				}
				return
			}
			if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], tt.want) {
				t.Errorf("warnings %q, error %v, want %q", r.Warnings, err, tt.want)
			}
		})
	}
}

// TestNotGiven: options without a default tell what was given from what was not.
func TestNotGiven(t *testing.T) {
	r, err := Load("serve", nil, nil)
	if err != nil || r.DefaultSystem != nil || r.EnableThinking != nil || r.Temperature != nil || r.TopK != nil {
		t.Errorf("%+v, %v", r.LlamaFactory, err)
	}
	r, err = Load("serve", []string{"default_system=''", "--enable_thinking", "false", "temperature=0", "--top_k=50"}, []string{"LLAMAFACTORY_VERBOSITY=WARNING"})
	if err != nil || r.DefaultSystem == nil || *r.DefaultSystem != "" || r.EnableThinking == nil || *r.EnableThinking ||
		r.Temperature == nil || *r.Temperature != 0 || *r.TopK != 50 || r.LogLevel != "warn" {
		t.Errorf("%+v, %v", r.LlamaFactory, err)
	}
}

func TestAdapterFolder(t *testing.T) {
	r, err := Load("serve", []string{"adapter_name_or_path=n=a,b", "adapter_folder=best"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Adapters(); err != nil || got[0] != (Adapter{"n", "a/best"}) || got[1] != (Adapter{"b", "b/best"}) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestFlagsListIdleKeys: the printed table has every key that is known, those without effect too.
func TestFlagsListIdleKeys(t *testing.T) {
	var all, ofServe strings.Builder
	if err := errors.Join(PrintFlags(&all, ""), PrintFlags(&ofServe, "serve")); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(all.String())
	for _, n := range noted {
		if !slices.Contains(words, "--"+n.name) || !strings.Contains(all.String(), n.why) {
			t.Errorf("%s is not listed with its reason", n.name)
		}
	}
	for name := range withoutEffect {
		if !slices.Contains(words, name) {
			t.Errorf("%s is not listed", name)
		}
	}
	if strings.Contains(ofServe.String(), "learning_rate") {
		t.Error("the help of serve lists keys that it does not heed")
	}
}
