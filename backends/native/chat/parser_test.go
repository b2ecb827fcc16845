package chat

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pagoda/engine"
)

// answer is what all deltas of a choice come to.
type answer struct {
	Content, Reasoning string
	Calls              []engine.ToolCall
	Whole              int
}

// counter returns ids c0, c1, ...
func counter() func() string {
	n := -1
	return func() string { n++; return fmt.Sprintf("c%d", n) }
}

// join adds deltas up and fails if they break the rules of the stream.
func join(t *testing.T, ds []Delta) answer {
	t.Helper()
	var a answer
	for _, d := range ds {
		set := 0
		for _, is := range []bool{d.Text != "", d.Reasoning != "", len(d.ToolCalls) == 1} {
			if is {
				set++
			}
		}
		if set != 1 {
			t.Fatalf("%d fields of %+v are set, want one", set, d)
		}
		a.Content += d.Text
		a.Reasoning += d.Reasoning
		for _, c := range d.ToolCalls {
			first := c.Index == len(a.Calls)
			if first {
				a.Calls = append(a.Calls, engine.ToolCall{ID: c.ID, Name: c.Name})
			}
			if c.Index != len(a.Calls)-1 || first != (c.ID != "") || first != (c.Name != "") {
				t.Fatalf("call delta %+v does not fit after %d calls", c, len(a.Calls))
			}
			a.Calls[c.Index].Arguments += c.Arguments
		}
	}
	return a
}

func parse(t *testing.T, cfg ParserConfig, parts ...string) answer {
	t.Helper()
	cfg.IDs = counter()
	p := NewParser(cfg)
	var ds []Delta
	for _, s := range parts {
		ds = append(ds, p.Push(s)...)
	}
	ds = append(ds, p.Close()...)
	if again := p.Close(); again != nil {
		t.Fatalf("the second Close returns %+v", again)
	}
	a := join(t, ds)
	a.Whole = p.WholeCalls()
	return a
}

func calls(nameArgs ...string) []engine.ToolCall {
	var cs []engine.ToolCall
	for i := 0; i < len(nameArgs); i += 2 {
		cs = append(cs, engine.ToolCall{ID: fmt.Sprintf("c%d", i/2), Name: nameArgs[i], Arguments: nameArgs[i+1]})
	}
	return cs
}

var (
	all  = ParserConfig{Reasoning: "qwen3", Tools: "hermes"}
	open = ParserConfig{Reasoning: "qwen3", Tools: "hermes", OpenThink: true}
	one  = ParserConfig{Tools: "hermes", OneCall: true}
)

