package chat

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// A shield keeps the spelling of control tokens in a client's strings from becoming those tokens. Before rendering
// each such literal is replaced by one private-use character that occurs nowhere else; afterwards the literal is put
// back and cut in two, so that the pieces are encoded apart from each other. What it cannot see is a literal that the
// template itself puts together from harmless parts.
type shield struct {
	specials *specials
	inputs   []string        // all that reaches the template, for choosing characters
	used     map[rune]bool   // private-use characters in inputs; nil until needed
	next     rune            // the next candidate
	mark     map[string]rune // by literal
	literal  map[rune]string // by mark
}

// specials are the literals to look for.
type specials struct {
	m     *matcher // nil: none
	first [256]bool
}

// The private-use area of the basic plane: no template changes such characters, and JSON writes them as they are or
// as one \u escape.
const firstMark, lastMark = 0xE000, 0xF8FF

var errNoMarks = errors.New("the request uses every private-use character")

// newSpecials leaves out literals of a single character, which cannot be cut, and the marks around thoughts, which
// templates look for in earlier answers and which give a client no power over the conversation's turns.
func newSpecials(literals []string) *specials {
	s := &specials{}
	var kept []string
	for _, l := range literals {
		if utf8.RuneCountInString(l) > 1 && l != openThink && l != closeThink {
			kept = append(kept, l)
			s.first[l[0]] = true
		}
	}
	s.m = newMatcher(kept)
	return s
}

// at returns the length of the longest literal that s[i:] begins with.
func (sp *specials) at(s string, i int) int {
	if !sp.first[s[i]] {
		return 0
	}
	return sp.m.prefixOf(s[i:])
}

func newShield(sp *specials, inputs ...string) *shield {
	return &shield{specials: sp, inputs: inputs, next: firstMark, mark: map[string]rune{}, literal: map[rune]string{}}
}

// newMark returns a character that occurs neither in the inputs nor among the marks so far.
func (s *shield) newMark() (rune, error) {
	if s.used == nil {
		s.used = map[rune]bool{}
		for _, in := range s.inputs {
			addPrivate(s.used, in)
		}
	}
	for ; s.next <= lastMark; s.next++ {
		if !s.used[s.next] {
			s.next++
			return s.next - 1, nil
		}
	}
	return 0, errNoMarks
}

// addPrivate notes the private-use characters of text, written out or by their number after a u as in JSON.
func addPrivate(used map[rune]bool, text string) {
	for i, r := range text {
		switch {
		case firstMark <= r && r <= lastMark:
			used[r] = true
		case r == 'u' || r == 'U':
			if n, ok := hex4(text[i+1:]); ok {
				used[n] = true
			}
		}
	}
}

// hex4 reads the four hexadecimal digits that s begins with.
func hex4(s string) (r rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for i := range 4 {
		c := s[i] | 0x20
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// hide replaces the literals in all strings of a JSON document, keys included. All else stays byte for byte.
func (s *shield) hide(doc []byte) ([]byte, error) {
	if s.specials.m == nil {
		return doc, nil
	}
	out := make([]byte, 0, len(doc))
	for i := 0; i < len(doc); {
		if doc[i] != '"' {
			out = append(out, doc[i])
			i++
			continue
		}
		end := stringEnd(doc, i)
		str, err := s.hideString(doc[i:end])
		if err != nil {
			return nil, err
		}
		out = append(out, str...)
		i = end
	}
	return out, nil
}

// stringEnd returns where the JSON string that begins at doc[i] ends.
func stringEnd(doc []byte, i int) int {
	for i++; i < len(doc); i++ {
		switch doc[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(doc)
}

func (s *shield) hideString(quoted []byte) ([]byte, error) {
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return nil, err
	}
	var out []byte
	from := 0
	for i := 0; i < len(text); {
		n := s.specials.at(text, i)
		if n == 0 {
			i++
			continue
		}
		mark, err := s.markOf(text[i : i+n])
		if err != nil {
			return nil, err
		}
		out = utf8.AppendRune(append(out, text[from:i]...), mark)
		i += n
		from = i
	}
	if from == 0 {
		return quoted, nil
	}
	return marshal(string(append(out, text[from:]...)))
}

func (s *shield) markOf(literal string) (rune, error) {
	if mark, ok := s.mark[literal]; ok {
		return mark, nil
	}
	mark, err := s.newMark()
	if err == nil {
		s.mark[literal], s.literal[mark] = mark, literal
	}
	return mark, err
}

// restore puts the literals back into rendered text and returns where to cut it.
func (s *shield) restore(text string) (string, []int) {
	if len(s.literal) == 0 {
		return text, nil
	}
	var b strings.Builder
	var spans [][2]int
	for i := 0; i < len(text); {
		literal, n := s.markAt(text[i:])
		if literal == "" {
			b.WriteString(text[i : i+n])
		} else {
			spans = append(spans, [2]int{b.Len(), b.Len() + len(literal)})
			b.WriteString(literal)
		}
		i += n
	}
	return b.String(), s.cuts(b.String(), spans)
}

// markAt returns the literal whose mark, or its JSON escape, begins text, and how many bytes to go on by.
func (s *shield) markAt(text string) (literal string, n int) {
	r, n := utf8.DecodeRuneInString(text)
	if r == '\\' && len(text) > 1 && text[1] == 'u' {
		if escaped, ok := hex4(text[2:]); ok && s.literal[escaped] != "" {
			return s.literal[escaped], len(`\u0000`)
		}
	}
	return s.literal[r], n
}

// cuts returns a cut in the middle of each literal, and of any other that begins inside one and is still whole: control
// tokens may overlap.
func (s *shield) cuts(text string, spans [][2]int) []int {
	var cuts []int
	for _, span := range spans {
		own := len(cuts) // where this span's cuts begin
		for i := span[0]; i < span[1]; i++ {
			n := s.specials.at(text, i)
			isCut := func(c int) bool { return i < c && c < i+n }
			if n > 0 && !slices.ContainsFunc(cuts[own:], isCut) {
				cuts = append(cuts, i+middle(text[i:i+n]))
			}
		}
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// middle returns the start of the character in the middle of s, which has several.
func middle(s string) int {
	at := 0
	for i := range s {
		if i > len(s)/2 && at > 0 {
			break
		}
		at = i
	}
	return at
}
