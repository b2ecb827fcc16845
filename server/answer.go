package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"pagoda/engine"
	"pagoda/openapi"
)

// maxPromptsAtOnce bounds how many prompts of one request are with the engine at a time, and maxChoicesAtOnce how many
// choices of them, unless one prompt has more: a request must not fill the queue and be refused by itself.
const (
	maxPromptsAtOnce = 32
	maxChoicesAtOnce = 128
)

// promptEvent is an event of one of a request's prompts, valid until the next one.
type promptEvent struct {
	prompt int
	engine.Event
}

// generateAll gives the events of all reqs, which are the prompts of one HTTP request, to each, one at a time, until that fails. It
// returns the first error, and then nothing runs any more.
func (s *Server) generateAll(r *http.Request, reqs []*engine.Request, each func(*promptEvent) error) error {
	if len(reqs) == 1 {
		return s.generate(r, 0, reqs[0], each)
	}
	return s.generateMany(r, reqs, each)
}

// errGone ends a generation whose answer nobody takes any more.
var errGone = errors.New("nobody takes the answer")

type promptResult struct {
	promptEvent
	err error
}

func (s *Server) generateMany(r *http.Request, reqs []*engine.Request, each func(*promptEvent) error) error {
	ctx, cancel := context.WithCancel(r.Context())
	results := make(chan promptResult)
	var next atomic.Int64
	var workers sync.WaitGroup
	atOnce := max(1, maxChoicesAtOnce/max(1, reqs[0].Sampling.N))
	for range min(len(reqs), maxPromptsAtOnce, atOnce) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(reqs); i = int(next.Add(1)) - 1 {
				if ctx.Err() != nil {
					return
				}
				s.generateOne(r.WithContext(ctx), i, reqs[i], results)
			}
		})
	}
	go func() {
		workers.Wait()
		close(results)
	}()
	defer func() {
		cancel()
		for range results { // until the workers have left
		}
	}()
	for res := range results {
		if res.err != nil {
			return res.err
		}
		if err := each(&res.promptEvent); err != nil {
			return err
		}
	}
	return nil
}

// generateOne sends the events of one prompt until the context of r ends. A panic is an error here, because no
// middleware stands between it and the process.
func (s *Server) generateOne(r *http.Request, prompt int, req *engine.Request, results chan<- promptResult) {
	send := func(res promptResult) error {
		select {
		case results <- res:
			return nil
		case <-r.Context().Done():
			return errGone
		}
	}
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			s.log.Error().Str("request_id", req.ID).Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).
				Msg("a generation panicked")
			_ = send(promptResult{err: engine.Errorf(engine.Internal, "internal error")})
		}
	}()
	err := s.generate(r, prompt, req, func(ev *promptEvent) error { return send(promptResult{promptEvent: *ev}) })
	if err != nil && err != errGone {
		_ = send(promptResult{err: err})
	}
}

// addUsage adds the usage of another prompt of the same request.
func addUsage(sum, u *engine.Usage) {
	sum.Prompt += u.Prompt
	sum.Cached += u.Cached
	sum.Completion += u.Completion
	sum.Reasoning += u.Reasoning
}

// answer is everything that was generated for a request.
type answer struct {
	prompts []promptAnswer
	usage   engine.Usage
}

type promptAnswer struct {
	prompt  *engine.Prompt
	choices []choice
}

type choice struct {
	text, reasoning pieces
	calls           []openapi.ToolCall
	tokens          []int32
	logprobs        []engine.Logprob
	finish          engine.FinishReason
	stop            *openapi.StopReason
}

// pieces joins texts. One that comes alone, as an upstream's whole answer does, is not copied.
type pieces struct {
	first string
	all   strings.Builder // from the second one on
}

func (p *pieces) add(text string) {
	switch {
	case p.first == "":
		p.first = text
	case text != "":
		if p.all.Len() == 0 {
			p.all.WriteString(p.first)
		}
		p.all.WriteString(text)
	}
}

