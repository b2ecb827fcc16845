package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"unicode/utf8"

	"pagoda/backends/native/chat"
	"pagoda/backends/native/jinja"
	"pagoda/backends/native/token"
	"pagoda/checkpoint"
	"pagoda/engine"
)

// prompt is a request's prompt as the model sees it.
type prompt struct {
	tokens    []int32
	openThink bool // it has opened the thoughts
}

// tokenizerFiles are a checkpoint's text files, as they are.
type tokenizerFiles struct {
	tokenizer token.Source
	template  string // "": tokenizer_config.json may have one
	tools     string // the template for requests with tools; "": the same
	processor string // the template of a model that also sees, which counts where there is no other
}

func readTokenizerFiles(ck *checkpoint.Checkpoint) (f tokenizerFiles, err error) {
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
	f.processor, err = ck.ProcessorTemplate()
	return f, err
}

// tokenizerLoad is the reading of tokenizer and chat template, which goes on while the weights are packed.
type tokenizerLoad struct {
	done chan struct{} // closed at the end; then err is final
	err  error
}

// startTokenizer begins to read. Until the load is done its goroutine owns the engine's tokenizer and template.
func (e *Engine) startTokenizer(f tokenizerFiles) *tokenizerLoad {
	l := &tokenizerLoad{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.err = e.loadTokenizer(f)
	}()
	return l
}

// failed returns the error of a load that has failed already.
func (l *tokenizerLoad) failed() error {
	select {
	case <-l.done:
		return l.err
	default:
		return nil
	}
}

// wait waits for the end and returns the error.
func (l *tokenizerLoad) wait() error {
	<-l.done
	return l.err
}

