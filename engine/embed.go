package engine

import (
	"context"
	"encoding/json"
)

// Embedder is the optional ability to turn texts into vectors.
type Embedder interface {
	// Embed returns a vector for each input, in order. It fails as a whole, with an *Error; when ctx ends, what is not
	// computed yet never is.
	Embed(ctx context.Context, req *EmbedRequest) (*Embedding, error)
}

// Scorer is the optional ability to say how well texts go together.
type Scorer interface {
	// Score returns a number for each pair, in order; larger is better. It fails as Embed does.
	Score(ctx context.Context, req *ScoreRequest) (*Scores, error)
}

// Pooling is what both kinds of request have.
type Pooling struct {
	ID       string // request id, for logs
	Model    string // a Model.ID
	Tenant   string // who asks, for fairness ("" is one tenant); never shown
	Priority int    // lower runs earlier; 0 is the default

	// Truncate is how many tokens of an input, special ones included, are kept at most; -1 is as many as the model takes.
	// Nil keeps all, and one that is too long is an error.
	Truncate *int
	// TruncateLeft drops the beginning of what is too long instead of its end.
	TruncateLeft bool

	// Extra holds the fields that no dialect knows, see Request.Extra.
	Extra       map[string]json.RawMessage
	IgnoreExtra bool
}

// EmbedRequest asks for the vectors of texts.
type EmbedRequest struct {
	Pooling
	Inputs []Input
	// AddSpecialTokens tells the tokenization of texts to add the tokenizer's own prefix and suffix; nil is true.
	AddSpecialTokens *bool
	// PromptName chooses what the model puts before each text, among the prompts that its files name; "" is nothing, nil what
	// the model says.
	PromptName *string
	// Dimensions cuts the vectors to their first numbers and normalises them again; nil is all. Only models that were
	// trained so (Matryoshka) allow it.
	Dimensions *int
	// Normalize says whether vectors have length 1; nil is what the model says.
	Normalize *bool
}

// Input is a text, or its tokens if those are not nil.
type Input struct {
	Text   string
	Tokens []int32
}

// Embedding is the answer to an EmbedRequest.
type Embedding struct {
	Vectors [][]float32
	Tokens  []int // of each input, special ones included
}

// ScoreRequest asks how well the texts of pairs go together.
type ScoreRequest struct {
	Pooling
	Pairs []Pair
	// Field is what errors call the list of second texts, as the client does.
	Field string
	// Instruction tells a model that takes one what to judge pairs by; "" is the model's own.
	Instruction string
	// MaxSecond is how many tokens of each pair's second text are kept at most; 0 is all.
	MaxSecond int
}

// Pair is two texts: of a search, the query first.
type Pair struct{ First, Second string }

// Scores is the answer to a ScoreRequest.
type Scores struct {
	Scores []float64
	Tokens []int // of each pair, special ones included
}
