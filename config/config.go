package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config is the value of every option; options.go says what each means.
type Config struct {
	ModelNameOrPath   string
	ServedModelName   string
	AdapterNameOrPath []string
	GenerationConfig  string
	ChatTemplate      string
	ToolCallParser    string
	ReasoningParser   string

	InferBackend        string
	InferDType          string
	QuantizationBit     int // 0: none
	QuantizationMethod  string
	RopeScaling         string
	LoadFormat          string
	Mmap                bool
	Threads             int
	CPUKernels          string
	MaxModelLen         int
	KVCacheMemory       int64 // bytes; 0: from free memory
	KVCacheDType        string
	MaxNumSeqs          int
	MaxNumBatchedTokens int
	MaxQueue            int
	HFOverrides         map[string]any
	PoolingType         string
	EnablePrefixCaching bool

	SpeculativeMethod    string
	NumSpeculativeTokens int
	DraftModel           string
	PromptLookupMin      int
	PromptLookupMax      int

	UpstreamURL          []string
	UpstreamURLFile      string
	UpstreamAPIKey       string
	UpstreamRoutes       []string
	Tokenizer            string
	UpstreamWait         time.Duration
	UpstreamTimeout      time.Duration // 0: none
	UpstreamCommand      []string
	UpstreamStartTimeout time.Duration
	HubID                string // no option: the id that ModelNameOrPath, now a folder, was downloaded by
	Hub                  string
	CacheDir             string
	ModelRevision        string
	HubOffline           bool
	HFHubToken           string
	MSHubToken           string
	OMHubToken           string
	TrustRemoteCode      bool
	VLLMGPUUtil          float64
	VLLMEnforceEager     bool
	VLLMMaxLoRARank      int
	VLLMConfig           map[string]any
	SGLangMaxLen         int
	SGLangMemFraction    float64
	SGLangTPSize         int
	SGLangLoRABackend    string
	SGLangConfig         map[string]any
	CPUInfer             int
	ChunkSize            int
	KTMaxLen             int
	KTUseCUDAGraph       bool
	KTWeightPath         string
	KTMethod             string
	KTThreadpoolCount    int
	KTNumGPUExperts      int

	AllowRuntimeLoRAUpdating bool

	Host           string
	Port           int
	APIKey         []string
	APIKeyFile     string
	AllowedHosts   []string
	CORSOrigins    []string
	UnknownFields  string
	MaxBodyBytes   int64
	MaxHeaderBytes int64
	MaxN           int
	RequestTimeout time.Duration // 0: none
	WriteTimeout   time.Duration
	DrainTimeout   time.Duration

	LogLevel  string
	LogFormat string
	AccessLog bool

	URL       string
	ChatModel string
	System    string

	Requests     int
	Concurrency  int
	InputTokens  int
	OutputTokens int
	Endpoint     string
	Rounds       int
	JSON         bool

	LlamaFactory
}

// Defaults is the Config of a start without any option.
func Defaults() Config {
	var c Config
	for _, o := range c.options() {
		if o.Default == "" {
			continue
		}
		if err := o.setText(o.Default); err != nil {
			panic(fmt.Sprintf("config: default of %s: %v", o.Name, err)) // a mistake in the table; a test calls this
		}
	}
	return c
}

// Problem is what is wrong with an option's value, alone or beside those of others.
type Problem struct {
	Options []string // the one that is to be changed first
	Err     error
}

// Error implements error.
func (p *Problem) Error() string { return p.Options[0] + ": " + p.Err.Error() }

// Unwrap implements errors.Unwrap's contract.
func (p *Problem) Unwrap() error { return p.Err }

// report notes a problem of the options, separated by spaces.
type report func(options, format string, args ...any)

// Validate returns everything that is wrong with values, alone and taken together, and files that cannot be read.
func (c *Config) Validate() (problems []*Problem) {
	bad := func(options, format string, args ...any) {
		problems = append(problems, &Problem{strings.Fields(options), fmt.Errorf(format, args...)})
	}
	for _, o := range c.options() {
		if err := o.check(); err != nil {
			bad(o.Name, "%w", err)
		}
	}
	c.validateUpstream(bad)
	if b := c.QuantizationBit; b != 0 && b != 4 && b != 8 {
		bad("quantization_bit", "%d is none of 0, 4, 8", b)
	}
	switch c.QuantizationMethod {
	case "bnb", "hqq", "eetq":
		bad("quantization_method", "%s is not supported by this version; use rtn", c.QuantizationMethod)
	case "rtn":
		if c.QuantizationBit == 0 {
			bad("quantization_method quantization_bit", "rtn needs quantization_bit 8 or 4")
		}
	}
	if c.Mmap {
		if c.ModelNameOrPath == "" {
			bad("mmap model_name_or_path", "needs model_name_or_path, the built-in model is no file")
		}
		if c.QuantizationBit != 0 || c.LoadFormat == "dummy" {
			bad("mmap quantization_bit load_format", "quantization_bit and load_format dummy make weights that are in no file")
		}
	}
	c.LlamaFactory.validate(c, bad)
	if c.MaxNumBatchedTokens < c.MaxNumSeqs {
		bad("max_num_batched_tokens max_num_seqs", "%d must not be below max_num_seqs, %d: a step holds a token of every sequence",
			c.MaxNumBatchedTokens, c.MaxNumSeqs)
	}
	if (c.SpeculativeMethod == "draft_model") != (c.DraftModel != "") {
		bad("speculative_method draft_model", "draft_model and an option draft_model go together")
	}
	if c.PromptLookupMax < c.PromptLookupMin {
		bad("prompt_lookup_max prompt_lookup_min", "%d must not be below prompt_lookup_min, %d", c.PromptLookupMax, c.PromptLookupMin)
	}
	if strings.HasPrefix(c.Host, "[") || (c.Host != "" && strings.Contains(c.Host, "/")) {
		bad("host", "%q is not an address or a name", c.Host)
	}
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			bad("url", "%q is not like http://localhost:8000/v1", c.URL)
		}
	}
	if _, err := c.Adapters(); err != nil {
		bad("adapter_name_or_path", "%w", err)
	}
	if _, err := c.Keys(); err != nil {
		bad("api_key_file", "%w", err)
	}
	if c.ChatTemplate != "" {
		if _, err := os.Stat(c.ChatTemplate); err != nil {
			bad("chat_template", "%w", err)
		}
	}
	return problems
}

