package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"

	"pagoda/backends/ktransformers"
	"pagoda/backends/native/codec"
	"pagoda/backends/proxy"
	"pagoda/backends/sglang"
	"pagoda/backends/templated"
	"pagoda/backends/vllm"
	"pagoda/checkpoint"
	"pagoda/config"
	"pagoda/engine"
	"pagoda/hub"
)

// upstreamKind is a backend that is another server.
type upstreamKind struct {
	attached, spawned func() *proxy.Dialect
	spawn             func(proxy.ServerOptions) (*proxy.Spawn, error)
	options           func(*config.Config) proxy.ServerOptions
}

var upstreamKinds = map[string]*upstreamKind{
	"vllm":          {vllm.Dialect, vllm.SpawnedDialect, vllm.Spawn, vllmOptions},
	"sglang":        {sglang.Dialect, sglang.Dialect, sglang.Spawn, sglangOptions},
	"ktransformers": {ktransformers.Dialect, ktransformers.Dialect, ktransformers.Spawn, ktOptions},
}

// connect makes the engine in front of the configured upstream, completed by what the configuration says of prompts and sampling.
// With noWait a running server's model is there before the server is.
func connect(ctx context.Context, cfg *config.Config, noWait bool, metrics *proxy.Metrics, log zerolog.Logger) (engine.Engine, error) {
	o, err := templatedOptions(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	p, err := newProxy(ctx, cfg, noWait, metrics, log)
	if err == nil && o == (templated.Options{}) {
		return p, nil
	}
	if err != nil {
		if o.Codec != nil {
			err = errors.Join(err, o.Codec.Close())
		}
		return nil, err
	}
	d := upstreamKinds[cfg.InferBackend].dialect(cfg)
	o.MaxLen, o.MaxStops = cfg.MaxModelLen, d.MaxStops
	_, o.NamesByID = d.Fields["return_tokens_as_token_ids"]
	return templated.New(p, o), nil
}

// dialect is that of the servers that cfg names, or of the one that is started.
func (k *upstreamKind) dialect(cfg *config.Config) *proxy.Dialect {
	if cfg.Attached() {
		return k.attached()
	}
	return k.spawned()
}

// templatedOptions are what the configuration says of prompts and sampling; zero if that is nothing.
func templatedOptions(ctx context.Context, cfg *config.Config, log zerolog.Logger) (templated.Options, error) {
	o := templated.Options{Sampling: samplingOptions(cfg)}
	if !cfg.Renders() {
		if o.Thinking = cfg.EnableThinking; cfg.DefaultSystem != nil {
			o.System = *cfg.DefaultSystem
		}
		return o, nil
	}
	prompts, err := promptOptions(cfg)
	if err != nil {
		return o, err
	}
	prompts.Log = log
	if err := prompts.Validate(); err != nil {
		return o, err
	}
	name := cmp.Or(cfg.Tokenizer, cfg.ModelNameOrPath)
	dir, err := textFolderOf(ctx, cfg, name, log)
	if err != nil {
		return o, fmt.Errorf("tokenizer: %w", err)
	}
	ck, err := checkpoint.Open(dir)
	if err != nil {
		return o, fmt.Errorf("tokenizer: %w", err)
	}
	defer ck.Close()
	files, err := codec.Read(ck)
	if err != nil {
		return o, fmt.Errorf("tokenizer: load %s: %w", name, err)
	}
	gen, err := ck.GenerationConfig()
	if err != nil {
		return o, fmt.Errorf("tokenizer: load %s: %w", name, err)
	}
	if cfg.GenerationConfig == "none" {
		gen = nil
	}
	o.Sampling = codec.SamplingDefaults(gen, o.Sampling) // which SGLang heeds for chats only
	if o.Codec, err = files.Load(prompts); err != nil {
		return o, fmt.Errorf("load %s: %w", name, err)
	}
	log.Info().Str("template", cmp.Or(cfg.Template, cfg.ChatTemplate)).Str("tokenizer", name).Msg("prompts are made here")
	if c, err := ck.Config(); err == nil && c.TextConfig != nil { // which need not be there
		log.Warn().Msg("this model takes more than text, but prompts that are made here are text: without template the server makes them, with images")
	}
	return o, nil
}

func newProxy(ctx context.Context, cfg *config.Config, noWait bool, metrics *proxy.Metrics, log zerolog.Logger) (*proxy.Engine, error) {
	kind := upstreamKinds[cfg.InferBackend]
	p := proxy.Config{
		Dialect: kind.dialect(cfg), Name: cfg.ServedModelName, Metrics: metrics, Log: log,
		URLs: cfg.UpstreamURL, ListFile: cfg.UpstreamURLFile, Key: cfg.UpstreamAPIKey,
		Times: proxy.Times{Wait: cfg.UpstreamWait, Stall: cfg.UpstreamTimeout, Start: cfg.UpstreamStartTimeout},
	}
	if p.Times.Stall == 0 {
		p.Times.Stall = -1
	}
	var err error
	if p.Adapters, err = upstreamAdapters(cfg); err != nil {
		return nil, err
	}
	if cfg.Attached() {
		p.UpstreamModel, p.NoWait = cfg.ModelNameOrPath, noWait
		return proxy.New(ctx, p)
	}
	o, err := spawnOptions(cfg, kind)
	if err != nil {
		return nil, err
	}
	if cfg.Hub != string(hub.HuggingFace) { // which alone the servers know by themselves
		if o.Model, err = folderOf(ctx, cfg, o.Model, log); err != nil {
			return nil, fmt.Errorf("model_name_or_path: %w", err)
		}
	}
	p.Name = o.Name
	if p.Spawn, err = kind.spawn(o); err != nil {
		return nil, err
	}
	e, err := proxy.New(ctx, p)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: install %s, or name the program that starts it in upstream_command", err, p.Dialect.Title)
	}
	return e, err
}

