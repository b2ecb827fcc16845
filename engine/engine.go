package engine

import (
	"context"
	"io"
	"iter"
	"time"
)

// Engine generates. Implementations are safe for concurrent use.
type Engine interface {
	// Generate yields the events of req in order. It ends after the last choice's event with Finish set, after the
	// first non-nil error (always an *Error), or when the caller stops ranging, which cancels the request and frees
	// its memory within one step.
	Generate(ctx context.Context, req *Request) iter.Seq2[Event, error]
	// Models lists what Request.Model may name, base models before their adapters.
	Models() []Model
	// Close refuses new requests, waits for the running ones until ctx ends, cancels the rest and frees everything.
	Close(ctx context.Context) error
}

// Tokenizer is the optional ability to turn text into tokens and back, as a model's own requests would.
type Tokenizer interface {
	// Tokenize returns the token ids of req's prompt: a rendered chat, or a text.
	Tokenize(ctx context.Context, req *Request) ([]int32, error)
	// Detokenize returns the text of tokens under the model's vocabulary, special tokens included.
	Detokenize(ctx context.Context, model string, tokens []int32) (string, error)
	// TokenText returns the text of each single token (invalid UTF-8 shown as U+FFFD).
	TokenText(ctx context.Context, model string, tokens []int32) ([]string, error)
}

// Statser is the optional ability to report load; Stats must be cheap and never wait for a step.
type Statser interface {
	Stats() []Stats
}

// AdapterManager is the optional ability to load and unload adapters while serving.
type AdapterManager interface {
	// LoadAdapter makes the adapter in the folder path available as name, on the model base.
	LoadAdapter(ctx context.Context, base, name, path string) error
	// UnloadAdapter makes name unknown; requests that run with it end as they would.
	UnloadAdapter(ctx context.Context, name string) error
}

// Forwarder is the optional ability to pass a request on as it is, to a route that only a proxied server has.
type Forwarder interface {
	// Forward sends req to the upstream of its model. The caller closes the answer's Body. Errors are *Error; an answer
	// with any status is none.
	Forward(ctx context.Context, req *RawRequest) (*RawResponse, error)
}

// RawRequest is a request that is passed on. The value of "model" in a JSON Body is replaced by the upstream's own name.
type RawRequest struct {
	Model       string // which upstream, by a Model.ID
	Method      string
	Path        string // of the upstream's route
	ContentType string
	Body        []byte
}

// RawResponse is an upstream's answer.
type RawResponse struct {
	Status      int
	ContentType string
	Body        io.ReadCloser
}

// Model is one name that a Request may use.
type Model struct {
	ID      string
	Parent  string // base model's ID if this is an adapter, else ""
	Root    string // what it was loaded from, as shown to clients ("built-in", a hub id, a directory's last element)
	Created time.Time
	MaxLen  int    // most tokens of prompt and completion together
	Backend string // "native", "vllm", ...
	// ForwardsUnknown says that fields in Request.Extra reach an upstream, which may know them.
	ForwardsUnknown bool
}

// Stats is the load of one base model at one moment. Counters count since start.
type Stats struct {
	Model           string
	Ready           bool
	Running         int     // sequences in the running batch
	Waiting         int     // requests and sequences waiting for admission
	KVUsage         float64 // share of KV blocks in use, 0 to 1; blocks only cached count as free
	NumBlocks       int
	BlockSize       int // tokens per block
	KVDType         string
	PrefixQueries   uint64 // tokens looked up in the prefix cache
	PrefixHits      uint64 // tokens found there
	Preemptions     uint64
	PromptTokens    uint64 // prompt tokens of admitted requests
	ComputedTokens  uint64 // prompt tokens computed, that is not found in the prefix cache
	GeneratedTokens uint64
	Steps           uint64
	StepTokens      []uint64 // histogram of tokens per step; counts for the bounds StepTokenBounds and one above
	StepTokensSum   uint64
	Drafts          uint64   // guesses at what an answer says next, each of some tokens
	DraftTokens     uint64   // tokens guessed
	AcceptedTokens  uint64   // tokens guessed right
	AcceptedAt      []uint64 // of them, by place in the draft
	MaxAdapters     int
	RunningAdapters []string // adapters with a running sequence
	WaitingAdapters []string // adapters with a waiting request
}

// StepTokenBounds are the upper bounds of Stats.StepTokens, the buckets that vLLM's dashboards expect.
var StepTokenBounds = []float64{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}
