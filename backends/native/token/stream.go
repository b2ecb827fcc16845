package token

import (
	"strings"
	"unicode/utf8"
)

// Stream turns ids into text as they come. What Add and Flush return, joined, is Decode of all ids.
// Not safe for concurrent use.
type Stream struct {
	tok  *Tokenizer
	skip bool
	keep map[int32]bool

	// Byte-level tokenizers: the start of a character whose other bytes are still to come.
	tail    [utf8.UTFMax]byte
	numTail int

	stages []stage // of other tokenizers
}

// NewStream starts a text. With skipSpecial control tokens are left out.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{tok: t, skip: skipSpecial, stages: t.decoder.start()}
}

// Keep makes some control tokens part of the text though others are left out. It does not change ids.
func (s *Stream) Keep(ids map[int32]bool) { s.keep = ids }

// Add returns the text that id completes: whole characters only, so it may be empty. What a decoder could still change is
// held back, such as a run of bytes that may turn out not to be UTF-8.
func (s *Stream) Add(id int32) string {
	if !s.tok.Valid(id) || s.skip && s.tok.skip[id] && !s.keep[id] {
		return ""
	}
	if !s.tok.ffi.ByteLevel() {
		token, ok := s.tok.ffi.Token(uint32(id))
		if !ok {
			return ""
		}
		var out strings.Builder
		push(s.stages, token, &out)
		return out.String()
	}
	piece := s.tok.ffi.TokenBytes(uint32(id))
	if s.numTail == 0 && utf8.ValidString(piece) {
		return piece // the common case allocates nothing
	}
	data := append(s.tail[:s.numTail:s.numTail], piece...)
	text, rest := replaceInvalid(data)
	s.numTail = copy(s.tail[:], rest)
	return text
}

// Flush ends the text: what was held back comes as it is, or as U+FFFD.
func (s *Stream) Flush() string {
	if s.numTail > 0 {
		s.numTail = 0
		return string(utf8.RuneError) // one character cut short is one replacement
	}
	if s.stages == nil {
		return ""
	}
	var out strings.Builder
	finish(s.stages, &out)
	s.stages = s.tok.decoder.start()
	return out.String()
}

// replaceInvalid returns data as text and its last bytes if they start a character that is not
// complete. As the tokenizers library does (and the Unicode standard advises, but Go's conversion does
// not), the longest start of a character that is broken off counts as one U+FFFD.
func replaceInvalid(data []byte) (string, []byte) {
	var out strings.Builder
	out.Grow(len(data) + 2)
	for i := 0; i < len(data); {
		if r, size := utf8.DecodeRune(data[i:]); r != utf8.RuneError || size > 1 {
			out.Write(data[i : i+size])
			i += size
			continue
		}
		size, open := brokenRune(data[i:])
		if open {
			return out.String(), data[i:]
		}
		out.WriteRune(utf8.RuneError)
		i += size
	}
	return out.String(), nil
}

// brokenRune returns the length of the longest start of a character at the front of data, which does
// not start with a whole one, and whether more bytes could complete it.
func brokenRune(data []byte) (size int, open bool) {
	first := data[0]
	need, low, high := 0, byte(0x80), byte(0xbf) // bytes in all; range of the second
	switch {
	case 0xc2 <= first && first <= 0xdf:
		need = 2
	case 0xe0 <= first && first <= 0xef:
		need = 3
	case 0xf0 <= first && first <= 0xf4:
		need = 4
	default:
		return 1, false
	}
	switch first {
	case 0xe0:
		low = 0xa0
	case 0xed:
		high = 0x9f
	case 0xf0:
		low = 0x90
	case 0xf4:
		high = 0x8f
	}
	for size = 1; size < need; size++ {
		if size == len(data) {
			return size, true
		}
		if data[size] < low || data[size] > high {
			return size, false
		}
		low, high = 0x80, 0xbf
	}
	return size, false
}
