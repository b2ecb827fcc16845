package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pagoda/engine"
)

// rendererFunc is a Renderer in Go.
type rendererFunc func(context []byte) (string, error)

func (f rendererFunc) Render(context []byte) (string, error) { return f(context) }

// echo returns the context as it is.
func echo(context []byte) (string, error) { return string(context), nil }

// chatML renders as the built-in model's template does, by hand.
func chatML(context []byte) (string, error) {
	var v struct {
		Messages       []message
		Tools          []json.RawMessage
		Open           bool  `json:"add_generation_prompt"`
		EnableThinking *bool `json:"enable_thinking"`
	}
	if err := json.Unmarshal(context, &v); err != nil {
		return "", err
	}
	var b strings.Builder
	system, rest := "", v.Messages
	if rest[0].Role == "system" {
		system, rest = *rest[0].Content, rest[1:]
	}
	if system != "" || v.Tools != nil {
		b.WriteString("<|im_start|>system\n" + system)
		if v.Tools != nil {
			if system != "" {
				b.WriteString("\n\n")
			}
			b.WriteString("# Tools\n\nYou can call these functions:\n<tools>\n")
			for _, t := range v.Tools {
				b.WriteString(spaced(t) + "\n")
			}
			b.WriteString("</tools>")
		}
		b.WriteString("<|im_end|>\n")
	}
	for i, m := range rest {
		role := func(j int) string {
			if j < 0 || j >= len(rest) {
				return ""
			}
			return rest[j].Role
		}
		if m.Role != "tool" {
			b.WriteString("<|im_start|>" + m.Role + "\n" + *m.Content)
			for j, c := range m.ToolCalls {
				if *m.Content != "" || j > 0 {
					b.WriteString("\n")
				}
				args := spaced(c.Function.Arguments)
				if args[0] == '"' {
					args = unquote([]byte(args))
				}
				b.WriteString("<tool_call>\n{\"name\": \"" + c.Function.Name + "\", \"arguments\": " + args + "}\n</tool_call>")
			}
			b.WriteString("<|im_end|>\n")
			continue
		}
		if role(i-1) != "tool" {
			b.WriteString("<|im_start|>user")
		}
		b.WriteString("\n<tool_response>\n" + *m.Content + "\n</tool_response>")
		if role(i+1) != "tool" {
			b.WriteString("<|im_end|>\n")
		}
	}
	if v.Open {
		b.WriteString("<|im_start|>assistant\n")
		if v.EnableThinking != nil && !*v.EnableThinking {
			b.WriteString("<think>\n\n</think>\n\n")
		}
	}
	return b.String(), nil
}

// spaced writes JSON with the spaces that Python puts after commas and colons.
func spaced(data []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, data) != nil {
		return string(data)
	}
	var b strings.Builder
	for doc, i := compact.Bytes(), 0; i < len(doc); {
		if doc[i] == '"' {
			end := stringEnd(doc, i)
			text, _ := marshal(unquote(doc[i:end]))
			b.Write(text)
			i = end
			continue
		}
		b.WriteByte(doc[i])
		if doc[i] == ',' || doc[i] == ':' {
			b.WriteByte(' ')
		}
		i++
	}
	return b.String()
}

// demoSource has what abilitiesOf looks for in the built-in model's template.
const demoSource = "message.content is string, '</think>', <tool_call>, f.arguments is string"

var demoSpecials = []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}

func demoPrompter() *Prompter {
	return NewPrompter(PrompterConfig{Template: rendererFunc(chatML), Source: demoSource, Special: demoSpecials,
		Tokens: map[string]string{"eos_token": "<|im_end|>", "bos_token": ""}})
}

func (c *demoCase) chat() *engine.Chat {
	chat := &engine.Chat{Tools: c.Tools}
	for _, m := range c.Messages {
		msg := engine.Message{Role: m.Role, Content: m.Content, ToolCallID: m.ToolCallID}
		for _, call := range m.ToolCalls {
			call.Function.ID = call.ID
			msg.ToolCalls = append(msg.ToolCalls, call.Function)
		}
		chat.Messages = append(chat.Messages, msg)
	}
	if c.EnableThinking != nil {
		chat.TemplateKwargs = map[string]json.RawMessage{"enable_thinking": fmt.Append(nil, *c.EnableThinking)}
	}
	return chat
}

