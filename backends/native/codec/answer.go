package codec

import (
	"slices"

	"pagoda/backends/native/chat"
	"pagoda/backends/native/token"
	"pagoda/engine"
)

// EndTokens are the tokens that end a choice: the model's own unless ignored, and the request's.
func (c *Codec) EndTokens(s *engine.Sampling) []int32 {
	if s.IgnoreEOS {
		return slices.Clone(s.StopTokenIDs)
	}
	return slices.Concat(c.end, s.StopTokenIDs)
}

// StopStrings are the texts that end an answer to req: its own and, for a chat, the template's.
func (c *Codec) StopStrings(req *engine.Request) []string {
	if req.Chat == nil || len(c.stopStrings) == 0 {
		return req.Sampling.Stop
	}
	return slices.Concat(req.Sampling.Stop, c.stopStrings)
}

// Choice turns what is generated of one choice into pieces of its answer. It belongs to one goroutine.
type Choice struct {
	text *token.Stream
	out  *chat.Output
}

// NewChoice is for an answer to req, whose prompt is p. skipSpecial leaves control tokens out of the text, but for the marks
// that calls and thoughts are told by.
func (c *Codec) NewChoice(req *engine.Request, p Prompt, skipSpecial bool) *Choice {
	o := c.outputConfig(req, p)
	text := c.tok.NewStream(skipSpecial)
	if req.Chat != nil && !o.Raw {
		text.Keep(c.marks[o.Parser.Tools])
	}
	return &Choice{text, chat.NewOutput(o)}
}

// NeedsMarks says that calls or thoughts of answers to req are told by control tokens.
func (c *Codec) NeedsMarks(req *engine.Request) bool {
	o := c.outputConfig(req, Prompt{})
	return !o.Raw && len(c.marks[o.Parser.Tools]) > 0
}

// outputConfig tells how the text of a choice is read: stop strings, thoughts, tool calls.
func (c *Codec) outputConfig(req *engine.Request, p Prompt) chat.OutputConfig {
	o := chat.OutputConfig{Stops: c.StopStrings(req), IncludeStop: req.Sampling.IncludeStop,
		Raw: req.Output.Raw || req.Chat == nil}
	if ch := req.Chat; ch != nil {
		o.Parser = chat.ParserConfig{
			Reasoning: c.reasoning,
			OpenThink: p.openThink,
			Schemas:   ch.Tools,
			OneCall:   ch.ParallelToolCalls != nil && !*ch.ParallelToolCalls,
		}
		if len(ch.Tools) > 0 && ch.ToolChoice != "none" {
			o.Parser.Tools = c.tools
		}
	}
	return o
}

// Token adds what a token decides to ev. ended tells that the choice ends here: by a stop string, which is then named, or
// because the only call allowed is made.
func (c *Choice) Token(ev *engine.Event, id int32) (stop string, ended bool) {
	return c.Text(ev, c.text.Add(id))
}

// Text is Token for text whose tokens are not known.
func (c *Choice) Text(ev *engine.Event, text string) (stop string, ended bool) {
	ds, stop, ended := c.out.Push(text)
	addDeltas(ev, ds)
	return stop, ended
}

// Close adds what was held back when generation has ended. A stop string may still be found in it.
func (c *Choice) Close(ev *engine.Event) (stop string, ended bool) {
	if stop, ended = c.Text(ev, c.text.Flush()); !ended {
		addDeltas(ev, c.out.Close())
	}
	return stop, ended
}

// InReasoning tells whether the text so far ends inside the thoughts.
func (c *Choice) InReasoning() bool { return c.out.InReasoning() }

// Finish returns the finish reason to report for reason.
func (c *Choice) Finish(reason engine.FinishReason) engine.FinishReason { return c.out.Finish(reason) }

func addDeltas(ev *engine.Event, ds []chat.Delta) {
	for _, d := range ds {
		ev.Text += d.Text
		ev.Reasoning += d.Reasoning
		ev.ToolCalls = append(ev.ToolCalls, d.ToolCalls...)
	}
}
