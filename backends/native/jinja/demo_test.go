package jinja_test

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"pagoda/backends/native/jinja"
	"pagoda/models/demo"
)

// TestDemo: the built-in model's template writes the prompts that the transformers library wrote.
func TestDemo(t *testing.T) {
	config, err := fs.ReadFile(demo.FS(), "tokenizer_config.json")
	if err != nil {
		t.Fatal(err)
	}
	var tokenizer struct {
		ChatTemplate string `json:"chat_template"`
	}
	if err := json.Unmarshal(config, &tokenizer); err != nil {
		t.Fatal(err)
	}
	template, err := jinja.Compile(tokenizer.ChatTemplate, jinja.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join("..", "..", "..", "models", "demo", "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	cases := 0
	for lines.Scan() {
		var c struct {
			PromptText string `json:"prompt_text"`
		}
		var context map[string]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(lines.Bytes(), &context); err != nil {
			t.Fatal(err)
		}
		for name := range context {
			switch name {
			case "messages", "tools", "enable_thinking":
			default:
				delete(context, name) // what the case expects, not what it gives
			}
		}
		context["add_generation_prompt"] = json.RawMessage("true")
		data, err := json.Marshal(context) // the values keep their bytes, and with them the order of their keys
		if err != nil {
			t.Fatal(err)
		}
		got, err := template.Render(data)
		if err != nil || got != c.PromptText {
			t.Errorf("case %d: error %v\ngot  %q\nwant %q", cases, err, got, c.PromptText)
		}
		cases++
	}
	if err := lines.Err(); err != nil || cases != 150 {
		t.Errorf("%d cases, error %v", cases, err)
	}
}
