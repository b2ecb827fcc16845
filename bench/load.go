package bench

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Target answers prompts. It is safe for concurrent use.
type Target interface {
	// Ask sends a new random prompt of about input tokens and reads the answer of output tokens to its end.
	Ask(ctx context.Context, input, output int) Answer
}

// Answer is what came back for one request.
type Answer struct {
	Sent, Done   time.Time
	Pieces       []Piece // in the order in which they arrived
	PromptTokens int
	CachedTokens int // of PromptTokens, found in the server's prefix cache
	OutputTokens int
	Prefill      time.Duration // from the first step to the first token, 0 if the target does not tell
	Err          error
}

// Piece is a part of an answer that brought tokens.
type Piece struct {
	At     time.Time
	Tokens int
}

// LoadOptions say what Drive sends.
type LoadOptions struct {
	Requests     int `json:"requests"`
	Concurrency  int `json:"concurrency"` // requests at once; the next begins when one ends
	InputTokens  int `json:"input_tokens"`
	OutputTokens int `json:"output_tokens"`
}

// Load is what Drive measured. Failed requests count in Errors only.
type Load struct {
	LoadOptions
	Errors        map[string]int `json:"errors,omitempty"` // by message
	PromptTokens  int            `json:"prompt_tokens"`
	CachedTokens  int            `json:"cached_tokens"`
	GotTokens     int            `json:"got_tokens"`
	Seconds       float64        `json:"seconds"`
	OutputPerSec  float64        `json:"output_tokens_per_second"`
	TotalPerSec   float64        `json:"total_tokens_per_second"`
	RequestPerSec float64        `json:"requests_per_second"`
	TTFT          Spread         `json:"ttft"` // request sent to first token
	ITL           Spread         `json:"itl"`  // between the pieces of an answer
	TPOT          Spread         `json:"tpot"` // per answer: mean time per token after the first piece
	E2E           Spread         `json:"e2e"`  // request sent to end
}

// Drive sends the requests and waits for all answers. progress hears how many are done. It fails only if ctx ends.
func Drive(ctx context.Context, t Target, o LoadOptions, progress func(done int)) (Load, error) {
	var (
		mu      sync.Mutex // guards started and answers
		started int
		answers []Answer
		workers sync.WaitGroup
	)
	next := func() bool {
		mu.Lock()
		defer mu.Unlock()
		started++
		return started <= o.Requests && ctx.Err() == nil
	}
	begin := time.Now()
	for range min(o.Concurrency, o.Requests) {
		workers.Go(func() {
			for next() {
				a := t.Ask(ctx, o.InputTokens, o.OutputTokens)
				mu.Lock()
				answers = append(answers, a)
				progress(len(answers))
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return Load{}, context.Cause(ctx)
	}
	return newLoad(o, answers, time.Since(begin)), nil
}

func newLoad(o LoadOptions, answers []Answer, took time.Duration) Load {
	l := Load{LoadOptions: o, Seconds: took.Seconds(), Errors: map[string]int{}}
	var ttft, itl, tpot, e2e []time.Duration
	ok := 0
	for _, a := range answers {
		if a.Err == nil && len(a.Pieces) == 0 {
			a.Err = errors.New("an answer without any text")
		}
		if a.Err != nil {
			l.Errors[a.Err.Error()]++
			continue
		}
		ok++
		l.PromptTokens += a.PromptTokens
		l.CachedTokens += a.CachedTokens
		l.GotTokens += a.OutputTokens
		first, last := a.Pieces[0], a.Pieces[len(a.Pieces)-1]
		ttft = append(ttft, first.At.Sub(a.Sent))
		e2e = append(e2e, a.Done.Sub(a.Sent))
		for i, p := range a.Pieces[1:] {
			itl = append(itl, p.At.Sub(a.Pieces[i].At))
		}
		if n := a.OutputTokens - first.Tokens; n > 0 && len(a.Pieces) > 1 {
			tpot = append(tpot, last.At.Sub(first.At)/time.Duration(n))
		}
	}
	l.OutputPerSec = float64(l.GotTokens) / l.Seconds
	l.TotalPerSec = float64(l.GotTokens+l.PromptTokens) / l.Seconds
	l.RequestPerSec = float64(ok) / l.Seconds
	l.TTFT, l.ITL, l.TPOT, l.E2E = newSpread(ttft), newSpread(itl), newSpread(tpot), newSpread(e2e)
	return l
}
