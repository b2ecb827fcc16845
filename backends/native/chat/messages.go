package chat

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"pagoda/engine"
)

// message is a turn as templates know it, in the order of keys that clients use.
type message struct {
	Thinking  *string    `json:"thinking,omitempty"` // the reasoning, by the name that gpt-oss knows; as transformers has it
	Role      string     `json:"role"`
	Content   *string    `json:"content"`
	Reasoning *string    `json:"reasoning_content,omitempty"`
	Name      string     `json:"name,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
	CallID    string     `json:"tool_call_id,omitempty"`
}

type toolCall struct {
	ID       string   `json:"id,omitempty"`
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type function struct {
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"` // an object, or a string if the template can take it
}

// abilities are what a template's source shows that it handles.
type abilities struct {
	developer       bool // the role
	nullContent     bool // of an assistant turn with tool calls
	stringArguments bool // of tool calls
}

var (
	testsContent   = regexp.MustCompile(`\bcontent['"]?\]?\s*(is\s+(not\s+)?|[!=]=\s*)([nN]one|string)\b`)
	testsArguments = regexp.MustCompile(`\b(arguments|args)['"]?\]?\s+is\s+(not\s+)?string\b`)
)

func abilitiesOf(source string) abilities {
	return abilities{
		developer:       strings.Contains(source, "developer"),
		nullContent:     testsContent.MatchString(source),
		stringArguments: testsArguments.MatchString(source),
	}
}

var roles = map[string]bool{"system": true, "developer": true, "user": true,
	"assistant": true, "tool": true, "function": true}

// messages brings turns into the form that templates expect:
//
//   - a developer is the system unless the template knows developers, a function is a tool;
//   - several system messages at the beginning become one, since most templates look at the first only;
//   - missing content is "", but stays null beside tool calls if the template tests for it: some tell a turn of calls
//     by that;
//   - arguments of tool calls become objects unless the template takes strings, which keep the model's own spelling.
func (a abilities) messages(in []engine.Message) ([]message, error) {
	out := make([]message, 0, len(in))
	for i, m := range in {
		if !roles[m.Role] {
			return nil, engine.BadField(fmt.Sprintf("messages[%d].role", i), "%q is not a role", m.Role)
		}
		next := message{Role: a.role(m.Role), Content: m.Content, Thinking: m.Reasoning, Reasoning: m.Reasoning, Name: m.Name, CallID: m.ToolCallID}
		var err error
		if next.ToolCalls, err = a.toolCalls(i, m.ToolCalls); err != nil {
			return nil, err
		}
		if m.Content == nil && !(a.nullContent && m.Role == "assistant" && len(m.ToolCalls) > 0) {
			next.Content = new(string)
		}
		if len(out) == 1 && out[0].Role == "system" && next.Role == "system" {
			joined := join2(*out[0].Content, *next.Content)
			out[0].Content = &joined
			continue
		}
		out = append(out, next)
	}
	return out, nil
}

func (a abilities) role(role string) string {
	switch {
	case role == "developer" && !a.developer:
		return "system"
	case role == "function":
		return "tool"
	}
	return role
}

// join2 joins two texts by an empty line; an empty text adds none.
func join2(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n\n" + b
}

func (a abilities) toolCalls(msg int, in []engine.ToolCall) ([]toolCall, error) {
	var out []toolCall
	for i, c := range in {
		args, err := a.arguments(c.Arguments)
		if err != nil {
			return nil, engine.BadField(fmt.Sprintf("messages[%d].tool_calls[%d].function.arguments", msg, i),
				"the text of arguments is not a JSON object")
		}
		out = append(out, toolCall{c.ID, "function", function{c.Name, args}})
	}
	return out, nil
}

// arguments returns what the template gets for the text of arguments; empty text is an empty object.
func (a abilities) arguments(text string) (json.RawMessage, error) {
	if a.stringArguments {
		return marshal(text)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		text = "{}"
	}
	if text[0] != '{' || !json.Valid([]byte(text)) {
		return nil, fmt.Errorf("not a JSON object")
	}
	return json.RawMessage(text), nil
}
