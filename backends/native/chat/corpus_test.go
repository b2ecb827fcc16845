package chat

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pagoda/backends/native/jinja"
	"pagoda/backends/native/token"
	"pagoda/engine"
)

// corpus is what testdata/corpus.py has written: how to make the conversations, and what came of them.
type corpus struct {
	Families map[string]struct {
		Kind     string
		Specials []string
		Tokens   map[string]string
	}
	Pieces, Names, Floats []string
	Types                 []json.RawMessage
}

// corpusSize is the number of conversations.
const corpusSize = 10_000

// numbers are pseudo-random, the same as in corpus.py: SplitMix64 (Steele, Lea and Flood 2014).
type numbers uint64

func (s *numbers) below(n int) int {
	*s += 0x9E3779B97F4A7C15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return int((z ^ z>>31) % uint64(n))
}

func (c *corpus) text(r *numbers) string {
	n := r.below(6)
	if r.below(40) == 0 {
		n = 120
	}
	var b strings.Builder
	for range n {
		b.WriteString(c.Pieces[r.below(len(c.Pieces))])
	}
	return b.String()
}

func (c *corpus) mapping(r *numbers, n int, make func() string) (text string, keys []string) {
	first := r.below(len(c.Names))
	var members []string
	for i := range n {
		key := c.Names[(first+i)%len(c.Names)]
		keys = append(keys, key)
		members = append(members, quote(key)+": "+make())
	}
	return "{" + strings.Join(members, ", ") + "}", keys
}

func (c *corpus) value(r *numbers, depth int) string {
	kinds := 6
	if depth < 2 {
		kinds = 8
	}
	switch r.below(kinds) {
	case 0, 1:
		return quote(c.text(r))
	case 2:
		return strconv.Itoa(r.below(2000) - 1000)
	case 3:
		return c.Floats[r.below(len(c.Floats))]
	case 4:
		return strconv.FormatBool(r.below(2) == 0)
	case 6:
		var list []string
		for range r.below(3) {
			list = append(list, c.value(r, depth+1))
		}
		return "[" + strings.Join(list, ", ") + "]"
	case 7:
		text, _ := c.mapping(r, r.below(3), func() string { return c.value(r, depth+1) })
		return text
	}
	return "null"
}

func (c *corpus) tool(r *numbers) json.RawMessage {
	name := quote(c.Names[r.below(len(c.Names))])
	description := quote(c.text(r))
	properties, keys := c.mapping(r, r.below(4), func() string {
		kind := string(c.Types[r.below(len(c.Types))])
		return `{"type": ` + kind + `, "description": ` + quote(c.text(r)) + "}"
	})
	required, _ := marshal(append([]string{}, keys[:min(r.below(2), len(keys))]...))
	return json.RawMessage(`{"type": "function", "function": {"name": ` + name + `, "description": ` + description +
		`, "parameters": {"type": "object", "properties": ` + properties + `, "required": ` + string(required) + `}}}`)
}

func (c *corpus) call(r *numbers, i int) engine.ToolCall {
	name := c.Names[r.below(len(c.Names))]
	args, _ := c.mapping(r, r.below(4), func() string { return c.value(r, 0) })
	return engine.ToolCall{ID: "abcdefgh" + strconv.Itoa(i), Name: name, Arguments: args}
}

func (c *corpus) assistant(r *numbers, tools bool) []engine.Message {
	turn := func(content string) engine.Message { return engine.Message{Role: "assistant", Content: &content} }
	kind := r.below(6)
	switch {
	case kind == 2:
		thoughts := c.text(r)
		return []engine.Message{turn("<think>\n" + thoughts + "\n</think>\n\n" + c.text(r))}
	case kind == 3:
		thoughts := c.text(r)
		m := turn(c.text(r))
		m.Reasoning = &thoughts
		return []engine.Message{m}
	case kind < 4 || !tools:
		return []engine.Message{turn(c.text(r))}
	}
	m := turn("")
	switch r.below(3) {
	case 1:
		m.Content = nil
	case 2:
		*m.Content = c.text(r)
	}
	for i := range 1 + r.below(2) {
		m.ToolCalls = append(m.ToolCalls, c.call(r, i))
	}
	turns := []engine.Message{m}
	for _, call := range m.ToolCalls {
		result := c.text(r)
		turns = append(turns, engine.Message{Role: "tool", Content: &result, Name: call.Name, ToolCallID: call.ID})
	}
	if r.below(2) == 0 {
		turns = append(turns, turn(c.text(r)))
	}
	return turns
}

// conversation makes the conversation that corpus.py makes of the same seed.
func (c *corpus) conversation(seed int) *engine.Chat {
	r := numbers(seed)
	chat := &engine.Chat{}
	if r.below(3) == 0 {
		for range 1 + r.below(3) {
			chat.Tools = append(chat.Tools, c.tool(&r))
		}
	}
	say := func(role string) {
		content := c.text(&r)
		chat.Messages = append(chat.Messages, engine.Message{Role: role, Content: &content})
	}
	if r.below(3) == 0 {
		say("system")
	}
	turns := 1 + r.below(3)
	for i := range turns {
		say("user")
		if r.below(40) == 0 {
			say("user")
		}
		if i == turns-1 && r.below(3) > 0 {
			break
		}
		chat.Messages = append(chat.Messages, c.assistant(&r, len(chat.Tools) > 0)...)
	}
	open := r.below(4) > 0
	chat.AddGenerationPrompt = &open
	if thinking := r.below(3); thinking > 0 {
		chat.TemplateKwargs = map[string]json.RawMessage{"enable_thinking": json.RawMessage(strconv.FormatBool(thinking == 1))}
	}
	return chat
}

