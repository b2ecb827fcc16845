package main

import (
	"fmt"
	"strings"

	"github.com/rs/zerolog"

	"pagoda/backends/native/encoder"
	"pagoda/checkpoint"
	"pagoda/config"
)

// servesEncoder says whether the configured model makes vectors or scores, and refuses what has no effect on it, whichever it
// is. It leaves it to the loaders to say what is wrong with a folder.
func servesEncoder(cfg *config.Config) (bool, error) {
	is, err := isEncoder(cfg)
	if err != nil {
		return false, err
	}
	if !is {
		if cfg.PoolingType != "auto" {
			return false, fmt.Errorf("pooling_type: the model is neither a decoder nor one of %s", strings.Join(encoder.Architectures(), ", "))
		}
		return false, nil
	}
	d := config.Defaults()
	for name, given := range map[string]bool{"adapter_name_or_path": len(cfg.AdapterNameOrPath) > 0, "mmap": cfg.Mmap,
		"draft_model": cfg.DraftModel != "", "load_format": cfg.LoadFormat != "auto", "add_tokens": len(cfg.AddTokens) > 0,
		"add_special_tokens": len(cfg.AddSpecialTokens) > 0, "template": cfg.Template != "", "default_system": cfg.DefaultSystem != nil,
		"speculative_method": cfg.SpeculativeMethod != d.SpeculativeMethod, "resize_vocab": cfg.ResizeVocab,
		"split_special_tokens": cfg.SplitSpecialTokens, "temperature": cfg.Temperature != nil, "max_tokens": cfg.MaxTokens != 0} {
		if given {
			return false, fmt.Errorf("%s: has no effect on a model that makes embeddings or scores", name)
		}
	}
	return true, nil
}

func isEncoder(cfg *config.Config) (bool, error) {
	if cfg.ModelNameOrPath == "" {
		return false, nil
	}
	overrides, err := overridesOf(cfg)
	if err != nil {
		return false, err
	}
	ck, err := checkpoint.Open(cfg.ModelNameOrPath)
	if err != nil {
		return false, nil
	}
	defer ck.Close()
	ck.Override(overrides)
	return encoder.Serves(ck, cfg.PoolingType), nil
}

func loadEncoder(cfg *config.Config, mem *memoryBudget, log zerolog.Logger) (*encoder.Engine, error) {
	o := encoder.Options{Dir: cfg.ModelNameOrPath, Name: cfg.ServedModelName, PoolingType: cfg.PoolingType,
		DType: cfg.InferDType, Threads: cfg.Threads, Kernels: cfg.CPUKernels, Bits: cfg.QuantizationBit, KVDType: cfg.KVCacheDType,
		KVCacheBytes: cfg.KVCacheMemory, RopeScaling: cfg.RopeScaling, MaxModelLen: cfg.MaxModelLen,
		MaxNumSeqs: cfg.MaxNumSeqs, MaxBatchedTokens: cfg.MaxNumBatchedTokens, MaxQueue: cfg.MaxQueue, Log: log}
	var err error
	if o.Root, err = modelRoot(cfg); err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = o.Root
	}
	if o.Overrides, err = overridesOf(cfg); err != nil {
		return nil, err
	}
	if o.ChatTemplate, err = chatTemplate(cfg); err != nil {
		return nil, err
	}
	o.MemoryBytes, _ = mem.left()
	eng, err := encoder.New(o)
	if err != nil {
		return nil, err
	}
	mem.taken += eng.Bytes()
	return eng, nil
}
