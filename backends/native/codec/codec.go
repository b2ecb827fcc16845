package codec

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"pagoda/backends/native/chat"
	"pagoda/backends/native/jinja"
	"pagoda/backends/native/template"
	"pagoda/backends/native/token"
	"pagoda/checkpoint"
)

// Options say how chats become prompts where the checkpoint's own template is not taken as it is, and how answers are read.
type Options struct {
	ChatTemplate     string  // Jinja source; "": the checkpoint's
	Template         string  // one of LlamaFactory's by name; "": a Jinja template
	ToolFormat       string  // of a named template; "": the template's own
	DefaultSystem    *string // system message of chats that have none; nil: the template's own
	EnableThinking   *bool   // what enable_thinking is for requests that do not say; nil: the template's own
	PreserveThinking bool    // a named template keeps the thoughts of earlier turns
	ToolParser       string  // "auto", "none" or one of chat.ToolFormats; "" is auto: told from the template
	ReasoningParser  string  // "auto", "none" or one of chat.ReasoningFormats; "" is auto
	Tokenizer        token.Options
	Log              zerolog.Logger
}

// Validate reports all problems that do not depend on the checkpoint.
func (o Options) Validate() error {
	var errs []error
	for _, p := range []struct {
		name, value string
		known       []string
	}{{"tool_call_parser", o.ToolParser, chat.ToolFormats()}, {"reasoning_parser", o.ReasoningParser, chat.ReasoningFormats()}} {
		if known := append(p.known, "", "auto", "none"); !slices.Contains(known, p.value) {
			errs = append(errs, fmt.Errorf("%s: %q is none of %q", p.name, p.value, slices.DeleteFunc(known, func(k string) bool { return k == "" })))
		}
	}
	if o.Template != "" {
		if t, err := template.Find(o.Template); err != nil {
			errs = append(errs, fmt.Errorf("template: %w", err))
		} else if _, err := t.New(template.Options{ToolFormat: o.ToolFormat}); err != nil {
			errs = append(errs, fmt.Errorf("tool_format: %w", err))
		}
	}
	if o.ChatTemplate != "" {
		if _, err := jinja.Compile(o.ChatTemplate, jinja.Options{}); err != nil {
			errs = append(errs, fmt.Errorf("chat_template: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Codec belongs to one model. It is safe for concurrent use once Bound was called.
type Codec struct {
	o        Options
	tok      *token.Tokenizer
	prompter *chat.Prompter // nil: no chat template
	// Of requests with tools, where the checkpoint has a template of its own for them, else nil.
	toolPrompter *chat.Prompter
	// What ends answers: the model's own tokens, and what the named template adds, as tokens and as text.
	end         []int32
	stopStrings []string
	// The formats of the model's answers, "" for none.
	reasoning, tools string
	marks            map[string]map[int32]bool // control tokens that those formats are told by, by the format of tools
	prepare          chan struct{}             // capacity: prompts rendered and tokenized at once
	vocab            int
}

// Files are a checkpoint's text files, as they are.
type Files struct {
	tokenizer token.Source
	template  string // "": tokenizer_config.json may have one
	tools     string // the template for requests with tools; "": the same
	processor string // the template of a model that also sees, which counts where there is no other
	end       []int32
}

// Read reads the text files of a checkpoint.
func Read(ck *checkpoint.Checkpoint) (f Files, err error) {
	if f.tokenizer, err = token.Read(ck); err != nil {
		return f, fmt.Errorf("tokenizer: %w", err)
	}
	for name, to := range map[string]*string{
		"chat_template.jinja": &f.template, "additional_chat_templates/tool_use.jinja": &f.tools,
	} {
		template, err := ck.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return f, fmt.Errorf("chat template: %w", err)
		}
		*to = string(template)
	}
	if f.processor, err = ck.ProcessorTemplate(); err != nil {
		return f, err
	}
	f.end, err = ck.EndTokens()
	return f, err
}

// Load reads tokenizer and chat template. A checkpoint without a template has no chats. The caller closes the codec.
func (f Files) Load(o Options) (*Codec, error) {
	for _, option := range []*string{&o.ToolParser, &o.ReasoningParser} {
		if *option == "" {
			*option = "auto"
		}
	}
	tok, err := f.tokenizer.Load(o.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	c := &Codec{o: o, tok: tok, end: f.end, prepare: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if t := tok.EOS(); t.ID >= 0 {
		c.end = append(c.end, t.ID)
	}
	if err := c.load(f); err != nil {
		return nil, errors.Join(err, tok.Close())
	}
	return c, nil
}

func (c *Codec) load(f Files) error {
	if c.o.Template != "" {
		return c.loadNamed()
	}
	source, tools := f.template, f.tools
	switch {
	case c.o.ChatTemplate != "":
		source, tools = c.o.ChatTemplate, ""
	case source == "":
		source, tools = c.tok.ChatTemplate(), c.tok.ToolTemplate()
	}
	if source == "" {
		source, tools = f.processor, ""
	}
	if source == "" {
		return nil
	}
	if !utf8.ValidString(source + tools) {
		return errors.New("chat template: not UTF-8")
	}
	return c.loadTemplate(source, tools)
}

// loadTemplate takes the chat template, and the one for requests with tools if that is another.
func (c *Codec) loadTemplate(source, tools string) error {
	c.reasoning, c.tools = chat.DetectFormats(source + tools)
	if tools != "" && tools != source {
		if err := c.compileTemplate(tools); err != nil {
			return err
		}
		c.toolPrompter = c.prompter
	}
	return c.compileTemplate(source)
}

func (c *Codec) compileTemplate(source string) error {
	t, err := jinja.Compile(source, jinja.Options{})
	if err != nil {
		return fmt.Errorf("chat template: %w", err)
	}
	c.newPrompter(chat.PrompterConfig{Template: t, Source: source, Kwargs: c.o.kwargs(), System: deref(c.o.DefaultSystem)})
	return nil
}

// newPrompter completes p with what the tokenizer and the options say.
func (c *Codec) newPrompter(p chat.PrompterConfig) {
	for _, s := range c.tok.Special() {
		p.Special = append(p.Special, s.Content)
	}
	p.Tokens = c.tok.TemplateVars()
	c.prompter = chat.NewPrompter(p)
	choose := func(found *string, option string) {
		switch option {
		case "auto":
		case "none":
			*found = ""
		default:
			*found = option
		}
	}
	choose(&c.reasoning, c.o.ReasoningParser)
	choose(&c.tools, c.o.ToolParser)
	c.marks = map[string]map[int32]bool{}
	for _, tools := range []string{"", c.tools} {
		c.marks[tools] = map[int32]bool{}
		for _, mark := range chat.Marks(c.reasoning, tools) {
			if id, ok := c.tok.ID(mark); ok {
				c.marks[tools][id] = true
			}
		}
	}
}

// Bound says how many tokens the model knows.
func (c *Codec) Bound(vocab int) {
	c.vocab = vocab
	known := func(id int32) bool { return id >= 0 && int(id) < vocab }
	absent := slices.DeleteFunc(slices.Clone(c.end), known)
	slices.Sort(c.end)
	c.end = slices.DeleteFunc(slices.Compact(c.end), func(id int32) bool { return !known(id) })
	if len(c.end) == 0 {
		c.o.Log.Warn().Ints32("eos_token_id", absent).Int("vocabulary", vocab).Msg("no token ends answers: they go on to max_tokens")
	} else if len(absent) > 0 {
		c.o.Log.Warn().Ints32("eos_token_id", absent).Int("vocabulary", vocab).Msg("end tokens that the vocabulary does not have")
	}
}

// Tokenizer is the model's. It belongs to the codec.
func (c *Codec) Tokenizer() *token.Tokenizer { return c.tok }

// Formats are those of thoughts and tool calls, "" for none.
func (c *Codec) Formats() (reasoning, tools string) { return c.reasoning, c.tools }

// HasTemplate says whether chats can be rendered.
func (c *Codec) HasTemplate() bool { return c.prompter != nil }

// Close frees the tokenizer.
func (c *Codec) Close() error { return c.tok.Close() }
