package chat

import "pagoda/engine"

// OutputConfig says what to do with one choice's text.
type OutputConfig struct {
	Stops       []string
	IncludeStop bool // keep the stop string in the text
	// Raw yields the text as it is but for stop strings: no thoughts, no tool calls, whatever Parser says.
	Raw    bool
	Parser ParserConfig
}

// Output turns one choice's generated text into pieces of its answer. Stop strings are looked for in the text as the
// model wrote it, thoughts and tool calls included.
type Output struct {
	stops  *Stops
	parser *Parser
	done   bool
}

// NewOutput returns an empty output.
func NewOutput(c OutputConfig) *Output {
	if c.Raw {
		c.Parser = ParserConfig{}
	}
	return &Output{stops: NewStops(c.Stops, c.IncludeStop), parser: NewParser(c.Parser)}
}

// Push takes the next piece of text. done tells that the choice has ended here and nothing more should be generated:
// by a stop string, which is then named, or because the only call allowed is made. Later text is dropped.
func (o *Output) Push(text string) (ds []Delta, stop string, done bool) {
	if o.done {
		return nil, "", true
	}
	text, stop, hit := o.stops.Push(text)
	ds = o.parser.Push(text)
	if hit {
		ds = append(ds, o.parser.Close()...)
	}
	o.done = hit || o.parser.Done()
	return ds, stop, o.done
}

// Close returns what was held back, when generation has ended. It may be called after done.
func (o *Output) Close() []Delta {
	if o.done {
		return nil
	}
	o.done = true
	return append(o.parser.Push(o.stops.Flush()), o.parser.Close()...)
}

// InReasoning tells whether the text so far ends inside the thoughts. A token counts as reasoning if this holds after
// its text was pushed: the opening mark does, the closing one does not.
func (o *Output) InReasoning() bool { return !o.done && o.parser.InReasoning() }

// Finish returns the finish reason to report where the runner says reason: a choice that ended by itself with a whole
// tool call has ended for tool calls.
func (o *Output) Finish(reason engine.FinishReason) engine.FinishReason {
	if reason == engine.FinishStop && o.parser.WholeCalls() > 0 {
		return engine.FinishToolCalls
	}
	return reason
}
