package template

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"pagoda/backends/native/jinja"
)

// Options adjust a template to a model and a server.
type Options struct {
	ToolFormat       string  // "": the template's own
	DefaultSystem    *string // nil: the template's own
	EnableThinking   *bool   // nil: true
	PreserveThinking bool    // thoughts of earlier turns stay
	BOS, EOS         string  // the tokenizer's; "" if it has none
	Now              func() time.Time
}

// Renderer fills a template in. It is safe for concurrent use.
type Renderer struct {
	t        *Template
	slots    turns
	tools    *tools
	system   string
	thinking bool
	preserve bool
	bos, eos string
}

// New makes a renderer. The error is an *UnknownError of the tool format.
func (t *Template) New(o Options) (*Renderer, error) {
	f, err := findTools(cmp.Or(o.ToolFormat, t.Tools, "default"), jinja.Options{Now: o.Now})
	if err != nil {
		return nil, err
	}
	r := &Renderer{t: t, slots: t.slots(), tools: f, system: t.DefaultSystem, thinking: true, preserve: o.PreserveThinking,
		bos: o.BOS, eos: o.EOS}
	if o.ToolFormat != "" {
		r.slots.Function = "@{eos}"
		if t.EfficientEOS {
			r.slots.Function = "@"
		}
	}
	if o.DefaultSystem != nil {
		r.system = *o.DefaultSystem
	}
	if o.EnableThinking != nil {
		r.thinking = *o.EnableThinking
	}
	if t.ReplaceEOS {
		r.eos = t.Stop[0]
	}
	r.eos = cmp.Or(r.eos, "<|endoftext|>")
	return r, nil
}

// ToolParser is the format of the calls in answers, by tool_call_parser's names; "" if no parser knows it.
func (r *Renderer) ToolParser() string { return r.tools.parser }

// refusal is an error that tells the client what is wrong with the conversation.
type refusal string

func (e refusal) Error() string                     { return string(e) }
func (e refusal) Raised() (message string, ok bool) { return string(e), true }
func refuse(format string, args ...any) error       { return refusal(fmt.Sprintf(format, args...)) }

// conversation is what a template is given.
type conversation struct {
	Messages            []message       `json:"messages"`
	Tools               json.RawMessage `json:"tools"`
	AddGenerationPrompt bool            `json:"add_generation_prompt"`
	EnableThinking      json.RawMessage `json:"enable_thinking"`
}

type message struct {
	Role      string  `json:"role"`
	Content   *string `json:"content"`
	ToolCalls []struct {
		Function json.RawMessage `json:"function"`
	} `json:"tool_calls"`
}

func (m *message) text() string {
	if m.Content == nil {
		return ""
	}
	return *m.Content
}

// Render returns all pieces as one text.
func (r *Renderer) Render(context []byte) (string, error) {
	pieces, err := r.Pieces(context)
	return strings.Join(pieces, ""), err
}

// Pieces returns the prompt of a conversation in pieces, each to be tokenized apart. context is a JSON object with messages,
// tools or null, add_generation_prompt and perhaps enable_thinking.
//
// Turns must alternate as in training: a system message only at the beginning, then user and assistant in turn. Neighbours of
// one role are taken as one turn.
func (r *Renderer) Pieces(context []byte) ([]string, error) {
	var c conversation
	if err := json.Unmarshal(context, &c); err != nil {
		return nil, err
	}
	system, turns, err := r.turns(&c)
	if err != nil {
		return nil, err
	}
	w := &writer{r: r}
	w.add(r.slots.Prefix, "", 0)
	if system != "" && !r.t.SystemInUser {
		w.add(r.slots.System, system, 0)
		system = ""
	}
	if system != "" {
		system = strings.Replace(r.slots.System, "@", system, 1)
	}
	for i, m := range turns {
		last := i == len(turns)-1
		switch {
		case len(m.ToolCalls) > 0:
			calls, err := r.calls(m)
			if err != nil {
				return nil, err
			}
			w.add(r.slots.Function, calls, i)
		case m.Role == "assistant":
			w.add(r.slots.Assistant, r.history(m.text(), last), i)
		case m.Role == "tool":
			w.add(strings.ReplaceAll(r.slots.Observation, "{idx}", "{{idx}}"), m.text(), i) // LlamaFactory numbers users' turns only
		default:
			w.add(r.slots.User, system+m.text(), i)
		}
		system = ""
	}
	return r.open(w, &c, turns)
}

