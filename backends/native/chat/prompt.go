package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"

	"pagoda/engine"
)

// Renderer fills a chat template in. context is a JSON object whose keys are the template's variables, in order.
type Renderer interface {
	Render(context []byte) (string, error)
}

// PieceRenderer is a Renderer whose prompt consists of pieces to be tokenized apart from each other.
type PieceRenderer interface {
	Pieces(context []byte) ([]string, error)
}

// PrompterConfig says how chats become prompts.
type PrompterConfig struct {
	Template Renderer
	Source   string // the template's text, which tells what it can handle
	// Special lists the spellings of the tokenizer's control tokens; those in a client's strings stay text.
	Special []string
	// Tokens are the tokenizer's named tokens, "bos_token" and so on, that the template may use; empty ones are left
	// undefined.
	Tokens map[string]string
	// System is the system message of a chat that has none; "" is none.
	System string
	// Kwargs are template arguments that a request may override.
	Kwargs map[string]json.RawMessage
}

// Prompter turns chats into prompts. It is safe for concurrent use if its Renderer is.
type Prompter struct {
	cfg      PrompterConfig
	can      abilities
	specials *specials
}

// Prompt is a rendered chat.
type Prompt struct {
	Text string
	// Cuts are ascending byte offsets in Text; the pieces between them are to be encoded apart from each other.
	Cuts []int
	// OpenThink tells that the prompt has opened the thoughts, so that the answer begins inside them.
	OpenThink bool
}

// NewPrompter returns a prompter for one model.
func NewPrompter(cfg PrompterConfig) *Prompter {
	return &Prompter{cfg: cfg, can: abilitiesOf(cfg.Source), specials: newSpecials(cfg.Special)}
}

// Render returns the prompt of c; errors are *engine.Error.
//
// The template gets what transformers would give it: messages, tools (none if ToolChoice is "none", so that the model
// does not see what it must not call), documents, add_generation_prompt, the named tokens and TemplateKwargs.
func (p *Prompter) Render(c *engine.Chat) (Prompt, error) {
	if err := check(c); err != nil {
		return Prompt{}, err
	}
	msgs, err := p.can.messages(p.withSystem(c.Messages))
	if err != nil {
		return Prompt{}, err
	}
	v := variables{messages: msgs, open: !c.ContinueFinal, tokens: p.cfg.Tokens, kwargs: p.kwargs(c.TemplateKwargs)}
	if c.AddGenerationPrompt != nil {
		v.open = *c.AddGenerationPrompt
	}
	if c.ToolChoice != "none" {
		v.tools = c.Tools
	}
	return p.render(&v, c.ContinueFinal)
}

// RenderPair returns the prompt that asks how well a document answers a query: the template gets two messages, with the
// roles query and document, and where there is an instruction a system message with it before them. vLLM and
// sentence-transformers have templates of that kind.
func (p *Prompter) RenderPair(instruction, query, document string) (Prompt, error) {
	v := variables{tokens: p.cfg.Tokens, kwargs: p.kwargs(nil)}
	if instruction != "" {
		v.messages = []message{{Role: "system", Content: &instruction}}
		text, err := marshal(instruction)
		if err != nil {
			return Prompt{}, err
		}
		v.kwargs = map[string]json.RawMessage{"instruction": text}
	}
	v.messages = append(v.messages, message{Role: "query", Content: &query}, message{Role: "document", Content: &document})
	return p.render(&v, false)
}

// withSystem puts the default system message before a chat that begins with another one.
func (p *Prompter) withSystem(in []engine.Message) []engine.Message {
	if p.cfg.System == "" || in[0].Role == "system" || in[0].Role == "developer" {
		return in
	}
	return append([]engine.Message{{Role: "system", Content: &p.cfg.System}}, in...)
}

