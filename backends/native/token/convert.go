package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// object is a JSON object of a tokenizer.json: a normalizer, a decoder and so on.
type object map[string]any

// conversion makes a tokenizer.json out of another kind of vocabulary.
type conversion struct {
	Source
	conf *config

	normalizer    any
	preTokenizer  any
	postProcessor any
	decoder       any
	model         object

	ids   map[string]int // of the model's vocabulary
	added []addedToken
}

// convert returns the tokenizer.json that transformers would make of the files.
func (s Source) convert(conf *config, convert func(*conversion) error) ([]byte, error) {
	c := &conversion{Source: s, conf: conf, added: []addedToken{}}
	if err := convert(c); err != nil {
		return nil, err
	}
	return json.Marshal(object{
		"added_tokens": c.added, "decoder": c.decoder, "normalizer": c.normalizer, "pre_tokenizer": c.preTokenizer,
		"post_processor": c.postProcessor, "model": c.model, "version": "1.0",
	})
}

// bosEOS is the post-processor that adds the beginning and the end of the text as the configuration says.
func (c *conversion) bosEOS() any {
	var pieces []any
	specials := object{}
	add := func(wanted *bool, key string) {
		t := c.conf.Named[key].Content
		if id, ok := c.ids[t]; ok && or(wanted, false) {
			pieces = append(pieces, object{"SpecialToken": object{"id": t, "type_id": 0}})
			specials[t] = object{"id": t, "ids": []int{id}, "tokens": []string{t}}
		}
	}
	add(c.conf.AddBOS, "bos_token")
	pieces = append(pieces, object{"Sequence": object{"id": "A", "type_id": 0}})
	add(c.conf.AddEOS, "eos_token")
	return object{"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": specials}
}

// around is the post-processor that puts tokens before (if not "") and after the text.
func (c *conversion) around(before, after string) (any, error) {
	specials := object{}
	part := func(t string, pair int) (any, error) {
		id, ok := c.ids[t]
		if !ok {
			return nil, fmt.Errorf("the vocabulary has no token %q", t)
		}
		specials[t] = object{"id": t, "ids": []int{id}, "tokens": []string{t}}
		return object{"SpecialToken": object{"id": t, "type_id": pair}}, nil
	}
	var pieces []any
	if before != "" {
		p, err := part(before, 0)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, p)
	}
	pieces = append(pieces, object{"Sequence": object{"id": "A", "type_id": 0}})
	p, err := part(after, 0)
	if err != nil {
		return nil, err
	}
	pieces = append(pieces, p)
	return object{"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": specials}, nil
}

func sequence(kind, field string, parts ...any) object { return object{"type": kind, field: parts} }

func split(pattern any, behavior string) object {
	return object{"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false}
}

func replace(pattern object, content string) object {
	return object{"type": "Replace", "pattern": pattern, "content": content}
}

func literal(s string) object { return object{"String": s} }
func regex(s string) object   { return object{"Regex": s} }

func metaspace(scheme string, split bool) object {
	return object{"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
}

func byteLevel(prefixSpace, useRegex bool) object {
	return object{"type": "ByteLevel", "add_prefix_space": prefixSpace, "trim_offsets": true, "use_regex": useRegex}
}

// entries is a vocabulary as a JSON object in the order of ids.
type entries []string

func (e entries) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for id, t := range e {
		if id > 0 {
			out = append(out, ',')
		}
		key, err := json.Marshal(t)
		if err != nil {
			return nil, err
		}
		out = fmt.Appendf(append(out, key...), ":%d", id)
	}
	return append(out, '}'), nil
}

func idsOf(tokens []string) map[string]int {
	ids := make(map[string]int, len(tokens))
	for id, t := range tokens {
		ids[t] = id
	}
	return ids
}

// The patterns by which the families split text. Sources: the tokenizers of transformers 5.24 and Qwen's own code.
const (
	patternQwen = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|` +
		`\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen35 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|` +
		`\s*[\r\n]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|` +
		`\s*[\r\n]+|\s+(?!\S)|\s+`
)

// wordPiece is BERT's vocab.txt: a token a line.
func (c *conversion) wordPiece() error {
	if c.conf.class != "BertTokenizer" {
		return c.unknownClass("BertTokenizer")
	}
	lines := strings.Split(strings.TrimSuffix(string(c.vocabulary), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRightFunc(line, unicode.IsSpace)
	}
	c.ids = idsOf(lines)
	vocab := entries(lines)
	name := func(key string) string { return c.conf.Named[key].Content }
	c.model = object{"type": "WordPiece", "unk_token": name("unk_token"), "continuing_subword_prefix": "##",
		"max_input_chars_per_word": 100, "vocab": vocab}
	c.normalizer = object{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": or(c.conf.ChineseChars, true),
		"strip_accents": c.conf.StripAccents, "lowercase": or(c.conf.Lower, true)}
	c.preTokenizer = object{"type": "BertPreTokenizer"}
	c.decoder = object{"type": "WordPiece", "prefix": "##", "cleanup": true}
	var err error
	c.postProcessor, err = c.around(name("cls_token"), name("sep_token"))
	return err
}

// vocabAndMerges is byte-level BPE as GPT-2 has it: vocab.json and merges.txt.
func (c *conversion) vocabAndMerges() error {
	if c.merges == nil {
		return errors.New("merges.txt, which belongs to it, is not there")
	}
	var vocab map[string]int
	if err := json.Unmarshal(c.vocabulary, &vocab); err != nil {
		return err
	}
	c.ids = vocab
	lines := strings.Split(strings.TrimSuffix(string(c.merges), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSuffix(line, "\r")
	}
	c.model = object{"type": "BPE", "vocab": vocab, "merges": lines}
	prefixSpace := or(c.conf.AddPrefixSpace, false)
	c.decoder = byteLevel(true, true)
	c.postProcessor = c.bosEOS()
	switch c.conf.class {
	case "GPT2Tokenizer":
		c.preTokenizer = byteLevel(prefixSpace, true)
	case "RobertaTokenizer":
		c.preTokenizer = byteLevel(prefixSpace, true)
		var err error
		c.postProcessor, err = c.around(c.conf.Named["cls_token"].Content, c.conf.Named["sep_token"].Content)
		return err
	case "Qwen2Tokenizer", "Qwen3_5Tokenizer":
		pattern := map[string]string{"Qwen2Tokenizer": patternQwen, "Qwen3_5Tokenizer": patternQwen35}[c.conf.class]
		c.normalizer = object{"type": "NFC"}
		c.preTokenizer = sequence("Sequence", "pretokenizers", split(regex(pattern), "Isolated"), byteLevel(prefixSpace, false))
	default:
		return c.unknownClass("GPT2Tokenizer", "RobertaTokenizer", "Qwen2Tokenizer", "Qwen3_5Tokenizer")
	}
	return nil
}

// unknownClass is the error for a file that several classes read in different ways.
func (c *conversion) unknownClass(known ...string) error {
	class := c.conf.Class
	if class == "" {
		class = "none"
	}
	return fmt.Errorf("tokenizer_config.json's tokenizer_class is %s and config.json's model_type names none either; "+
		"such a file is read for %s", class, strings.Join(known, ", "))
}

// addAt adds one of the file's own control tokens; those that the configuration lists follow later.
func (c *conversion) addAt(id int, content string) {
	c.added = append(c.added, addedToken{ID: id, Content: content, Special: true})
	c.ids[content] = id
}
