package native

import (
	"encoding/json"
	"fmt"
	"slices"

	"pagoda/backends/native/chat"
	"pagoda/backends/native/template"
	"pagoda/engine"
)

// PromptOptions say how chats become prompts where the checkpoint's own template is not taken as it is.
type PromptOptions struct {
	Template         string  // one of LlamaFactory's by name; "": the checkpoint's Jinja template
	ToolFormat       string  // of a named template; "": the template's own
	DefaultSystem    *string // system message of chats that have none; nil: the template's own
	EnableThinking   *bool   // what enable_thinking is for requests that do not say; nil: the template's own
	PreserveThinking bool    // a named template keeps the thoughts of earlier turns
}

// kwargs are the template arguments of a chat that gives none.
func (o PromptOptions) kwargs() map[string]json.RawMessage {
	if o.EnableThinking == nil {
		return nil
	}
	return map[string]json.RawMessage{"enable_thinking": json.RawMessage(fmt.Sprint(*o.EnableThinking))}
}

// loadNamed makes the prompter of a named template.
func (e *Engine) loadNamed(o PromptOptions) error {
	t, err := template.Find(o.Template)
	if err != nil {
		return fmt.Errorf("template: %w", err)
	}
	r, err := t.New(template.Options{ToolFormat: o.ToolFormat, DefaultSystem: o.DefaultSystem, EnableThinking: o.EnableThinking,
		PreserveThinking: o.PreserveThinking, BOS: e.tok.BOS().Content, EOS: e.tok.EOS().Content})
	if err != nil {
		return fmt.Errorf("tool_format: %w", err)
	}
	e.stopWords(t.Stop)
	source := ""
	if t.Reasoning {
		open, end := t.Thought()
		source = open + end
	}
	e.reasoning, _ = chat.DetectFormats(source)
	if p := r.ToolParser(); slices.Contains(chat.ToolFormats(), p) {
		e.tools = p
	} else if e.opts.ToolParser == "auto" {
		e.opts.Log.Warn().Str("template", t.Name).Msg("calls of this template's tool format are not told from the text of answers")
	}
	return e.newPrompter(chat.PrompterConfig{Template: r, Source: source})
}

// stopWords makes a template's words end answers: as tokens, or as text where the vocabulary does not have them.
func (e *Engine) stopWords(words []string) {
	for _, word := range words {
		if id, ok := e.tok.ID(word); ok {
			e.stopTokens = append(e.stopTokens, id)
		} else {
			e.stopStrings = append(e.stopStrings, word)
		}
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// stopsOf are the strings that end an answer to req: its own and, for a chat, the template's.
func (e *Engine) stopsOf(req *engine.Request) []string {
	if req.Chat == nil || len(e.stopStrings) == 0 {
		return req.Sampling.Stop
	}
	return slices.Concat(req.Sampling.Stop, e.stopStrings)
}