// String returns what was added.
func (p *pieces) String() string {
	if p.all.Len() > 0 {
		return p.all.String()
	}
	return p.first
}

// collect waits for the whole answer.
func (s *Server) collect(r *http.Request, reqs []*engine.Request) (*answer, error) {
	a := &answer{prompts: make([]promptAnswer, len(reqs))}
	for i, req := range reqs {
		a.prompts[i].choices = make([]choice, max(1, req.Sampling.N))
	}
	if err := s.generateAll(r, reqs, func(ev *promptEvent) error { return a.add(reqs[ev.prompt], ev) }); err != nil {
		return nil, err
	}
	for _, p := range a.prompts {
		for i := range p.choices {
			if p.choices[i].finish == "" {
				return nil, endedEarly(r)
			}
		}
	}
	return a, nil
}

// endedEarly is why events stopped before the last choice's end without an error.
func endedEarly(r *http.Request) error {
	if r.Context().Err() != nil {
		return engine.Errorf(engine.Canceled, "the client went away")
	}
	return engine.Errorf(engine.Internal, "the engine ended before the answer did")
}

func (a *answer) add(req *engine.Request, ev *promptEvent) error {
	p := &a.prompts[ev.prompt]
	if ev.Prompt != nil {
		p.prompt = ev.Prompt
	}
	if ev.Usage != nil {
		addUsage(&a.usage, ev.Usage)
	}
	if ev.Index < 0 || ev.Index >= len(p.choices) {
		return engine.Errorf(engine.Internal, "the engine sent choice %d of %d", ev.Index, len(p.choices))
	}
	c := &p.choices[ev.Index]
	c.text.add(ev.Text)
	c.reasoning.add(ev.Reasoning)
	for _, d := range ev.ToolCalls {
		if err := c.call(d); err != nil {
			return err
		}
	}
	c.tokens = append(c.tokens, ev.Tokens...)
	c.logprobs = append(c.logprobs, ev.Logprobs...)
	if ev.Finish != "" {
		c.finish, c.stop = ev.Finish, stopReason(req, &ev.Event)
	}
	return nil
}

func (c *choice) call(d engine.ToolCallDelta) error {
	if d.Index == len(c.calls) {
		c.calls = append(c.calls, openapi.ToolCall{Type: "function"})
	}
	if d.Index < 0 || d.Index >= len(c.calls) {
		return engine.Errorf(engine.Internal, "the engine sent tool call %d of %d", d.Index, len(c.calls))
	}
	call := &c.calls[d.Index]
	call.ID += d.ID
	call.Function.Name += d.Name
	call.Function.Arguments += d.Arguments
	return nil
}

// tokenString shows a token's bytes as text. A part of a character is written as OpenAI does, so that different
// tokens have different names.
func tokenString(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	s.WriteString("bytes:")
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	return s.String()
}

// minLogprob is OpenAI's word for "practically impossible"; JSON has no infinity.
const minLogprob = -9999.0

func finite(logprob float64) float64 {
	if !(logprob >= minLogprob) { // NaN too
		return minLogprob
	}
	return math.Min(logprob, 0)
}

func ints(b []byte) []int {
	out := make([]int, len(b))
	for i, c := range b {
		out[i] = int(c)
	}
	return out
}

func chatLogprobs(logprobs []engine.Logprob) *openapi.ChatLogprobs {
	out := &openapi.ChatLogprobs{Content: make([]openapi.TokenLogprobs, len(logprobs))}
	for i, l := range logprobs {
		top := make([]openapi.TokenLogprob, len(l.Top))
		for k, t := range l.Top {
			top[k] = openapi.TokenLogprob{Token: tokenString(t.Bytes), Logprob: finite(t.Logprob), Bytes: ints(t.Bytes)}
		}
		out.Content[i] = openapi.TokenLogprobs{Token: tokenString(l.Bytes), Logprob: finite(l.Logprob),
			Bytes: ints(l.Bytes), TopLogprobs: top}
	}
	return out
}