// Proxied says that another server computes.
func (c *Config) Proxied() bool {
	return c.InferBackend == "vllm" || c.InferBackend == "sglang" || c.InferBackend == "ktransformers"
}

// Attached says that it runs already.
func (c *Config) Attached() bool { return len(c.UpstreamURL) > 0 || c.UpstreamURLFile != "" }

// Renders says that prompts are made here for another server: with a named template, or one for a server that runs already.
func (c *Config) Renders() bool {
	return c.Proxied() && (c.Template != "" || c.ChatTemplate != "" && c.Attached())
}

func (c *Config) validateUpstream(bad report) {
	switch {
	case !c.Proxied() && len(c.UpstreamURL) > 0:
		bad("upstream_url infer_backend", "needs infer_backend vllm, sglang or ktransformers")
	case !c.Proxied() && c.UpstreamURLFile != "":
		bad("upstream_url_file infer_backend", "needs infer_backend vllm, sglang or ktransformers")
	case len(c.UpstreamURL) > 0 && c.UpstreamURLFile != "":
		bad("upstream_url upstream_url_file", "only one of upstream_url and upstream_url_file may be given")
	case c.Proxied() && !c.Attached() && c.ModelNameOrPath == "":
		bad("model_name_or_path infer_backend", "is required with infer_backend %s, unless upstream_url names a running server", c.InferBackend)
	}
	if c.Proxied() && c.QuantizationBit != 0 {
		bad("quantization_bit infer_backend", "%s rounds no weights when it loads; give it a quantized checkpoint", c.InferBackend)
	}
	if c.Renders() && c.ModelNameOrPath == "" && c.Tokenizer == "" && c.Attached() {
		bad("template chat_template tokenizer", "prompts are made here from the model's own files: tokenizer says where they are")
	}
	if c.Proxied() && c.Tokenizer != "" && !c.Renders() {
		bad("tokenizer", "belongs to template, without which the server makes the prompts itself")
	}
}

// Address is what the server listens on.
func (c *Config) Address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// ModelID is the model or adapter that chat and bench ask for, "" for the first one served.
func (c *Config) ModelID() string {
	if c.ChatModel == "" && c.URL != "" {
		return c.ModelNameOrPath
	}
	return c.ChatModel
}

// Name is the id by which clients know the model: the one given, else the folder's name or the hub's id; "" where only loading tells.
func (c *Config) Name() string {
	if c.ServedModelName != "" || c.Attached() {
		return cmp.Or(c.ServedModelName, c.ModelNameOrPath)
	}
	name := c.ModelNameOrPath
	if _, err := os.Stat(name); err == nil || filepath.IsAbs(name) {
		if abs, err := filepath.Abs(name); err == nil {
			return filepath.Base(abs)
		}
	}
	return name
}

// Adapter is an entry of adapter_name_or_path.
type Adapter struct{ Name, Path string }

// Adapters splits the entries [name=]path; the name of a bare path is its last element.
func (c *Config) Adapters() ([]Adapter, error) {
	var out []Adapter
	var errs []error
	seen := map[string]bool{}
	for _, entry := range c.AdapterNameOrPath {
		a := Adapter{Path: entry, Name: filepath.Base(filepath.Clean(entry))}
		if name, path, ok := strings.Cut(entry, "="); ok {
			a = Adapter{Name: name, Path: path}
		}
		switch {
		case a.Name == "" || a.Path == "":
			errs = append(errs, fmt.Errorf("%q is not [name=]path", entry))
		case seen[a.Name]:
			errs = append(errs, fmt.Errorf("two adapters are named %q; use name=path", a.Name))
		}
		seen[a.Name] = true
		if c.AdapterFolder != "" {
			a.Path = filepath.Join(a.Path, c.AdapterFolder)
		}
		out = append(out, a)
	}
	return out, errors.Join(errs...)
}

// Keys returns the keys of api_key and those of api_key_file: one a line, empty lines and lines that begin with # are
// not keys. A file without any key is an error: it would open the server to everybody.
func (c *Config) Keys() ([]string, error) {
	keys := append([]string(nil), c.APIKey...)
	if c.APIKeyFile == "" {
		return keys, nil
	}
	data, err := os.ReadFile(c.APIKeyFile)
	if err != nil {
		return nil, err
	}
	found := false
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
			found = true
		}
	}
	if !found {
		return nil, fmt.Errorf("%s holds no key", c.APIKeyFile)
	}
	return keys, nil
}
