package main

import (
	"fmt"
	"strings"

	"github.com/rs/zerolog"

	"pagoda/backends/native/encoder"
	"pagoda/checkpoint"
	"pagoda/config"
)

// servesEncoder says whether the configured model is an encoder, and refuses what has no effect on the one or the other.
func servesEncoder(cfg *config.Config) (bool, error) {
	is, err := isEncoder(cfg)
	if err == nil && !is && cfg.PoolingType != "auto" {
		return false, fmt.Errorf("pooling_type: the model is no encoder; those are %s", strings.Join(encoder.Architectures(), ", "))
	}
	return is, err
}

// isEncoder leaves it to the loaders to say what is wrong with a folder.
func isEncoder(cfg *config.Config) (bool, error) {
	if cfg.ModelNameOrPath == "" {
		return false, nil
	}
	ck, err := checkpoint.Open(cfg.ModelNameOrPath)
	if err != nil {
		return false, nil
	}
	defer ck.Close()
	c, err := ck.Config()
	if err != nil || !encoder.Serves(c) {
		return false, nil
	}
	d := config.Defaults()
	for name, given := range map[string]bool{"adapter_name_or_path": len(cfg.AdapterNameOrPath) > 0, "quantization_bit": cfg.QuantizationBit != 0,
		"mmap": cfg.Mmap, "draft_model": cfg.DraftModel != "", "load_format": cfg.LoadFormat != "auto", "rope_scaling": cfg.RopeScaling != "none",
		"add_tokens": len(cfg.AddTokens) > 0, "add_special_tokens": len(cfg.AddSpecialTokens) > 0, "chat_template": cfg.ChatTemplate != "",
		"template": cfg.Template != "", "default_system": cfg.DefaultSystem != nil, "kv_cache_memory": cfg.KVCacheMemory != 0,
		"kv_cache_dtype": cfg.KVCacheDType != d.KVCacheDType, "speculative_method": cfg.SpeculativeMethod != d.SpeculativeMethod,
		"resize_vocab": cfg.ResizeVocab, "split_special_tokens": cfg.SplitSpecialTokens, "temperature": cfg.Temperature != nil,
		"max_tokens": cfg.MaxTokens != 0} {
		if given {
			return false, fmt.Errorf("%s: has no effect on an encoder (%s)", name, c.Architectures[0])
		}
	}
	return true, nil
}

func loadEncoder(cfg *config.Config, log zerolog.Logger) (*encoder.Engine, error) {
	root, err := modelRoot(cfg)
	if err != nil {
		return nil, err
	}
	o := encoder.Options{Dir: cfg.ModelNameOrPath, Name: cfg.ServedModelName, Root: root, PoolingType: cfg.PoolingType,
		DType: cfg.InferDType, Threads: cfg.Threads, Kernels: cfg.CPUKernels, MemoryBytes: availableMemory(), MaxModelLen: cfg.MaxModelLen,
		MaxNumSeqs: cfg.MaxNumSeqs, MaxBatchedTokens: cfg.MaxNumBatchedTokens, MaxQueue: cfg.MaxQueue, Log: log}
	if o.Name == "" {
		o.Name = o.Root
	}
	return encoder.New(o)
}