var parserCases = []struct {
	name string
	cfg  ParserConfig
	in   string
	want answer
}{
	{"empty", all, "", answer{}},
	{"plain", all, " Hello.\n", answer{Content: " Hello.\n"}},
	{"thoughts", all, "<think>\na\n\nb\n</think>\n\nc\n", answer{Reasoning: "a\n\nb", Content: "c\n"}},
	{"white space before thoughts", all, " \n<think>a</think>b", answer{Reasoning: "a", Content: "b"}},
	{"empty thoughts", all, "<think>\n\n</think>\n\nc", answer{Content: "c"}},
	{"thoughts unfinished", all, "<think>\na\n", answer{Reasoning: "a"}},
	{"thoughts cut inside the mark", all, "<think>a\n</thi", answer{Reasoning: "a\n</thi"}},
	{"marks inside thoughts", all, "<think>a <think> </ <tool_call> </think>b",
		answer{Reasoning: "a <think> </ <tool_call> ", Content: "b"}},
	{"cut inside the first mark", all, "\n<thi", answer{Content: "\n<thi"}},
	{"almost thoughts", all, "<thing>", answer{Content: "<thing>"}},
	{"almost thoughts, then a call", all, `<t<tool_call>{"name":"f"}</tool_call>`,
		answer{Content: "<t", Calls: calls("f", "{}"), Whole: 1}},
	{"thoughts later are content", all, "a<think>b</think>c", answer{Content: "a<think>b</think>c"}},
	{"closed without opening, at once", all, "\n</think>\n\nc", answer{Content: "c"}},
	{"closed without opening, later", all, "a</think>c", answer{Content: "a</think>c"}},
	{"opened by the prompt", open, "\na\n</think>\nb", answer{Reasoning: "a", Content: "b"}},
	{"opened twice", open, "<think>\na</think>b", answer{Reasoning: "a", Content: "b"}},
	{"opened and closed at once", open, "</think>b", answer{Content: "b"}},
	{"opened and never closed", open, "a\n", answer{Reasoning: "a"}},
	{"opened, cut at once", open, "\n<th", answer{Reasoning: "<th"}},
	{"no reasoning wanted", ParserConfig{Tools: "hermes"}, "<think>a</think>", answer{Content: "<think>a</think>"}},
	{"no tools in the request", ParserConfig{}, "<tool_call>\n{\"name\":\"f\"}\n</tool_call> ",
		answer{Content: "<tool_call>\n{\"name\":\"f\"}\n</tool_call> "}},

	{"call", all, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, {}]}}\n</tool_call>",
		answer{Calls: calls("f", `{"a": [1, {}]}`), Whole: 1}},
	{"white space of the arguments is kept", all, "<tool_call>{\"arguments\" : {\n \"a\" : \"x\"  } , \"name\" : \"f\"}</tool_call>",
		answer{Calls: calls("f", "{\n \"a\" : \"x\"  }"), Whole: 1}},
	{"two calls", all, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n" +
		"{\"name\": \"g\", \"arguments\": {\"b\":2}}\n</tool_call>\n", answer{Calls: calls("f", "{}", "g", `{"b":2}`), Whole: 2}},
	{"text around calls", all, "A.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n\nB.\n<tool_call>" +
		"{\"name\":\"g\",\"arguments\":{}}</tool_call> C. ",
		answer{Content: "A.B.C. ", Calls: calls("f", "{}", "g", "{}"), Whole: 2}},
	{"call after thoughts", all, "<think>\nx\n</think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
		answer{Reasoning: "x", Calls: calls("f", "{}"), Whole: 1}},
	{"marks inside a string", all, `<tool_call>{"name":"f","arguments":{"a":"</tool_call><tool_call>\"}"}}</tool_call>`,
		answer{Calls: calls("f", `{"a":"</tool_call><tool_call>\"}"}`), Whole: 1}},
	{"line feed inside a string", all, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"\n\"}}</tool_call>",
		answer{Calls: calls("f", "{\"a\":\"\n\"}"), Whole: 1}},
	{"not ASCII", all, `<tool_call>{"name":"fé","arguments":{"é":"日本"}}</tool_call>`,
		answer{Calls: calls("fé", `{"é":"日本"}`), Whole: 1}},
	{"escaped name", all, `<tool_call>{"n\u0061me":"\u0066","arguments":{}}</tool_call>`,
		answer{Calls: calls("f", "{}"), Whole: 1}},
	{"other keys", all, `<tool_call>{"id":[1],"name":"f","arguments":{"x":1},"name":"g","arguments":{"y":2}}</tool_call>`,
		answer{Calls: calls("f", `{"x":1}`), Whole: 1}},
	{"no arguments", all, `<tool_call>{"name":"f"}</tool_call>`, answer{Calls: calls("f", "{}"), Whole: 1}},
	{"null arguments", all, `<tool_call>{"name":"f","arguments":null}</tool_call>`,
		answer{Calls: calls("f", "{}"), Whole: 1}},
	{"arguments as a string", all, `<tool_call>{"name":"f","arguments":"{\"a\": 1}"}</tool_call>`,
		answer{Calls: calls("f", `{"a": 1}`), Whole: 1}},
	{"arguments as a string, first", all, `<tool_call>{"arguments":"{}","name":"f"}</tool_call>`,
		answer{Calls: calls("f", `{}`), Whole: 1}},
	{"closing mark missing at the end", all, `<tool_call>{"name":"f","arguments":{}}`,
		answer{Calls: calls("f", `{}`), Whole: 1}},
	{"closing mark cut", all, `<tool_call>{"name":"f","arguments":{}}</tool`,
		answer{Content: "</tool", Calls: calls("f", `{}`), Whole: 1}},
	{"closing mark missing before text", all, `<tool_call>{"name":"f","arguments":{}} </x <tool_call>{"name":"g"}</tool_call>`,
		answer{Content: "</x", Calls: calls("f", `{}`, "g", "{}"), Whole: 2}},
	{"last brace missing", all, "<tool_call>{\"name\":\"f\",\"arguments\":{}</tool_call>x",
		answer{Content: "x", Calls: calls("f", `{}`), Whole: 1}},
	{"last brace missing, line feed", all, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":{}}\n</tool_call>x",
		answer{Content: "x", Calls: calls("f", `{"a":{}}`), Whole: 1}},
	{"last brace missing at the end", all, "<tool_call>{\"name\":\"f\",\"arguments\":{}",
		answer{Calls: calls("f", `{}`), Whole: 1}},
	{"last brace missing, name last", all, `<tool_call>{"arguments":{"a":1},"name":"f"`,
		answer{Calls: calls("f", `{"a":1}`), Whole: 1}},
	{"stray closing mark", all, "a</tool_call>", answer{Content: "a</tool_call>"}},

	{"arguments unfinished", all, `<tool_call>{"name":"f","arguments":{"a":`, answer{Calls: calls("f", `{"a":`)}},
	{"arguments bad", all, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": oops}}\n</tool_call>\nB",
		answer{Content: "B", Calls: calls("f", "{\"a\": oops}}\n")}},
	{"arguments bad, cut inside the mark", all, `<tool_call>{"name":"f","arguments":{oops<</tool_c`,
		answer{Calls: calls("f", `{oops<</tool_c`)}},
	{"arguments bad, mark in them", all, `<tool_call>{"name":"f","arguments":{"a":1</tool_call>B`,
		answer{Content: "B", Calls: calls("f", `{"a":1`)}},
	{"mark only", all, "a <tool_call>", answer{Content: "a <tool_call>"}},
	{"mark cut", all, "a <tool_ca", answer{Content: "a <tool_ca"}},
	{"mark twice", all, "<tool_call>\n<tool_call>\n{\"name\":\"f\"}\n</tool_call>",
		answer{Content: "<tool_call>\n", Calls: calls("f", "{}"), Whole: 1}},
	{"not JSON", all, "A \n<tool_call>\nf(x)\n</tool_call>\n", answer{Content: "A \n<tool_call>\nf(x)\n</tool_call>\n"}},
	{"bad JSON before the name", all, "<tool_call>{'name':'f'}</tool_call>",
		answer{Content: "<tool_call>{'name':'f'}</tool_call>"}},
	{"name missing", all, `<tool_call>{"arguments":{"a":1}} </tool_call>`,
		answer{Content: `<tool_call>{"arguments":{"a":1}} </tool_call>`}},
	{"name empty", all, `<tool_call>{"name":"","arguments":{}}</tool_call>`,
		answer{Content: `<tool_call>{"name":"","arguments":{}}</tool_call>`}},
	{"name no string", all, `<tool_call>{"name":1}</tool_call>`, answer{Content: `<tool_call>{"name":1}</tool_call>`}},
	{"name unfinished", all, `<tool_call>{"name":"f`, answer{Content: `<tool_call>{"name":"f`}},
	{"name known, nothing else", all, `<tool_call>{"name":"f", "argum`, answer{Content: `<tool_call>{"name":"f", "argum`}},
	{"arguments a list", all, `<tool_call>{"name":"f","arguments":[1]}</tool_call>`,
		answer{Content: `<tool_call>{"name":"f","arguments":[1]}</tool_call>`}},
	{"arguments a number", all, `<tool_call>{"name":"f","arguments":7}</tool_call>`,
		answer{Content: `<tool_call>{"name":"f","arguments":7}</tool_call>`}},
	{"arguments a string, not JSON", all, `<tool_call>{"name":"f","arguments":"{a"}</tool_call>`,
		answer{Content: `<tool_call>{"name":"f","arguments":"{a"}</tool_call>`}},
	{"arguments first, bad", all, `<tool_call>{"arguments":{a},"name":"f"}</tool_call>`,
		answer{Content: `<tool_call>{"arguments":{a},"name":"f"}</tool_call>`}},

	{"one call wanted", one, `A <tool_call>{"name":"f","arguments":{}}</tool_call> B <tool_call>{"name":"g"}</tool_call>`,
		answer{Content: "A", Calls: calls("f", "{}"), Whole: 1}},
	{"one call wanted, the first is none", one, `<tool_call>x</tool_call><tool_call>{"name":"g"}</tool_call>B`,
		answer{Content: "<tool_call>x</tool_call>", Calls: calls("g", "{}"), Whole: 1}},
	{"one call wanted, its brace missing", one, `<tool_call>{"name":"f","arguments":{}</tool_call>B`,
		answer{Calls: calls("f", "{}"), Whole: 1}},
	{"one call wanted, bad arguments", one, `<tool_call>{"name":"f","arguments":{x}}</tool_call>B`,
		answer{Calls: calls("f", "{x}}")}},
}

