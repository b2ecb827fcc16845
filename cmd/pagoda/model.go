package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v3"

	"pagoda/backends/native"
	"pagoda/backends/native/codec"
	"pagoda/config"
	"pagoda/engine"
	"pagoda/models/demo"
)

// demoName is the id of the built-in model.
const demoName = "pagoda-demo"

// tuneRuntime suits Go's memory management to a process whose large memory lies outside the Go heap: rare collections
// (a collection costs a step some tenths of a millisecond), and a limit below the container's.
func tuneRuntime(log zerolog.Logger) {
	debug.SetGCPercent(400)
	// An error means that there is no limit to heed.
	if limit, err := memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup)); err == nil && limit > 0 {
		log.Debug().Int64("bytes", limit).Msg("memory limit set")
	}
}

// nativeOptions translates the configuration for the native engine.
func nativeOptions(ctx context.Context, cfg *config.Config, log zerolog.Logger) (native.Options, error) {
	o := native.Options{
		DType: cfg.InferDType, QuantizationBits: cfg.QuantizationBit, Threads: cfg.Threads, Kernels: cfg.CPUKernels, LoadFormat: cfg.LoadFormat, Mmap: cfg.Mmap,
		MaxModelLen: cfg.MaxModelLen, KVCacheBytes: cfg.KVCacheMemory, KVDType: cfg.KVCacheDType,
		MaxNumSeqs: cfg.MaxNumSeqs, MaxBatchedTokens: cfg.MaxNumBatchedTokens, MaxQueue: cfg.MaxQueue,
		RopeScaling: cfg.RopeScaling, NoPrefixCache: !cfg.EnablePrefixCaching,
		SpeculativeMethod: cfg.SpeculativeMethod, NumSpeculativeTokens: cfg.NumSpeculativeTokens,
		DraftDir: cfg.DraftModel, PromptLookupMin: cfg.PromptLookupMin, PromptLookupMax: cfg.PromptLookupMax,
		NoGenerationConfig: cfg.GenerationConfig == "none",
		Log:                log,
		Sampling:           samplingOptions(cfg),
	}
	if err := chooseModel(&o, cfg); err != nil {
		return o, err
	}
	adapters, err := cfg.Adapters()
	if err != nil {
		return o, err
	}
	for _, a := range adapters {
		dir, err := folderOf(ctx, cfg, a.Path, log)
		if err != nil {
			return o, fmt.Errorf("adapter_name_or_path: %w", err)
		}
		o.Adapters = append(o.Adapters, native.AdapterSource{Name: a.Name, Dir: dir})
	}
	if cfg.DraftModel != "" {
		if o.DraftDir, err = folderOf(ctx, cfg, cfg.DraftModel, log); err != nil {
			return o, fmt.Errorf("draft_model: %w", err)
		}
	}
	if o.Vocabulary, err = vocabularyOptions(cfg, log); err != nil {
		return o, err
	}
	if o.Overrides, err = overridesOf(cfg); err != nil {
		return o, err
	}
	o.Prompt, err = promptOptions(cfg)
	return o, err
}

// promptOptions translates how chats become prompts, and texts answers.
func promptOptions(cfg *config.Config) (o codec.Options, err error) {
	o = codec.Options{Template: cfg.Template, ToolFormat: cfg.ToolFormat, DefaultSystem: cfg.DefaultSystem,
		EnableThinking: cfg.EnableThinking, PreserveThinking: cfg.PreserveThinking,
		ToolParser: cfg.ToolCallParser, ReasoningParser: cfg.ReasoningParser}
	o.ChatTemplate, err = chatTemplate(cfg)
	return o, err
}

// checkPrompts reports what is wrong with options of prompts that are made here, as far as it does not depend on the checkpoint.
func checkPrompts(cfg *config.Config) error {
	if cfg.Proxied() && !cfg.Renders() {
		return nil
	}
	if info, err := os.Stat(cfg.ChatTemplate); err == nil && !info.Mode().IsRegular() {
		return nil // a pipe tells its text once: when the model loads
	}
	o, err := promptOptions(cfg)
	if err != nil {
		return nil // chat_template cannot be read, which is reported
	}
	return o.Validate()
}

// overridesOf are the values of hf_overrides in JSON.
func overridesOf(cfg *config.Config) (map[string]jsontext.Value, error) {
	out := map[string]jsontext.Value{}
	for key, value := range cfg.HFOverrides {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("hf_overrides: %s: %w", key, err)
		}
		out[key] = text
	}
	return out, nil
}

