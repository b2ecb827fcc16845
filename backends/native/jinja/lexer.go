package jinja

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind int

const (
	tokData       tokenKind = iota // text between tags
	tokBlockBegin                  // {%
	tokBlockEnd                    // %}
	tokVarBegin                    // {{
	tokVarEnd                      // }}
	tokName
	tokString
	tokInt
	tokFloat
	tokOp
	tokEOF
)

type token struct {
	kind tokenKind
	text string // of a string its value, of a number its digits without underscores
	line int
}

func (t token) is(kind tokenKind, text string) bool { return t.kind == kind && t.text == text }

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "end of template"
	case tokBlockEnd:
		return "end of statement block"
	case tokVarEnd:
		return "end of print statement"
	}
	return t.text
}

var (
	newlineRE  = regexp.MustCompile(`\r\n|\r`)
	floatRE    = regexp.MustCompile(`^(?i:(\d+_)*\d+((\.(\d+_)*\d+)?e[+\-]?(\d+_)*\d+|\.(\d+_)*\d+))`)
	intRE      = regexp.MustCompile(`^(?i:0b(_?[01])+|0o(_?[0-7])+|0x(_?[\da-f])+|[1-9](_?\d)*|0(_?0)*)`)
	stringRE   = regexp.MustCompile(`^(?s:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")`)
	rawBeginRE = regexp.MustCompile(`^\{%([-+]?)` + spaceRE + `*raw` + spaceRE + `*(-?)%\}`)
	rawEndRE   = regexp.MustCompile(`\{%([-+]?)` + spaceRE + `*endraw` + spaceRE + `*([-+]?)%\}`)
)

// spaceRE matches what Python's str.isspace accepts.
const spaceRE = `[\t-\r\x1c-\x20\x85\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]`

func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

type lexer struct {
	src    string
	pos    int
	line   int
	fresh  bool // at the start of a line as far as lstrip_blocks is concerned
	tokens []token
}

// lex cuts source into tokens. White space control is done here: data tokens are the text to print.
func lex(source string) []token {
	source = newlineRE.ReplaceAllString(source, "\n")
	lx := &lexer{src: strings.TrimSuffix(source, "\n"), line: 1, fresh: true}
	for lx.pos < len(lx.src) {
		lx.data()
	}
	lx.add(tokEOF, "")
	return lx.tokens
}

func (lx *lexer) add(kind tokenKind, text string) {
	lx.tokens = append(lx.tokens, token{kind, text, lx.line})
}

// advance moves over n bytes.
func (lx *lexer) advance(n int) {
	passed := lx.src[lx.pos : lx.pos+n]
	lx.line += strings.Count(passed, "\n")
	lx.fresh = strings.HasSuffix(passed, "\n")
	lx.pos += n
}

func (lx *lexer) fail(format string, args ...any) {
	e := &Error{Kind: "TemplateSyntaxError", Line: lx.line}
	e.Message = sprintf(format, args...)
	panic(e)
}

// data takes the text up to the next tag, and the tag.
func (lx *lexer) data() {
	rest := lx.src[lx.pos:]
	at := len(rest)
	for i := 0; ; {
		j := strings.IndexByte(rest[i:], '{')
		if j < 0 || i+j+1 >= len(rest) {
			break
		}
		i += j
		if c := rest[i+1]; c == '%' || c == '{' || c == '#' {
			at = i
			break
		}
		i++
	}
	text := rest[:at]
	if at == len(rest) {
		lx.emit(text)
		lx.advance(len(text))
		return
	}
	sign := byte(0)
	if at+2 < len(rest) && (rest[at+2] == '-' || rest[at+2] == '+') {
		sign = rest[at+2]
	}
	lx.emit(lx.stripBefore(text, sign, rest[at+1] == '{'))
	lx.advance(len(text))
	rest = rest[at:]
	size := 2
	if sign != 0 {
		size = 3
	}
	switch {
	case rest[1] == '#':
		lx.comment(size)
	case rest[1] == '{':
		lx.add(tokVarBegin, "")
		lx.advance(size)
		lx.inside(tokVarEnd, "}}")
	default:
		if m := rawBeginRE.FindStringSubmatch(rest); m != nil {
			lx.raw(m)
			return
		}
		lx.add(tokBlockBegin, "")
		lx.advance(size)
		lx.inside(tokBlockEnd, "%}")
	}
}

func (lx *lexer) emit(text string) {
	if text != "" {
		lx.add(tokData, text)
	}
}

// stripBefore applies the sign of a tag, or lstrip_blocks, to the text before it.
func (lx *lexer) stripBefore(text string, sign byte, variable bool) string {
	switch {
	case sign == '-':
		return strings.TrimRightFunc(text, isSpace)
	case sign == '+' || variable:
		return text
	}
	start := strings.LastIndexByte(text, '\n') + 1
	if (start > 0 || lx.fresh) && strings.TrimLeftFunc(text[start:], isSpace) == "" {
		return text[:start]
	}
	return text
}

// end moves over a tag's end, size bytes long with its sign, and over what the sign or trim_blocks eats.
func (lx *lexer) end(size int, sign byte, trim bool) {
	rest := lx.src[lx.pos+size:]
	switch {
	case sign == '-':
		size += len(rest) - len(strings.TrimLeftFunc(rest, isSpace))
	case sign != '+' && trim && strings.HasPrefix(rest, "\n"):
		size++
	}
	lx.advance(size)
}

func (lx *lexer) comment(size int) {
	body := lx.src[lx.pos+size:]
	at := strings.Index(body, "#}")
	if at < 0 {
		lx.fail("Missing end of comment tag")
	}
	sign := byte(0)
	if at > 0 && (body[at-1] == '-' || body[at-1] == '+') {
		sign = body[at-1]
	}
	lx.advance(size + at)
	lx.end(2, sign, true)
}

