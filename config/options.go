package config

import "slices"

// Option is one row of the table. Exactly one of the values behind it is a field of a Config.
type Option struct {
	Name     string   // with underscores; - is accepted for _ everywhere
	Aliases  []string // other names for it
	Env      []string // environment names beside PAGODA_<NAME>, which comes first
	Default  string
	Choices  []string // the values of a text option
	Min, Max float64  // of a number; both 0 is no limit
	Group    string   // heading in lists
	Commands string   // the commands that heed it
	Backends string   // the backends that heed it; "" is not a matter of the backend
	Help     string
	Secret   bool // never shown

	target any // pointer into the Config: *string, *bool, *int, *int64 (size), *float64, *time.Duration, *[]string,
	// *map[string]any; or a pointer to a pointer, which stays nil while nothing is given: **string, **bool, **int, **float64
}

const (
	model  = "Model"
	engine = "Native engine"
	proxy  = "Proxied engines"
	hubs   = "Hub"
	web    = "Server"
	logs   = "Log"
	talk   = "Chat"
	speed  = "Bench"

	all       = "serve, chat, bench"
	allPull   = all + ", pull"
	serve     = "serve"
	chat      = "chat"
	bench     = "bench"
	chatBench = "chat, bench"

	proxied = "vllm, sglang, ktransformers"
)

// options is the table, bound to c.
func (c *Config) options() []*Option {
	all := append(c.ownOptions(), c.LlamaFactory.options()...)
	slices.SortStableFunc(all, func(a, b *Option) int { return slices.Index(groups, a.Group) - slices.Index(groups, b.Group) })
	return all
}

// groups are the headings in the order of lists.
var groups = []string{model, hubs, prompts, sampling, engine, proxy, web, logs, talk, speed}

