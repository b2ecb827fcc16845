package sched

import (
	"errors"
	"fmt"
	"math"
)

// Config sizes a Scheduler. All numbers must be positive.
type Config struct {
	MaxNumSeqs       int // sequences running at once
	MaxBatchedTokens int // tokens of a step; at least MaxNumSeqs, so that every decode fits
	MaxWaiting       int // sequences waiting, before Add says ErrFull
	BlockSize        int // tokens of a block
	NumBlocks        int // blocks of the KV cache
	MaxLen           int // tokens of a sequence, prompt and output
	MaxPromptLogits  int // prompt tokens of a step whose logits are wanted (GroupSpec.PromptLogits)
	PrefixCache      bool
	// States says that the model keeps a state of each sequence that only computing all of its tokens gives (Seq.State):
	// none begins with what others have computed, nor are there drafts. Not with PrefixCache.
	States bool

	// SwitchLen is the number of tokens beyond which the keys and values of all of a sequence are others than before
	// (LongRoPE): it is then computed again from its beginning. 0: there is no such length.
	SwitchLen int
}

func (c *Config) isLong(numTokens int) bool { return c.SwitchLen > 0 && numTokens > c.SwitchLen }

// Validate reports all problems at once.
func (c *Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int
	}{
		{"MaxNumSeqs", c.MaxNumSeqs}, {"MaxBatchedTokens", c.MaxBatchedTokens}, {"MaxWaiting", c.MaxWaiting},
		{"BlockSize", c.BlockSize}, {"NumBlocks", c.NumBlocks}, {"MaxLen", c.MaxLen},
		{"MaxPromptLogits", c.MaxPromptLogits},
	} {
		if f.value < 1 || f.value > math.MaxInt32 {
			errs = append(errs, fmt.Errorf("%s is %d", f.name, f.value))
		}
	}
	if c.MaxBatchedTokens < c.MaxNumSeqs {
		errs = append(errs, fmt.Errorf("MaxBatchedTokens is %d, below MaxNumSeqs, %d", c.MaxBatchedTokens, c.MaxNumSeqs))
	}
	if c.States && c.PrefixCache {
		errs = append(errs, errors.New("sequences with States have no PrefixCache"))
	}
	if len(errs) > 0 {
		return fmt.Errorf("sched: %w", errors.Join(errs...))
	}
	return nil
}

// GroupSpec describes one request: N sequences that begin with the same prompt.
type GroupSpec struct {
	Prompt    []int32 // at least one token; copied
	N         int     // sequences, at least 1
	MaxTokens int     // output tokens of each; 0: only the prompt is computed
	Adapter   uint64  // identity of the weights' variant; 0 is the base
	Salt      string  // only requests of equal salt and adapter share blocks through the prefix cache
	Tenant    string  // whom the tokens are counted to
	Priority  int     // lower runs first
	// PromptLogits asks for the logits of every prompt token, once for the group. No prefix hit is taken before they
	// are computed.
	PromptLogits bool
	Owner        any // the caller's, put into every Seq
}

var (
	// ErrFull says that MaxWaiting sequences wait already.
	ErrFull = errors.New("sched: too many sequences waiting")
	// ErrTooLong is what a *TooLongError is.
	ErrTooLong = errors.New("sched: sequence too long")
)

// TooLongError says that a sequence could never run to its end.
type TooLongError struct {
	NumPrompt, MaxTokens int // tokens asked for
	Limit                int // most that their sum may be
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("sched: %d prompt and %d output tokens, of at most %d together", e.NumPrompt, e.MaxTokens, e.Limit)
}

// Is makes errors.Is(err, ErrTooLong) true.
func (e *TooLongError) Is(target error) bool { return target == ErrTooLong }
