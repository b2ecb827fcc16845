package config

import "strings"

// LlamaFactory is the part of Config that LlamaFactory's files are about.
type LlamaFactory struct {
	Template         string
	ToolFormat       string
	DefaultSystem    *string // nil: the template's own
	EnableThinking   *bool   // nil: the template's own
	PreserveThinking bool

	DoSample          *bool
	Temperature       *float64
	TopP              *float64
	TopK              *int
	RepetitionPenalty *float64
	MaxTokens         int
	SkipSpecialTokens *bool
	NumBeams          int
	LengthPenalty     float64

	AddTokens              []string
	AddSpecialTokens       []string
	NewSpecialTokensConfig string
	InitSpecialTokens      string
	ResizeVocab            bool
	SplitSpecialTokens     bool
	UseFastTokenizer       bool

	Stage          string
	FinetuningType string
	AdapterFolder  string
	UseKVCache     bool
	DefaultModel   string
	RootPath       string
}

const (
	prompts  = "Prompts"
	sampling = "Sampling defaults"
	words    = "Vocabulary"

	serveChat = "serve, chat"
)

// options are the rows of the table for it.
func (c *LlamaFactory) options() []*Option {
	return []*Option{
		{Name: "template", target: &c.Template, Group: prompts, Commands: all, Backends: "all",
			Help: "one of LlamaFactory's chat templates by name, such as qwen3, in place of the checkpoint's own; " +
				"in front of another server the prompts are then made here, from the model's own files, and sent as tokens"},
		{Name: "tool_format", target: &c.ToolFormat, Group: prompts, Commands: all, Backends: "all",
			Help: "how a named template tells of tools, such as qwen or llama3; empty is the template's own way"},
		{Name: "default_system", target: &c.DefaultSystem, Group: prompts, Commands: all, Backends: "all",
			Help: "system message of chats that have none; empty text is none, not given is the template's own"},
		{Name: "enable_thinking", target: &c.EnableThinking, Group: prompts, Commands: all, Backends: "all",
			Help: "what the template argument enable_thinking is for requests that do not say; not given is the template's own"},
		{Name: "preserve_thinking", target: &c.PreserveThinking, Default: "false", Group: prompts, Commands: all,
			Backends: "all", Help: "a named template shows the model its thoughts of earlier turns"},

		{Name: "do_sample", target: &c.DoSample, Group: sampling, Commands: serveChat, Backends: "all",
			Help: "false: greedy where a request gives no temperature"},
		{Name: "temperature", target: &c.Temperature, Max: 2, Group: sampling, Commands: serveChat,
			Help: "0 is greedy; not given, as those below, is the checkpoint's advice (generation_config)"},
		{Name: "top_p", target: &c.TopP, Max: 1, Group: sampling, Commands: serveChat, Backends: "all",
			Help: "share of the probability that is sampled from; 0 and 1 are all"},
		{Name: "top_k", target: &c.TopK, Min: -1, Max: 1 << 24, Group: sampling, Commands: serveChat, Backends: "all",
			Help: "most likely tokens that are sampled from; 0 and -1 are all"},
		{Name: "repetition_penalty", target: &c.RepetitionPenalty, Max: 100, Group: sampling, Commands: serveChat,
			Backends: "all", Help: "1 and 0 are none"},
		{Name: "max_tokens", Aliases: []string{"max_new_tokens"}, target: &c.MaxTokens, Max: 1 << 30, Group: sampling,
			Commands: serveChat, Help: "most tokens of an answer; 0 is up to the model's limit"},
		{Name: "skip_special_tokens", target: &c.SkipSpecialTokens, Group: sampling, Commands: serveChat, Backends: "all",
			Help: "leave special tokens out of the text of answers; not given is true"},
		{Name: "num_beams", target: &c.NumBeams, Default: "1", Min: 1, Max: 1, Group: sampling, Commands: serveChat,
			Backends: "native", Help: "1: there is no beam search"},
		{Name: "length_penalty", target: &c.LengthPenalty, Default: "1", Min: 1, Max: 1, Group: sampling, Commands: serveChat,
			Backends: "native", Help: "1: there is no beam search"},

		{Name: "add_tokens", target: &c.AddTokens, Group: words, Commands: all, Backends: "native",
			Help: "tokens to add, separated by commas; if one is new, the embedding grows as with resize_vocab"},
		{Name: "add_special_tokens", target: &c.AddSpecialTokens, Group: words, Commands: all, Backends: "native",
			Help: "control tokens to add, likewise"},
		{Name: "new_special_tokens_config", target: &c.NewSpecialTokensConfig, Group: words, Commands: all, Backends: "native",
			Help: "YAML file of control tokens and their descriptions, which takes the place of add_special_tokens"},
		{Name: "init_special_tokens", target: &c.InitSpecialTokens, Default: "noise_init",
			Choices: []string{"noise_init", "desc_init", "desc_init_w_noise"}, Group: words, Commands: all, Backends: "native",
			Help: "embedding of a token that the checkpoint lacks: noise_init is the mean of all, the others that of its " +
				"description's tokens (new_special_tokens_config); noise is left out, so that answers are the same each time"},
		{Name: "resize_vocab", target: &c.ResizeVocab, Default: "false", Group: words, Commands: all, Backends: "native",
			Help: "the embedding grows, to a multiple of 64 rows, where the tokenizer has more tokens; without it such tokens are refused"},
		{Name: "split_special_tokens", target: &c.SplitSpecialTokens, Default: "false", Group: words, Commands: all,
			Backends: "native", Help: "control tokens spelled out in a plain prompt are text; in a client's chat messages they always are"},
		{Name: "use_fast_tokenizer", target: &c.UseFastTokenizer, Default: "true", Group: words, Commands: all,
			Backends: "native", Help: "false is refused: slow tokenizers are Python, and transformers has none since version 5"},

		{Name: "stage", target: &c.Stage, Default: "sft", Choices: []string{"pt", "sft", "rm", "ppo", "dpo", "kto"}, Group: model,
			Commands: all, Backends: "all", Help: "how the model was trained, which makes no difference; rm, a reward model, " +
				"is refused by this version"},
		{Name: "finetuning_type", Aliases: []string{"peft_config.name"}, target: &c.FinetuningType, Default: "lora", Choices: []string{"lora", "oft", "freeze", "full"},
			Group: model, Commands: all, Backends: "all", Help: "with lora adapter_name_or_path may be given; with the others it is refused"},
		{Name: "adapter_folder", target: &c.AdapterFolder, Group: model, Commands: all, Backends: "all",
			Help: "folder inside each adapter's folder that holds it"},
		{Name: "use_kv_cache", target: &c.UseKVCache, Default: "true", Group: engine, Commands: all, Backends: "native",
			Help: "false is refused: the answers are the same with it, only sooner"},
		{Name: "default_model", target: &c.DefaultModel, Group: web, Commands: serve,
			Help: "model or adapter that answers requests for a model that there is not; empty: they are answered 404"},
		{Name: "root_path", target: &c.RootPath, Env: []string{"FASTAPI_ROOT_PATH"}, Group: web, Commands: serve,
			Help: "path below which a proxy shows the server, such as /llm; requests may come with it or without"},
	}
}