// ownOptions are the rows of what LlamaFactory does not have, or has under the same name.
func (c *Config) ownOptions() []*Option {
	return []*Option{
		{Name: "model_name_or_path", Aliases: []string{"model"}, target: &c.ModelNameOrPath, Group: model, Commands: allPull,
			Backends: "all", Help: "folder of the checkpoint or its id on a hub, with url or upstream_url the id of a model there; empty is " +
				"the built-in model, with a URL the first one served"},
		{Name: "served_model_name", target: &c.ServedModelName, Env: []string{"API_MODEL_NAME"}, Group: model,
			Commands: all, Backends: "all", Help: "id that clients use; empty is the folder's name, or the id on a hub"},
		{Name: "adapter_name_or_path", Aliases: []string{"lora_modules", "peft_config.adapter_name_or_path"}, target: &c.AdapterNameOrPath, Group: model,
			Commands: all, Backends: "all", Help: "LoRA adapters, [name=]folder, separated by commas; " +
				"a request chooses one by its model field"},
		{Name: "generation_config", target: &c.GenerationConfig, Default: "auto", Choices: []string{"auto", "none"},
			Group: model, Commands: all, Backends: "all",
			Help: "auto takes sampling defaults from the checkpoint's generation_config.json, none takes neutral ones"},
		{Name: "chat_template", target: &c.ChatTemplate, Group: model, Commands: all, Backends: "all",
			Help: "file with a Jinja chat template; empty is the checkpoint's own; a server that is started gets it, in front of a " +
				"running one it is as with template"},
		{Name: "tool_call_parser", target: &c.ToolCallParser, Default: "auto",
			Choices: []string{"auto", "none", "deepseek_v3", "deepseek_v31", "glm4", "glm45", "glm47", "granite", "hermes",
				"lfm2", "llama3_json", "llama4_pythonic", "minimax_m2", "mistral", "openai", "phi4_mini_json", "pythonic",
				"qwen3_coder", "qwen3_xml", "seed_oss"}, Group: model, Commands: all,
			Backends: "all", Help: "how tool calls are found in the text, by vLLM's names; auto tells it from the chat template wherever " +
				"prompts are made here, see template; a server that is started without gets the one that is named, and finds none with auto"},
		{Name: "reasoning_parser", target: &c.ReasoningParser, Default: "auto",
			Choices: []string{"auto", "none", "deepseek_r1", "glm45", "gpt_oss", "granite", "mistral", "openai_gptoss", "qwen3",
				"seed_oss"},
			Group: model, Commands: all, Backends: "all",
			Help: "how thoughts are told from the answer, by vLLM's names; likewise"},

		{Name: "pooling_type", target: &c.PoolingType, Default: "auto", Choices: []string{"auto", "cls", "mean", "max", "last"},
			Group: model, Commands: serve, Backends: "native", Help: "how one vector is made of those of a text's tokens; auto is " +
				"what sentence-transformers' files say, without them the mean of an encoder's; given, it makes an embedder of any model"},
		{Name: "hf_overrides", target: &c.HFOverrides, Group: model, Commands: all, Backends: "native",
			Help: "keys of config.json with other values than it has, as vLLM's option; null takes a key away"},

		{Name: "infer_backend", Aliases: []string{"sample_backend"}, target: &c.InferBackend, Default: "native", Choices: []string{"native", "huggingface", "hf",
			"vllm", "sglang", "ktransformers"}, Group: engine, Commands: all, Backends: "all",
			Help: "what computes: this program itself (huggingface and hf are other words for it), or a server of the last three kinds, " +
				"which is started unless upstream_url names running ones"},
		{Name: "infer_dtype", Aliases: []string{"dtype"}, target: &c.InferDType, Default: "auto",
			Choices: []string{"auto", "float16", "bfloat16", "float32"}, Group: engine, Commands: all,
			Backends: "all", Help: "type that weights are kept in; auto is the checkpoint's"},
		{Name: "rope_scaling", target: &c.RopeScaling, Default: "none",
			Choices: []string{"none", "linear", "dynamic", "yarn", "llama3"}, Group: engine,
			Commands: all, Backends: "native", Help: "let the model take twice the tokens that it was first trained with, in place " +
				"of the checkpoint's own rope scaling: the factor is 2, as LlamaFactory has it"},
		{Name: "quantization_bit", Aliases: []string{"quant_config.quantization_bit"}, target: &c.QuantizationBit, Max: 8, Group: engine, Commands: all, Backends: "native",
			Help: "8 or 4: weights are rounded to that many bits when they are loaded, which takes a half or a quarter of the " +
				"memory and reads it as much faster; 0: they are kept as they are"},
		{Name: "quantization_method", Aliases: []string{"quant_config.name"}, target: &c.QuantizationMethod, Default: "auto",
			Choices: []string{"auto", "rtn", "bnb", "hqq", "eetq"}, Group: engine, Commands: all, Backends: "native",
			Help: "rtn, which auto takes, is our own: to the nearest of whole numbers with a scale a row (8 bits) or a scale " +
				"for each 64 weights (4 bits; 8 for embedding and output); the last three are refused by this version"},
		{Name: "load_format", target: &c.LoadFormat, Default: "auto", Choices: []string{"auto", "dummy"}, Group: engine,
			Commands: all, Backends: "native", Help: "dummy makes random weights of the right shape, to measure speed"},
		{Name: "mmap", target: &c.Mmap, Default: "false", Group: engine, Commands: all, Backends: "native",
			Help: "use the weights from the checkpoint's mapped files instead of a copy in memory: for a checkpoint larger than " +
				"memory; slower"},
		{Name: "threads", target: &c.Threads, Max: 1024, Group: engine, Commands: all, Backends: "native",
			Help: "CPU threads that compute; 0 is as many as the process may use"},
		{Name: "cpu_kernels", target: &c.CPUKernels, Group: engine, Commands: all, Backends: "native",
			Help: "kernel variant, see pagoda doctor; empty is the fastest that runs here"},
		{Name: "max_model_len", Aliases: []string{"vllm_maxlen", "max_seq_len"}, target: &c.MaxModelLen, Max: 1 << 30,
			Group: engine, Commands: all, Backends: "all",
			Help: "most tokens of prompt and answer together; 0 is the checkpoint's own limit"},
		{Name: "kv_cache_memory", target: &c.KVCacheMemory, Max: 1 << 50, Group: engine, Commands: all,
			Backends: "native", Help: "memory for the KV cache, such as 4GiB; 0 is enough for max_num_seqs full " +
				"sequences, at most half of the free memory but enough for one"},
		{Name: "kv_cache_dtype", target: &c.KVCacheDType, Default: "auto",
			Choices: []string{"auto", "float32", "bfloat16", "fp8", "fp8_e4m3", "int8"}, Group: engine, Commands: all,
			Backends: "native", Help: "type of the KV cache; auto is float32, bfloat16 halves the memory, fp8 (e4m3, " +
				"without a scale) and int8 (with one per token and head) quarter it"},
		{Name: "max_num_seqs", target: &c.MaxNumSeqs, Default: "64", Min: 1, Max: 65536, Group: engine, Commands: all,
			Backends: "native", Help: "most sequences in one step"},
		{Name: "max_num_batched_tokens", target: &c.MaxNumBatchedTokens, Default: "512", Min: 1, Max: 1 << 20,
			Group: engine, Commands: all, Backends: "native",
			Help: "most tokens in one step; long prompts are computed in pieces of it"},
		{Name: "max_queue", target: &c.MaxQueue, Default: "512", Min: 1, Max: 1 << 20, Group: engine, Commands: all,
			Backends: "native", Help: "most sequences that wait; beyond it requests are answered 429"},
		{Name: "enable_prefix_caching", target: &c.EnablePrefixCaching, Default: "true", Group: engine, Commands: all,
			Backends: "native", Help: "keep computed prompt blocks for later requests that begin alike"},
		{Name: "speculative_method", target: &c.SpeculativeMethod, Default: "none", Choices: []string{"none", "ngram",
			"draft_model"}, Group: engine, Commands: all, Backends: "native", Help: "guess several tokens ahead and have one " +
			"step check them; the answers are the same. ngram guesses that a text repeats itself, draft_model asks a " +
			"smaller model, none is ngram for requests with speculative_tokens only"},
		{Name: "num_speculative_tokens", target: &c.NumSpeculativeTokens, Default: "8", Max: 64, Group: engine,
			Commands: all, Backends: "native", Help: "most tokens guessed ahead, by requests too; 0 turns guessing off"},
		{Name: "draft_model", target: &c.DraftModel, Group: engine, Commands: all, Backends: "native",
			Help: "folder of the smaller model's checkpoint; it must have the same vocabulary, and its KV cache counts as part of kv_cache_memory"},
		{Name: "prompt_lookup_min", target: &c.PromptLookupMin, Default: "2", Min: 1, Max: 64, Group: engine,
			Commands: all, Backends: "native", Help: "tokens that must be repeated before ngram guesses"},
		{Name: "prompt_lookup_max", target: &c.PromptLookupMax, Default: "5", Min: 1, Max: 64, Group: engine,
			Commands: all, Backends: "native", Help: "repeated tokens of which more make no difference to ngram"},

		{Name: "upstream_url", target: &c.UpstreamURL, Group: proxy, Commands: all, Backends: proxied,
			Help: "running servers of one model, http://host:port or unix:///path, separated by commas; empty: one is started"},
		{Name: "upstream_url_file", target: &c.UpstreamURLFile, Group: proxy, Commands: all, Backends: proxied,
			Help: "file with one such URL a line, read again when it changes"},
		{Name: "upstream_api_key", target: &c.UpstreamAPIKey, Secret: true, Group: proxy, Commands: all, Backends: proxied,
			Help: "key that the servers of upstream_url ask for, or Basic and user:password in base64; one that is started gets a random key"},
		{Name: "tokenizer", target: &c.Tokenizer, Group: proxy, Commands: all, Backends: proxied,
			Help: "folder, or id on a hub, of the files that template needs in front of another server: tokenizer and configuration, no " +
				"weights; empty is model_name_or_path"},
		{Name: "upstream_routes", target: &c.UpstreamRoutes, Default: "/pooling,/classify,/v1/responses,/v1/messages,/generate,/inference/v1/generate",
			Group: proxy, Commands: serve, Backends: proxied, Help: "routes that are passed on as they are to the upstream of the body's model, " +
				"where they are not this server's own"},
		{Name: "upstream_wait", target: &c.UpstreamWait, Default: "10s", Max: 1e9, Group: proxy, Commands: all, Backends: proxied,
			Help: "how long a request waits when no upstream is up, before it is answered 503"},
		{Name: "upstream_timeout", target: &c.UpstreamTimeout, Default: "5m", Max: 1e9, Group: proxy, Commands: all, Backends: proxied,
			Help: "how long an upstream that has requests may give no sign of life before they end, and how long one that is started here may " +
				"stay unhealthy before it is started again; 0 is no limit"},
		{Name: "upstream_command", target: &c.UpstreamCommand, Group: proxy, Commands: all, Backends: proxied,
			Help: "program that starts the server, with its first arguments, separated by commas; empty is vllm,serve or " +
				"python3,-m,sglang.launch_server"},
		{Name: "upstream_start_timeout", target: &c.UpstreamStartTimeout, Default: "30m", Min: 0.001, Max: 1e9, Group: proxy, Commands: all,
			Backends: proxied, Help: "how long a server may take to start"},
		{Name: "trust_remote_code", target: &c.TrustRemoteCode, Default: "false", Group: proxy, Commands: all, Backends: proxied,
			Help: "let a server that is started run code from the checkpoint"},
		{Name: "vllm_gpu_util", target: &c.VLLMGPUUtil, Default: "0.9", Min: 0.01, Max: 1, Group: proxy, Commands: all, Backends: "vllm",
			Help: "share of the GPU's memory"},
		{Name: "vllm_enforce_eager", target: &c.VLLMEnforceEager, Default: "false", Group: proxy, Commands: all, Backends: "vllm",
			Help: "neither compile nor capture graphs: starts sooner, runs slower"},
		{Name: "vllm_max_lora_rank", target: &c.VLLMMaxLoRARank, Default: "32", Min: 1, Max: 512, Group: proxy, Commands: all,
			Backends: "vllm", Help: "largest rank of an adapter, rounded up to one that vLLM takes"},
		{Name: "vllm_config", target: &c.VLLMConfig, Group: proxy, Commands: all, Backends: "vllm",
			Help: "further flags as a map or JSON, applied last: max_num_seqs: 64 is --max-num-seqs 64"},
		{Name: "sglang_maxlen", target: &c.SGLangMaxLen, Max: 1 << 30, Group: proxy, Commands: all, Backends: "sglang, ktransformers",
			Help: "most tokens of prompt and answer together; 0 is max_model_len, else the checkpoint's own limit"},
		{Name: "sglang_mem_fraction", target: &c.SGLangMemFraction, Max: 1, Group: proxy, Commands: all, Backends: "sglang, ktransformers",
			Help: "share of the GPU's memory for weights and KV cache; 0 is SGLang's choice"},
		{Name: "sglang_tp_size", target: &c.SGLangTPSize, Default: "-1", Min: -1, Max: 1024, Group: proxy, Commands: all,
			Backends: "sglang, ktransformers", Help: "GPUs that share the tensors; -1 is all that there are"},
		{Name: "sglang_lora_backend", target: &c.SGLangLoRABackend, Default: "triton", Choices: []string{"triton", "flashinfer", "csgmv",
			"torch_native", "ascend", "triton_v2"}, Group: proxy, Commands: all, Backends: "sglang, ktransformers",
			Help: "kernels for adapters; flashinfer, which SGLang no longer has, is triton"},
		{Name: "sglang_config", target: &c.SGLangConfig, Group: proxy, Commands: all, Backends: "sglang, ktransformers",
			Help: "further flags as a map or JSON, applied last"},
		{Name: "cpu_infer", target: &c.CPUInfer, Default: "32", Min: 1, Max: 4096, Group: proxy, Commands: all, Backends: "ktransformers",
			Help: "CPU threads for experts"},
		{Name: "chunk_size", target: &c.ChunkSize, Default: "8192", Min: 1, Max: 1 << 24, Group: proxy, Commands: all,
			Backends: "ktransformers", Help: "tokens of a prompt per step"},
		{Name: "kt_maxlen", target: &c.KTMaxLen, Max: 1 << 30, Group: proxy, Commands: all, Backends: "ktransformers",
			Help: "most tokens of prompt and answer together; 0 is sglang_maxlen"},
		{Name: "kt_use_cuda_graph", target: &c.KTUseCUDAGraph, Default: "true", Group: proxy, Commands: all, Backends: "ktransformers",
			Help: "replay decode steps from CUDA graphs"},
		{Name: "kt_weight_path", target: &c.KTWeightPath, Group: proxy, Commands: all, Backends: "ktransformers",
			Help: "folder of the experts' weights as the CPU's kernels take them; empty is the checkpoint's"},
		{Name: "kt_method", target: &c.KTMethod, Group: proxy, Commands: all, Backends: "ktransformers",
			Help: "the kernels for experts, such as AMXINT8, LLAMAFILE or BF16; empty is the server's choice"},
		{Name: "kt_threadpool_count", target: &c.KTThreadpoolCount, Max: 1024, Group: proxy, Commands: all, Backends: "ktransformers",
			Help: "pools of threads, one for each NUMA node; 0 is the server's choice"},
		{Name: "kt_num_gpu_experts", target: &c.KTNumGPUExperts, Default: "-1", Min: -1, Max: 65536, Group: proxy, Commands: all,
			Backends: "ktransformers", Help: "experts of each layer that the GPU keeps; -1 is the server's choice"},

		{Name: "allow_runtime_lora_updating", target: &c.AllowRuntimeLoRAUpdating, Env: []string{"VLLM_ALLOW_RUNTIME_LORA_UPDATING"},
			Default: "false", Group: web, Commands: serve, Backends: proxied,
			Help: "let clients load and unload adapters while serving"},
		{Name: "hub", target: &c.Hub, Default: "huggingface", Choices: []string{"huggingface", "modelscope", "modelers"}, Group: hubs,
			Commands: allPull, Backends: "all", Help: "where a model is downloaded from if there is no such folder; " +
				"USE_MODELSCOPE_HUB=1 and USE_OPENMIND_HUB=1 in the environment choose the last two"},
		{Name: "model_revision", Aliases: []string{"revision"}, target: &c.ModelRevision, Default: "main", Group: hubs, Commands: allPull,
			Backends: "all", Help: "branch, tag or commit of a model that is downloaded"},
		{Name: "cache_dir", target: &c.CacheDir, Group: hubs, Commands: allPull, Backends: "all",
			Help: "folder for downloads; empty is that of the hub's own library, such as ~/.cache/huggingface/hub"},
		{Name: "hub_offline", target: &c.HubOffline, Default: "false", Group: hubs, Commands: allPull, Backends: "all",
			Help: "use what was downloaded before and ask no hub; HF_HUB_OFFLINE=1 says so too"},
		{Name: "hf_hub_token", target: &c.HFHubToken, Secret: true, Group: hubs, Commands: allPull, Backends: "all",
			Help: "token for Hugging Face; empty is HF_TOKEN, else the file that its login command writes"},
		{Name: "ms_hub_token", target: &c.MSHubToken, Secret: true, Group: hubs, Commands: allPull, Backends: "all",
			Help: "token for ModelScope; empty is MODELSCOPE_API_TOKEN"},
		{Name: "om_hub_token", target: &c.OMHubToken, Secret: true, Group: hubs, Commands: allPull, Backends: "all",
			Help: "token for Modelers; empty is OM_HUB_TOKEN"},

		{Name: "host", target: &c.Host, Env: []string{"API_HOST"}, Default: "127.0.0.1", Group: web, Commands: serve,
			Help: "address to listen on; 0.0.0.0 is all interfaces (the container image's default)"},
		{Name: "port", target: &c.Port, Env: []string{"API_PORT"}, Default: "8000", Max: 65535, Group: web,
			Commands: serve, Help: "port to listen on; 0 is any free one, told in the log"},
		{Name: "api_key", target: &c.APIKey, Env: []string{"API_KEY"}, Secret: true, Group: web,
			Commands: all, Help: "key that clients must send, or several separated by commas; none: no key is asked for; with url, the first is sent"},
		{Name: "api_key_file", target: &c.APIKeyFile, Group: web, Commands: all,
			Help: "file with one key a line"},
		{Name: "allowed_hosts", target: &c.AllowedHosts, Group: web, Commands: serve,
			Help: "public host names under which a server without a key may be reached; * is any"},
		{Name: "cors_origins", target: &c.CORSOrigins, Group: web, Commands: serve,
			Help: "web origins whose pages may call the server, separated by commas; * is any; empty: none"},
		{Name: "unknown_fields", target: &c.UnknownFields, Default: "refuse", Choices: []string{"refuse", "report"},
			Group: web, Commands: serve, Help: "a request field that nobody knows: refuse answers 400, " +
				"report ignores it and names it in the header X-Pagoda-Ignored-Fields"},
		{Name: "max_body_bytes", target: &c.MaxBodyBytes, Default: "32MiB", Min: 1024, Max: 1 << 40, Group: web,
			Commands: serve, Help: "largest request body"},
		{Name: "max_header_bytes", target: &c.MaxHeaderBytes, Default: "64KiB", Min: 1024, Max: 1 << 30, Group: web,
			Commands: serve, Help: "largest request head"},
		{Name: "max_n", target: &c.MaxN, Default: "128", Min: 1, Max: 65536, Group: web, Commands: serve,
			Help: "most choices (n) of one request"},
		{Name: "request_timeout", target: &c.RequestTimeout, Group: web, Commands: serve,
			Help: "longest time for one answer, such as 10m; 0 is no limit"},
		{Name: "write_timeout", target: &c.WriteTimeout, Default: "30s", Min: 0.001, Max: 1e9, Group: web,
			Commands: serve, Help: "longest time a client may take to accept a piece of its answer, or to acknowledge anything at all (an hour at most)"},
		{Name: "drain_timeout", target: &c.DrainTimeout, Default: "30s", Max: 1e9, Group: web, Commands: serve,
			Help: "after SIGTERM, time for running requests to finish"},

		{Name: "log_level", target: &c.LogLevel, Env: []string{"LLAMAFACTORY_VERBOSITY"}, Default: "info", Choices: []string{"debug", "info", "warn", "error"},
			Group: logs, Commands: allPull, Help: "least important messages to print"},
		{Name: "log_format", target: &c.LogFormat, Default: "auto", Choices: []string{"auto", "json", "console"},
			Group: logs, Commands: allPull, Help: "auto is console on a terminal and json elsewhere"},
		{Name: "access_log", target: &c.AccessLog, Default: "true", Group: logs, Commands: serve,
			Help: "one line a request, with tokens and times, never with prompts or keys"},

		{Name: "url", target: &c.URL, Group: talk, Commands: chatBench,
			Help: "use this server (http://host:port/v1) instead of a model in this process"},
		{Name: "chat_model", target: &c.ChatModel, Group: talk, Commands: chatBench,
			Help: "model or adapter to use; empty is what model_name_or_path says"},
		{Name: "system", target: &c.System, Group: talk, Commands: chat, Help: "system message"},

		{Name: "requests", target: &c.Requests, Default: "64", Min: 1, Max: 1 << 20, Group: speed, Commands: bench,
			Help: "requests that the load consists of"},
		{Name: "concurrency", target: &c.Concurrency, Default: "8", Min: 1, Max: 4096, Group: speed, Commands: bench,
			Help: "requests at once"},
		{Name: "input_tokens", target: &c.InputTokens, Default: "128", Min: 1, Max: 1 << 24, Group: speed,
			Commands: bench, Help: "tokens of each prompt"},
		{Name: "output_tokens", target: &c.OutputTokens, Default: "64", Min: 2, Max: 1 << 24, Group: speed,
			Commands: bench, Help: "tokens of each answer"},
		{Name: "endpoint", target: &c.Endpoint, Default: "chat", Choices: []string{"chat", "completions"}, Group: speed,
			Commands: bench, Help: "what to ask of url's server"},
		{Name: "rounds", target: &c.Rounds, Default: "5", Min: 1, Max: 1000, Group: speed, Commands: bench,
			Help: "samples of each figure of this process"},
		{Name: "json", target: &c.JSON, Default: "false", Group: speed, Commands: bench,
			Help: "print the report as JSON"},
	}
}

// Options is the table without values.
func Options() []*Option { return new(Config).options() }

// ofModel says whether each of several models may have a value of its own.
func (o *Option) ofModel() bool { return !slices.Contains([]string{web, logs, talk, speed}, o.Group) }

// heededBy says whether a command heeds the option.
func (o *Option) heededBy(command string) bool {
	return slices.Contains(splitList(o.Commands), command)
}