// chatTemplate is the text of the file that chat_template names, "" if it names none.
func chatTemplate(cfg *config.Config) (string, error) {
	if cfg.ChatTemplate == "" {
		return "", nil
	}
	text, err := os.ReadFile(cfg.ChatTemplate)
	if err != nil {
		return "", fmt.Errorf("chat_template: %w", err)
	}
	return string(text), nil
}

// samplingOptions translates what requests get that do not say.
func samplingOptions(cfg *config.Config) engine.SamplingDefaults {
	o := engine.SamplingDefaults{DoSample: cfg.DoSample, Temperature: cfg.Temperature, TopP: cfg.TopP, TopK: cfg.TopK,
		RepetitionPenalty: cfg.RepetitionPenalty, SkipSpecial: cfg.SkipSpecialTokens}
	if o.TopP != nil && *o.TopP == 0 {
		o.TopP = new(1.0)
	}
	if o.RepetitionPenalty != nil && *o.RepetitionPenalty == 0 {
		o.RepetitionPenalty = new(1.0)
	}
	if cfg.MaxTokens > 0 {
		o.MaxTokens = &cfg.MaxTokens
	}
	return o
}

// vocabularyOptions translates what changes the tokenizer.
func vocabularyOptions(cfg *config.Config, log zerolog.Logger) (native.VocabularyOptions, error) {
	o := native.VocabularyOptions{AddTokens: cfg.AddTokens, AddSpecialTokens: cfg.AddSpecialTokens, Resize: cfg.ResizeVocab,
		SplitSpecialTokens: cfg.SplitSpecialTokens, Describe: cfg.InitSpecialTokens != "noise_init"}
	if cfg.NewSpecialTokensConfig == "" {
		if o.Describe {
			log.Warn().Msg("init_special_tokens: there are no descriptions (new_special_tokens_config); new embeddings are the mean of all")
		}
		return o, nil
	}
	if len(o.AddSpecialTokens) > 0 {
		log.Warn().Msg("add_special_tokens: new_special_tokens_config takes its place")
	}
	var doc yaml.Node
	data, err := os.ReadFile(cfg.NewSpecialTokensConfig)
	if err == nil {
		err = yaml.Unmarshal(data, &doc)
	}
	if err == nil {
		err = yaml.Unmarshal(data, &o.Descriptions)
	}
	if err != nil {
		return o, fmt.Errorf("new_special_tokens_config: %w", err)
	}
	o.AddSpecialTokens = nil
	if len(doc.Content) > 0 {
		for i := 0; i < len(doc.Content[0].Content); i += 2 { // the tokens' order in the file is that of their ids
			o.AddSpecialTokens = append(o.AddSpecialTokens, doc.Content[0].Content[i].Value)
		}
	}
	return o, nil
}

// chooseModel fills in the checkpoint: the folder given, or the built-in model with its adapters.
func chooseModel(o *native.Options, cfg *config.Config) (err error) {
	o.Name = cfg.ServedModelName
	if cfg.ModelNameOrPath != "" {
		o.Dir = cfg.ModelNameOrPath
		if o.Root, err = modelRoot(cfg); err != nil {
			return err
		}
		if o.Name == "" {
			o.Name = o.Root
		}
		return nil
	}
	o.Files, o.Root = demo.FS(), "built-in"
	if o.Name == "" {
		o.Name = demoName
	}
	entries, err := fs.ReadDir(o.Files, "adapters")
	if err != nil {
		return err
	}
	for _, e := range entries {
		files, err := fs.Sub(o.Files, "adapters/"+e.Name())
		if err != nil {
			return err
		}
		o.Adapters = append(o.Adapters, native.AdapterSource{Name: e.Name(), Files: files})
	}
	return nil
}

// loadModel loads the configured model within the memory that is left.
func loadModel(ctx context.Context, cfg *config.Config, mem *memoryBudget, log zerolog.Logger) (*native.Engine, error) {
	if err := findModel(ctx, cfg, log); err != nil {
		return nil, err
	}
	o, err := nativeOptions(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	o.MemoryBytes, o.MemoryOf = mem.left()
	eng, err := native.New(o)
	if err != nil {
		return nil, err
	}
	f := eng.Footprint()
	mem.taken += f.WeightBytes + f.KVBytes + f.OtherBytes
	return eng, nil
}