// validate reports combinations that cannot be.
func (c *LlamaFactory) validate(all *Config, bad report) {
	if c.Template != "" && all.ChatTemplate != "" {
		bad("template chat_template", "only one of template and chat_template can make the prompts")
	}
	if c.Template == "" && c.ToolFormat != "" {
		bad("tool_format", "belongs to a named template; set template too")
	}
	if c.Template == "" && c.PreserveThinking {
		bad("preserve_thinking", "belongs to a named template; set template too")
	}
	if !c.UseFastTokenizer && !all.Proxied() {
		bad("use_fast_tokenizer", "false is not supported, slow tokenizers are Python programs")
	}
	if !c.UseKVCache && !all.Proxied() {
		bad("use_kv_cache", "the native engine always has a KV cache; answers are the same with it, only sooner")
	}
	if c.Stage == "rm" {
		bad("stage", "a reward model (rm) is not supported by this version")
	}
	if c.FinetuningType != "lora" && len(all.AdapterNameOrPath) > 0 {
		bad("adapter_name_or_path finetuning_type", "adapters go with finetuning_type lora, not %s", c.FinetuningType)
	}
	if c.AdapterFolder != "" && len(all.AdapterNameOrPath) == 0 {
		bad("adapter_folder", "there is no adapter_name_or_path")
	}
	if c.RootPath != "" && (c.RootPath[0] != '/' || strings.HasSuffix(c.RootPath, "/")) {
		bad("root_path", "%q must begin with / and not end with it", c.RootPath)
	}
}

