package vllm

import (
	"encoding/json"
	"fmt"
	"strconv"

	"pagoda/backends/proxy"
)

// loraRanks are the only values that --max-lora-rank takes.
var loraRanks = []int{1, 8, 16, 32, 64, 128, 256, 320, 512}

// maxStops is what a server of ours takes, as many as our own API.
const maxStops = 16

// Spawn is how to start a vLLM server.
func Spawn(o proxy.ServerOptions) (*proxy.Spawn, error) {
	s := &proxy.Spawn{Socket: true, Command: func(l proxy.Listen) (args, env []string, err error) {
		return Command(o, l)
	}}
	_, _, err := s.Command(proxy.Listen{}) // options that cannot be written fail before anything starts
	return s, err
}

// SpawnedDialect is Dialect for a server that Spawn has started.
func SpawnedDialect() *proxy.Dialect {
	d := Dialect()
	d.MaxStops = maxStops
	return d
}

// Command is the command line of a vLLM server and what is added to its environment. The options' Config comes last.
func Command(o proxy.ServerOptions, l proxy.Listen) (args, env []string, err error) {
	var f proxy.Flags
	f.SetText("--served-model-name", o.Name)
	f.SetText("--download-dir", o.CacheDir)
	f.SetText("--revision", o.Revision)
	f.SetText("--dtype", o.DType)
	f.SetInt("--max-model-len", o.MaxLen)
	f.SetFloat("--gpu-memory-utilization", o.MemoryShare)
	f.SetInt("--tensor-parallel-size", o.Parallel)
	f.SetBool("--enforce-eager", o.EnforceEager)
	f.SetBool("--trust-remote-code", o.TrustCode)
	f.SetText("--chat-template", o.ChatTemplate)
	if o.NoAdvice {
		f.Set("--generation-config", "vllm")
	}
	switch o.ToolParser {
	case "":
	case "glm4":
		return nil, nil, fmt.Errorf("tool_call_parser: vLLM has none for %s", o.ToolParser)
	default:
		f.Set("--enable-auto-tool-choice")
		f.Set("--tool-call-parser", o.ToolParser)
	}
	if o.Reasoning == "gpt_oss" {
		o.Reasoning = "openai_gptoss" // the same, by the name that vLLM has
	}
	f.SetText("--reasoning-parser", o.Reasoning)
	if len(o.Adapters) > 0 {
		f.Set("--enable-lora")
		if o.MaxLoRARank > 0 {
			rank, err := roundRank(o.MaxLoRARank)
			if err != nil {
				return nil, nil, err
			}
			f.SetInt("--max-lora-rank", rank)
		}
		f.Set("--max-loras", strconv.Itoa(len(o.Adapters)))
		modules := make([]string, len(o.Adapters))
		for i, a := range o.Adapters {
			text, err := json.Marshal(map[string]string{"name": a.Name, "path": a.Path}) // a path may hold "="
			if err != nil {
				return nil, nil, err
			}
			modules[i] = string(text)
		}
		f.Set("--lora-modules", modules...)
	}
	f.Set("--enable-prompt-tokens-details") // else usage does not tell cached tokens
	no := func(name string) string { return "--no-" + name }
	if err := f.Apply(o.Config, no, "--host", "--port", "--uds", "--api-key", "--model"); err != nil {
		return nil, nil, fmt.Errorf("vllm_config: %w", err)
	}
	if l.Socket != "" {
		f.Set("--uds", l.Socket)
	} else {
		f.Set("--host", l.Host)
		f.Set("--port", strconv.Itoa(l.Port))
	}
	program := o.Program
	if len(program) == 0 {
		program = []string{"vllm", "serve"}
	}
	args = append(append([]string(nil), program...), o.Model)
	if program[len(program)-1] == "vllm.entrypoints.openai.api_server" { // where the model is a flag
		args = append(args[:len(args)-1], "--model", o.Model)
	}
	env = []string{"VLLM_API_KEY=" + l.Key, // not among the arguments, which everybody on the machine can read
		"VLLM_RPC_BASE_PATH=" + l.Dir, // its sockets, which it leaves behind when it is killed
		"VLLM_NO_USAGE_STATS=1", "VLLM_MAX_STOP_STRINGS=" + strconv.Itoa(maxStops), "VLLM_HTTP_TIMEOUT_KEEP_ALIVE=60"}
	if len(o.Adapters) > 0 {
		env = append(env, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True")
	}
	return append(args, f.Args()...), append(env, o.HubEnviron()...), nil
}

// roundRank is the next rank that vLLM takes.
func roundRank(rank int) (int, error) {
	for _, r := range loraRanks {
		if r >= rank {
			return r, nil
		}
	}
	return 0, fmt.Errorf("vllm_max_lora_rank: %d is more than vLLM's largest, %d", rank, loraRanks[len(loraRanks)-1])
}
