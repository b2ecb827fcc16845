package engine

import "time"

// Event is one piece of an answer. A choice's events arrive in order; events of several choices interleave.
type Event struct {
	// Prompt is set on the first event of a request, and only there. That event may carry nothing else.
	Prompt *Prompt

	Index     int // choice
	Text      string
	Reasoning string
	ToolCalls []ToolCallDelta
	// Tokens are the ids generated since the choice's previous event, with Logprobs (if asked for) one for one. They
	// may precede their text: incomplete UTF-8, a possible stop string or tool call is held back.
	Tokens   []int32
	Logprobs []Logprob

	// Finish is set on the choice's last event, and only there.
	Finish     FinishReason
	StopString string // the stop string that ended it, if one did
	StopToken  *int32 // the entry of StopTokenIDs that ended it, if one did; nil for the model's own end token

	// Usage and Timing are set on the request's last event, and only there. They cover all choices.
	Usage  *Usage
	Timing *Timing
}

// Prompt describes the prompt as the model saw it.
type Prompt struct {
	Tokens   []int32
	Logprobs []Logprob // if asked for: one for each token but the first, which has none (a zero Logprob)
}

// ToolCallDelta is a piece of a tool call. ID and Name come with the call's first piece only, Arguments in pieces.
type ToolCallDelta struct {
	Index     int // of the call within the choice
	ID        string
	Name      string
	Arguments string
}

// Logprob is a token with its natural-log probability and the most likely alternatives in descending order.
type Logprob struct {
	TokenLogprob
	Top []TokenLogprob
}

// TokenLogprob is a token with its natural-log probability. Bytes is the token's own text, possibly incomplete UTF-8.
type TokenLogprob struct {
	Token   int32
	Logprob float64
	Bytes   []byte
}

// FinishReason says why a choice ended.
type FinishReason string

// The finish reasons, in OpenAI's words.
const (
	FinishStop      FinishReason = "stop"
	FinishLength    FinishReason = "length"
	FinishToolCalls FinishReason = "tool_calls"
)

// Usage counts tokens.
type Usage struct {
	Prompt     int
	Cached     int // of Prompt, found in the prefix cache
	Completion int // all choices, end tokens included
	Reasoning  int // of Completion, inside a thinking block
}

// Timing is where a request's time went. Zero times mean not reached, or not known.
type Timing struct {
	Arrived    time.Time // handed to the engine
	Scheduled  time.Time // first step that included it
	FirstToken time.Time
	Finished   time.Time
}
