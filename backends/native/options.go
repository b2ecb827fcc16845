package native

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/rs/zerolog"

	"pagoda/backends/native/codec"
	"pagoda/backends/native/model"
	"pagoda/engine"
)

// Options say what to serve and how. Zero values take the default named beside them.
type Options struct {
	// The checkpoint: a folder on disk (mapped), or Files if Dir is "" (the built-in model).
	Dir   string
	Files fs.FS

	Name     string // the id that clients use; required
	Root     string // where it came from, as shown to clients; "" is Name
	Adapters []AdapterSource

	// Overrides are keys of config.json with other values than it has; null takes a key away.
	Overrides map[string]jsontext.Value

	DType            string // "auto", "float32", "bfloat16", "float16"; "" is auto
	QuantizationBits int    // 8 or 4: round the weights when they are loaded; 0: keep them as they are
	RopeScaling      string // "linear", "dynamic", "yarn" or "llama3": twice the context, see model.Spec.ScaleRope; "" is "none"
	Threads          int    // 0: as many as the process may use
	Kernels          string // CPU variant; "": the best this machine runs
	LoadFormat       string // "auto" reads the weights, "dummy" makes random ones of the same shape; "" is auto

	Mmap             bool   // use the weights from the mapped files of Dir
	MemoryBytes      int64  // memory that the engine may take; 0: no bound
	MemoryOf         string // what bounds it, for people
	MaxModelLen      int    // 0: the checkpoint's own limit
	KVCacheBytes     int64  // 0: enough for MaxNumSeqs full sequences, at most half of what the rest leaves, at least one
	KVDType          string // "auto", "float32", "bfloat16", "fp8" (or "fp8_e4m3"), "int8"; "" is auto: float32
	MaxNumSeqs       int    // sequences per step; 0 is 64
	MaxBatchedTokens int    // tokens per step; 0 is 512
	MaxQueue         int    // sequences waiting; 0 is 512
	NoPrefixCache    bool

	// Guessing ahead (speculative decoding): "none" only does it for requests that ask for it, "ngram" by what
	// was said before and "draft_model" by a smaller model for all that do not ask for less. "" is none.
	SpeculativeMethod    string
	NumSpeculativeTokens int    // most tokens that a step guesses of a sequence; 0: no request may have any
	DraftDir             string // the smaller model's checkpoint, of the same vocabulary; or DraftFiles
	DraftFiles           fs.FS
	PromptLookupMin      int // tokens that must repeat before a guess is made; 0 is 2
	PromptLookupMax      int // tokens beyond which more make no difference; 0 is 5

	Prompt             codec.Options // but for Tokenizer and Log
	Sampling           engine.SamplingDefaults
	Vocabulary         VocabularyOptions
	NoGenerationConfig bool // do not take sampling defaults from generation_config.json

	Log zerolog.Logger
}

// AdapterSource is a LoRA adapter in PEFT's layout: a folder on disk, or Files if Dir is "".
type AdapterSource struct {
	Name  string
	Dir   string
	Files fs.FS
}