// raw takes {% raw %} … {% endraw %}; m is the match of rawBeginRE here.
func (lx *lexer) raw(m []string) {
	sign := byte(0)
	if m[2] == "-" {
		sign = '-'
	}
	lx.end(len(m[0]), sign, false)
	rest := lx.src[lx.pos:]
	loc := rawEndRE.FindStringSubmatchIndex(rest)
	if loc == nil {
		lx.fail("Missing end of raw directive")
	}
	text := rest[:loc[0]]
	lx.emit(lx.stripBefore(text, signAt(rest, loc[2], loc[3]), false))
	lx.advance(len(text))
	lx.end(loc[1]-loc[0], signAt(rest, loc[4], loc[5]), true)
}

func signAt(s string, from, to int) byte {
	if from == to {
		return 0
	}
	return s[from]
}

// inside takes the tokens of an expression or statement up to its end.
func (lx *lexer) inside(endKind tokenKind, end string) {
	var open []byte // brackets to close
	for {
		rest := lx.src[lx.pos:]
		rest = strings.TrimLeftFunc(rest, isSpace)
		lx.advance(len(lx.src) - lx.pos - len(rest))
		if rest == "" {
			lx.fail("unexpected end of template, expected %q", end)
		}
		if len(open) == 0 {
			if sign := rest[0]; strings.HasPrefix(rest, end) {
				lx.add(endKind, "")
				lx.end(2, 0, endKind == tokBlockEnd)
				return
			} else if (sign == '-' || sign == '+' && endKind == tokBlockEnd) && strings.HasPrefix(rest[1:], end) {
				lx.add(endKind, "")
				lx.end(3, sign, true)
				return
			}
		}
		lx.one(rest, &open)
	}
}

// one takes one token from the front of rest.
func (lx *lexer) one(rest string, open *[]byte) {
	size := 0
	switch c := rest[0]; {
	case isDigit(rune(c)):
		size = lx.number(rest)
	case c == '\'' || c == '"':
		if size = len(stringRE.FindString(rest)); size > 0 {
			lx.add(tokString, lx.unescape(rest[1:size-1]))
		}
	default:
		if size = nameLen(rest); size > 0 {
			lx.add(tokName, rest[:size])
			break
		}
		if size = operatorLen(rest); size > 0 {
			lx.balance(c, open)
			lx.add(tokOp, rest[:size])
		}
	}
	if size == 0 {
		r, _ := utf8.DecodeRuneInString(rest)
		lx.fail("unexpected char %q", r)
	}
	lx.advance(size)
}

// number adds the number in front of rest; behind a dot there are only integers, as in a.0.1.
func (lx *lexer) number(rest string) int {
	kind, size := tokFloat, 0
	if lx.src[lx.pos-1] != '.' {
		size = len(floatRE.FindString(rest))
	}
	if size == 0 {
		kind, size = tokInt, len(intRE.FindString(rest))
	}
	if size > maxBits/4 {
		fail(kindLimit, "length of a number")
	}
	lx.add(kind, strings.ReplaceAll(rest[:size], "_", ""))
	return size
}

func operatorLen(s string) int {
	if len(s) > 1 && slices.Contains([]string{"//", "**", "==", "!=", ">=", "<="}, s[:2]) {
		return 2
	}
	if strings.IndexByte("-+/*%~[](){}><=.:|,;", s[0]) >= 0 {
		return 1
	}
	return 0
}

func nameLen(s string) int {
	for i, r := range s {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsNumber(r) && !unicode.IsMark(r)) {
			return i
		}
	}
	return len(s)
}

func (lx *lexer) balance(c byte, open *[]byte) {
	closer := map[byte]byte{'(': ')', '[': ']', '{': '}'}
	switch c {
	case '(', '[', '{':
		*open = append(*open, closer[c])
	case ')', ']', '}':
		last := len(*open) - 1
		if last < 0 || (*open)[last] != c {
			lx.fail("unexpected '%c'", c)
		}
		*open = (*open)[:last]
	}
}

// unescape reads Python's escapes; unknown ones stay as they are.
func (lx *lexer) unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out.WriteByte(s[i])
			continue
		}
		i++ // stringRE has seen a character after every backslash
		c := s[i]
		if at := strings.IndexByte(`abfnrtv\'"`, c); at >= 0 {
			out.WriteByte("\a\b\f\n\r\t\v\\'\""[at])
			continue
		}
		switch c {
		case '\n':
		case 'x', 'u', 'U':
			size := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			out.WriteRune(lx.codePoint(s, i+1, size, 16))
			i += size
		case 'N':
			lx.fail("escapes by name (\\N) are not supported")
		case '0', '1', '2', '3', '4', '5', '6', '7':
			size := 1
			for size < 3 && i+size < len(s) && '0' <= s[i+size] && s[i+size] <= '7' {
				size++
			}
			out.WriteRune(lx.codePoint(s, i, size, 8))
			i += size - 1
		default:
			out.WriteByte('\\')
			out.WriteByte(c)
		}
	}
	return out.String()
}

func (lx *lexer) codePoint(s string, at, size, base int) rune {
	if at+size > len(s) {
		lx.fail("truncated escape in a string")
	}
	n, ok := parseBig(s[at:at+size], base)
	if !ok || n.Sign() < 0 || !n.IsInt64() || n.Int64() > unicode.MaxRune || !isDigits(s[at:at+size]) {
		lx.fail("bad escape in a string")
	}
	return rune(n.Int64())
}

func isDigits(s string) bool { // hexadecimal ones
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
