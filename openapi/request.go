package openapi

import (
	"encoding/json"

	"github.com/go-json-experiment/json/jsontext"
)

// Unknown collects the members of an object that its type does not know, so that the server can refuse or report them
// by name and a proxy can forward them.
type Unknown = map[string]json.RawMessage

// ChatCompletionRequest is the body of POST /v1/chat/completions. In all requests null is the same as absent.
type ChatCompletionRequest struct {
	Model    string        `json:"model"`
	Messages []ChatMessage `json:"messages"`
	Sampling
	MaxCompletionTokens *int               `json:"max_completion_tokens"`
	Logprobs            *bool              `json:"logprobs"`
	TopLogprobs         *int               `json:"top_logprobs"`
	ReasoningEffort     *string            `json:"reasoning_effort"`
	ResponseFormat      *ResponseFormat    `json:"response_format"`
	Modalities          []string           `json:"modalities"`
	Metadata            map[string]*string `json:"metadata"`
	Store               *bool              `json:"store"`
	ServiceTier         *string            `json:"service_tier"`
	SafetyIdentifier    *string            `json:"safety_identifier"`
	PromptCacheKey      *string            `json:"prompt_cache_key"`
	Template
	ToolChoice        jsontext.Value `json:"tool_choice"`
	ParallelToolCalls *bool          `json:"parallel_tool_calls"`
	Unknown           Unknown        `json:",unknown"`
}

// CompletionRequest is the body of POST /v1/completions.
type CompletionRequest struct {
	Model  string `json:"model"`
	Prompt Prompt `json:"prompt"`
	Sampling
	BestOf           *int    `json:"best_of"`
	Echo             *bool   `json:"echo"`
	Logprobs         *int    `json:"logprobs"`
	AddSpecialTokens *bool   `json:"add_special_tokens"`
	Unknown          Unknown `json:",unknown"`
}

// Sampling is what both kinds of completion take.
type Sampling struct {
	MaxTokens         *int               `json:"max_tokens"`
	Temperature       *float64           `json:"temperature"`
	TopP              *float64           `json:"top_p"`
	TopK              *int               `json:"top_k"`
	MinP              *float64           `json:"min_p"`
	TypicalP          *float64           `json:"typical_p"`
	N                 *int               `json:"n"`
	Seed              *int64             `json:"seed"`
	Stop              Strings            `json:"stop"`
	StopTokenIDs      TokenIDs           `json:"stop_token_ids"`
	IncludeStop       *bool              `json:"include_stop_str_in_output"`
	IgnoreEOS         *bool              `json:"ignore_eos"`
	DoSample          *bool              `json:"do_sample"`
	MinTokens         *int               `json:"min_tokens"`
	PresencePenalty   *float64           `json:"presence_penalty"`
	FrequencyPenalty  *float64           `json:"frequency_penalty"`
	RepetitionPenalty *float64           `json:"repetition_penalty"`
	LogitBias         map[int32]*float64 `json:"logit_bias"`
	SkipSpecialTokens *bool              `json:"skip_special_tokens"`
	ReturnTokenIDs    *bool              `json:"return_token_ids"`
	NameByID          *bool              `json:"return_tokens_as_token_ids"`
	Stream            *bool              `json:"stream"`
	StreamOptions     *StreamOptions     `json:"stream_options"`
	Priority          *int               `json:"priority"`
	CacheSalt         *string            `json:"cache_salt"`
	SpeculativeTokens *int               `json:"speculative_tokens"`
	User              *string            `json:"user"`
}

// Template is what decides how messages are rendered.
type Template struct {
	Tools                []jsontext.Value           `json:"tools"` // each a Tool; kept as written for the template
	ChatTemplateKwargs   map[string]json.RawMessage `json:"chat_template_kwargs"`
	AddGenerationPrompt  *bool                      `json:"add_generation_prompt"`
	ContinueFinalMessage *bool                      `json:"continue_final_message"`
}

// ChatMessage is one turn of a conversation.
type ChatMessage struct {
	Role             string           `json:"role"`
	Content          Content          `json:"content"`
	Name             *string          `json:"name"`
	ToolCallID       *string          `json:"tool_call_id"`
	ToolCalls        []MessageCall    `json:"tool_calls"`
	Refusal          *string          `json:"refusal"`
	ReasoningContent *string          `json:"reasoning_content"`
	Reasoning        *string          `json:"reasoning"`
	Annotations      []jsontext.Value `json:"annotations"`
	Unknown          Unknown          `json:",unknown"`
}

// ContentPart is a piece of a message's content; only texts (and an assistant's refusals) are served.
type ContentPart struct {
	Type    string  `json:"type"`
	Text    *string `json:"text"`
	Refusal *string `json:"refusal"`
	Unknown Unknown `json:",unknown"`
}

// MessageCall is a tool call in an earlier assistant turn.
type MessageCall struct {
	ID       string              `json:"id"`
	Type     string              `json:"type"`
	Function MessageCallFunction `json:"function"`
	Unknown  Unknown             `json:",unknown"`
}

// MessageCallFunction is the function of a MessageCall.
type MessageCallFunction struct {
	Name      string  `json:"name"`
	Arguments *string `json:"arguments"`
	Unknown   Unknown `json:",unknown"`
}

// Tool is a function that the model may call.
type Tool struct {
	Type     string       `json:"type"`
	Function ToolFunction `json:"function"`
	Unknown  Unknown      `json:",unknown"`
}

// ToolFunction describes a Tool's function; Parameters is a JSON Schema.
type ToolFunction struct {
	Name        string                     `json:"name"`
	Description *string                    `json:"description"`
	Parameters  map[string]json.RawMessage `json:"parameters"`
	Strict      *bool                      `json:"strict"`
	Unknown     Unknown                    `json:",unknown"`
}

// ResponseFormat asks for a form of answer; only "text" is served.
type ResponseFormat struct {
	Type    string  `json:"type"`
	Unknown Unknown `json:",unknown"`
}

// StreamOptions says what a stream carries beside its deltas.
type StreamOptions struct {
	IncludeUsage         *bool   `json:"include_usage"`
	ContinuousUsageStats *bool   `json:"continuous_usage_stats"`
	IncludeObfuscation   *bool   `json:"include_obfuscation"`
	Unknown              Unknown `json:",unknown"`
}

// TokenizeRequest is the body of POST /tokenize: a prompt or messages.
type TokenizeRequest struct {
	Model    *string       `json:"model"`
	Prompt   *string       `json:"prompt"`
	Messages []ChatMessage `json:"messages"`
	Template
	AddSpecialTokens *bool   `json:"add_special_tokens"`
	ReturnTokenStrs  *bool   `json:"return_token_strs"`
	Unknown          Unknown `json:",unknown"`
}

// DetokenizeRequest is the body of POST /detokenize.
type DetokenizeRequest struct {
	Model   *string  `json:"model"`
	Tokens  TokenIDs `json:"tokens"`
	Unknown Unknown  `json:",unknown"`
}

// LoadAdapterRequest is the body of POST /v1/load_lora_adapter.
type LoadAdapterRequest struct {
	Name    string  `json:"lora_name"`
	Path    string  `json:"lora_path"`
	Base    *string `json:"base_model_name"`
	Unknown Unknown `json:",unknown"`
}

// UnloadAdapterRequest is the body of POST /v1/unload_lora_adapter.
type UnloadAdapterRequest struct {
	Name    string  `json:"lora_name"`
	Unknown Unknown `json:",unknown"`
}
