package chat

import (
	"encoding/json"
	"slices"
	"testing"
)

// toolSchemas are tools f, with a string s and a number n, and g without parameters.
var toolSchemas = []json.RawMessage{
	json.RawMessage(`{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{` +
		`"s":{"type":"string"},"n":{"type":"integer"},"any":{}}}}}`),
	json.RawMessage(`{"type":"function","function":{"name":"g"}}`),
}

func tool(format string) ParserConfig { return ParserConfig{Tools: format, Schemas: toolSchemas} }

func think(format string) ParserConfig { return ParserConfig{Reasoning: format} }

var gptOSS = ParserConfig{Reasoning: "openai_gptoss", Tools: "openai"}

// formatCases are calls and thoughts in the forms of the families, well made and not.
var formatCases = []struct {
	name string
	cfg  ParserConfig
	in   string
	want answer
}{
	{"llama3", tool("llama3_json"), `{"name": "f", "parameters": {"n": 1}}`, answer{Calls: calls("f", `{"n": 1}`), Whole: 1}},
	{"llama3, several", tool("llama3_json"), "\n{\"name\": \"f\", \"parameters\": {\"n\": 1}}; {\"name\": \"g\", \"arguments\": {}}\n",
		answer{Calls: calls("f", `{"n": 1}`, "g", "{}"), Whole: 2}},
	{"llama3, mark", tool("llama3_json"), `<|python_tag|>{"type": "function", "name": "h", "parameters": {}}`,
		answer{Calls: calls("h", "{}"), Whole: 1}},
	{"llama3, no tool of the request", tool("llama3_json"), `{"name": "Bob", "parameters": {"age": 3}}`,
		answer{Content: `{"name": "Bob", "parameters": {"age": 3}}`}},
	{"llama3, name alone", tool("llama3_json"), `{"name": "f"} x`, answer{Content: `{"name": "f"} x`}},
	{"llama3, text first", tool("llama3_json"), `Sure: {"name": "f", "parameters": {}}`, answer{Content: `Sure: {"name": "f", "parameters": {}}`}},
	{"llama3, broken", tool("llama3_json"), `{"name": "f", "parameters": {"n": 1`, answer{Calls: calls("f", `{"n": 1`)}},

	{"mistral, list", tool("mistral"), `Hm. [TOOL_CALLS] [{"name": "f", "arguments": {"n": 1}}, {"arguments": {}, "name": "g"}] x`,
		answer{Content: "Hm.x", Calls: calls("f", `{"n": 1}`, "g", "{}"), Whole: 2}},
	{"mistral, one object", tool("mistral"), `[TOOL_CALLS]{"name": "f", "arguments": {}}`, answer{Calls: calls("f", "{}"), Whole: 1}},
	{"mistral, names", tool("mistral"), `[TOOL_CALLS]f[ARGS]{"s": "a}"}[TOOL_CALLS]g[CALL_ID]abcdefghi[ARGS]{}`,
		answer{Calls: calls("f", `{"s": "a}"}`, "g", "{}"), Whole: 2}},
	{"mistral, name without mark", tool("mistral"), `[TOOL_CALLS]f{"s": "a"}`, answer{Calls: calls("f", `{"s": "a"}`), Whole: 1}},
	{"mistral, list broken", tool("mistral"), `[TOOL_CALLS] [{"name": "f", "arguments": {}}, oops]`,
		answer{Content: `, oops]`, Calls: calls("f", "{}"), Whole: 1}},
	{"mistral, list not closed", tool("mistral"), `[TOOL_CALLS] [{"name": "f", "arguments": {}}`, answer{Calls: calls("f", "{}"), Whole: 1}},
	{"mistral, empty list", tool("mistral"), `[TOOL_CALLS] []`, answer{Content: `[TOOL_CALLS] []`}},
	{"mistral, prose", tool("mistral"), `[TOOL_CALLS] what is {this}?`, answer{Content: `[TOOL_CALLS] what is {this}?`}},
	{"mistral, second mark", tool("mistral"), `[TOOL_CALLS] what (is) [TOOL_CALLS]f[ARGS]{}`,
		answer{Content: "[TOOL_CALLS] what (is)", Calls: calls("f", "{}"), Whole: 1}},
	{"mistral, thoughts", think("mistral"), "[THINK]a[/THINK]b", answer{Reasoning: "a", Content: "b"}},

	{"deepseek v3", tool("deepseek_v3"), "So.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"n\": 1}\n```<｜tool▁call▁end｜>\n" +
		"<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
		answer{Content: "So.", Calls: calls("f", `{"n": 1}`, "g", "{}"), Whole: 2}},
	{"deepseek v3.1", tool("deepseek_v31"), "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"n\": 1}<｜tool▁call▁end｜>" +
		"<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", answer{Calls: calls("f", `{"n": 1}`, "g", "{}"), Whole: 2}},
	{"deepseek, broken arguments", tool("deepseek_v31"), "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{oops<｜tool▁call▁end｜>x",
		answer{Content: "x", Calls: calls("f", "{oops")}},
	{"deepseek, prose", tool("deepseek_v31"), "a<｜tool▁call▁begin｜>b c<｜tool▁sep｜>{}", answer{Content: "a<｜tool▁call▁begin｜>b c<｜tool▁sep｜>{}"}},

	{"glm4", tool("glm4"), "\nf\n{\"n\": 1}", answer{Calls: calls("f", `{"n": 1}`), Whole: 1}},
	{"glm4, no tool", tool("glm4"), "fine\n{}", answer{Content: "fine\n{}"}},
	{"glm45", tool("glm45"), "A\n<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>12</arg_value>\n<arg_key>n</arg_key>\n<arg_value>12</arg_value>\n" +
		"<arg_key>any</arg_key>\n<arg_value>x <b> \"y\"\n</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
		answer{Content: "A", Calls: calls("f", `{"s": "12", "n": 12, "any": "x <b> \"y\"\n"}`, "g", "{}"), Whole: 2}},
	{"glm47", tool("glm47"), "<tool_call>f<arg_key>n</arg_key><arg_value>[1, {}]</arg_value></tool_call><tool_call>g</tool_call>",
		answer{Calls: calls("f", `{"n": [1, {}]}`, "g", "{}"), Whole: 2}},
	{"glm45, prose between", tool("glm45"), "<tool_call>f\nhello</tool_call>", answer{Content: "<tool_call>f\nhello</tool_call>"}},
	{"glm45, cut off", tool("glm45"), "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>1", answer{Calls: calls("f", "")}},
	{"glm45, prose after an argument", tool("glm45"), "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>1</arg_value> and</tool_call>b",
		answer{Content: "b", Calls: calls("f", `{"n": 1and`)}},

	{"qwen3_coder", tool("qwen3_coder"), "<tool_call>\n<function=f>\n<parameter=s>\nline 1\n\nTrue\n</parameter>\n<parameter=any>\nTrue\n</parameter>\n" +
		"</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>x",
		answer{Content: "x", Calls: calls("f", `{"s": "line 1\n\nTrue", "any": true}`, "g", "{}"), Whole: 2}},
	{"qwen3_coder, JSON", tool("qwen3_coder"), `<tool_call>{"name":"f"}</tool_call>`, answer{Content: `<tool_call>{"name":"f"}</tool_call>`}},
	{"qwen3_coder, second mark", tool("qwen3_coder"), "<tool_call>\n<func <tool_call><function=g></function></tool_call>",
		answer{Content: "<tool_call>\n<func", Calls: calls("g", "{}"), Whole: 1}},

	{"pythonic", tool("pythonic"), `[f(s='a\'b\n', n=-1.5, any={"k": [True, None, (1,)]}), g()] x`,
		answer{Content: "x", Calls: calls("f", `{"s": "a'b\n", "n": -1.5, "any": {"k": [true, null, [1]]}}`, "g", "{}"), Whole: 2}},
	{"pythonic, no tool", tool("pythonic"), `[h(a=1)]`, answer{Content: `[h(a=1)]`}},
	{"pythonic, a list", tool("pythonic"), `[1, 2] and [f(n=1)]`, answer{Content: `[1, 2] and [f(n=1)]`}},
	{"pythonic, cut off", tool("pythonic"), `[f(s="a`, answer{Content: `[f(s="a`}},
	{"pythonic, positional", tool("pythonic"), `[f(1)]`, answer{Content: `[f(1)]`}},
	{"llama4", tool("llama4_pythonic"), "<|python_start|>[f(n=1)]<|python_end|>", answer{Calls: calls("f", `{"n": 1}`), Whole: 1}},
	{"lfm2", tool("lfm2"), `<|tool_call_start|>[f(s="日本")]<|tool_call_end|>Done.`, answer{Content: "Done.", Calls: calls("f", `{"s": "日本"}`), Whole: 1}},
	{"seed", tool("seed_oss"), "<seed:tool_call>\n<function=f>\n<parameter=s>1</parameter>\n</function>\n</seed:tool_call>", answer{Calls: calls("f", `{"s": "1"}`), Whole: 1}},
	{"seed, thoughts", think("seed_oss"), "<seed:think>a</seed:think>b", answer{Reasoning: "a", Content: "b"}},
	{"minimax", tool("minimax_m2"), "A<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"n\">1</parameter>\n</invoke>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
		answer{Content: "A", Calls: calls("f", `{"n": 1}`, "g", "{}"), Whole: 2}},
	{"granite", tool("granite"), `<|tool_call|>[{"name": "f", "arguments": {"n": 1}}, {"name": "g", "arguments": {}}]`,
		answer{Calls: calls("f", `{"n": 1}`, "g", "{}"), Whole: 2}},
	{"granite, thoughts", think("granite"), "Here is my thought process: a\nHere is my response:\nb", answer{Reasoning: " a", Content: "b"}},
	{"phi4", tool("phi4_mini_json"), `<|tool_call|>[{"name": "f", "arguments": {"n": 1}}]<|/tool_call|>`, answer{Calls: calls("f", `{"n": 1}`), Whole: 1}},
	{"phi4, functools", tool("phi4_mini_json"), `functools[{"name": "f", "arguments": {"n": 1}}]`, answer{Calls: calls("f", `{"n": 1}`), Whole: 1}},
	{"phi4, the word", tool("phi4_mini_json"), `import functools; functools`, answer{Content: `import functools; functools`}},

	{"gpt-oss", gptOSS, "<|channel|>analysis<|message|>Hm <b>.<|end|><|start|>assistant<|channel|>commentary<|message|>Now.<|end|><|start|>assistant" +
		"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"n\": 1} <|call|>",
		answer{Reasoning: "Hm <b>.", Content: "Now.", Calls: calls("f", `{"n": 1}`), Whole: 1}},
	{"gpt-oss, recipient in front", gptOSS, "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}", answer{Calls: calls("f", "{}"), Whole: 1}},
	{"gpt-oss, final", gptOSS, "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>c<|return|>",
		answer{Reasoning: "a\nb", Content: "c"}},
	{"gpt-oss, plain", gptOSS, "Hello <|", answer{Content: "Hello <|"}},
	{"gpt-oss, header only", gptOSS, "<|channel|>analysis", answer{Content: "<|channel|>analysis"}},
	{"gpt-oss, broken arguments", gptOSS, "<|channel|>commentary to=functions.f<|message|>{oops<|call|>", answer{Calls: calls("f", "{oops")}},
	{"gpt-oss, no arguments", gptOSS, "<|channel|>commentary to=functions.f<|message|><|call|>", answer{Calls: calls("f", "{}"), Whole: 1}},
	{"gpt-oss, thoughts only", ParserConfig{Reasoning: "openai_gptoss"}, "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}<|call|>",
		answer{Reasoning: "a", Content: "{}"}},
	{"gpt-oss, one call", ParserConfig{Tools: "openai", OneCall: true}, "<|channel|>commentary to=functions.f<|message|>{}<|call|>x", answer{Calls: calls("f", "{}"), Whole: 1}},
}

func TestCallIDs(t *testing.T) {
	p := NewParser(tool("mistral"))
	ds := p.Push(`[TOOL_CALLS]f[ARGS]{}`)
	if id := ds[0].ToolCalls[0].ID; len(id) != 9 {
		t.Errorf("id %q has not the nine letters that Mistral's templates want", id)
	}
}

func TestMarks(t *testing.T) {
	for _, want := range [][3]string{{"qwen3", "hermes", "</tool_call>"}, {"", "mistral", "[ARGS]"}, {"", "deepseek_v3", sepDeepseek},
		{"gpt_oss", "", "<|channel|>"}, {"mistral", "", "[THINK]"}, {"", "qwen3_coder", "</parameter>"}} {
		if got := Marks(want[0], want[1]); !slices.Contains(got, want[2]) || slices.Contains(got, "") {
			t.Errorf("Marks(%q, %q) = %q", want[0], want[1], got)
		}
	}
	if got := Marks("", ""); len(got) != 0 {
		t.Errorf("no formats have marks %q", got)
	}
}
