package sglang

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"pagoda/backends/proxy"
)

// SGLang's names of parsers, by vLLM's.
//
// Source: sglang 0.5.23, srt/function_call/function_call_parser.py and srt/parser/reasoning_parser.py.
var (
	toolParsers = map[string]string{
		"deepseek_v3": "deepseekv3", "deepseek_v31": "deepseekv31", "glm45": "glm45", "glm47": "glm47", "hermes": "hermes",
		"lfm2": "lfm2", "llama3_json": "llama3", "llama4_pythonic": "pythonic", "minimax_m2": "minimax-m2", "mistral": "mistral",
		"openai": "gpt-oss", "pythonic": "pythonic", "qwen3_coder": "qwen3_coder", "qwen3_xml": "qwen3_coder",
	}
	reasoningParsers = map[string]string{
		"deepseek_r1": "deepseek-r1", "glm45": "glm45", "gpt_oss": "gpt-oss", "openai_gptoss": "gpt-oss", "mistral": "mistral",
		"qwen3": "qwen3",
	}
)

func setParser(f *proxy.Flags, flag, option string, names map[string]string, parser string) error {
	name, ok := names[parser]
	if parser != "" && !ok {
		return fmt.Errorf("%s: SGLang has none for %s", option, parser)
	}
	f.SetText(flag, name)
	return nil
}

// withOpposite are the switches that also have a form with no-; of the others false is the absence. Most of these choose for
// themselves where neither is given.
//
// Source: sglang 0.5.23, the fields with BooleanOptionalAction in srt/arg_groups/fields.
var withOpposite = []string{
	"dcp-replicate-q-proj", "dllm-fdfo", "enable-decoder-swa-bounded-replay", "enable-dsa-fused-indexer", "enable-fused-qk-norm-rope",
	"enable-tf32-matmul", "enable-tp-lm-head-all-to-all", "experts-shared-outer-loras", "lora-strict-loading", "mm-enable-dp-encoder",
	"ple-offload-embedding", "speculative-enable-w4a4-mxfp4-megamoe",
}

func opposite(name string) string {
	if slices.Contains(withOpposite, name) {
		return "--no-" + name
	}
	return ""
}

// Spawn is how to start an SGLang server.
func Spawn(o proxy.ServerOptions) (*proxy.Spawn, error) {
	return SpawnWith(o, nil)
}

// SpawnWith is Spawn with further flags, which come before sglang_config.
func SpawnWith(o proxy.ServerOptions, more func(f *proxy.Flags)) (*proxy.Spawn, error) {
	if _, err := command(o, proxy.Listen{}, "", more); err != nil { // fail before anything starts
		return nil, err
	}
	return &proxy.Spawn{Command: func(l proxy.Listen) (args, env []string, err error) {
		// The keys go into a file: everybody on the machine can read a process's arguments.
		keys := filepath.Join(l.Dir, "keys.yaml")
		text := fmt.Sprintf("api-key: %s\nadmin-api-key: %s\n", l.Key, l.AdminKey)
		if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
			return nil, nil, err
		}
		args, err = command(o, l, keys, more)
		return args, append(o.HubEnviron(), "SGLANG_TIMEOUT_KEEP_ALIVE=60"), err
	}}, nil
}

// Command is the command line of an SGLang server whose keys stand in the file keys. The options' Config comes last.
func Command(o proxy.ServerOptions, l proxy.Listen, keys string) ([]string, error) {
	return command(o, l, keys, nil)
}

func command(o proxy.ServerOptions, l proxy.Listen, keys string, more func(f *proxy.Flags)) ([]string, error) {
	var f proxy.Flags
	f.Set("--model-path", o.Model)
	f.SetText("--served-model-name", o.Name)
	f.SetText("--download-dir", o.CacheDir)
	f.SetText("--revision", o.Revision)
	f.SetText("--dtype", o.DType)
	f.SetInt("--context-length", o.MaxLen)
	f.SetFloat("--mem-fraction-static", o.MemoryShare)
	f.SetInt("--tp-size", o.Parallel)
	f.SetBool("--disable-cuda-graph", o.EnforceEager)
	f.SetBool("--trust-remote-code", o.TrustCode)
	f.SetText("--chat-template", o.ChatTemplate)
	if o.NoAdvice {
		f.Set("--sampling-defaults", "openai")
	}
	if err := setParser(&f, "--tool-call-parser", "tool_call_parser", toolParsers, o.ToolParser); err != nil {
		return nil, err
	}
	if err := setParser(&f, "--reasoning-parser", "reasoning_parser", reasoningParsers, o.Reasoning); err != nil {
		return nil, err
	}
	if len(o.Adapters) > 0 {
		paths := make([]string, len(o.Adapters))
		for i, a := range o.Adapters {
			text, err := json.Marshal(map[string]any{"lora_name": a.Name, "lora_path": a.Path, "pinned": false})
			if err != nil {
				return nil, err
			}
			paths[i] = string(text)
		}
		f.Set("--enable-lora")
		f.Set("--lora-paths", paths...)
		f.Set("--max-loras-per-batch", strconv.Itoa(len(o.Adapters)+1)) // the base model counts
		backend := o.LoRABackend
		if backend == "flashinfer" { // it is gone
			backend = "triton"
		}
		f.SetText("--lora-backend", backend)
	}
	f.Set("--enable-metrics")      // off by default: without them a hang looks like work
	f.Set("--enable-cache-report") // else usage does not tell cached tokens
	if more != nil {
		more(&f)
	}
	if err := f.Apply(o.Config, opposite, "--host", "--port", "--api-key", "--admin-api-key", "--model-path", "--model", "--config"); err != nil {
		return nil, fmt.Errorf("sglang_config: %w", err)
	}
	f.SetText("--config", keys)
	f.Set("--host", l.Host)
	f.Set("--port", strconv.Itoa(l.Port))
	program := o.Program
	if len(program) == 0 {
		program = []string{"python3", "-m", "sglang.launch_server"}
	}
	return append(append([]string(nil), program...), f.Args()...), nil
}