func (p *Prompter) kwargs(own map[string]json.RawMessage) map[string]json.RawMessage {
	if len(p.cfg.Kwargs) == 0 {
		return own
	}
	all := maps.Clone(p.cfg.Kwargs)
	maps.Copy(all, own)
	return all
}

// render builds the context, fills the template in, and undoes what was done to the client's strings for it.
func (p *Prompter) render(v *variables, continueFinal bool) (Prompt, error) {
	plain, err := v.clientJSON()
	if err != nil {
		return Prompt{}, &engine.Error{Code: engine.Invalid, Message: "the messages, tools or template arguments are " +
			"not valid JSON", Err: err}
	}
	s := newShield(p.specials, p.cfg.Source, string(plain))
	tag := ""
	var final string
	if continueFinal {
		if final, tag, err = v.tagFinal(s); err == nil {
			plain, err = v.clientJSON()
		}
		if err != nil {
			return Prompt{}, tooPrivate(err)
		}
	}
	client, err := s.hide(plain)
	if err != nil {
		return Prompt{}, tooPrivate(err)
	}
	pieces, err := p.pieces(v.context(client))
	if err != nil {
		return Prompt{}, renderError(err)
	}
	if continueFinal {
		if pieces, err = cutAtTag(pieces, tag); err != nil {
			return Prompt{}, err
		}
	}
	out := s.assemble(pieces)
	inside := strings.LastIndex(final, openThink) > strings.LastIndex(final, closeThink)
	out.OpenThink = inside || opensThink(out.Text)
	return out, nil
}

func (p *Prompter) pieces(context []byte) ([]string, error) {
	if r, ok := p.cfg.Template.(PieceRenderer); ok {
		return r.Pieces(context)
	}
	text, err := p.cfg.Template.Render(context)
	return []string{text}, err
}

// assemble joins pieces, with a cut between each two, and puts the client's literals back.
func (s *shield) assemble(pieces []string) (out Prompt) {
	var b strings.Builder
	for _, piece := range pieces {
		text, cuts := s.restore(piece)
		if b.Len() > 0 {
			out.Cuts = append(out.Cuts, b.Len())
		}
		for _, cut := range cuts {
			out.Cuts = append(out.Cuts, b.Len()+cut)
		}
		b.WriteString(text)
	}
	out.Text = b.String()
	return out
}

func check(c *engine.Chat) error {
	if len(c.Messages) == 0 {
		return engine.BadField("messages", "there must be at least one message")
	}
	if c.ContinueFinal {
		last := c.Messages[len(c.Messages)-1]
		switch {
		case c.AddGenerationPrompt != nil && *c.AddGenerationPrompt:
			return engine.BadField("continue_final_message", "cannot be true together with add_generation_prompt")
		case len(last.ToolCalls) > 0:
			return engine.BadField("continue_final_message", "the final message has tool calls, which cannot be continued")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.TemplateKwargs)) {
		if reserved[name] {
			return engine.BadField("chat_template_kwargs."+name, "%q is not for chat_template_kwargs to set", name)
		}
	}
	return nil
}

// reserved are the names a client may not give to the template: they carry the conversation or the template's means.
var reserved = map[string]bool{
	"messages": true, "tools": true, "add_generation_prompt": true, "continue_final_message": true,
	"chat_template": true, "conversation": true, "tokenize": true,
	"bos_token": true, "eos_token": true, "unk_token": true, "sep_token": true, "pad_token": true, "cls_token": true,
	"mask_token": true, "additional_special_tokens": true,
	"raise_exception": true, "strftime_now": true, "namespace": true, "range": true, "dict": true, "loop": true,
}

// variables are what the template sees.
type variables struct {
	messages []message
	tools    []json.RawMessage
	open     bool // add_generation_prompt
	tokens   map[string]string
	kwargs   map[string]json.RawMessage
}