// loadTokenizer reads tokenizer and chat template. A checkpoint without a template serves plain completions only.
func (e *Engine) loadTokenizer(f tokenizerFiles) (err error) {
	if e.tok, err = f.tokenizer.Load(e.opts.Vocabulary.tokenizer()); err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	if e.opts.Prompt.Template != "" {
		return e.loadNamed(e.opts.Prompt)
	}
	source, tools := f.template, f.tools
	switch {
	case e.opts.ChatTemplate != "":
		source, tools = e.opts.ChatTemplate, ""
	case source == "":
		source, tools = e.tok.ChatTemplate(), e.tok.ToolTemplate()
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
	return e.loadTemplate(source, tools)
}

// loadTemplate takes the chat template, and the one for requests with tools if that is another.
func (e *Engine) loadTemplate(source, tools string) error {
	e.reasoning, e.tools = chat.DetectFormats(source + tools)
	if tools != "" && tools != source {
		if err := e.compileTemplate(tools); err != nil {
			return err
		}
		e.toolPrompter = e.prompter
	}
	return e.compileTemplate(source)
}

func (e *Engine) compileTemplate(source string) error {
	t, err := jinja.Compile(source, jinja.Options{})
	if err != nil {
		return fmt.Errorf("chat template: %w", err)
	}
	return e.newPrompter(chat.PrompterConfig{Template: t, Source: source, Kwargs: e.opts.Prompt.kwargs(),
		System: deref(e.opts.Prompt.DefaultSystem)})
}

// prompterOf is the prompter for c.
func (e *Engine) prompterOf(c *engine.Chat) *chat.Prompter {
	if e.toolPrompter != nil && len(c.Tools) > 0 && c.ToolChoice != "none" {
		return e.toolPrompter
	}
	return e.prompter
}

// newPrompter completes c with what the tokenizer and the options say.
func (e *Engine) newPrompter(c chat.PrompterConfig) error {
	for _, s := range e.tok.Special() {
		c.Special = append(c.Special, s.Content)
	}
	c.Tokens = e.tok.TemplateVars()
	e.prompter = chat.NewPrompter(c)
	choose := func(found *string, option string) {
		switch option {
		case "auto":
		case "none":
			*found = ""
		default:
			*found = option
		}
	}
	choose(&e.reasoning, e.opts.ReasoningParser)
	choose(&e.tools, e.opts.ToolParser)
	e.marks = map[string]map[int32]bool{}
	for _, tools := range []string{"", e.tools} {
		e.marks[tools] = map[int32]bool{}
		for _, mark := range chat.Marks(e.reasoning, tools) {
			if id, ok := e.tok.ID(mark); ok {
				e.marks[tools][id] = true
			}
		}
	}
	return nil
}

// endOfSequence lists the tokens that end an answer: those of generation_config.json, else config.json's, and the
// tokenizer's.
func endOfSequence(cfg *checkpoint.Config, gen *checkpoint.GenerationConfig, tok *token.Tokenizer) []int32 {
	ids := gen.EOSTokenIDs
	if len(ids) == 0 {
		ids = cfg.EOSTokenIDs
	}
	eos := append([]int32(nil), ids...)
	if t := tok.EOS(); t.ID >= 0 {
		eos = append(eos, t.ID)
	}
	return eos
}

// warnOfEnds tells of tokens that were to end answers and never will: the model cannot give them.
func (e *Engine) warnOfEnds() {
	absent := slices.DeleteFunc(slices.Clone(e.eos), func(id int32) bool { return id >= 0 && int(id) < e.vocab })
	if len(absent) == len(e.eos) {
		e.opts.Log.Warn().Ints32("eos_token_id", e.eos).Int("vocabulary", e.vocab).Msg("no token ends answers: they go on to max_tokens")
	} else if len(absent) > 0 {
		e.opts.Log.Warn().Ints32("eos_token_id", absent).Int("vocabulary", e.vocab).Msg("end tokens that the vocabulary does not have")
	}
}

// maxTokenizeBytes bounds the text of one Tokenize call, which no context length does: about a second's work.
const maxTokenizeBytes = 1 << 20

// prepared runs f when its turn has come: rendering and tokenizing are work for GOMAXPROCS goroutines at once.
func (e *Engine) prepared(ctx context.Context, f func() (prompt, error)) (prompt, error) {
	select {
	case e.prepare <- struct{}{}:
		defer func() { <-e.prepare }()
	case <-ctx.Done():
		return prompt{}, &engine.Error{Code: engine.Canceled, Message: "the request was cancelled", Err: context.Cause(ctx)}
	}
	return f()
}

// promptOf renders and tokenizes req's prompt and checks that it fits.
func (e *Engine) promptOf(ctx context.Context, req *engine.Request) (prompt, error) {
	p, err := e.prepared(ctx, func() (prompt, error) { return e.tokenize(req, true) })
	if err != nil {
		return p, err
	}
	if len(p.tokens) == 0 {
		return p, engine.BadField(promptField(req), "the prompt is empty")
	}
	return p, nil
}

// tokenize turns req's prompt into tokens. With bounded, a text that cannot fit is refused before the work is done.
func (e *Engine) tokenize(req *engine.Request, bounded bool) (p prompt, err error) {
	var text string
	var cuts []int
	switch {
	case req.Chat != nil:
		if e.prompter == nil {
			return p, engine.Errorf(engine.Invalid, "this model has no chat template; use /v1/completions")
		}
		r, err := e.prompterOf(req.Chat).Render(req.Chat)
		if least := contentBytes(req.Chat) / e.tok.Longest(); err != nil && bounded && least > e.maxLen {
			return p, e.tooLong(req, fmt.Sprintf("at least %d", least)) // which is why a limit of the template was met
		}
		if err != nil {
			return p, err
		}
		text, cuts, p.openThink = r.Text, r.Cuts, r.OpenThink
	case req.Text != nil:
		text = *req.Text
	default:
		for i, id := range req.Tokens {
			if id < 0 || int(id) >= e.vocab {
				return p, engine.BadField("prompt", "token %d is %d, outside the vocabulary of %d tokens", i, id, e.vocab)
			}
		}
		p.tokens = req.Tokens
		return p, nil
	}
	if least := len(text) / e.tok.Longest(); bounded && least > e.maxLen {
		return p, e.tooLong(req, fmt.Sprintf("at least %d", least))
	}
	if !bounded && len(text) > maxTokenizeBytes {
		return p, engine.BadField(promptField(req), "the prompt has %d bytes; at most %d can be tokenized at once",
			len(text), maxTokenizeBytes)
	}
	if req.Chat != nil {
		p.tokens, err = e.tok.EncodeCut(text, cuts)
	} else {
		p.tokens, err = e.tok.Encode(text, req.AddSpecialTokens == nil || *req.AddSpecialTokens)
	}
	if err != nil {
		return p, &engine.Error{Code: engine.Invalid, Param: promptField(req), Message: "the prompt could not be tokenized", Err: err}
	}
	for _, id := range p.tokens {
		if int(id) >= e.vocab {
			return p, engine.BadField(promptField(req), "the model has no embedding for the tokenizer's token %d, %q", id,
				e.tok.Decode([]int32{id}, false))
		}
	}
	return p, nil
}

// Tokenize returns the token ids of req's prompt.
func (e *Engine) Tokenize(ctx context.Context, req *engine.Request) ([]int32, error) {
	if err := e.serves(req.Model); err != nil {
		return nil, err
	}
	p, err := e.prepared(ctx, func() (prompt, error) { return e.tokenize(req, false) })
	return p.tokens, err
}

func contentBytes(c *engine.Chat) int {
	n := 0
	for _, m := range c.Messages {
		if m.Content != nil {
			n += len(*m.Content)
		}
	}
	return n
}

// Detokenize returns the text of tokens, special tokens included.
func (e *Engine) Detokenize(_ context.Context, name string, tokens []int32) (string, error) {
	if err := e.checkTokens(name, tokens); err != nil {
		return "", err
	}
	return e.tok.Decode(tokens, false), nil
}

// TokenText returns the text of each token; what is not UTF-8 shows as U+FFFD.
func (e *Engine) TokenText(_ context.Context, name string, tokens []int32) ([]string, error) {
	if err := e.checkTokens(name, tokens); err != nil {
		return nil, err
	}
	out := make([]string, len(tokens))
	for i, id := range tokens {
		out[i] = e.tok.Decode([]int32{id}, false)
	}
	return out, nil
}

func (e *Engine) serves(name string) error {
	ad, err := e.pickAdapter(name)
	if ad != nil {
		ad.Release()
	}
	return err
}

func (e *Engine) checkTokens(name string, tokens []int32) error {
	if err := e.serves(name); err != nil {
		return err
	}
	for i, id := range tokens {
		if !e.tok.Valid(id) {
			return engine.BadField("tokens", "token %d is %d, outside the vocabulary of %d tokens", i, id, e.tok.VocabSize())
		}
	}
	return nil
}
