package openapi

// ChatCompletion is the answer of POST /v1/chat/completions without stream.
type ChatCompletion struct {
	ID                string       `json:"id"`
	Object            string       `json:"object"` // "chat.completion"
	Created           int64        `json:"created"`
	Model             string       `json:"model"`
	SystemFingerprint string       `json:"system_fingerprint"`
	Choices           []ChatChoice `json:"choices"`
	Usage             Usage        `json:"usage"`
	PromptTokenIDs    []int32      `json:"prompt_token_ids,omitzero"`
}

// ChatChoice is one answer.
type ChatChoice struct {
	Index        int              `json:"index"`
	Message      AssistantMessage `json:"message"`
	Logprobs     *ChatLogprobs    `json:"logprobs"`
	FinishReason string           `json:"finish_reason"`
	StopReason   *StopReason      `json:"stop_reason"`
	TokenIDs     []int32          `json:"token_ids,omitzero"`
}

// AssistantMessage is what the model said. Content is null if it only called tools.
type AssistantMessage struct {
	Role             string     `json:"role"`
	Content          *string    `json:"content"`
	Refusal          *string    `json:"refusal"` // always null
	ReasoningContent *string    `json:"reasoning_content,omitzero"`
	Reasoning        *string    `json:"reasoning,omitzero"` // the same; clients read either
	ToolCalls        []ToolCall `json:"tool_calls,omitzero"`
}

// ToolCall is a call of a function by the model.
type ToolCall struct {
	ID       string           `json:"id"`
	Type     string           `json:"type"` // "function"
	Function ToolCallFunction `json:"function"`
}

// ToolCallFunction names the function; Arguments is JSON text as the model wrote it.
type ToolCallFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// ChatLogprobs are the log probabilities of a choice's tokens.
type ChatLogprobs struct {
	Content []TokenLogprobs `json:"content"`
	Refusal []TokenLogprobs `json:"refusal,format:emitnull"` // always null
}

// TokenLogprobs is a token with its alternatives.
type TokenLogprobs struct {
	Token       string         `json:"token"`
	Logprob     float64        `json:"logprob"`
	Bytes       []int          `json:"bytes"`
	TopLogprobs []TokenLogprob `json:"top_logprobs"`
}

// TokenLogprob is a token with its log probability. Bytes is its exact text, which may be a part of a character.
type TokenLogprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

// Usage counts tokens.
type Usage struct {
	PromptTokens            int                     `json:"prompt_tokens"`
	CompletionTokens        int                     `json:"completion_tokens"`
	TotalTokens             int                     `json:"total_tokens"`
	PromptTokensDetails     PromptTokensDetails     `json:"prompt_tokens_details"`
	CompletionTokensDetails CompletionTokensDetails `json:"completion_tokens_details"`
}

// PromptTokensDetails says how much of the prompt was found in the prefix cache.
type PromptTokensDetails struct {
	CachedTokens int `json:"cached_tokens"`
}

// CompletionTokensDetails says how much of the answer was a thought.
type CompletionTokensDetails struct {
	ReasoningTokens int `json:"reasoning_tokens"`
}

// ChatCompletionChunk is one event of a streamed chat completion.
type ChatCompletionChunk struct {
	ID                string            `json:"id"`
	Object            string            `json:"object"` // "chat.completion.chunk"
	Created           int64             `json:"created"`
	Model             string            `json:"model"`
	SystemFingerprint string            `json:"system_fingerprint"`
	Choices           []ChatChunkChoice `json:"choices"`
	Usage             *Usage            `json:"usage,omitzero"`
	PromptTokenIDs    []int32           `json:"prompt_token_ids,omitzero"`
}

// ChatChunkChoice is a piece of one answer.
type ChatChunkChoice struct {
	Index        int           `json:"index"`
	Delta        ChatDelta     `json:"delta"`
	Logprobs     *ChatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
	StopReason   *StopReason   `json:"stop_reason,omitzero"`
	TokenIDs     []int32       `json:"token_ids,omitzero"`
}

// ChatDelta is what a chunk adds to a message.
type ChatDelta struct {
	Role             *string         `json:"role,omitzero"`
	Content          *string         `json:"content,omitzero"`
	ReasoningContent *string         `json:"reasoning_content,omitzero"`
	Reasoning        *string         `json:"reasoning,omitzero"`
	ToolCalls        []ToolCallDelta `json:"tool_calls,omitzero"`
}

// ToolCallDelta is a piece of a tool call; ID, Type and the function's name come with the first piece only.
type ToolCallDelta struct {
	Index    int                   `json:"index"`
	ID       string                `json:"id,omitzero"`
	Type     string                `json:"type,omitzero"`
	Function ToolCallDeltaFunction `json:"function"`
}

// ToolCallDeltaFunction is a piece of a ToolCallFunction.
type ToolCallDeltaFunction struct {
	Name      string `json:"name,omitzero"`
	Arguments string `json:"arguments"`
}

// Completion is the answer of POST /v1/completions, and each event of a streamed one.
type Completion struct {
	ID                string             `json:"id"`
	Object            string             `json:"object"` // "text_completion"
	Created           int64              `json:"created"`
	Model             string             `json:"model"`
	SystemFingerprint string             `json:"system_fingerprint"`
	Choices           []CompletionChoice `json:"choices"`
	Usage             *Usage             `json:"usage,omitzero"`
}

// CompletionChoice is one answer, or in a stream a piece of it.
type CompletionChoice struct {
	Index          int                 `json:"index"`
	Text           string              `json:"text"`
	Logprobs       *CompletionLogprobs `json:"logprobs"`
	FinishReason   *string             `json:"finish_reason"`
	StopReason     *StopReason         `json:"stop_reason,omitzero"`
	PromptTokenIDs []int32             `json:"prompt_token_ids,omitzero"`
	TokenIDs       []int32             `json:"token_ids,omitzero"`
}

// CompletionLogprobs are four lists of one entry per token. Entries are null for a prompt's first token.
type CompletionLogprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs,format:emitnull"`
	TextOffset    []int                `json:"text_offset"` // in characters
}

// Model is one model that a request may name.
type Model struct {
	ID          string  `json:"id"`
	Object      string  `json:"object"` // "model"
	Created     int64   `json:"created"`
	OwnedBy     string  `json:"owned_by"`
	Root        string  `json:"root"`
	Parent      *string `json:"parent"`
	MaxModelLen int     `json:"max_model_len"`
}

// ModelList is the answer of GET /v1/models.
type ModelList struct {
	Object string  `json:"object"` // "list"
	Data   []Model `json:"data"`
}

// TokenizeResponse is the answer of POST /tokenize.
type TokenizeResponse struct {
	Count       int      `json:"count"`
	MaxModelLen int      `json:"max_model_len"`
	Tokens      []int32  `json:"tokens"`
	TokenStrs   []string `json:"token_strs,format:emitnull"` // null unless asked for
}

// DetokenizeResponse is the answer of POST /detokenize.
type DetokenizeResponse struct {
	Prompt string `json:"prompt"`
}

// ErrorResponse is the body of every error, and the last event of a stream that failed.
type ErrorResponse struct {
	Error Error `json:"error"`
}

// Error says what went wrong. Param is the JSON path of the field at fault, if one is.
type Error struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}