// context is what transformers gives to a template.
func context(t *testing.T, c *engine.Chat, tokens map[string]string) []byte {
	t.Helper()
	a := abilities{nullContent: true}
	messages, err := a.messages(c.Messages)
	if err != nil {
		t.Fatal(err)
	}
	v := variables{messages: messages, tools: c.Tools, open: *c.AddGenerationPrompt, tokens: tokens, kwargs: c.TemplateKwargs}
	client, err := v.clientJSON()
	if err != nil {
		t.Fatal(err)
	}
	return v.context(client)
}

type folder string

func (f folder) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), name))
}

// TestCorpus: 10,000 conversations become the bytes and the token ids that transformers makes of them, for the template of
// every family; so do some of them on the way of requests, where control tokens in a client's text are kept apart.
func TestCorpus(t *testing.T) {
	data, err := os.ReadFile("testdata/corpus.json")
	if err != nil {
		t.Fatal(err)
	}
	c := &corpus{}
	if err := json.Unmarshal(data, c); err != nil || len(c.Families) < 14 {
		t.Fatalf("%d families, error %v", len(c.Families), err)
	}
	step := 1
	if testing.Short() {
		step = 20
	}
	for name := range c.Families {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := c.family(t, name)
			var all sync.WaitGroup
			n := runtime.GOMAXPROCS(0)
			for worker := range n {
				all.Go(func() {
					for seed := worker * step; seed < corpusSize && !t.Failed(); seed += n * step {
						f.check(t, seed)
					}
				})
			}
			all.Wait()
		})
	}
}

// corpusFamily is a family's template and tokenizer.
type corpusFamily struct {
	*corpus
	template *jinja.Template
	prompter *Prompter
	tok      *token.Tokenizer
	tokens   map[string]string
	special  []string
	hashes   []byte
}

func (c *corpus) family(t *testing.T, name string) *corpusFamily {
	t.Helper()
	f := c.Families[name]
	source, err := token.Read(folder("../token/testdata/kinds/" + f.Kind))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := source.Load(token.Options{AddSpecialTokens: f.Specials})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tok.Close() })
	text, err := os.ReadFile("../jinja/testdata/templates/" + name + ".jinja")
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC) }
	template, err := jinja.Compile(string(text), jinja.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := os.ReadFile("testdata/corpus/" + name)
	if err != nil || len(hashes) != 4*corpusSize {
		t.Fatalf("%d bytes of hashes, error %v", len(hashes), err)
	}
	out := &corpusFamily{corpus: c, template: template, tok: tok, tokens: f.Tokens, hashes: hashes}
	for _, s := range tok.Special() {
		out.special = append(out.special, s.Content)
	}
	out.prompter = NewPrompter(PrompterConfig{Template: template, Source: string(text), Special: out.special, Tokens: f.Tokens})
	if got := tok.TemplateVars(); !hasAll(got, f.Tokens) {
		t.Errorf("named tokens %v, want %v", got, f.Tokens)
	}
	return out
}

func hasAll(have, want map[string]string) bool {
	for _, key := range slices.Collect(maps.Keys(want)) {
		if have[key] != want[key] {
			return false
		}
	}
	return true
}

func (f *corpusFamily) check(t *testing.T, seed int) {
	chat := f.conversation(seed)
	rendered, err := f.template.Render(context(t, chat, f.tokens))
	result := ""
	if err != nil {
		result = "!" + pythonError(err)
	} else {
		ids, err := f.tok.EncodeCut(rendered, nil)
		if err != nil {
			t.Errorf("conversation %d: %v", seed, err)
			return
		}
		result = rendered + "\x00" + joined(ids)
	}
	if sum := sha256.Sum256([]byte(result)); !bytes.Equal(sum[:4], f.hashes[4*seed:4*seed+4]) {
		t.Errorf("conversation %d differs (corpus.py %s %d shows what transformers makes of it):\n%s\n%.2000q", seed, t.Name(), seed,
			context(t, chat, f.tokens), result)
		return
	}
	if err == nil && seed%8 == 0 && !f.differs(chat) {
		f.checkPrompter(t, seed, chat, rendered)
	}
}

// differs tells whether the prompter gives the template something else than transformers does: an empty text for no content,
// arguments in the model's own spelling.
func (f *corpusFamily) differs(chat *engine.Chat) bool {
	return slices.ContainsFunc(chat.Messages, func(m engine.Message) bool {
		return m.Content == nil && !f.prompter.can.nullContent || len(m.ToolCalls) > 0 && f.prompter.can.stringArguments
	})
}

func (f *corpusFamily) checkPrompter(t *testing.T, seed int, chat *engine.Chat, rendered string) {
	p, err := f.prompter.Render(chat)
	if err != nil || p.Text != rendered {
		t.Errorf("conversation %d, as a request: %v\n got %.2000q\nwant %.2000q", seed, err, p.Text, rendered)
		return
	}
	whole, err := f.tok.EncodeCut(p.Text, nil)
	if err != nil {
		t.Errorf("conversation %d: %v", seed, err)
	}
	ids, err := f.tok.EncodeCut(p.Text, p.Cuts)
	if err != nil || len(p.Cuts) == 0 && !slices.Equal(ids, whole) {
		t.Errorf("conversation %d, as a request: %v, ids %v, want %v", seed, err, ids, whole)
	}
}

func joined(ids []int32) string {
	var out []byte
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(id), 10)
	}
	return string(out)
}

// pythonError is the message of raise_exception, else the name of Python's exception.
func pythonError(err error) string {
	var failed *jinja.Error
	if !errors.As(err, &failed) {
		return err.Error()
	}
	if message, ok := failed.Raised(); ok {
		return message
	}
	return failed.Kind
}
