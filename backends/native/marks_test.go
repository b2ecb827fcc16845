package native

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/codec"
	"pagoda/engine"
)

// TestMarksReachTheParser: control tokens that a format is told by are text to the parser though they are left out of
// answers, and only while the request has tools.
func TestMarksReachTheParser(t *testing.T) {
	e, err := New(Options{Files: demoFiles(t), Name: "m", Prompt: codec.Options{ToolParser: "mistral", ReasoningParser: "none"},
		Vocabulary: VocabularyOptions{AddSpecialTokens: []string{"[TOOL_CALLS]"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	text := "hi"
	chat := &engine.Chat{Messages: []engine.Message{{Role: "user", Content: &text}}}
	ids, err := e.tok.EncodeCut(`[TOOL_CALLS]f[ARGS]{"a": 1}<|im_end|>`, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := func() (content string, calls []engine.ToolCallDelta) {
		j, err := e.build(t.Context(), &engine.Request{Model: "m", Chat: chat}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &j.choices[0]
		for _, id := range ids {
			var ev engine.Event
			c.Token(&ev, id)
			content += ev.Text
			calls = append(calls, ev.ToolCalls...)
		}
		return content, calls
	}
	if content, calls := answer(); len(calls) > 0 || !strings.HasPrefix(content, "f[ARGS]") {
		t.Errorf("without tools: %q, %+v", content, calls)
	}
	chat.Tools = append(chat.Tools, []byte(`{"type":"function","function":{"name":"f"}}`))
	if content, calls := answer(); len(calls) == 0 || calls[0].Name != "f" || content != "" {
		t.Errorf("with tools: %q, %+v", content, calls)
	}
}

// TestToolTemplate: a checkpoint's template of the name tool_use is for requests with tools, wherever it stands.
func TestToolTemplate(t *testing.T) {
	for name, change := range map[string]func(fstest.MapFS){
		"configuration": func(f fstest.MapFS) {
			f["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(`{"chat_template": [{"name": "default", "template": "D"},
				{"name": "tool_use", "template": "T <tool_call> arguments"}]}`)}
		},
		"files": func(f fstest.MapFS) {
			f["chat_template.jinja"] = &fstest.MapFile{Data: []byte("D")}
			f["additional_chat_templates/tool_use.jinja"] = &fstest.MapFile{Data: []byte("T <tool_call> arguments")}
		},
	} {
		files := demoFiles(t)
		change(files)
		e, err := New(Options{Files: files, Name: "m"})
		if err != nil {
			t.Fatal(err)
		}
		prompt := func(c *engine.Chat) string {
			ids, err := e.Tokenize(t.Context(), &engine.Request{Model: "m", Chat: c})
			if err != nil {
				t.Fatal(err)
			}
			return e.tok.Decode(ids, false)
		}
		text := "hi"
		messages := []engine.Message{{Role: "user", Content: &text}}
		tools := []json.RawMessage{json.RawMessage(`{"type":"function","function":{"name":"f"}}`)}
		if got := prompt(&engine.Chat{Messages: messages}); got != "D" {
			t.Errorf("%s: without tools %q", name, got)
		}
		_, format := e.codec.Formats()
		if got := prompt(&engine.Chat{Messages: messages, Tools: tools}); !strings.HasPrefix(got, "T ") || format != "hermes" {
			t.Errorf("%s: with tools %q, format %q", name, got, format)
		}
		if got := prompt(&engine.Chat{Messages: messages, Tools: tools, ToolChoice: "none"}); got != "D" {
			t.Errorf("%s: with tools that must not be called %q", name, got)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
