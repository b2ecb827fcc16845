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

// PrompterConfig says how chats become prompts.
type PrompterConfig struct {
	Template Renderer
	Source   string // the template's text, which tells what it can handle
	// Special lists the spellings of the tokenizer's control tokens; those in a client's strings stay text.
	Special []string
	// Tokens are the tokenizer's named tokens, "bos_token" and so on, that the template may use; empty ones are left
	// undefined.
	Tokens map[string]string
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
	msgs, err := p.can.messages(c.Messages)
	if err != nil {
		return Prompt{}, err
	}
	v := variables{messages: msgs, open: !c.ContinueFinal, tokens: p.cfg.Tokens, kwargs: c.TemplateKwargs}
	if c.AddGenerationPrompt != nil {
		v.open = *c.AddGenerationPrompt
	}
	if c.ToolChoice != "none" {
		v.tools = c.Tools
	}
	return p.render(&v, c.ContinueFinal)
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
	text, err := p.cfg.Template.Render(v.context(client))
	if err != nil {
		return Prompt{}, renderError(err)
	}
	if continueFinal {
		if text, err = cutAtTag(text, tag); err != nil {
			return Prompt{}, err
		}
	}
	inside := strings.LastIndex(final, openThink) > strings.LastIndex(final, closeThink)
	out := Prompt{OpenThink: inside || opensThink(text)}
	out.Text, out.Cuts = s.restore(text)
	return out, nil
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

// cutAtTag ends text right after the final message's content.
func cutAtTag(text, tag string) (string, error) {
	at := strings.LastIndex(text, tag)
	if at < 0 {
		return "", engine.BadField("continue_final_message", "the chat template does not show the final message")
	}
	if strings.HasPrefix(text[at+len(tag):], trail) {
		return text[:at], nil
	}
	return strings.TrimRightFunc(text[:at], unicode.IsSpace), nil
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
