package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// conversation of testdata/conversations.json.
type testConversation struct {
	System   *string `json:"system"`
	Messages []struct {
		Role      string  `json:"role"`
		Content   *string `json:"content"`
		ToolCalls []struct {
			Name      string          `json:"name"`
			Arguments json.RawMessage `json:"arguments"`
		} `json:"tool_calls"`
	} `json:"messages"`
	Tools json.RawMessage `json:"tools"`
}

// context is what package chat would give to the renderer.
func (c *testConversation) context(t *testing.T) []byte {
	t.Helper()
	var messages []map[string]any
	if c.System != nil {
		messages = append(messages, map[string]any{"role": "system", "content": *c.System})
	}
	for _, m := range c.Messages {
		next := map[string]any{"role": m.Role, "content": m.Content}
		var calls []any
		for _, call := range m.ToolCalls {
			calls = append(calls, map[string]any{"type": "function", "function": call})
		}
		if calls != nil {
			next["tool_calls"] = calls
		}
		messages = append(messages, next)
	}
	data, err := json.Marshal(map[string]any{"messages": messages, "tools": json.RawMessage(orNull(c.Tools)), "documents": nil,
		"add_generation_prompt": true})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func orNull(data json.RawMessage) json.RawMessage {
	if data == nil {
		return json.RawMessage("null")
	}
	return data
}

func readJSON(t *testing.T, name string, to any) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAsLlamaFactory: every template cuts every conversation into the pieces that LlamaFactory's own code gives to the
// tokenizer (testdata/expected.py), with thoughts and without.
func TestAsLlamaFactory(t *testing.T) {
	var conversations []testConversation
	readJSON(t, "conversations.json", &conversations)
	var expected map[string][][]string
	readJSON(t, "expected.json", &expected)
	if len(expected) != len(table) || len(table) != 143 {
		t.Fatalf("%d templates expected, %d in the table", len(expected), len(table))
	}
	for _, template := range table {
		for i, want := range expected[template.Name] {
			thinking := i == 0
			r, err := template.New(Options{BOS: "<BOS>", EOS: "<EOS>", EnableThinking: &thinking,
				Now: func() time.Time { return time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC) }})
			if err != nil {
				t.Fatal(err)
			}
			for k, c := range conversations {
				pieces, err := r.Pieces(c.context(t))
				got := "refused"
				if err == nil {
					sum := sha256.Sum256([]byte(strings.Join(pieces, "\x00")))
					got = hex.EncodeToString(sum[:8])
				} else if !errors.As(err, new(interface{ Raised() (string, bool) })) {
					t.Errorf("%s, conversation %d: %v", template.Name, k, err)
				}
				if got != want[k] {
					t.Errorf("%s, conversation %d, thinking %t: %q", template.Name, k, thinking, pieces)
				}
			}
		}
	}
}

func render(t *testing.T, name string, o Options, context string) ([]string, error) {
	t.Helper()
	template, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := template.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r.Pieces([]byte(context))
}

const oneTool = `[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{}}}}]`

func TestPieces(t *testing.T) {
	no, system := false, ""
	for _, tt := range []struct {
		name, template string
		o              Options
		context, want  string
	}{
		{"neighbours are one turn", "chatml", Options{},
			`{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}],"add_generation_prompt":true}`,
			"<|im_start|>user\na\n\nb<|im_end|>\n<|im_start|>assistant\n"},
		{"results of two calls", "qwen", Options{DefaultSystem: &system},
			`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"So:","tool_calls":[{"function":{"name":"f","arguments":{}}}]},
			 {"role":"tool","content":"1"},{"role":"tool","content":"2"}],"add_generation_prompt":true}`,
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n|" +
				"So:<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call><|im_end|>\n|" +
				"<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"},
		{"no thinking, by the request", "qwen3", Options{},
			`{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":true,"enable_thinking":false}`,
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n|<think>\n\n</think>\n\n"},
		{"thinking, by the request", "qwen3", Options{EnableThinking: &no},
			`{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":true,"enable_thinking":true}`,
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"},
		{"thoughts kept", "qwen3", Options{PreserveThinking: true},
			`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"<think>\nx\n</think>\n\nb"},{"role":"user","content":"c"}],"add_generation_prompt":true}`,
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n|<think>\nx\n</think>\n\nb<|im_end|>\n|<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
		{"an answer to be continued", "qwen3", Options{},
			`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"<think>\nx\n</think>\n\nb"}],"add_generation_prompt":false}`,
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n|<think>\nx\n</think>\n\nb<|im_end|>\n"},
		{"another tool format", "qwen3", Options{ToolFormat: "glm4", EOS: "E"},
			`{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"k":"v"}}}]},{"role":"tool","content":"1"}],"add_generation_prompt":true}`,
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n|f\n{\"k\": \"v\"}|<|im_end|>|" +
				"<|im_start|>user\n<tool_response>\n1\n</tool_response><|im_end|>\n<|im_start|>assistant\n"},
		{"@ and marks in the content", "default", Options{EOS: "E"},
			`{"messages":[{"role":"user","content":"@ {eos} {bos} {idx}"}],"add_generation_prompt":true}`,
			"Human: @ {eos} {bos} {idx}|E|\nAssistant:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pieces, err := render(t, tt.template, tt.o, tt.context)
			if got := strings.Join(pieces, "|"); got != tt.want || err != nil {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ name, template, context, want string }{
		{"late system message", "qwen3", `{"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"}],"add_generation_prompt":true}`, "at the beginning only"},
		{"nobody asks", "qwen3", `{"messages":[{"role":"system","content":"b"}],"add_generation_prompt":true}`, "needs a user's message"},
		{"assistant first", "qwen3", `{"messages":[{"role":"assistant","content":"b"}],"add_generation_prompt":false}`, "begins with a user's"},
		{"assistant last", "qwen3", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"add_generation_prompt":true}`, "last message"},
		{"no opening", "qwen3", `{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":false}`, "add_generation_prompt"},
		{"thinking", "qwen3", `{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":true,"enable_thinking":"x"}`, "enable_thinking"},
		{"two calls", "glm4", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}},{"function":{"name":"g","arguments":{}}}]}],"add_generation_prompt":false}`, "one call"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := render(t, tt.template, Options{}, tt.context)
			var raised interface{ Raised() (string, bool) }
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.As(err, &raised) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestUnknownNames(t *testing.T) {
	_, err := Find("qwen2")
	if err == nil || !strings.Contains(err.Error(), "qwen2_vl") {
		t.Errorf("template: %v", err)
	}
	qwen, err := Find("qwen")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = qwen.New(Options{ToolFormat: "quen"}); err == nil || !strings.Contains(err.Error(), "tool format") {
		t.Errorf("tool format: %v", err)
	}
}

// TestToolFormats: each compiles and tells a tool's name.
func TestToolFormats(t *testing.T) {
	qwen, err := Find("qwen")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range ToolFormats() {
		r, err := qwen.New(Options{ToolFormat: name})
		if err != nil {
			t.Fatal(err)
		}
		text, err := r.Render([]byte(`{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":true,"tools":` + oneTool + `}`))
		if err != nil || !strings.Contains(text, "f") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