// turns returns the system's text with the tools in it, and what follows, neighbours of one role joined.
func (r *Renderer) turns(c *conversation) (system string, turns []message, err error) {
	messages := c.Messages
	if len(messages) > 0 && messages[0].Role == "system" {
		system, messages = messages[0].text(), messages[1:]
	}
	system = cmp.Or(system, r.system)
	if len(c.Tools) > 0 && !bytes.Equal(c.Tools, []byte("null")) {
		text, err := r.tools.tools.Render([]byte(`{"tools":` + string(c.Tools) + `}`))
		if err != nil {
			return "", nil, err
		}
		if r.t.TrimTools && system == "" {
			text = strings.TrimLeft(text, "\n")
		}
		system += text
	}
	for i, m := range messages {
		if m.Role == "system" {
			return "", nil, refuse("template %s has a system message at the beginning only", r.t.Name)
		}
		if last := len(turns) - 1; i > 0 && turns[last].Role == m.Role && len(m.ToolCalls) == 0 && len(turns[last].ToolCalls) == 0 {
			joined := turns[last].text() + r.between(m.Role) + m.text()
			turns[last].Content = &joined
			continue
		}
		turns = append(turns, m)
	}
	if len(turns) == 0 {
		return "", nil, refuse("template %s needs a user's message", r.t.Name)
	}
	if turns[0].Role == "assistant" {
		return "", nil, refuse("template %s begins with a user's message", r.t.Name)
	}
	return system, turns, nil
}

// between is what stands between two neighbours of one role.
func (r *Renderer) between(role string) string {
	if role != "tool" {
		return "\n\n"
	}
	if strings.Contains(r.slots.Observation, "<tool_response>\n@\n</tool_response>") {
		return "\n</tool_response>\n<tool_response>\n"
	}
	return "\n"
}

// history is an assistant's text as later turns see it.
func (r *Renderer) history(text string, last bool) string {
	if !r.t.Reasoning || r.preserve || last {
		return text
	}
	open, end := r.t.Thought()
	for {
		from := strings.Index(text, open)
		if from < 0 {
			break
		}
		n := strings.Index(text[from+len(open):], end)
		if n < 0 {
			break
		}
		text = text[:from] + text[from+len(open)+n+len(end):]
	}
	return strings.TrimLeft(text, "\n")
}

// calls is an assistant's turn of calls: what it said before them, then the calls in the tool format.
func (r *Renderer) calls(m message) (string, error) {
	var list [][]byte
	for _, c := range m.ToolCalls {
		list = append(list, c.Function)
	}
	text, err := r.tools.calls.Render([]byte(`{"calls":[` + string(bytes.Join(list, []byte(","))) + `]}`))
	return r.history(m.text(), false) + text, err
}

// open ends the prompt where the answer begins.
func (r *Renderer) open(w *writer, c *conversation, turns []message) ([]string, error) {
	asked := turns[len(turns)-1].Role != "assistant"
	switch {
	case !asked && c.AddGenerationPrompt:
		return nil, refuse("with template %s the last message is a user's or a tool's", r.t.Name)
	case asked && !c.AddGenerationPrompt:
		return nil, refuse("template %s cannot leave add_generation_prompt out: its user turns open the answer", r.t.Name)
	}
	thinking := r.thinking
	switch string(c.EnableThinking) {
	case "":
	case "true":
		thinking = true
	case "false", "null":
		thinking = false
	default:
		return nil, refuse("enable_thinking must be true or false")
	}
	if asked && r.t.Reasoning && !thinking {
		open, end := r.t.Thought()
		if r.t.CloseOnly {
			open = ""
		}
		w.pieces = append(w.pieces, open+end)
	}
	return w.pieces, nil
}

// writer gathers pieces.
type writer struct {
	r      *Renderer
	pieces []string
}

// add fills a slot in with the content of turn i.
func (w *writer) add(slot, content string, i int) {
	from := 0
	piece := func(to int) {
		if text := slot[from:to]; text != "" {
			if !strings.Contains(text, "{{idx}}") {
				text = strings.Replace(text, "{idx}", strconv.Itoa(i/2), 1)
			}
			w.push(strings.Replace(text, "@", content, 1))
		}
	}
	for at := 0; at < len(slot); at++ {
		if slot[at] != '{' {
			continue
		}
		name, n := mark(slot[at:])
		if n == 0 {
			continue
		}
		piece(at)
		from = at + n
		switch name {
		case "bos":
			w.push(w.r.bos)
		case "eos":
			w.push(w.r.eos)
		case "+":
		default:
			w.push(strings.TrimPrefix(name, "tok:"))
		}
		at = from - 1
	}
	piece(len(slot))
}

func (w *writer) push(text string) {
	if text != "" {
		w.pieces = append(w.pieces, text)
	}
}

// mark reads {bos}, {eos}, {+} or {tok:NAME} at the beginning of slot; n is 0 if there is none.
func mark(slot string) (name string, n int) {
	end := strings.IndexByte(slot, '}')
	if end < 0 {
		return "", 0
	}
	switch name = slot[1:end]; {
	case name == "bos", name == "eos", name == "+", strings.HasPrefix(name, "tok:"):
		return name, end + 1
	}
	return "", 0
}
