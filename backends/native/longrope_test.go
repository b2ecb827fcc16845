package native

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// TestLongRope: an answer that grows beyond the length at which all keys change goes on as a model says it that has only the
// keys of long texts, and before is what one says that has only those of short ones; with whatever the cache holds, and with
// guesses.
func TestLongRope(t *testing.T) {
	const switchLen, numPrompt, numTokens = 64, 40, 70
	start := func(switchLen int, o Options) *Engine {
		t.Helper()
		files := demoFiles(t)
		factors := func(f string) string { return "[1" + strings.Repeat(","+f, 15) + "]" }
		files["config.json"].Data = bytes.Replace(files["config.json"].Data, []byte(`"rope_scaling": null`), fmt.Appendf(nil,
			`"rope_scaling": {"type": "longrope", "short_factor": %s, "long_factor": %s, "attention_factor": 1.1,
			"original_max_position_embeddings": %d}`, factors("1"), factors("4"), switchLen), 1)
		o.Files, o.Name, o.Log = files, "m", zerolog.Nop()
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(context.Background()); err != nil {
				t.Error("close:", err)
			}
		})
		return e
	}
	type token struct {
		id      int32
		logprob float64
	}
	answer := func(e *Engine, prompt []int32, n int) (tokens []token) {
		out, err := run(context.Background(), e, &engine.Request{Model: "m", Tokens: prompt, Output: engine.Output{Logprobs: ptr(0)},
			Sampling: engine.Sampling{Temperature: ptr(0.0), MaxTokens: ptr(n), IgnoreEOS: true}})
		if err != nil || len(out[0].tokens) != n || len(out[0].logprobs) != n {
			t.Fatalf("%d tokens, %d log probabilities, %v", len(out[0].tokens), len(out[0].logprobs), err)
		}
		for i, id := range out[0].tokens {
			tokens = append(tokens, token{id, float64(out[0].logprobs[i].Logprob)})
		}
		return tokens
	}
	prompt := cases(t)[0].PromptIDs
	for len(prompt) < numPrompt {
		prompt = append(prompt, prompt...)
	}
	prompt = prompt[:numPrompt]

	short := answer(start(1024, Options{}), prompt, numTokens)
	const numShort = switchLen + 1 - numPrompt // tokens that come from at most switchLen
	text := slices.Clone(prompt)
	for _, token := range short[:numShort] {
		text = append(text, token.id)
	}
	long := answer(start(1, Options{}), text, numTokens-numShort)
	want := slices.Concat(short[:numShort], long)
	if slices.Equal(short, want) {
		t.Fatal("short and long keys make no difference")
	}
	for name, o := range map[string]Options{"plain": {NoPrefixCache: true}, "prefix cache": {},
		"guesses": {SpeculativeMethod: "ngram", NumSpeculativeTokens: 4}} {
		e := start(switchLen, o)
		for range 2 {
			if got := answer(e, prompt, numTokens); !slices.Equal(got, want) {
				t.Errorf("%s:\n got %v\nwant %v", name, got, want)
			}
		}
	}
}
