package engine

import "encoding/json"

// Request asks for N completions of one prompt. Exactly one of Chat, Text and Tokens is the prompt.
type Request struct {
	ID     string // request id, for logs
	Model  string // a Model.ID; an adapter is chosen by naming it
	Tenant string // who asks, for fairness ("" is one tenant); never shown
	// CacheSalt separates prefix caches: requests with different salts never share blocks.
	CacheSalt string
	Priority  int // lower runs earlier; 0 is the default

	Chat   *Chat
	Text   *string
	Tokens []int32
	// AddSpecialTokens tells a Text prompt's tokenization to add the tokenizer's own prefix and suffix; nil is true.
	AddSpecialTokens *bool

	Sampling Sampling
	Output   Output

	// SpeculativeTokens is how many tokens may be guessed ahead in a step; nil is the engine's choice, 0 none. The answer
	// is the same.
	SpeculativeTokens *int

	// Extra holds the fields of the client's JSON that no dialect knows, untouched. A proxy forwards them; the native
	// engine refuses the first by name unless IgnoreExtra is set.
	Extra       map[string]json.RawMessage
	IgnoreExtra bool
}

// Chat is a prompt in messages, to be rendered by the model's chat template.
type Chat struct {
	Messages []Message
	Tools    []json.RawMessage // each {"type":"function","function":{...}}, the client's key order kept
	// ToolChoice is "auto", "none", "required" or "function"; with "function" ToolName names it. "" is auto.
	ToolChoice        string
	ToolName          string
	ParallelToolCalls *bool                      // nil is true; false: at most one call is returned
	TemplateKwargs    map[string]json.RawMessage // chat_template_kwargs, for example enable_thinking
	// AddGenerationPrompt opens an assistant turn after the messages; nil is true unless ContinueFinal.
	AddGenerationPrompt *bool
	ContinueFinal       bool // the last message is the beginning of the answer and is continued
}

// Message is one turn. Text parts of a content list are already joined into Content without a separator.
type Message struct {
	Role       string // "system", "developer", "user", "assistant", "tool", "function"
	Content    *string
	Name       string
	ToolCallID string
	ToolCalls  []ToolCall
	Reasoning  *string // reasoning_content or reasoning of an earlier assistant turn
	// Parts is the content list as the client wrote it if it holds more than text, for models that forward what we do
	// not know; Content is nil then.
	Parts []json.RawMessage
}

// ToolCall is one call of a function by the model. Arguments is JSON text, as the model wrote it.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string
}

// Sampling says how tokens are chosen. A nil pointer takes the model's generation_config, else the neutral value.
// Ranges are checked by the dialect that filled it in.
type Sampling struct {
	Temperature       *float64 // 0 is greedy
	TopP              *float64 // (0,1]
	TopK              *int     // 0 and -1 are off
	MinP              *float64 // [0,1]
	TypicalP          *float64 // (0,1]
	RepetitionPenalty *float64 // > 0, over prompt and output; CTRL, arXiv:1909.05858
	PresencePenalty   float64  // [-2,2], over output
	FrequencyPenalty  float64  // [-2,2], over output
	LogitBias         map[int32]float32
	Seed              *int64
	N                 int  // choices; 0 is 1
	MaxTokens         *int // per choice; nil is up to the model's length
	MinTokens         int  // no end-of-sequence and stop token before
	Stop              []string
	StopTokenIDs      []int32
	IncludeStop       bool // keep the stop string in the text
	IgnoreEOS         bool
}

// SamplingDefaults are what requests get that do not say; a nil field is the checkpoint's advice, else the neutral value.
type SamplingDefaults struct {
	DoSample          *bool // false: greedy
	Temperature       *float64
	TopP              *float64
	TopK              *int
	MinP              *float64
	RepetitionPenalty *float64
	MaxTokens         *int  // of an answer
	SkipSpecial       *bool // leave special tokens out of the text
}

// Output says what the events must carry beside the text.
type Output struct {
	// Logprobs is nil for none, else how many of the most likely tokens to list beside the chosen one (0 or more).
	// They are of the model's own distribution: before penalties, bias, temperature and truncation.
	Logprobs *int
	// PromptLogprobs likewise for the prompt's tokens.
	PromptLogprobs *int
	// SkipSpecial leaves special tokens out of the text; nil is true.
	SkipSpecial *bool
	// TokenIDs says that the ids are wanted. The native engine always has them; an upstream is only asked for them then.
	TokenIDs bool
	// NameByID asks for "token_id:5" in place of the texts of tokens whose log-probabilities are told. The server writes that where
	// the ids are known; an upstream is asked for it.
	NameByID bool
	// Whole says that nothing reads the answer before its end, so that few large events do as well as many small ones.
	Whole bool
	// Raw yields text as generated: no tool-call and no reasoning parsing even for a Chat.
	Raw bool
}
