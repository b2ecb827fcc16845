package server

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"pagoda/engine"
	"pagoda/openapi"
)

// Limits of what one request may ask for; openapi.yaml says the same.
const (
	maxChoices      = 1024 // of all prompts of a request, best_of counted
	maxStops        = 16
	maxStopLen      = 256 // characters
	maxStopTokens   = 256
	maxLogitBias    = 1024
	maxTokenNumber  = 999_999_999 // largest id that logit_bias may name
	maxTopLogprobs  = 20
	maxCacheSaltLen = 256
	maxSpeculative  = 64 // tokens guessed ahead
	maxPenalty      = 2
	minRepetition   = 0.01 // much less, and logits overflow
	maxRepetition   = 100
	maxTools        = 128
	maxMessages     = 4096
	maxPrompts      = 1024
	maxNameLen      = 256
	maxTemplateArgs = 64
)

// reply says how an answer is to be written, beside what the engine is asked for.
type reply struct {
	model           string
	stream          bool
	usage           bool // a last chunk with the usage
	continuousUsage bool // the usage so far on every chunk
	tokenIDs        bool
	logprobs        bool
	n               int      // choices to return per prompt
	maxChoices      int      // choices that are generated per prompt: n, or best_of
	echo            []string // the prompts' texts, to be put before the answers; nil without echo
}

// sampling checks the fields that both kinds of completion share and fills in what they mean.
func (c *checker) sampling(b *openapi.Sampling, maxN int, req *engine.Request, out *reply) {
	inRange(c, "temperature", b.Temperature, 0, 2)
	c.above("top_p", b.TopP, 0, 1)
	inRange(c, "top_k", b.TopK, -1, math.MaxInt32)
	inRange(c, "min_p", b.MinP, 0, 1)
	c.above("typical_p", b.TypicalP, 0, 1)
	inRange(c, "presence_penalty", b.PresencePenalty, -maxPenalty, maxPenalty)
	inRange(c, "frequency_penalty", b.FrequencyPenalty, -maxPenalty, maxPenalty)
	inRange(c, "repetition_penalty", b.RepetitionPenalty, minRepetition, maxRepetition)
	inRange(c, "n", b.N, 1, maxN)
	inRange(c, "min_tokens", b.MinTokens, 0, math.MaxInt32)
	inRange(c, "priority", b.Priority, math.MinInt32, math.MaxInt32)
	inRange(c, "speculative_tokens", b.SpeculativeTokens, 0, maxSpeculative)
	c.stops(b)
	c.cacheSalt(b.CacheSalt)
	req.Sampling = engine.Sampling{
		Temperature: b.Temperature, TopP: b.TopP, TopK: b.TopK, MinP: b.MinP, TypicalP: b.TypicalP,
		RepetitionPenalty: b.RepetitionPenalty, PresencePenalty: orZero(b.PresencePenalty),
		FrequencyPenalty: orZero(b.FrequencyPenalty), LogitBias: c.logitBias(b.LogitBias), Seed: b.Seed,
		N: max(1, orZero(b.N)), MinTokens: orZero(b.MinTokens), Stop: b.Stop, StopTokenIDs: b.StopTokenIDs,
		IncludeStop: isTrue(b.IncludeStop), IgnoreEOS: isTrue(b.IgnoreEOS),
	}
	if b.DoSample != nil && !*b.DoSample {
		req.Sampling.Temperature = new(0.0)
	}
	req.Output.SkipSpecial = b.SkipSpecialTokens
	req.CacheSalt, req.Priority = orZero(b.CacheSalt), orZero(b.Priority)
	req.SpeculativeTokens = b.SpeculativeTokens
	out.n, out.maxChoices = req.Sampling.N, req.Sampling.N
	req.Output.NameByID = isTrue(b.NameByID)
	out.tokenIDs = isTrue(b.ReturnTokenIDs)
	c.streaming(b, out)
	req.Output.TokenIDs, req.Output.Whole = out.tokenIDs || out.continuousUsage, !out.stream
}

// maxTokens sets the limit of generated tokens, whose field may be absent.
func (c *checker) maxTokens(param string, limit *int, least int, s *engine.Sampling) {
	inRange(c, param, limit, least, math.MaxInt32)
	s.MaxTokens = limit
	if limit != nil && s.MinTokens > *limit {
		c.bad("min_tokens", "must not be greater than %s", param)
	}
}

func (c *checker) stops(b *openapi.Sampling) {
	if len(b.Stop) > maxStops {
		c.bad("stop", "must not have more than %d strings", maxStops)
	}
	for i, s := range b.Stop {
		if s == "" || utf8.RuneCountInString(s) > maxStopLen {
			c.bad(fmt.Sprintf("stop[%d]", i), "must have 1 to %d characters", maxStopLen)
		}
	}
	if len(b.StopTokenIDs) > maxStopTokens {
		c.bad("stop_token_ids", "must not have more than %d ids", maxStopTokens)
	}
	c.tokens("stop_token_ids", b.StopTokenIDs)
}

func (c *checker) cacheSalt(salt *string) {
	if salt != nil && (*salt == "" || utf8.RuneCountInString(*salt) > maxCacheSaltLen) {
		c.bad("cache_salt", "must have 1 to %d characters", maxCacheSaltLen)
	}
}

func (c *checker) logitBias(bias map[int32]*float64) map[int32]float32 {
	if len(bias) == 0 {
		return nil
	}
	if len(bias) > maxLogitBias {
		c.bad("logit_bias", "must not have more than %d entries", maxLogitBias)
	}
	out := make(map[int32]float32, len(bias))
	for id, v := range bias {
		param := fmt.Sprintf("logit_bias[%d]", id)
		if id < 0 || id > maxTokenNumber {
			c.bad(param, "is not a token id")
		}
		if v == nil {
			c.bad(param, "must be a number")
			continue
		}
		inRange(c, param, v, -100, 100)
		out[id] = float32(*v)
	}
	return out
}

func (c *checker) streaming(b *openapi.Sampling, out *reply) {
	out.stream = isTrue(b.Stream)
	o := b.StreamOptions
	if o == nil {
		return
	}
	if !out.stream {
		c.bad("stream_options", "is only allowed with stream")
	}
	if isTrue(o.IncludeObfuscation) {
		c.bad("stream_options.include_obfuscation", "is not supported")
	}
	if isTrue(o.ContinuousUsageStats) && !isTrue(o.IncludeUsage) {
		c.bad("stream_options.continuous_usage_stats", "needs include_usage")
	}
	out.usage, out.continuousUsage = isTrue(o.IncludeUsage), isTrue(o.ContinuousUsageStats)
	c.nested("stream_options.", o.Unknown)
}

// stopReason is what ended a choice, if the client had named it; nil for the model's own end token.
func stopReason(req *engine.Request, ev *engine.Event) *openapi.StopReason {
	switch {
	case ev.StopString != "":
		text := ev.StopString // ev does not last
		return &openapi.StopReason{Text: &text}
	case ev.StopToken != nil && slices.Contains(req.Sampling.StopTokenIDs, *ev.StopToken):
		return &openapi.StopReason{Token: *ev.StopToken}
	}
	return nil
}
