package token

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Files is where a checkpoint's files are read from; a file that is not there is fs.ErrNotExist.
type Files interface {
	ReadFile(name string) ([]byte, error)
}

// Source is a checkpoint's tokenizer files as they are.
type Source struct {
	name       string // of the file with the vocabulary
	vocabulary []byte
	merges     []byte // merges.txt, beside vocab.json

	config      []byte // tokenizer_config.json
	specialMap  []byte // special_tokens_map.json
	addedTokens []byte // added_tokens.json
	model       []byte // config.json
}

// vocabularies are the files that hold a vocabulary, in the order in which transformers prefers them, with what turns
// each into a tokenizer.json; nil: it is one.
var vocabularies = []struct {
	name    string
	convert func(*conversion) error
}{
	{"tokenizer.json", nil},
	{"tekken.json", (*conversion).tekken},
	{"tokenizer.model", (*conversion).sentencePieceOrTiktoken},
	{"tiktoken.model", (*conversion).tiktoken},
	{"spiece.model", (*conversion).sentencePiece},
	{"sentencepiece.bpe.model", (*conversion).sentencePiece},
	{"vocab.txt", (*conversion).wordPiece},
	{"vocab.json", (*conversion).vocabAndMerges},
	{"qwen.tiktoken", (*conversion).qwen},
}

// Read reads the tokenizer files of a checkpoint.
func Read(files Files) (s Source, err error) {
	for _, v := range vocabularies {
		if s.vocabulary, err = optional(files, v.name); err != nil {
			return s, err
		}
		if s.vocabulary != nil {
			s.name = v.name
			break
		}
	}
	if s.name == "" {
		var names []string
		for _, v := range vocabularies {
			names = append(names, v.name)
		}
		return s, fmt.Errorf("the checkpoint has no tokenizer: none of %s is there", strings.Join(names, ", "))
	}
	for _, f := range []struct {
		name string
		data *[]byte
	}{
		{"merges.txt", &s.merges}, {"tokenizer_config.json", &s.config}, {"special_tokens_map.json", &s.specialMap},
		{"added_tokens.json", &s.addedTokens}, {"config.json", &s.model},
	} {
		if *f.data, err = optional(files, f.name); err != nil {
			return s, err
		}
	}
	return s, nil
}

// optional returns a file's contents, nil if it is not there or empty.
func optional(files Files, name string) ([]byte, error) {
	data, err := files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return nil, nil
	}
	return data, err
}

// Options change what the files say. The zero value changes nothing.
type Options struct {
	AddTokens        []string // ordinary tokens to add, unless the vocabulary has them
	AddSpecialTokens []string // control tokens likewise
	// SplitSpecialTokens encodes the spelling of a control token in plain text as text.
	SplitSpecialTokens bool
}

// Load makes the tokenizer.
func (s Source) Load(o Options) (*Tokenizer, error) {
	conf, err := s.readConfig()
	if err != nil {
		return nil, err
	}
	data := s.vocabulary
	for _, v := range vocabularies {
		if v.name == s.name && v.convert != nil {
			if data, err = s.convert(&conf, v.convert); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	inner, plain, err := loadWith(data, &conf, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return newTokenizer(inner, plain, conf)
}

// Load reads the contents of tokenizer.json and tokenizer_config.json; the latter may be empty.
func Load(tokenizerJSON, tokenizerConfigJSON []byte) (*Tokenizer, error) {
	return Source{name: "tokenizer.json", vocabulary: tokenizerJSON, config: tokenizerConfigJSON}.Load(Options{})
}

// readConfig reads tokenizer_config.json and, as transformers does where that lists no added tokens, the older files.
func (s Source) readConfig() (config, error) {
	c, err := parseConfig(s.config)
	if err != nil {
		return c, err
	}
	c.class = c.className(s.model)
	legacy := c.AddedTokens == nil
	if legacy && s.specialMap != nil {
		if err := c.merge(s.specialMap); err != nil {
			return c, fmt.Errorf("special_tokens_map.json: %w", err)
		}
	}
	c.setDefaults()
	if legacy && s.addedTokens != nil {
		var ids map[string]int
		if err := unmarshal(s.addedTokens, &ids); err != nil {
			return c, fmt.Errorf("added_tokens.json: %w", err)
		}
		special := map[string]bool{}
		for _, t := range append(c.named(), c.extra()...) {
			special[t.Content] = true
		}
		c.AddedTokens = map[int]addedToken{}
		for content, id := range ids {
			c.AddedTokens[id] = addedToken{Content: content, Normalized: !special[content], Special: special[content]}
		}
	}
	return c, nil
}