// clientJSON returns the members that come from the client, without braces.
func (v *variables) clientJSON() ([]byte, error) {
	msgs, err := marshal(v.messages)
	if err != nil {
		return nil, err
	}
	out := append([]byte(`"messages":`), msgs...)
	out = append(out, `,"tools":`...)
	if len(v.tools) == 0 {
		out = append(out, "null"...)
	} else {
		tools, err := marshal(v.tools)
		if err != nil {
			return nil, err
		}
		out = append(out, tools...)
	}
	if v.kwargs["documents"] == nil {
		out = append(out, `,"documents":null`...)
	}
	for _, name := range slices.Sorted(maps.Keys(v.kwargs)) {
		if out, err = member(out, name, v.kwargs[name]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// context returns the whole object; client is what clientJSON returned, by now without literals of control tokens.
func (v *variables) context(client []byte) []byte {
	out := append([]byte("{"), client...)
	out, _ = member(out, "add_generation_prompt", v.open) // bools and strings always marshal
	for _, name := range slices.Sorted(maps.Keys(v.tokens)) {
		if v.tokens[name] != "" {
			out, _ = member(out, name, v.tokens[name])
		}
	}
	return append(out, '}')
}

// member appends a member, which is not the first.
func member(out []byte, name string, val any) ([]byte, error) {
	k, err := marshal(name)
	if err != nil {
		return nil, err
	}
	data, err := marshal(val)
	out = append(append(out, ','), k...)
	return append(append(out, ':'), data...), err
}

// trail is white space that no template writes by itself: where it is missing after a tag, contents are trimmed.
const trail = " \t "

// tagFinal marks the end of the final message's content, which it returns as it was.
func (v *variables) tagFinal(s *shield) (content, tag string, err error) {
	mark, err := s.newMark()
	if err != nil {
		return "", "", err
	}
	last := &v.messages[len(v.messages)-1]
	if last.Content != nil {
		content = *last.Content
	}
	tagged := content + string(mark) + trail
	last.Content = &tagged
	return content, string(mark), nil
}

// cutAtTag ends the pieces right after the final message's content.
func cutAtTag(pieces []string, tag string) ([]string, error) {
	for i, piece := range slices.Backward(pieces) {
		at := strings.LastIndex(piece, tag)
		if at < 0 {
			continue
		}
		text := piece[:at]
		if !strings.HasPrefix(piece[at+len(tag):], trail) {
			text = strings.TrimRightFunc(text, unicode.IsSpace)
		}
		return append(pieces[:i], text), nil
	}
	return nil, engine.BadField("continue_final_message", "the chat template does not show the final message")
}

// opensThink tells whether a prompt ends with the mark that opens the thoughts.
func opensThink(prompt string) bool {
	return strings.HasSuffix(strings.TrimRightFunc(prompt, unicode.IsSpace), openThink)
}

// tooPrivate is the error for a shield that cannot work.
func tooPrivate(err error) error {
	return &engine.Error{Code: engine.Invalid, Param: "messages", Err: err,
		Message: "control tokens cannot be told apart from the text: it has too many private-use characters"}
}

// raised is implemented by a Renderer's error if the template itself refused the conversation (raise_exception).
type raised interface {
	Raised() (message string, ok bool)
}

// limited is implemented by a Renderer's error if rendering went over a limit: "fuel", "output size", ...
type limited interface{ Limit() (name string, ok bool) }

// renderError makes the client's error of a Renderer's.
func renderError(err error) error {
	var r raised
	if errors.As(err, &r) {
		if message, ok := r.Raised(); ok {
			return &engine.Error{Code: engine.Invalid, Param: "messages", Err: err,
				Message: "the chat template refuses this conversation: " + message}
		}
	}
	message := "the chat template cannot render this conversation"
	var l limited
	if errors.As(err, &l) {
		if name, ok := l.Limit(); ok {
			message += ": it goes over the limit of " + name
		}
	}
	return &engine.Error{Code: engine.Invalid, Param: "messages", Message: message, Err: err}
}

// marshal is json.Marshal that leaves <, > and & alone.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
