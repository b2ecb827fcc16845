// Package token is the native engine's tokenizer: text to ids, ids to bytes, and text that grows by
// one id at a time. Special tokens, end-of-text ids and the chat template come from
// tokenizer_config.json.
package token

import (
	"fmt"

	"pagoda/ffi"
)

// Token is one entry of the vocabulary by name. ID is -1 where there is none.
type Token struct {
	ID      int32
	Content string
}

// Tokenizer is safe for concurrent use.
type Tokenizer struct {
	ffi     *ffi.Tokenizer
	special []Token
	skip    map[int32]bool // ids of special
	conf    config
}

// Load reads the contents of tokenizer.json and tokenizer_config.json; the latter may be empty.
func Load(tokenizerJSON, tokenizerConfigJSON []byte) (*Tokenizer, error) {
	conf, err := parseConfig(tokenizerConfigJSON)
	if err != nil {
		return nil, err
	}
	inner, err := ffi.LoadTokenizer(tokenizerJSON)
	if err != nil {
		return nil, err
	}
	t := &Tokenizer{ffi: inner, conf: conf, skip: map[int32]bool{}}
	for _, a := range inner.Added() {
		if a.Special {
			t.special = append(t.special, Token{int32(a.ID), a.Content})
			t.skip[int32(a.ID)] = true
		}
	}
	return t, nil
}

// Close frees the tokenizer; calls that still run finish first.
func (t *Tokenizer) Close() error { return t.ffi.Close() }

// Encode returns the ids of text. With addSpecial the tokenizer adds its own prefix and suffix, such
// as a beginning-of-text token; chat templates write those themselves.
func (t *Tokenizer) Encode(text string, addSpecial bool) ([]int32, error) {
	return t.ffi.AppendIDs(nil, text, addSpecial)
}

// EncodeCut encodes the pieces of text between the byte offsets cuts (ascending) one by one and joins
// their ids. A cut inside the spelling of a control token keeps that text from becoming the token.
func (t *Tokenizer) EncodeCut(text string, cuts []int) ([]int32, error) {
	var ids []int32
	start := 0
	for i := 0; i <= len(cuts); i++ {
		end := len(text)
		if i < len(cuts) {
			end = cuts[i]
		}
		if end < start || end > len(text) {
			return nil, fmt.Errorf("encode: cut at %d is not in [%d, %d]", end, start, len(text))
		}
		var err error
		if ids, err = t.ffi.AppendIDs(ids, text[start:end], false); err != nil {
			return nil, err
		}
		start = end
	}
	return ids, nil
}

// Decode returns the text of ids; bytes that are not UTF-8 become U+FFFD, ids outside [0, VocabSize)
// nothing. With skipSpecial control tokens are left out.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	if !t.ffi.ByteLevel() {
		return t.decodeSlow(ids, skipSpecial)
	}
	s := t.NewStream(skipSpecial)
	out := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		out = append(out, s.Add(id)...)
	}
	return string(append(out, s.Flush()...))
}

func (t *Tokenizer) decodeSlow(ids []int32, skipSpecial bool) string {
	known := make([]uint32, 0, len(ids))
	for _, id := range ids {
		if t.Valid(id) {
			known = append(known, uint32(id))
		}
	}
	// What is left to fail is a closed tokenizer, which has no text to give.
	text, _ := t.ffi.Decode(known, skipSpecial)
	return text
}

// Bytes returns the bytes that id stands for, which need not be valid UTF-8; nil for an id outside
// [0, VocabSize).
func (t *Tokenizer) Bytes(id int32) []byte {
	if !t.Valid(id) {
		return nil
	}
	return []byte(t.ffi.TokenBytes(uint32(id)))
}

// Longest returns the number of bytes of the longest token.
func (t *Tokenizer) Longest() int { return t.ffi.Longest() }

// ID returns the id of a token by its spelling in the vocabulary, such as "<|im_end|>".
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ffi.ID(token)
	return int32(id), ok
}

// Valid says whether id is in [0, VocabSize).
func (t *Tokenizer) Valid(id int32) bool { return id >= 0 && int(id) < t.ffi.VocabSize() }

// VocabSize is one more than the largest id.
func (t *Tokenizer) VocabSize() int { return t.ffi.VocabSize() }

// Special returns the control tokens, by id: those that Decode leaves out with skipSpecial.
func (t *Tokenizer) Special() []Token { return t.special }

// EOS returns the end-of-text token that tokenizer_config.json names.
func (t *Tokenizer) EOS() Token { return t.named(t.conf.EOS) }

// BOS returns the beginning-of-text token that tokenizer_config.json names.
func (t *Tokenizer) BOS() Token { return t.named(t.conf.BOS) }

// PAD returns the padding token that tokenizer_config.json names.
func (t *Tokenizer) PAD() Token { return t.named(t.conf.PAD) }

func (t *Tokenizer) named(n name) Token {
	id, ok := t.ID(string(n))
	if !ok || n == "" {
		id = -1
	}
	return Token{id, string(n)}
}

// ChatTemplate returns the Jinja source that turns messages into a prompt, "" if there is none.
func (t *Tokenizer) ChatTemplate() string { return t.conf.Template.pick("default") }

// ToolTemplate returns the template for requests with tools: its own where the file has one, else
// ChatTemplate.
func (t *Tokenizer) ToolTemplate() string { return t.conf.Template.pick("tool_use") }

// TemplateVars returns the special tokens by the names that chat templates use, such as "bos_token";
// those that are not set are absent.
func (t *Tokenizer) TemplateVars() map[string]string {
	vars := map[string]string{}
	for key, n := range map[string]name{
		"bos_token": t.conf.BOS, "eos_token": t.conf.EOS, "pad_token": t.conf.PAD, "unk_token": t.conf.UNK,
		"sep_token": t.conf.SEP, "cls_token": t.conf.CLS, "mask_token": t.conf.MASK,
	} {
		if n != "" {
			vars[key] = string(n)
		}
	}
	return vars
}
