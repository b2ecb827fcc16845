package chat

import (
	"encoding/json"
	"strconv"
	"strings"
)

// stepPython takes a byte of calls in Python's syntax: [f(a=1), g()], or without brackets up to the closing mark. Nothing
// is known of them before the end, so all is held back.
func (p *Parser) stepPython(c byte) {
	t := p.call
	if len(t.raw) >= maxHeld || t.python.refuses(c) {
		p.abandon(c, len(t.raw) < maxHeld)
		return
	}
	t.raw = append(t.raw, c)
	if !t.python.step(c) {
		p.restart()
		return
	}
	p.pythonCalls(string(t.raw[t.mark:]))
}

// pythonCalls sends the calls of a text that has ended, or shows it if it is something else.
func (p *Parser) pythonCalls(text string) {
	raw, mark := string(p.call.raw), p.call.mark
	calls, ok := parsePython(text)
	for _, c := range calls {
		ok = ok && p.maybe(c.name)
	}
	if !ok || len(calls) == 0 {
		p.state, p.call, p.bare = content, nil, false
		p.show(raw)
		return
	}
	for _, c := range calls {
		p.call = &call{name: c.name, mark: mark}
		p.begin()
		p.emit(outArguments, c.args)
		p.callWhole()
		if p.state == finished {
			return
		}
	}
}

// pythonState is where a list of calls stands.
type pythonState struct {
	quote   byte // of the string that is being read, 0: none
	escaped bool
	depth   int
	called  bool // a name and its parenthesis have come
}

// step takes a byte and tells whether the list is closed.
func (s *pythonState) step(c byte) bool {
	switch {
	case s.escaped:
		s.escaped = false
	case s.quote != 0 && c == '\\':
		s.escaped = true
	case s.quote != 0:
		if c == s.quote {
			s.quote = 0
		}
	case c == '"' || c == '\'':
		s.quote = c
	case c == '(' || c == '[' || c == '{':
		s.called = s.called || c == '('
		s.depth++
	case c == ')' || c == ']' || c == '}':
		s.depth--
		return s.depth <= 0
	}
	return false
}

// refuses tells that c cannot stand before the first call's parenthesis.
func (s *pythonState) refuses(c byte) bool {
	return !s.called && c != '(' && !(c == '[' && s.depth == 0) && !isSpace(c) && c != '_' && c != '.' && c != '-' &&
		(c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c < 0x80
}

type pythonCall struct{ name, args string }

// parsePython reads a list of calls with literal arguments by name.
func parsePython(text string) (calls []pythonCall, ok bool) {
	r := &pythonReader{rest: text}
	if !r.eat("[") {
		return nil, false
	}
	for !r.eat("]") {
		name, rest, found := strings.Cut(r.rest, "(")
		name = functionName(name)
		if r.rest = rest; !found || name == "" {
			return nil, false
		}
		args, ok := r.members(")", "=")
		if !ok {
			return nil, false
		}
		calls = append(calls, pythonCall{name, args})
		if !r.eat(",") && !strings.HasPrefix(r.space(), "]") {
			return nil, false
		}
	}
	return calls, r.space() == ""
}

// pythonReader turns Python's literals into JSON.
type pythonReader struct {
	rest  string
	depth int
}

func (r *pythonReader) space() string {
	r.rest = strings.TrimLeft(r.rest, " \t\r\n")
	return r.rest
}

func (r *pythonReader) eat(mark string) bool {
	rest, ok := strings.CutPrefix(r.space(), mark)
	if ok {
		r.rest = rest
	}
	return ok
}

// members reads keys and values up to end: names and = in a call, strings and : in a dictionary.
func (r *pythonReader) members(end, between string) (string, bool) {
	var out []string
	for !r.eat(end) {
		var key string
		if between == "=" {
			name, rest, found := strings.Cut(r.rest, between)
			if name = functionName(name); !found || name == "" {
				return "", false
			}
			key, r.rest = quote(name), rest
		} else {
			k, ok := r.value()
			if !ok || k[0] != '"' || !r.eat(between) {
				return "", false
			}
			key = k
		}
		value, ok := r.value()
		if !ok {
			return "", false
		}
		out = append(out, key+": "+value)
		if !r.eat(",") && !strings.HasPrefix(r.space(), end) {
			return "", false
		}
	}
	return "{" + strings.Join(out, ", ") + "}", true
}

func (r *pythonReader) value() (string, bool) {
	if r.depth++; r.depth > maxDepth {
		return "", false
	}
	defer func() { r.depth-- }()
	switch {
	case r.eat("{"):
		return r.members("}", ":")
	case r.eat("["):
		return r.list("]")
	case r.eat("("):
		return r.list(")")
	case r.rest != "" && (r.rest[0] == '"' || r.rest[0] == '\''):
		return r.text()
	}
	n := strings.IndexAny(r.rest, ",)]}:= \t\r\n")
	if n < 0 {
		return "", false
	}
	word := r.rest[:n]
	r.rest = r.rest[n:]
	switch word {
	case "True", "true":
		return "true", true
	case "False", "false":
		return "false", true
	case "None", "null":
		return "null", true
	}
	return word, json.Valid([]byte(word))
}

func (r *pythonReader) list(end string) (string, bool) {
	var out []string
	for !r.eat(end) {
		value, ok := r.value()
		if !ok {
			return "", false
		}
		out = append(out, value)
		if !r.eat(",") && !strings.HasPrefix(r.space(), end) {
			return "", false
		}
	}
	return "[" + strings.Join(out, ", ") + "]", true
}

// text reads a string with Python's escapes, of which JSON has most.
func (r *pythonReader) text() (string, bool) {
	mark := r.rest[0]
	var out strings.Builder
	for rest := r.rest[1:]; rest != ""; {
		if rest[0] == mark {
			r.rest = rest[1:]
			return quote(out.String()), true
		}
		if strings.HasPrefix(rest, "\\\n") {
			rest = rest[2:]
			continue
		}
		c, _, tail, err := strconv.UnquoteChar(rest, mark)
		if err != nil && rest[0] == '\\' { // Python keeps a backslash that means nothing
			c, tail = '\\', rest[1:]
		} else if err != nil {
			c, tail = rune(rest[0]), rest[1:]
		}
		out.WriteRune(c)
		rest = tail
	}
	return "", false
}
