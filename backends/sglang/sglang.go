// Package sglang is what is particular to SGLang: its fields, its adapters, its command line. Read in SGLang's source,
// 0.5.19 to 0.5.23; the proxy engine itself is package proxy.
package sglang

import (
	"encoding/json"
	"regexp"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/backends/proxy"
)

// Dialect is how to talk to an SGLang server.
func Dialect() *proxy.Dialect {
	return &proxy.Dialect{
		Name:  "sglang",
		Title: "SGLang",
		Fields: map[string]string{
			"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty", "min_tokens": "min_tokens",
			"stop_token_ids": "stop_token_ids", "include_stop_str_in_output": "no_stop_trim", "ignore_eos": "ignore_eos",
			"skip_special_tokens": "skip_special_tokens", "priority": "priority", "cache_salt": "cache_salt",
			"return_token_ids": "return_token_ids", "return_prompt_token_ids": "return_prompt_token_ids",
			"continue_final_message": "continue_final_message", "chat_template_kwargs": "chat_template_kwargs",
		},
		Translate: translate,
		// lora_path would choose an adapter beside our table; the others change how the server itself works.
		Refused:       []string{"rid", "lora_path", "custom_logit_processor", "input_ids", "bootstrap_host", "bootstrap_port", "bootstrap_room"},
		Health:        "/health",
		HealthTimeout: 25 * time.Second, // it generates a token: at least 1 s, up to 20 s under load
		HealthMisses:  3,                // and fails falsely during very long prefills
		Progress:      []string{"sglang:prompt_tokens_total", "sglang:generation_tokens_total", "sglang:realtime_tokens_total"},
		Running:       "sglang:num_running_reqs",
		Waiting:       "sglang:num_queue_reqs",
		KVUsage:       "sglang:token_usage",
		// A closed connection ends a request after 2 to 4 s only; this ends it at once.
		RequestIDField: "rid",
		Abort:          "/abort_request",
		Adapters: proxy.AdapterDialect{Load: "/load_lora_adapter", Unload: "/unload_lora_adapter",
			Join: func(base, adapter string) string { return base + ":" + adapter }},
	}
}

// translate brings the fields for structured output of vLLM, old and new, into SGLang's words.
func translate(extra proxy.Extra) error {
	outputs := map[string]json.RawMessage{}
	if v, ok := extra["structured_outputs"]; ok {
		delete(extra, "structured_outputs")
		if jsonv2.Unmarshal(v, &outputs) != nil {
			return proxy.BadField("structured_outputs", "must be an object")
		}
	}
	for _, kind := range []string{"json", "regex", "choice", "grammar", "whitespace_pattern"} {
		if v, ok := extra["guided_"+kind]; ok {
			delete(extra, "guided_"+kind)
			outputs[kind] = v
		}
	}
	for kind, v := range outputs {
		if jsontext.Value(v).Kind() == 'n' {
			continue
		}
		switch kind {
		case "json":
			if _, ok := extra["response_format"]; ok {
				return proxy.BadField("response_format", "and another field for structured output must not both be given")
			}
			schema := jsontext.Value(v)
			if schema.Kind() == '"' { // vLLM takes the schema as text too
				text, err := jsontext.AppendUnquote(nil, schema)
				if err != nil || !jsontext.Value(text).IsValid() {
					return proxy.BadField("structured_outputs.json", "must be a JSON schema")
				}
				schema = text
			}
			extra["response_format"] = json.RawMessage(`{"type":"json_schema","json_schema":{"name":"schema","schema":` + string(schema) + `}}`)
		case "regex":
			extra["regex"] = v
		case "grammar":
			extra["ebnf"] = v
		case "choice":
			pattern, err := choicePattern(v)
			if err != nil {
				return err
			}
			extra["regex"] = pattern
		default:
			return proxy.BadField("structured_outputs."+kind, "is not supported by SGLang")
		}
	}
	return nil
}

// choicePattern is a list of texts as a regular expression that matches each of them.
func choicePattern(v json.RawMessage) (json.RawMessage, error) {
	var choices []string
	if jsonv2.Unmarshal(v, &choices) != nil || len(choices) == 0 {
		return nil, proxy.BadField("structured_outputs.choice", "must be a list of strings")
	}
	pattern := "("
	for i, c := range choices {
		if i > 0 {
			pattern += "|"
		}
		pattern += regexp.QuoteMeta(c)
	}
	return jsontext.AppendQuote(nil, pattern+")")
}