func TestRenderDemoCases(t *testing.T) {
	p := demoPrompter()
	for i, c := range demoCases(t) {
		got, err := p.Render(c.chat())
		if err != nil || got.Text != c.PromptText || got.Cuts != nil || got.OpenThink {
			t.Errorf("case %d (%s): error %v\n got %+v\nwant %q", i, c.Skill, err, got, c.PromptText)
		}
	}
}

func user(content string) engine.Message { return engine.Message{Role: "user", Content: &content} }

func says(role, content string) engine.Message { return engine.Message{Role: role, Content: &content} }

func chatOf(ms ...engine.Message) *engine.Chat { return &engine.Chat{Messages: ms} }

func TestContext(t *testing.T) {
	yes, no := true, false
	thought := "hm"
	calling := engine.Message{Role: "assistant", ToolCalls: []engine.ToolCall{{ID: "c1", Name: "f", Arguments: `{"b": 1.0, "a":2}`}}}
	raw := func(s string) []json.RawMessage { return []json.RawMessage{json.RawMessage(s)} }
	const rest = `,"tools":null,"documents":null,"add_generation_prompt":true}`
	for _, c := range []struct {
		name, source string
		chat         *engine.Chat
		want         string
	}{
		{"text is left alone", "", chatOf(user("<a> & \"b\"\n\u00e9")),
			`{"messages":[{"role":"user","content":"<a> & \"b\"\né"}]` + rest},
		{"developer", "", chatOf(says("developer", "d"), user("u")),
			`{"messages":[{"role":"system","content":"d"},{"role":"user","content":"u"}]` + rest},
		{"developer known", "role == 'developer'", chatOf(says("developer", "d"), says("system", "s")),
			`{"messages":[{"role":"developer","content":"d"},{"role":"system","content":"s"}]` + rest},
		{"leading systems are merged", "",
			chatOf(says("system", "a"), says("developer", ""), says("system", "b"), user("u"), says("system", "c")),
			`{"messages":[{"role":"system","content":"a\n\nb"},{"role":"user","content":"u"},{"role":"system","content":"c"}]` + rest},
		{"function is a tool", "", chatOf(engine.Message{Role: "function", Name: "f", Content: &thought}),
			`{"messages":[{"role":"tool","content":"hm","name":"f"}]` + rest},
		{"tool result", "", chatOf(engine.Message{Role: "tool", ToolCallID: "c1", Content: &thought}),
			`{"messages":[{"role":"tool","content":"hm","tool_call_id":"c1"}]` + rest},
		{"no content", "content is none", chatOf(engine.Message{Role: "user"}),
			`{"messages":[{"role":"user","content":""}]` + rest},
		{"no content beside calls", "", chatOf(calling),
			`{"messages":[{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":{"b":1.0,"a":2}}}]}]` + rest},
		{"null content and text arguments handled", "message['content'] is not none, tool.arguments is string", chatOf(calling),
			`{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"b\": 1.0, \"a\":2}"}}]}]` + rest},
		{"empty arguments", "", chatOf(engine.Message{Role: "assistant", Content: &thought, ToolCalls: []engine.ToolCall{{Name: "f"}}}),
			`{"messages":[{"role":"assistant","content":"hm","tool_calls":[{"type":"function","function":{"name":"f","arguments":{}}}]}]` + rest},
		{"reasoning", "", chatOf(engine.Message{Role: "assistant", Content: &thought, Reasoning: &thought}),
			`{"messages":[{"thinking":"hm","role":"assistant","content":"hm","reasoning_content":"hm"}]` + rest},
		{"tools keep their order", "", &engine.Chat{Messages: []engine.Message{user("u")}, Tools: raw(`{"z": 1, "a": {"y":1e5,"b":"<"}}`)},
			`{"messages":[{"role":"user","content":"u"}],"tools":[{"z":1,"a":{"y":1e5,"b":"<"}}],"documents":null,"add_generation_prompt":true}`},
		{"tool_choice none", "", &engine.Chat{Messages: []engine.Message{user("u")}, Tools: raw(`{}`), ToolChoice: "none"},
			`{"messages":[{"role":"user","content":"u"}]` + rest},
		{"no generation prompt", "", &engine.Chat{Messages: []engine.Message{user("u")}, AddGenerationPrompt: &no},
			`{"messages":[{"role":"user","content":"u"}],"tools":null,"documents":null,"add_generation_prompt":false}`},
		{"kwargs", "", &engine.Chat{Messages: []engine.Message{user("u")}, AddGenerationPrompt: &yes,
			TemplateKwargs: map[string]json.RawMessage{"z": raw(`{"b":1,"a":2}`)[0], "documents": raw(`[]`)[0], "enable_thinking": raw(`false`)[0]}},
			`{"messages":[{"role":"user","content":"u"}],"tools":null,"documents":[],"enable_thinking":false,"z":{"b":1,"a":2},"add_generation_prompt":true}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := NewPrompter(PrompterConfig{Template: rendererFunc(echo), Source: c.source}).Render(c.chat)
			if err != nil || got.Text != c.want {
				t.Errorf("error %v\n got %s\nwant %s", err, got.Text, c.want)
			}
		})
	}
}

func TestContextTokens(t *testing.T) {
	p := NewPrompter(PrompterConfig{Template: rendererFunc(echo), Special: []string{"<s>"},
		Tokens: map[string]string{"eos_token": "</s>", "bos_token": "<s>", "pad_token": ""}})
	got, err := p.Render(chatOf(user("u")))
	const want = `"add_generation_prompt":true,"bos_token":"<s>","eos_token":"</s>"}`
	if err != nil || !strings.HasSuffix(got.Text, want) || got.Cuts != nil {
		t.Errorf("got %+v, error %v", got, err)
	}
}

func TestRenderRefuses(t *testing.T) {
	yes := true
	kwarg := func(name string) *engine.Chat {
		return &engine.Chat{Messages: []engine.Message{user("u")},
			TemplateKwargs: map[string]json.RawMessage{name: json.RawMessage("1")}}
	}
	args := func(text string) *engine.Chat {
		return chatOf(user("u"), engine.Message{Role: "assistant", ToolCalls: []engine.ToolCall{{Arguments: "{}"}, {Arguments: text}}})
	}
	var everything strings.Builder
	for r := rune(firstMark); r <= lastMark; r++ {
		everything.WriteRune(r)
	}
	for _, c := range []struct {
		name  string
		chat  *engine.Chat
		param string
	}{
		{"no messages", chatOf(), "messages"},
		{"role", chatOf(user("u"), says("<|im_end|>", "x")), "messages[1].role"},
		{"broken arguments", args(`{"a":`), "messages[1].tool_calls[1].function.arguments"},
		{"arguments no object", args(`[1]`), "messages[1].tool_calls[1].function.arguments"},
		{"kwarg messages", kwarg("messages"), "chat_template_kwargs.messages"},
		{"kwarg bos_token", kwarg("bos_token"), "chat_template_kwargs.bos_token"},
		{"kwarg add_generation_prompt", kwarg("add_generation_prompt"), "chat_template_kwargs.add_generation_prompt"},
		{"continue and open", &engine.Chat{Messages: []engine.Message{user("u")}, ContinueFinal: true, AddGenerationPrompt: &yes},
			"continue_final_message"},
		{"continue a call", &engine.Chat{Messages: []engine.Message{{Role: "assistant",
			ToolCalls: []engine.ToolCall{{Arguments: "{}"}}}}, ContinueFinal: true}, "continue_final_message"},
		{"no character left", chatOf(user("<|im_end|>" + everything.String())), "messages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewPrompter(PrompterConfig{Template: rendererFunc(echo), Special: demoSpecials}).Render(c.chat)
			e, ok := errors.AsType[*engine.Error](err)
			if !ok || e.Code != engine.Invalid || e.Param != c.param || e.Message == "" {
				t.Errorf("got %#v, want Invalid on %s", err, c.param)
			}
		})
	}
}

type templateError struct{ raised, limit string }

func (e *templateError) Error() string          { return "line 7 of /secret/template.jinja" }
func (e *templateError) Raised() (string, bool) { return e.raised, e.raised != "" }
func (e *templateError) Limit() (string, bool)  { return e.limit, e.limit != "" }

func TestRenderErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"raised", "the chat template refuses this conversation: Roles must alternate!", &templateError{raised: "Roles must alternate!"}},
		{"limit", "the chat template cannot render this conversation: it goes over the limit of fuel", &templateError{limit: "fuel"}},
		{"other", "the chat template cannot render this conversation", &templateError{}},
		{"unknown", "the chat template cannot render this conversation", errors.New("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			fail := func([]byte) (string, error) { return "", fmt.Errorf("render: %w", c.err) }
			_, err := NewPrompter(PrompterConfig{Template: rendererFunc(fail)}).Render(chatOf(user("u")))
			e, ok := errors.AsType[*engine.Error](err)
			if !ok || e.Code != engine.Invalid || e.Param != "messages" || e.Message != c.want || !errors.Is(e, c.err) {
				t.Errorf("got %#v", err)
			}
		})
	}
}

func TestContinueFinal(t *testing.T) {
	trimming := func(context []byte) (string, error) {
		var v struct{ Messages []message }
		if err := json.Unmarshal(context, &v); err != nil {
			return "", err
		}
		var b strings.Builder
		for _, m := range v.Messages {
			b.WriteString("[" + m.Role + "] " + strings.TrimSpace(*m.Content) + " [end]")
		}
		return b.String(), nil
	}
	forgetful := func([]byte) (string, error) { return "[user] hi [end]", nil }
	opening := func([]byte) (string, error) { return "[assistant]<think>\n", nil }
	for _, c := range []struct {
		name     string
		template rendererFunc
		final    engine.Message
		want     string
		cuts     []int
		think    bool
	}{
		{"plain", chatML, says("assistant", "The sky"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nThe sky", nil, false},
		{"space at the end", chatML, says("assistant", " x \n"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n x \n", nil, false},
		{"empty", chatML, says("assistant", ""), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", nil, false},
		{"as an earlier one", chatML, says("assistant", "hi"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhi", nil, false},
		{"user", chatML, says("user", "and"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>user\nand", nil, false},
		{"trimmed", trimming, says("assistant", " x \n"), "[user] hi [end][assistant] x", nil, false},
		{"trimmed to nothing", trimming, says("assistant", " \n"), "[user] hi [end][assistant]", nil, false},
		{"inside thoughts", chatML, says("assistant", "<think>\nso"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\nso", nil, true},
		{"after thoughts", chatML, says("assistant", "<think></think>a"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think></think>a", nil, false},
		{"control token", chatML, says("assistant", "<|im_end|>a"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|>a", []int{57}, false},
		{"not shown", forgetful, says("assistant", "hi"), "", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewPrompter(PrompterConfig{Template: c.template, Special: demoSpecials})
			chat := chatOf(user("hi"), c.final)
			chat.ContinueFinal = true
			got, err := p.Render(chat)
			if e, _ := errors.AsType[*engine.Error](err); c.want == "" && e != nil && e.Param == "continue_final_message" {
				return
			}
			if want := (Prompt{c.want, c.cuts, c.think}); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("error %v\n got %+v\nwant %+v", err, got, want)
			}
		})
	}
	got, err := NewPrompter(PrompterConfig{Template: rendererFunc(opening)}).Render(chatOf(user("hi")))
	if err != nil || !got.OpenThink {
		t.Errorf("a template that opens the thoughts: got %+v, %v", got, err)
	}
	if got, err := demoPrompter().Render(chatOf(user("what is <think>"))); err != nil || got.OpenThink {
		t.Errorf("a user who speaks of the mark: got %+v, %v", got, err)
	}
}

// encode is a tokenizer that knows control tokens and single bytes; it reads each piece on its own, the longest of the
// leftmost control tokens first.
func encode(text string, cuts []int, special []string) (tokens []string) {
	from := 0
	for _, to := range append(slices.Clone(cuts), len(text)) {
		for i := from; i < to; {
			longest := text[i : i+1]
			for _, s := range special {
				if strings.HasPrefix(text[i:to], s) && len(s) > len(longest) {
					longest = s
				}
			}
			tokens = append(tokens, longest)
			i += len(longest)
		}
		from = to
	}
	return tokens
}

// controls are the tokens that are more than a byte.
func controls(tokens []string) (out []string) {
	for _, t := range tokens {
		if len(t) > 1 {
			out = append(out, t)
		}
	}
	return out
}

// TestControlTokens renders conversations full of the spellings of control tokens, in every string a client has.
func TestControlTokens(t *testing.T) {
	// The second half overlap with the others and one another.
	special := append(slices.Clone(demoSpecials), "<s>", "s>x", ">x", "im_e", "x<|im_end|", "日本")
	words := append(slices.Clone(special), "<|", "im_end", "|>", "<", "x", " ", "\n", "\"", "\\", `\u003c|im_end|>`, "日", "\ue000", `\ue001`)
	r := rand.New(rand.NewPCG(11, 12))
	text := func() string {
		var b strings.Builder
		for range r.IntN(8) {
			b.WriteString(words[r.IntN(len(words))])
		}
		return b.String()
	}
	plain := NewPrompter(PrompterConfig{Template: rendererFunc(chatML)})
	safe := NewPrompter(PrompterConfig{Template: rendererFunc(chatML), Special: special})
	cut := 0
	for range 1500 {
		// A dot on either side, so that the template's own text does not complete what the client began.
		dotted := func() string { return "." + text() + "." }
		schema, _ := json.Marshal(map[string]string{dotted(): dotted()}) // writes < as \u003c
		args, _ := json.Marshal(map[string]string{dotted(): dotted()})
		chat := chatOf(says("system", dotted()), user(dotted()), engine.Message{Role: "assistant", Content: new(string),
			ToolCalls: []engine.ToolCall{{Name: dotted(), Arguments: string(args)}}}, says("tool", dotted()))
		if chat.Tools = nil; r.IntN(2) == 0 {
			chat.Tools = []json.RawMessage{schema}
		}
		want, err := plain.Render(chat)
		if err != nil {
			t.Fatal(err)
		}
		got, err := safe.Render(chat)
		if err != nil || got.Text != want.Text {
			t.Fatalf("error %v\n got %q\nwant %q", err, got.Text, want.Text)
		}
		// system, user, assistant, tool result, generation prompt
		var expect []string
		for range 4 {
			expect = append(expect, "<|im_start|>", "<|im_end|>")
		}
		expect = append(expect, "<|im_start|>")
		tokens := encode(got.Text, got.Cuts, special)
		if strings.Join(tokens, "") != got.Text || !slices.Equal(controls(tokens), expect) {
			t.Fatalf("%q cut at %v has the control tokens %q", got.Text, got.Cuts, controls(tokens))
		}
		if len(got.Cuts) > 0 {
			cut++
		} else if !slices.Equal(controls(encode(want.Text, nil, special)), expect) {
			t.Fatalf("%q is not cut", got.Text)
		}
	}
	if cut < 750 {
		t.Errorf("only %d prompts were cut: the test is too weak", cut)
	}
}

// TestControlTokensEscaped has a template that writes JSON in ASCII.
func TestControlTokensEscaped(t *testing.T) {
	ascii := func(context []byte) (string, error) {
		var b strings.Builder
		for _, r := range string(context) {
			if r < 0x80 {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\u%04X`, r)
			}
		}
		return b.String(), nil
	}
	got, err := NewPrompter(PrompterConfig{Template: rendererFunc(ascii), Special: demoSpecials}).Render(chatOf(user(`<|im_end|>\ue000`)))
	if err != nil || !strings.Contains(got.Text, `"<|im_end|>\\ue000"`) || len(got.Cuts) != 1 {
		t.Errorf("got %+v, error %v", got, err)
	}
}

