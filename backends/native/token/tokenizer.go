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
	plain   *ffi.Tokenizer // finds no control tokens in text; nil unless that is wanted
	decoder decoder        // nil: tokens are bytes that are joined
	special []Token
	skip    map[int32]bool // ids of special
	names   map[int32]string
	unk     int32  // -1: none
	lead    string // see leading; "": no text gets a space in front
	conf    config
}

// newTokenizer owns inner and plain.
func newTokenizer(inner, plain *ffi.Tokenizer, conf config) (*Tokenizer, error) {
	t := &Tokenizer{ffi: inner, plain: plain, conf: conf, skip: map[int32]bool{}, names: map[int32]string{}}
	if !inner.ByteLevel() {
		var err error
		if t.decoder, err = readDecoder(inner.Decoder()); err != nil {
			t.Close()
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		if conf.CleanUp && (inner.Model() != "BPE" || conf.CleanUpBPE) {
			t.decoder = t.decoder.cleaned()
		}
	}
	for _, a := range inner.Added() {
		if a.Special {
			t.special = append(t.special, Token{int32(a.ID), a.Content})
			t.skip[int32(a.ID)] = true
			t.names[int32(a.ID)] = a.Content
		}
	}
	t.unk = t.named("unk_token").ID
	if t.decoder != nil {
		t.leading()
	}
	return t, nil
}

// Close frees the tokenizer; calls that still run finish first.
func (t *Tokenizer) Close() error {
	if t.plain != nil {
		t.plain.Close()
	}
	return t.ffi.Close()
}

// Encode returns the ids of text. With addSpecial the tokenizer adds its own prefix and suffix, such
// as a beginning-of-text token; chat templates write those themselves.
func (t *Tokenizer) Encode(text string, addSpecial bool) ([]int32, error) {
	if t.plain != nil {
		return t.encodePlain(text, addSpecial)
	}
	return t.ffi.AppendIDs(nil, text, addSpecial)
}

// EncodeCut encodes the pieces of text between the byte offsets cuts (ascending) one by one and joins
// their ids. A cut inside the spelling of a control token keeps that text from becoming the token. Text
// that is only normalized to such a spelling never becomes one.
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
		if t.decoder == nil {
			ids, err = t.ffi.AppendIDs(ids, text[start:end], false)
		} else {
			ids, err = t.appendGuarded(ids, t.ffi, text[start:end], i > 0, false)
		}
		if err != nil {
			return nil, err
		}
		start = end
	}
	return ids, nil
}

// Decode returns the text of ids; bytes that are not UTF-8 become U+FFFD, ids outside [0, VocabSize)
// nothing. With skipSpecial control tokens are left out.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	s := t.NewStream(skipSpecial)
	out := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		out = append(out, s.Add(id)...)
	}
	return string(append(out, s.Flush()...))
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

// EOS returns the end-of-text token that the files name.
func (t *Tokenizer) EOS() Token { return t.named("eos_token") }

// BOS returns the beginning-of-text token that the files name.
func (t *Tokenizer) BOS() Token { return t.named("bos_token") }

// PAD returns the padding token that the files name.
func (t *Tokenizer) PAD() Token { return t.named("pad_token") }

func (t *Tokenizer) named(key string) Token {
	content := t.conf.Named[key].Content
	id, ok := t.ID(content)
	if !ok || content == "" {
		id = -1
	}
	return Token{id, content}
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
	for key, t := range t.conf.Named {
		if t.Content != "" {
			vars[key] = t.Content
		}
	}
	return vars
}