// note is a key that is known and has no effect, with the reason.
type note struct{ name, kind, why string }

const (
	mediaNote  = "our own engine takes no media; in front of another server they go through as they are"
	exportNote = "this version exports no checkpoints"
	ktNote     = "KTransformers is SGLang with --kt-* now; see kt_weight_path and kt_method"
)

// noted are keys of LlamaFactory's inference that have no effect here.
var noted = []note{
	{"low_cpu_mem_usage", "bool", "weights are packed one by one, never two copies at once"},
	{"offload_folder", "text", "mmap uses the checkpoint's own files for weights that memory does not hold"},
	{"use_kt", "bool", "infer_backend says so"},
	{"kt_optimize_rule", "text", ktNote},
	{"kt_config", "any", ktNote},
	{"kt_mode", "text", ktNote},
	{"mode", "text", ktNote},
	{"kt_force_think", "bool", "the chat template decides; see enable_thinking"},
	{"flash_attn", "text", "the native engine has one attention"},
	{"use_unsloth", "bool", "the native engine has its own kernels"},
	{"kernel_config", "any", "the native engine has its own kernels"},
	{"init_config", "any", "weights are packed one by one, never two copies at once"},
	{"model_class", "text", "the checkpoint says what it is"},
	{"mixture_of_depths", "text", "no such model is known"},
	{"train_from_scratch", "bool", "weights come from the checkpoint; load_format: dummy makes random ones"},
	{"max_length", "int", "max_model_len bounds prompt and answer, max_tokens the answer"},
	{"quantization_type", "text", "it is about bnb, which is refused"},
	{"double_quantization", "bool", "it is about bnb, which is refused"},
	{"quantization_device_map", "text", "there is one device"},
	{"image_max_pixels", "int", mediaNote},
	{"image_min_pixels", "int", mediaNote},
	{"video_max_pixels", "int", mediaNote},
	{"video_min_pixels", "int", mediaNote},
	{"video_fps", "number", mediaNote},
	{"video_maxlen", "int", mediaNote},
	{"image_do_pan_and_scan", "bool", mediaNote},
	{"crop_to_patches", "bool", mediaNote},
	{"use_audio_in_video", "bool", mediaNote},
	{"audio_sampling_rate", "int", mediaNote},
	{"cutoff_len", "int", "it is about training data; max_model_len bounds prompt and answer"},
	{"create_new_adapter", "bool", "it is about training"},
	{"export_dir", "text", exportNote},
	{"export_size", "int", exportNote},
	{"export_device", "text", exportNote},
	{"export_legacy_format", "bool", exportNote},
	{"export_hub_model_id", "text", exportNote},
	{"export_quantization_bit", "int", exportNote},
	{"export_quantization_dataset", "text", exportNote},
	{"export_quantization_nsamples", "int", exportNote},
	{"export_quantization_maxlen", "int", exportNote},
}

// plugins are maps of LlamaFactory's v1 whose keys are options of their own, as far as they count here: aliases such as
// peft_config.adapter_name_or_path. The rest of them has no effect.
var plugins = []string{"peft_config", "quant_config"}

// renamed are old names of LlamaFactory's keys, which itself no longer knows them.
var renamed = map[string]string{
	"checkpoint_dir": "adapter_name_or_path", "vllm_dtype": "infer_dtype", "new_special_tokens": "add_special_tokens",
	"image_resolution": "image_max_pixels", "video_resolution": "video_max_pixels", "use_cache": "use_kv_cache",
}

// environmentNotes are LlamaFactory's variables that have no effect here, with the reason.
var environmentNotes = map[string]string{
	"MAX_CONCURRENT":        "requests run together, see max_num_seqs",
	"API_VERBOSE":           "prompts are never logged, see access_log",
	"SAFE_MEDIA_PATH":       mediaNote,
	"ALLOW_LOCAL_FILES":     mediaNote,
	"IMAGE_PLACEHOLDER":     mediaNote,
	"VIDEO_PLACEHOLDER":     mediaNote,
	"AUDIO_PLACEHOLDER":     mediaNote,
	"DISABLE_VERSION_CHECK": "there are no versions of packages to check",
	"FORCE_CHECK_IMPORTS":   "there are no packages to check",
}