// TestParser cuts every text at every pair of places, long ones at some.
func TestParser(t *testing.T) {
	for _, c := range append(parserCases, formatCases...) {
		t.Run(c.name, func(t *testing.T) {
			stride := 1 + len(c.in)/100
			for i := 0; i <= len(c.in); i += stride {
				for j := i; j <= len(c.in); j += stride {
					if got := parse(t, c.cfg, c.in[:i], c.in[i:j], c.in[j:]); !reflect.DeepEqual(got, c.want) {
						t.Fatalf("cut at %d and %d\n got %+v\nwant %+v", i, j, got, c.want)
					}
				}
			}
			if got := parse(t, c.cfg, strings.Split(c.in, "")...); !reflect.DeepEqual(got, c.want) {
				t.Errorf("character by character\n got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestParserStreams(t *testing.T) {
	p := NewParser(ParserConfig{Reasoning: "qwen3", Tools: "hermes", IDs: counter()})
	call := func(d engine.ToolCallDelta) []Delta { return []Delta{{ToolCalls: []engine.ToolCallDelta{d}}} }
	for _, c := range []struct {
		in   string
		want []Delta
	}{
		{"<think>\n", nil},
		{"Hm", []Delta{{Reasoning: "Hm"}}},
		{".\n", []Delta{{Reasoning: "."}}},
		{"</think>\n\nI ", []Delta{{Text: "I"}}},
		{"look < ", []Delta{{Text: " look <"}}},
		{"<tool_call>\n{\"name\": \"f\"", nil},
		{", \"arguments\": ", nil},
		{"{", call(engine.ToolCallDelta{ID: "c0", Name: "f", Arguments: "{"})},
		{"\"city", call(engine.ToolCallDelta{Arguments: "\"city"})},
		{"\": 1}}", call(engine.ToolCallDelta{Arguments: "\": 1}"})},
		{"\n</tool_call>", nil},
		{"\n<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>",
			call(engine.ToolCallDelta{Index: 1, ID: "c1", Name: "g", Arguments: "{}"})},
		{" Bye", []Delta{{Text: "Bye"}}},
	} {
		if got := p.Push(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("Push(%q)\n got %+v\nwant %+v", c.in, got, c.want)
		}
	}
	if got := p.Close(); got != nil {
		t.Errorf("Close returns %+v", got)
	}
}

func TestParserStates(t *testing.T) {
	p := NewParser(ParserConfig{Reasoning: "qwen3", Tools: "hermes", OneCall: true})
	for _, c := range []struct {
		in              string
		reasoning, done bool
	}{
		{"", false, false},
		{"<think>", true, false},
		{"a", true, false},
		{"</think>", false, false},
		{"b<tool_call>{\"name\":\"f\"", false, false},
		{"}", false, true},
	} {
		p.Push(c.in)
		if p.InReasoning() != c.reasoning || p.Done() != c.done {
			t.Errorf("after %q: in reasoning %v, done %v", c.in, p.InReasoning(), p.Done())
		}
	}
	if !NewParser(open).InReasoning() {
		t.Error("a prompt that opens the thoughts is not seen")
	}
}

// demoCase is a line of the built-in model's cases.jsonl, as far as it matters here.
type demoCase struct {
	Skill          string
	Messages       []demoMessage
	Tools          []json.RawMessage
	EnableThinking *bool `json:"enable_thinking"`
	Expected       string
	ExpectedCalls  []struct {
		Name      string
		Arguments any
	} `json:"expected_tool_calls"`
	ExpectedReasoning string `json:"expected_reasoning"`
	PromptText        string `json:"prompt_text"`
	GreedyText        string `json:"greedy_text"`
}

type demoMessage struct {
	Role       string
	Content    *string
	ToolCallID string `json:"tool_call_id"`
	ToolCalls  []struct {
		ID       string
		Function engine.ToolCall
	} `json:"tool_calls"`
}

func demoCases(t testing.TB) []demoCase {
	t.Helper()
	f, err := os.Open("../../../models/demo/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []demoCase
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c demoCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if lines.Err() != nil || len(cases) != 150 {
		t.Fatalf("%d cases, error %v", len(cases), lines.Err())
	}
	return cases
}

func TestParserDemoCases(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for i, c := range demoCases(t) {
		cfg := ParserConfig{Reasoning: "qwen3", Tools: map[bool]string{true: "hermes"}[len(c.Tools) > 0]}
		for range 20 {
			got := parse(t, cfg, cutUp(r, c.GreedyText)...)
			if got.Content != c.Expected || got.Reasoning != c.ExpectedReasoning || len(got.Calls) != len(c.ExpectedCalls) {
				t.Fatalf("case %d (%s): got %+v from %q", i, c.Skill, got, c.GreedyText)
			}
			for j, want := range c.ExpectedCalls {
				var args any
				if err := json.Unmarshal([]byte(got.Calls[j].Arguments), &args); err != nil {
					t.Fatal(err)
				}
				if got.Calls[j].Name != want.Name || !reflect.DeepEqual(args, want.Arguments) {
					t.Errorf("case %d, call %d: got %+v, want %+v", i, j, got.Calls[j], want)
				}
			}
		}
	}
}

// TestParserAnyCuts damages the texts of the tables and the model and compares cut with whole.
func TestParserAnyCuts(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var texts []string
	for _, c := range append(parserCases, formatCases...) {
		texts = append(texts, c.in)
	}
	for _, c := range demoCases(t) {
		texts = append(texts, c.GreedyText)
	}
	cfgs := []ParserConfig{all, open, one, {Reasoning: "qwen3"}, {}}
	for _, f := range ToolFormats() {
		cfgs = append(cfgs, ParserConfig{Tools: f, Schemas: toolSchemas}, ParserConfig{Tools: f, OneCall: true, Reasoning: "openai_gptoss"},
			ParserConfig{Tools: f, Reasoning: "granite", Schemas: toolSchemas})
	}
	for range 20000 {
		text := texts[r.IntN(len(texts))] + texts[r.IntN(len(texts))]
		for range r.IntN(4) {
			if len(text) == 0 {
				break
			}
			i := r.IntN(len(text))
			j := i + r.IntN(min(8, len(text)-i)+1)
			text = text[:i] + text[r.IntN(i+1):j] + text[i:]
		}
		checkCuts(t, r, cfgs[r.IntN(len(cfgs))], text)
	}
}

// checkCuts compares text in pieces with text as a whole, and looks that nothing but marks and white space got lost.
func checkCuts(t *testing.T, r *rand.Rand, cfg ParserConfig, text string) {
	t.Helper()
	whole := parse(t, cfg, text)
	parts := cutUp(r, text)
	if got := parse(t, cfg, parts...); !reflect.DeepEqual(got, whole) {
		t.Fatalf("%q\n cut %q\n got %+v\nwant %+v", text, parts, got, whole)
	}
	if cfg.Tools == "" && cfg.Reasoning == "" && whole.Content != text {
		t.Fatalf("%q is changed to %q", text, whole.Content)
	}
	if len(whole.Calls) == 0 && cfg.Reasoning == "" && cfg.Tools != "openai" && whole.Content != text {
		t.Fatalf("%q without a call is changed to %q", text, whole.Content)
	}
	for i, c := range whole.Calls {
		if c.Arguments == "" && len(whole.Calls) == whole.Whole || i < whole.Whole && len(whole.Calls) == whole.Whole && c.Arguments[0] != '{' {
			t.Fatalf("%q: call %d has arguments %q", text, i, c.Arguments)
		}
	}
}

func FuzzParser(f *testing.F) {
	thinks, tools := append(ReasoningFormats(), ""), append(ToolFormats(), "")
	for i, c := range append(parserCases, formatCases...) {
		f.Add(c.in, uint64(i), uint8(slices.Index(thinks, c.cfg.Reasoning)), c.cfg.OpenThink, uint8(slices.Index(tools, c.cfg.Tools)), c.cfg.OneCall)
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64, think uint8, openThink bool, tool uint8, oneCall bool) {
		cfg := ParserConfig{Reasoning: thinks[int(think)%len(thinks)], OpenThink: openThink, Tools: tools[int(tool)%len(tools)],
			OneCall: oneCall, Schemas: toolSchemas}
		checkCuts(t, rand.New(rand.NewPCG(seed, 0)), cfg, text)
	})
}

func TestParserBoundsWhatItHolds(t *testing.T) {
	long := strings.Repeat("a", 2*maxHeld)
	for _, c := range []struct{ name, in, held string }{
		{"call without a name", `<tool_call>{"x":"` + long, ""},
		{"white space in a call", `<tool_call>` + strings.ReplaceAll(long, "a", " "), ""},
		{"white space in content", "a" + strings.ReplaceAll(long, "a", "\n"), ""},
		{"white space at the start", strings.ReplaceAll(long, "a", "\n"), ""},
		{"key in a begun call", `<tool_call>{"name":"f","arguments":{},"` + long, `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewParser(all)
			ds := p.Push(c.in)
			size := len(p.held) + cap(p.buf)
			if p.call != nil {
				size += len(p.call.raw) + cap(p.call.token) + len(p.call.args)
			}
			if size > 4*maxHeld {
				t.Errorf("%d bytes are held", size)
			}
			a := join(t, append(ds, p.Close()...))
			if c.held == "" && a.Content != c.in {
				t.Errorf("%d of %d bytes came back", len(a.Content), len(c.in))
			}
			if c.held != "" && (len(a.Calls) != 1 || a.Calls[0].Arguments != c.held) {
				t.Errorf("got %+v", a)
			}
		})
	}
}

// TestParserTime: the time is in proportion to the text, whatever it is made of.
func TestParserTime(t *testing.T) {
	for _, format := range ToolFormats() {
		f := toolFormats[format]
		pieces := append([]string{"x", " ", "<", "{\"", "[", "f\n", "<function=f><parameter=k>", "f<arg_key>k</arg_key><arg_value>", "[ARGS]"},
			slices.Concat(f.open, f.after, harmonyMarks)...)
		for _, a := range append(f.open, "<|channel|>") {
			for _, b := range pieces {
				start := time.Now()
				p := NewParser(ParserConfig{Tools: format, Schemas: toolSchemas})
				p.Push(a + strings.Repeat(b, 20_000/len(b)))
				p.Push(strings.Repeat(a+b, 20_000/len(a+b)))
				p.Close()
				if took := time.Since(start); took > time.Second {
					t.Errorf("%s: %q and %q take %v", format, a, b, took)
				}
			}
		}
	}
}

func TestNewCallID(t *testing.T) {
	seen := map[string]bool{}
	letters := map[rune]bool{}
	for range 1000 {
		id := NewCallID()
		if rest, ok := strings.CutPrefix(id, "call_"); !ok || len(rest) != 24 || seen[id] {
			t.Fatalf("bad or repeated id %q", id)
		} else {
			for _, c := range rest {
				letters[c] = true
			}
		}
		seen[id] = true
	}
	if len(letters) != 62 {
		t.Errorf("%d different digits, want 62", len(letters))
	}
}

func BenchmarkParser(b *testing.B) {
	text := "<think>\n" + strings.Repeat("some thoughts\n", 1000) + "</think>\n\n" + strings.Repeat("some words ", 1000) +
		`<tool_call>{"name":"f","arguments":{"a":"` + strings.Repeat("some words ", 1000) + `"}}</tool_call>`
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		p := NewParser(all)
		for i := 0; i < len(text); i += 4 {
			p.Push(text[i:min(i+4, len(text))])
		}
		p.Close()
	}
}