func TestDetectFormats(t *testing.T) {
	for _, c := range []struct{ name, source, reasoning, tools string }{
		{"demo", demoSource, "qwen3", "hermes"},
		{"none", "{{ messages }}", "", ""},
		{"Qwen2.5", `<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>`, "", "hermes"},
		{"Qwen3-Coder", "<tool_call>\n<function=example>\narguments </think>", "qwen3", "qwen3_coder"},
		{"GLM-4.5", "<tool_call>name<arg_key>arguments</arg_key></think>", "glm45", "glm45"},
		{"GLM-4", "<|observation|>", "", "glm4"},
		{"Llama 3", `<|start_header_id|> {"name": function name, "parameters": arguments}`, "", "llama3_json"},
		{"Mistral", "[TOOL_CALLS] [THINK]", "mistral", "mistral"},
		{"DeepSeek V3", "<｜tool▁call▁begin｜>```json</think>", "deepseek_r1", "deepseek_v3"},
		{"DeepSeek V3.1", "<｜tool▁call▁begin｜></think>", "deepseek_r1", "deepseek_v31"},
		{"Granite", "<|start_of_role|><|tool_call|>Here is my thought process:", "granite", "granite"},
		{"Phi-4-mini", "<|tool_call|>", "", "phi4_mini_json"},
		{"gpt-oss", "<|channel|>", "openai_gptoss", "openai"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r, tools := DetectFormats(c.source); r != c.reasoning || tools != c.tools {
				t.Errorf("got %q, %q", r, tools)
			}
		})
	}
}

func BenchmarkRender(b *testing.B) {
	p := NewPrompter(PrompterConfig{Template: rendererFunc(func([]byte) (string, error) { return "", nil }), Special: demoSpecials})
	chat := chatOf(user(strings.Repeat("some <words> and\n", 1<<16)))
	b.SetBytes(int64(len(*chat.Messages[0].Content)))
	for b.Loop() {
		if _, err := p.Render(chat); err != nil {
			b.Fatal(err)
		}
	}
}
