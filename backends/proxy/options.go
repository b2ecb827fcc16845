package proxy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ServerOptions are our options as far as a spawned server is told them; each backend writes its own command line of
// them. A zero value leaves the server its own default.
type ServerOptions struct {
	Program      []string // how the server is started, "" for the backend's usual command
	Model        string   // folder or hub id
	Name         string   // that it gives the model
	CacheDir     string   // for downloads
	Revision     string
	HubToken     string // for Hugging Face; "": the environment's
	HubOffline   bool   // it asks no hub
	DType        string // "auto", "float16", "bfloat16", "float32"
	MaxLen       int    // tokens of prompt and answer
	MemoryShare  float64
	Parallel     int // devices that share the tensors
	EnforceEager bool
	MaxLoRARank  int
	LoRABackend  string // SGLang's kernels for adapters
	Adapters     []Adapter
	TrustCode    bool
	ChatTemplate string // file
	NoAdvice     bool   // of the checkpoint on sampling (generation_config.json)
	ToolParser   string // how the server tells calls from text, by vLLM's names; "" is not at all
	Reasoning    string // likewise thoughts
	KT           KTOptions
	Config       map[string]any // vllm_config or sglang_config: applied last
}

// HubEnviron are the variables by which Hugging Face's library is told of the hub.
func (o *ServerOptions) HubEnviron() (env []string) {
	if o.HubToken != "" {
		env = append(env, "HF_TOKEN="+o.HubToken)
	}
	if o.HubOffline {
		env = append(env, "HF_HUB_OFFLINE=1")
	}
	return env
}

// KTOptions are those of KTransformers' kernels.
type KTOptions struct {
	WeightPath    string
	Method        string
	CPUInfer      int // threads
	ThreadPools   int // NUMA nodes
	GPUExperts    int // -1: the server's default
	ChunkSize     int // tokens of a prefill step
	CUDAGraphsOff bool
}

// Flags is a command line in the making: flags in order, each once. A later value takes the place of an earlier one.
type Flags struct {
	order  []string
	values map[string][]string
}

// Set gives a flag its values: none for a switch, several for a list.
func (f *Flags) Set(name string, values ...string) {
	if f.values == nil {
		f.values = map[string][]string{}
	}
	if _, ok := f.values[name]; !ok {
		f.order = append(f.order, name)
	}
	f.values[name] = values
}

// SetText sets a flag unless value is "".
func (f *Flags) SetText(name, value string) {
	if value != "" {
		f.Set(name, value)
	}
}

// SetInt sets a flag unless value is 0.
func (f *Flags) SetInt(name string, value int) {
	if value != 0 {
		f.Set(name, strconv.Itoa(value))
	}
}

// SetFloat sets a flag unless value is 0.
func (f *Flags) SetFloat(name string, value float64) {
	if value != 0 {
		f.Set(name, strconv.FormatFloat(value, 'g', -1, 64))
	}
}

// SetBool sets a switch if value is true.
func (f *Flags) SetBool(name string, value bool) {
	if value {
		f.Set(name)
	}
}

// Unset takes a flag away.
func (f *Flags) Unset(name string) {
	if _, ok := f.values[name]; !ok {
		return
	}
	delete(f.values, name)
	f.order = slices.DeleteFunc(f.order, func(n string) bool { return n == name })
}

// Args is the command line.
func (f *Flags) Args() []string {
	var out []string
	for _, name := range f.order {
		out = append(append(out, name), f.values[name]...)
	}
	return out
}

// Apply sets flags from a map of option names to values of JSON or YAML: name_of becomes --name-of. true is the bare flag,
// false is no(name) or, if that is "", the flag's absence; a list gives several values, a map is passed as JSON, null
// changes nothing. reserved names are an error: they are ours to decide.
func (f *Flags) Apply(config map[string]any, no func(name string) string, reserved ...string) error {
	for _, key := range slices.Sorted(maps.Keys(config)) {
		plain := strings.ReplaceAll(strings.ToLower(key), "_", "-")
		if plain == "" || strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			return fmt.Errorf("%q is no option's name", key)
		}
		name := "--" + plain
		if slices.Contains(reserved, name) {
			return fmt.Errorf("%s is set by this server and must not be given", key)
		}
		value := config[key]
		if text, ok := value.(string); ok && (strings.EqualFold(text, "true") || strings.EqualFold(text, "false")) {
			value = strings.EqualFold(text, "true") // LlamaFactory's flags take such text too
		}
		switch v := value.(type) {
		case nil:
		case bool:
			f.Unset(name)
			f.Unset(no(plain))
			if v {
				f.Set(name)
			} else if n := no(plain); n != "" {
				f.Set(n)
			}
		case []any:
			values := make([]string, len(v))
			for i, item := range v {
				text, err := flagText(item)
				if err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
				values[i] = text
			}
			f.Set(name, values...)
		default:
			text, err := flagText(v)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			f.Set(name, text)
		}
	}
	return nil
}

// flagText is a value as an argument.
func flagText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case int, int64, uint64, bool:
		return fmt.Sprint(v), nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}
