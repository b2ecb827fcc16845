package sglang

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"pagoda/backends/proxy"
)

func quoteMeta(s string) string { return regexp.QuoteMeta(s) }

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
		return args, []string{"SGLANG_TIMEOUT_KEEP_ALIVE=60"}, err
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
	f.SetText("--tool-call-parser", o.ToolParser)
	f.SetText("--reasoning-parser", o.Reasoning)
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
	if o.MediaPerModel {
		f.Set("--limit-mm-data-per-request", `{"audio":2,"image":4,"video":2}`)
	}
	f.Set("--enable-metrics")      // off by default: without them a hang looks like work
	f.Set("--enable-cache-report") // else usage does not tell cached tokens
	if more != nil {
		more(&f)
	}
	absent := func(string) string { return "" } // SGLang's switches have no opposite
	if err := f.Apply(o.Config, absent, "--host", "--port", "--api-key", "--admin-api-key", "--model-path", "--config"); err != nil {
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
