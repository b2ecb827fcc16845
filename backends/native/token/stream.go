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

	// Byte-level tokenizers: the start of a character whose other bytes are still to come.
	tail    [utf8.UTFMax]byte
	numTail int

	// Other tokenizers: see addSlow.
	ids    []int32
	numOld int
}

// maxHeld bounds the ids that addSlow decodes again: no character is longer, so only a run of bytes
// that are not UTF-8 reaches it.
const maxHeld = 16

// NewStream starts a text. With skipSpecial control tokens are left out.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{tok: t, skip: skipSpecial}
}

// Add returns the text that id completes: whole characters only, so it may be empty.
func (s *Stream) Add(id int32) string {
	if !s.tok.Valid(id) || s.skip && s.tok.skip[id] {
		return ""
	}
	if !s.tok.ffi.ByteLevel() {
		return s.addSlow(id)
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
	if len(s.ids) > s.numOld {
		old := s.tok.decodeSlow(s.ids[:s.numOld], false)
		text := strings.TrimPrefix(s.tok.decodeSlow(s.ids, false), old)
		s.ids, s.numOld = nil, 0
		return text
	}
	return ""
}

// addSlow serves tokenizers whose decoder looks at neighbours: it decodes the ids of the last piece
// together with the new ones and returns what came after that piece. Text that ends in U+FFFD may be a
// character cut short and waits, but not for more than maxHeld ids.
func (s *Stream) addSlow(id int32) string {
	s.ids = append(s.ids, id)
	old := s.tok.decodeSlow(s.ids[:s.numOld], false)
	text := s.tok.decodeSlow(s.ids, false)
	open := strings.HasSuffix(text, string(utf8.RuneError)) && len(s.ids)-s.numOld < maxHeld
	if open || len(text) <= len(old) {
		return ""
	}
	s.ids = append(s.ids[:0], s.ids[s.numOld:]...)
	s.numOld = len(s.ids)
	return strings.TrimPrefix(text, old)
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
