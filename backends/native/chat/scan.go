package chat

// kind says what a byte of an object is, seen from outside.
type kind int

const (
	structure kind = iota // white space, colon, comma and the braces themselves
	key                   // part of one of the object's own keys, quotes included
	value                 // part of one of the object's own values
)

// scanner reads one JSON object byte by byte and tells apart its keys and values. It is strict (RFC 8259) but for
// control characters in strings, which models write and which leave the structure clear. Its zero value is ready.
type scanner struct {
	state scanState
	stack []byte // the brackets that are open, '{' or '['
	inKey bool   // the string being read is a key
	digit int    // hex digits still to come
	rest  string // of a literal
}

type scanState int

const (
	wantObject    scanState = iota
	wantValue               // after a colon, or a comma in an array
	wantItemOrEnd           // after [
	wantKeyOrEnd            // after {
	wantKey                 // after a comma in an object
	wantColon
	wantNext // after a value: a comma or the closing bracket
	inString
	inEscape
	inHex
	inLiteral
	inMinus // in a number from here on
	inZero
	inInt
	inPoint
	inFrac
	inE
	inSign
	inExp
	scanDone
)

// maxDepth bounds the nesting of what a model writes; deeper is malformed.
const maxDepth = 200

// done tells that the object is closed.
func (s *scanner) done() bool { return s.state == scanDone }

// step takes the next byte; ok is false if it cannot stand there, and then that must be the last step.
func (s *scanner) step(c byte) (k kind, ok bool) {
	wasKey, wasToken, deep := s.inKey, s.state >= inString && s.state <= inLiteral, len(s.stack) > 1
	ok = s.next(c)
	isToken := s.state >= inString && s.state <= inExp
	switch {
	case deep || len(s.stack) > 1:
		return value, ok
	case wasToken && wasKey || isToken && s.inKey:
		return key, ok
	case wasToken || isToken:
		return value, ok
	}
	return structure, ok
}

func (s *scanner) next(c byte) bool {
	switch s.state {
	case inString:
		return s.inStringByte(c)
	case inEscape:
		return s.escape(c)
	case inHex:
		return s.hex(c)
	case inLiteral:
		return s.literal(c)
	}
	if s.state >= inMinus && s.state <= inExp {
		if next, ok := nextInNumber(s.state, c); ok {
			s.state = next
			return true
		}
		if s.state == inMinus || s.state == inPoint || s.state == inE || s.state == inSign {
			return false
		}
		s.state = wantNext // c is what follows the number
	}
	if c == ' ' || c == '\n' || c == '\t' || c == '\r' {
		return s.state != scanDone
	}
	return s.between(c)
}

// between takes a byte that is neither white space nor inside a string, a literal or a number.
func (s *scanner) between(c byte) bool {
	switch s.state {
	case wantObject:
		return c == '{' && s.open(c)
	case wantKeyOrEnd, wantKey:
		if c == '}' && s.state == wantKeyOrEnd {
			return s.close(c)
		}
		s.inKey, s.state = true, inString
		return c == '"'
	case wantColon:
		s.state = wantValue
		return c == ':'
	case wantItemOrEnd:
		if c == ']' {
			return s.close(c)
		}
		return s.begin(c)
	case wantValue:
		return s.begin(c)
	case wantNext:
		if c != ',' {
			return s.close(c)
		}
		s.state = wantValue
		if s.stack[len(s.stack)-1] == '{' {
			s.state = wantKey
		}
		return true
	}
	return false
}

// begin takes a value's first byte.
func (s *scanner) begin(c byte) bool {
	s.inKey = false
	switch {
	case c == '{' || c == '[':
		return s.open(c)
	case c == '"':
		s.state = inString
	case c == 't':
		s.state, s.rest = inLiteral, "rue"
	case c == 'f':
		s.state, s.rest = inLiteral, "alse"
	case c == 'n':
		s.state, s.rest = inLiteral, "ull"
	case c == '-':
		s.state = inMinus
	case c == '0':
		s.state = inZero
	case '1' <= c && c <= '9':
		s.state = inInt
	default:
		return false
	}
	return true
}

func (s *scanner) open(c byte) bool {
	s.inKey = false
	s.stack = append(s.stack, c)
	s.state = wantKeyOrEnd
	if c == '[' {
		s.state = wantItemOrEnd
	}
	return len(s.stack) <= maxDepth
}

func (s *scanner) close(c byte) bool {
	if top := s.stack[len(s.stack)-1]; top == '{' && c != '}' || top == '[' && c != ']' {
		return false
	}
	s.stack = s.stack[:len(s.stack)-1]
	s.inKey, s.state = false, wantNext
	if len(s.stack) == 0 {
		s.state = scanDone
	}
	return true
}

func (s *scanner) inStringByte(c byte) bool {
	switch c {
	case '\\':
		s.state = inEscape
	case '"':
		s.state = wantNext
		if s.inKey {
			s.state = wantColon
		}
	}
	return true
}

func (s *scanner) escape(c byte) bool {
	s.state = inString
	switch c {
	case 'u':
		s.state, s.digit = inHex, 4
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
	default:
		return false
	}
	return true
}

func (s *scanner) hex(c byte) bool {
	if s.digit--; s.digit == 0 {
		s.state = inString
	}
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func (s *scanner) literal(c byte) bool {
	ok := c == s.rest[0]
	if s.rest = s.rest[1:]; s.rest == "" {
		s.state = wantNext
	}
	return ok
}

// nextInNumber returns the state after c if c continues a number.
func nextInNumber(state scanState, c byte) (next scanState, ok bool) {
	digit := '0' <= c && c <= '9'
	switch {
	case digit && state == inMinus && c == '0':
		return inZero, true
	case digit && (state == inMinus || state == inInt):
		return inInt, true
	case digit && (state == inPoint || state == inFrac):
		return inFrac, true
	case digit && (state == inE || state == inSign || state == inExp):
		return inExp, true
	case c == '.' && (state == inZero || state == inInt):
		return inPoint, true
	case c|0x20 == 'e' && (state == inZero || state == inInt || state == inFrac):
		return inE, true
	case (c == '+' || c == '-') && state == inE:
		return inSign, true
	}
	return state, false
}