// checkUpstreams reports what the backend finds wrong with what it is told, before anything starts.
func checkUpstreams(cfg *config.Config) error {
	kind := upstreamKinds[cfg.InferBackend]
	switch {
	case kind == nil:
		return nil
	case cfg.UpstreamURLFile != "":
		return named("upstream_url_file", proxy.CheckList(cfg.UpstreamURLFile, cfg.UpstreamAPIKey))
	case len(cfg.UpstreamURL) > 0:
		return named("upstream_url", proxy.CheckURLs(cfg.UpstreamURL, cfg.UpstreamAPIKey))
	}
	o, err := spawnOptions(cfg, kind)
	if err != nil {
		return nil // two adapters of one name, which is reported
	}
	_, err = kind.spawn(o)
	return err
}

// named puts an option's name before each of the joined errors.
func named(option string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, fmt.Errorf("%s: %w", option, e))
		}
		return errors.Join(errs...)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", option, err)
}

// spawnOptions are those of a server that is started.
func spawnOptions(cfg *config.Config, kind *upstreamKind) (proxy.ServerOptions, error) {
	o := kind.options(cfg)
	o.Name = cfg.Name()
	var err error
	o.Adapters, err = upstreamAdapters(cfg)
	return o, err
}

func upstreamAdapters(cfg *config.Config) ([]proxy.Adapter, error) {
	var out []proxy.Adapter
	adapters, err := cfg.Adapters()
	for _, a := range adapters {
		out = append(out, proxy.Adapter{Name: a.Name, Path: a.Path})
	}
	return out, err
}

// serverOptions are those that all kinds share.
func serverOptions(cfg *config.Config) proxy.ServerOptions {
	o := proxy.ServerOptions{
		Program: cfg.UpstreamCommand, Model: cfg.ModelNameOrPath, CacheDir: cfg.CacheDir, DType: cfg.InferDType, MaxLen: cfg.MaxModelLen,
		TrustCode: cfg.TrustRemoteCode, ChatTemplate: cfg.ChatTemplate, HubToken: cfg.HFHubToken, HubOffline: cfg.HubOffline,
		NoAdvice: cfg.GenerationConfig == "none",
	}
	if cfg.ModelRevision != "main" {
		o.Revision = cfg.ModelRevision
	}
	if !cfg.Renders() { // else calls and thoughts are told here
		o.ToolParser, o.Reasoning = namedParser(cfg.ToolCallParser), namedParser(cfg.ReasoningParser)
	}
	return o
}

// namedParser is "" for the words that name no parser.
func namedParser(name string) string {
	if name == "auto" || name == "none" {
		return ""
	}
	return name
}

func vllmOptions(cfg *config.Config) proxy.ServerOptions {
	o := serverOptions(cfg)
	o.MemoryShare, o.EnforceEager, o.MaxLoRARank = cfg.VLLMGPUUtil, cfg.VLLMEnforceEager, cfg.VLLMMaxLoRARank
	o.Parallel, o.Config = gpus(), cfg.VLLMConfig
	return o
}

func sglangOptions(cfg *config.Config) proxy.ServerOptions {
	o := serverOptions(cfg)
	o.MemoryShare, o.LoRABackend, o.Config = cfg.SGLangMemFraction, cfg.SGLangLoRABackend, cfg.SGLangConfig
	if cfg.SGLangMaxLen > 0 {
		o.MaxLen = cfg.SGLangMaxLen
	}
	if o.Parallel = cfg.SGLangTPSize; o.Parallel < 0 {
		o.Parallel = gpus()
	}
	return o
}

func ktOptions(cfg *config.Config) proxy.ServerOptions {
	o := sglangOptions(cfg)
	if cfg.KTMaxLen > 0 {
		o.MaxLen = cfg.KTMaxLen
	}
	o.KT = proxy.KTOptions{WeightPath: cfg.KTWeightPath, Method: cfg.KTMethod, CPUInfer: cfg.CPUInfer, ThreadPools: cfg.KTThreadpoolCount,
		GPUExperts: cfg.KTNumGPUExperts, ChunkSize: cfg.ChunkSize, CUDAGraphsOff: !cfg.KTUseCUDAGraph}
	return o
}

// gpus counts the devices that a server of this process's environment sees, 0 if none: then it takes its own default.
func gpus() int {
	devices, err := filepath.Glob("/dev/nvidia[0-9]*")
	if err != nil {
		panic(fmt.Sprint("a bad pattern: ", err))
	}
	if list, ok := os.LookupEnv("CUDA_VISIBLE_DEVICES"); ok {
		return min(len(strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })), len(devices))
	}
	return len(devices)
}
