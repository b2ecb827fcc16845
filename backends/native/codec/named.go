package codec

import (
	"encoding/json"
	"fmt"
	"slices"

	"pagoda/backends/native/chat"
	"pagoda/backends/native/template"
)

// kwargs are the template arguments of a chat that gives none.
func (o Options) kwargs() map[string]json.RawMessage {
	if o.EnableThinking == nil {
		return nil
	}
	return map[string]json.RawMessage{"enable_thinking": json.RawMessage(fmt.Sprint(*o.EnableThinking))}
}

// loadNamed makes the prompter of a named template.
func (c *Codec) loadNamed() error {
	t, err := template.Find(c.o.Template)
	if err != nil {
		return fmt.Errorf("template: %w", err)
	}
	r, err := t.New(template.Options{ToolFormat: c.o.ToolFormat, DefaultSystem: c.o.DefaultSystem, EnableThinking: c.o.EnableThinking,
		PreserveThinking: c.o.PreserveThinking, BOS: c.tok.BOS().Content, EOS: c.tok.EOS().Content})
	if err != nil {
		return fmt.Errorf("tool_format: %w", err)
	}
	c.stopWords(t.Stop)
	source := ""
	if t.Reasoning {
		open, end := t.Thought()
		source = open + end
	}
	c.reasoning, _ = chat.DetectFormats(source)
	if p := r.ToolParser(); slices.Contains(chat.ToolFormats(), p) {
		c.tools = p
	} else if c.o.ToolParser == "auto" {
		c.o.Log.Warn().Str("template", t.Name).Msg("calls of this template's tool format are not told from the text of answers")
	}
	c.newPrompter(chat.PrompterConfig{Template: r, Source: source})
	return nil
}

// stopWords makes a template's words end answers: as tokens, or as text where the vocabulary does not have them.
func (c *Codec) stopWords(words []string) {
	for _, word := range words {
		if id, ok := c.tok.ID(word); ok {
			c.end = append(c.end, id)
		} else {
			c.stopStrings = append(c.stopStrings, word)
		}
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
