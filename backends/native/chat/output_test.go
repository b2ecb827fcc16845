package chat

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"pagoda/engine"
)

// runOutput pushes parts until done, and then some.
func runOutput(t *testing.T, cfg OutputConfig, parts []string) (a answer, stop string, done bool, o *Output) {
	t.Helper()
	cfg.Parser.IDs = counter()
	o = NewOutput(cfg)
	var ds []Delta
	for _, s := range parts {
		d, st, end := o.Push(s)
		if ds = append(ds, d...); st != "" {
			stop = st
		}
		done = done || end
	}
	ds = append(ds, o.Close()...)
	if more, _, end := o.Push("more"); more != nil || !end {
		t.Errorf("a closed output yields %+v, done %v", more, end)
	}
	a = join(t, ds)
	a.Whole = o.parser.WholeCalls()
	return a, stop, done, o
}

func TestOutput(t *testing.T) {
	const f = `<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>`
	tools, think := ParserConfig{Tools: "hermes"}, ParserConfig{Reasoning: "qwen3"}
	for _, c := range []struct {
		name   string
		cfg    OutputConfig
		in     string
		want   answer
		stop   string
		done   bool
		finish engine.FinishReason
	}{
		{"plain", OutputConfig{}, "a\nb", answer{Content: "a\nb"}, "", false, "stop"},
		{"stop string", OutputConfig{Stops: []string{"\n"}}, "a\nb", answer{Content: "a"}, "\n", true, "stop"},
		{"stop string kept", OutputConfig{Stops: []string{"\n"}, IncludeStop: true}, "a\nb",
			answer{Content: "a\n"}, "\n", true, "stop"},
		{"held back and not needed", OutputConfig{Stops: []string{"END"}, Parser: all}, "a EN <tool",
			answer{Content: "a EN <tool"}, "", false, "stop"},
		{"stop string in thoughts", OutputConfig{Stops: []string{"b"}, Parser: think}, "<think>abc</think>d",
			answer{Reasoning: "a"}, "b", true, "stop"},
		{"stop string in a mark", OutputConfig{Stops: []string{"</think>"}, Parser: think}, "<think>a\n</think>d",
			answer{Reasoning: "a"}, "</think>", true, "stop"},
		{"stop string in arguments", OutputConfig{Stops: []string{":1"}, Parser: tools}, f + "x",
			answer{Calls: calls("f", `{"a"`)}, ":1", true, "stop"},
		{"stop string in an undecided call", OutputConfig{Stops: []string{"ame"}, Parser: tools}, f,
			answer{Content: `<tool_call>{"n`}, "ame", true, "stop"},
		{"stop string after a call", OutputConfig{Stops: []string{"\n"}, Parser: tools}, f + "\n" + f,
			answer{Calls: calls("f", `{"a":1}`), Whole: 1}, "\n", true, "tool_calls"},
		{"calls", OutputConfig{Parser: tools}, f + f,
			answer{Calls: calls("f", `{"a":1}`, "f", `{"a":1}`), Whole: 2}, "", false, "tool_calls"},
		{"one call", OutputConfig{Parser: one}, f + f,
			answer{Calls: calls("f", `{"a":1}`), Whole: 1}, "", true, "tool_calls"},
		{"unfinished call", OutputConfig{Parser: tools}, f[:len(f)-15],
			answer{Calls: calls("f", `{"a":`)}, "", false, "stop"},
		{"raw", OutputConfig{Raw: true, Parser: all, Stops: []string{"!"}}, "<think>a</think>" + f + "!",
			answer{Content: "<think>a</think>" + f}, "!", true, "stop"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(9, 10))
			for range 300 {
				parts := cutUp(r, c.in)
				got, stop, done, o := runOutput(t, c.cfg, parts)
				if !reflect.DeepEqual(got, c.want) || stop != c.stop || done != c.done {
					t.Fatalf("cut %q\n got %+v, stop %q, done %v\nwant %+v, stop %q, done %v",
						parts, got, stop, done, c.want, c.stop, c.done)
				}
				if fin := o.Finish(engine.FinishStop); fin != c.finish {
					t.Fatalf("finish reason %q, want %q", fin, c.finish)
				}
				if fin := o.Finish(engine.FinishLength); fin != engine.FinishLength {
					t.Fatalf("finish reason %q where the length ended it", fin)
				}
			}
		})
	}
}

func TestOutputInReasoning(t *testing.T) {
	o := NewOutput(OutputConfig{Stops: []string{"STOP"}, Parser: all})
	n := 0
	for _, token := range []string{"<think>", "\n", "a", "</think>", "\n\n", "b"} {
		o.Push(token)
		if o.InReasoning() {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d reasoning tokens, want 3", n)
	}
}
