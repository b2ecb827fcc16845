// Package vllm is what is particular to vLLM: its fields, its adapters, its command line. Read in vLLM's source, 0.27
// to 0.33; the proxy engine itself is package proxy.
package vllm

import (
	"encoding/json"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/backends/proxy"
)

// Dialect is how to talk to a vLLM server.
func Dialect() *proxy.Dialect {
	return &proxy.Dialect{
		Name:  "vllm",
		Title: "vLLM",
		Fields: map[string]string{
			"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty", "min_tokens": "min_tokens",
			"stop_token_ids": "stop_token_ids", "include_stop_str_in_output": "include_stop_str_in_output",
			"ignore_eos": "ignore_eos", "skip_special_tokens": "skip_special_tokens", "priority": "priority",
			"cache_salt": "cache_salt", "return_token_ids": "return_token_ids", "add_special_tokens": "add_special_tokens",
			"add_generation_prompt": "add_generation_prompt", "continue_final_message": "continue_final_message",
			"chat_template_kwargs": "chat_template_kwargs", "prompt_logprobs": "prompt_logprobs",
			"return_tokens_as_token_ids": "return_tokens_as_token_ids", "truncate_prompt_tokens": "truncate_prompt_tokens", "truncation_side": "truncation_side",
		},
		Developer:     true, // it maps the role itself where a template lacks it
		MaxStops:      4,    // VLLM_MAX_STOP_STRINGS
		Translate:     translate,
		Refused:       []string{"request_id"},
		Health:        "/health",
		HealthTimeout: 10 * time.Second, // slow under load
		HealthMisses:  2,
		Progress:      []string{"vllm:iteration_tokens_total_count", "vllm:prompt_tokens_total", "vllm:generation_tokens_total"},
		Running:       "vllm:num_requests_running",
		Waiting:       "vllm:num_requests_waiting",
		KVUsage:       "vllm:kv_cache_usage_perc",
		Adapters: proxy.AdapterDialect{Load: "/v1/load_lora_adapter", Unload: "/v1/unload_lora_adapter",
			Join: func(_, adapter string) string { return adapter }},
		Score:        "/score",
		TokenizeChat: true,
	}
}

// guided are the fields of vLLM before 0.12, which later versions ignore in silence, and their present places within
// structured_outputs.
var guided = map[string]string{"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice",
	"guided_grammar": "grammar", "guided_whitespace_pattern": "whitespace_pattern"}

// translate gives the fields for structured output of older versions, and of SGLang, their present names.
func translate(extra proxy.Extra) error {
	moved := map[string]json.RawMessage{}
	move := func(from, to string) {
		if v, ok := extra[from]; ok {
			delete(extra, from)
			if jsontext.Value(v).Kind() != 'n' {
				moved[to] = v
			}
		}
	}
	for from, to := range guided {
		move(from, to)
	}
	move("regex", "regex")  // SGLang's
	move("ebnf", "grammar") // SGLang's
	if _, ok := extra["guided_decoding_backend"]; ok {
		return proxy.BadField("guided_decoding_backend", "is set when vLLM starts, not by a request")
	}
	if len(moved) == 0 {
		return nil
	}
	if _, ok := extra["structured_outputs"]; ok {
		return proxy.BadField("structured_outputs", "and the older fields for the same must not both be given")
	}
	text, err := jsonv2.Marshal(moved, jsonv2.Deterministic(true))
	if err != nil {
		return proxy.BadField("structured_outputs", "cannot be read")
	}
	extra["structured_outputs"] = text
	return nil
}