func (o Options) withDefaults() Options {
	setDefault(&o.DType, "auto")
	setDefault(&o.LoadFormat, "auto")
	setDefault(&o.KVDType, "auto")
	setDefault(&o.SpeculativeMethod, "none")
	setDefault(&o.PromptLookupMin, 2)
	setDefault(&o.PromptLookupMax, 5)
	setDefault(&o.RopeScaling, "none")
	setDefault(&o.Root, o.Name)
	setDefault(&o.MaxNumSeqs, 64)
	setDefault(&o.MaxBatchedTokens, 512)
	setDefault(&o.MaxQueue, 512)
	return o
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// promptLogitBytes bounds the memory for the logits that one step computes for the log-probabilities of prompts.
const promptLogitBytes = 16 << 20

// promptLogits is how many rows of logits a step computes for the log-probabilities of prompts, at most.
func (o Options) promptLogits(vocab int) int {
	return max(1, min(o.MaxBatchedTokens, promptLogitBytes/(4*vocab)))
}

// limits are those of a step of the model.
func (o Options) limits(vocab int) model.Limits {
	return model.Limits{MaxTokens: o.MaxBatchedTokens, MaxSeqs: o.MaxNumSeqs,
		MaxLogitRows: min(o.MaxBatchedTokens, o.MaxNumSeqs+o.promptLogits(vocab))}
}

// draftLimits are those of a step of the draft model.
func (o Options) draftLimits() model.Limits {
	return model.Limits{MaxTokens: o.MaxBatchedTokens, MaxSeqs: o.MaxNumSeqs, MaxLogitRows: o.MaxNumSeqs}
}

// model are the options of the model's weights; o is valid.
func (o Options) model(grow *model.Growth) model.Options {
	return model.Options{DType: model.DType(o.DType), KVDType: model.DType(o.KVDType), MaxLen: o.MaxModelLen,
		Bits: o.QuantizationBits, Mapped: o.Mmap, Grow: grow}
}

// validate reports all problems at once.
func (o Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if (o.Dir == "") == (o.Files == nil) {
		bad("exactly one of a model folder and built-in files must be given")
	}
	if o.Name == "" {
		bad("the model needs a name")
	}
	oneOf := func(name, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		bad("%s: %q is none of %q", name, value, allowed)
	}
	oneOf("infer_dtype", o.DType, "auto", "float32", "bfloat16", "float16")
	oneOf("rope_scaling", o.RopeScaling, "none", "linear", "dynamic", "yarn", "llama3")
	if b := o.QuantizationBits; b != 0 && b != 4 && b != 8 {
		bad("quantization_bit: %d is none of 0, 4, 8", b)
	}
	if o.Mmap && (o.Dir == "" || o.LoadFormat == "dummy" || o.QuantizationBits != 0) {
		bad("mmap: the weights must come from a model folder as they are, not built in, dummy or rounded (quantization_bit)")
	}
	oneOf("load_format", o.LoadFormat, "auto", "dummy")
	oneOf("kv_cache_dtype", o.KVDType, "auto", "float32", "bfloat16", "fp8", "fp8_e4m3", "int8")
	oneOf("speculative_method", o.SpeculativeMethod, "none", "ngram", "draft_model")
	if given := o.DraftDir != "" || o.DraftFiles != nil; given != (o.SpeculativeMethod == "draft_model") {
		bad("speculative_method draft_model and a draft_model go together")
	}
	if err := o.Prompt.Validate(); err != nil {
		errs = append(errs, err)
	}
	notNegative := func(name string, v int64) {
		if v < 0 {
			bad("%s: %d is negative", name, v)
		}
	}
	notNegative("threads", int64(o.Threads))
	notNegative("max_model_len", int64(o.MaxModelLen))
	notNegative("kv_cache_memory", o.KVCacheBytes)
	notNegative("max_num_seqs", int64(o.MaxNumSeqs))
	notNegative("max_num_batched_tokens", int64(o.MaxBatchedTokens))
	notNegative("max_queue", int64(o.MaxQueue))
	if n := o.NumSpeculativeTokens; n < 0 || n > maxSpeculativeTokens {
		bad("num_speculative_tokens: %d is not between 0 and %d", n, maxSpeculativeTokens)
	}
	if o.PromptLookupMin < 1 || o.PromptLookupMax < o.PromptLookupMin {
		bad("prompt_lookup_min (%d) must be at least 1 and at most prompt_lookup_max (%d)", o.PromptLookupMin, o.PromptLookupMax)
	}
	if o.MaxBatchedTokens < o.MaxNumSeqs {
		bad("max_num_batched_tokens (%d) is below max_num_seqs (%d): a step could not hold every sequence",
			o.MaxBatchedTokens, o.MaxNumSeqs)
	}
	names := map[string]bool{o.Name: true}
	for _, a := range o.Adapters {
		if a.Name == "" {
			bad("an adapter needs a name")
		} else if names[a.Name] {
			bad("two models are named %q", a.Name)
		}
		names[a.Name] = true
	}
	return errors.Join(errs...)
}
