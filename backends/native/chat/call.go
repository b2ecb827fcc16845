package chat

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"pagoda/engine"
)

// call is a tool call that is being read. Most of it is about a JSON object with name and arguments.
type call struct {
	scan   scanner
	last   kind
	raw    []byte // all since the opening mark, until begun
	mark   int    // bytes of that mark; 0: the call has none
	again  bool   // another call of a list came before
	comma  bool   // and a comma after it
	xml    xmlState
	python pythonState

	key      string // the key last read
	token    []byte // of the key or value being read, as far as it is needed
	name     string
	args     []byte // arguments that wait for the name, or for their own end
	argsForm byte   // their first byte: '{', '"' or 'n'; 0 before they come
	argsDone bool
	begun    bool // its first delta is out
}

// maxToken bounds the length in bytes of a key or a name that is looked at.
const maxToken = 1024

// stepCall takes a byte of the call's object.
func (p *Parser) stepCall(c byte) {
	k, ok := p.call.scan.step(c)
	switch {
	case ok && p.field(k, c):
		if !p.call.begun {
			p.call.raw = append(p.call.raw, c)
		}
		if p.call.scan.done() {
			p.callWhole()
		}
	case p.settle():
		p.callWhole()
		p.step(c)
	case !p.call.begun:
		p.abandon(c, false)
	default:
		p.state = badCall
		p.step(c)
	}
}

// settle ends a value that nothing has followed yet and tells whether the call has all it needs but its last brace.
func (p *Parser) settle() bool {
	t := p.call
	if t.last == value && t.scan.state == wantNext && len(t.scan.stack) == 1 {
		t.last = structure
		p.endValue()
	}
	return t.begun && t.argsDone
}

// field takes a byte of kind k; false means that this is no call.
func (p *Parser) field(k kind, c byte) bool {
	t := p.call
	if !t.begun && len(t.raw) >= maxHeld {
		return false
	}
	ok := true
	switch {
	case k == structure && t.last == key:
		t.key = unquote(t.token)
	case k == structure && t.last == value:
		ok = p.endValue()
	}
	if k != t.last {
		t.token = t.token[:0]
	}
	t.last = k
	if len(t.token) <= maxToken {
		t.token = append(t.token, c)
	}
	if k == value && slices.Contains(p.tool.args, t.key) && !t.argsDone {
		ok = ok && p.argument(c)
	}
	if t.scan.done() && !t.begun {
		if t.name == "" || !ok || t.mark == 0 && p.tool.bare {
			return false
		}
		t.args = []byte("{}") // name alone
		p.begin()
	}
	return ok
}

// argument takes a byte of the arguments.
func (p *Parser) argument(c byte) bool {
	t := p.call
	if t.argsForm == 0 {
		t.argsForm = c
	}
	switch {
	case t.argsForm == '{' && t.begun:
		p.emit(outArguments, string([]byte{c}))
		return true
	case t.argsForm == '{' || t.argsForm == '"' || t.argsForm == 'n':
		t.args = append(t.args, c)
		if t.argsForm == '{' && t.name != "" {
			p.begin()
		}
		return true
	}
	return false
}

// endValue is called after the last byte of one of the call's values.
func (p *Parser) endValue() bool {
	t := p.call
	switch {
	case t.key == "name" && t.name == "":
		t.name = unquote(t.token)
		if t.name != "" && t.argsDone {
			p.begin()
		}
		return t.name != "" && p.maybe(t.name)
	case slices.Contains(p.tool.args, t.key) && !t.argsDone:
		t.argsDone = true
		if !t.unwrap() {
			return false
		}
		if t.name != "" && !t.begun {
			p.begin()
		}
	}
	return true
}

// maybe tells whether a call of name may be one: without a mark before it only the request's tools are.
func (p *Parser) maybe(name string) bool {
	return p.call.mark > 0 || !p.tool.bare || p.tools[name] != nil
}

// stepHeader takes a byte of the text before the arguments.
func (p *Parser) stepHeader(c byte) {
	t := p.call
	if c == '{' {
		if t.name = p.tool.header(string(t.raw[t.mark:])); t.name == "" || !p.maybe(t.name) {
			p.abandon(c, true)
			return
		}
		p.state = inArgs
		p.begin()
		p.stepArgs(c)
		return
	}
	if len(t.raw)-t.mark > maxToken || t.mark == 0 && !p.tools.begins(string(append(t.raw, c))) {
		p.abandon(c, true)
		return
	}
	t.raw = append(t.raw, c)
	p.restart()
}

// restart begins anew if the call, of which nothing was shown yet, has come upon another opening mark.
func (p *Parser) restart() {
	t := p.call
	for _, mark := range p.tool.open {
		if before, ok := bytes.CutSuffix(t.raw, []byte(mark)); ok && len(before) >= t.mark {
			p.show(string(before[:t.mark]))
			for _, b := range before[t.mark:] {
				p.showByte(b)
			}
			p.beginCall([]byte(mark))
			return
		}
	}
}

// begins tells whether line is the beginning of a line that is a tool's name.
func (t tools) begins(line string) bool {
	for name := range t {
		if strings.HasPrefix(name+"\n", line) {
			return true
		}
	}
	return false
}

// stepArgs takes a byte of arguments whose name came before them.
func (p *Parser) stepArgs(c byte) {
	if _, ok := p.call.scan.step(c); !ok {
		p.state = badCall
		p.step(c)
		return
	}
	p.emit(outArguments, string([]byte{c}))
	if p.call.scan.done() {
		p.callWhole()
	}
}

// unwrap turns arguments given as a string or null into an object.
func (t *call) unwrap() bool {
	switch t.argsForm {
	case 'n':
		t.args = []byte("{}")
	case '"':
		inner := strings.TrimSpace(unquote(t.args))
		t.args = []byte(inner)
		return strings.HasPrefix(inner, "{") && json.Valid(t.args)
	}
	return true
}

// begin sends the call's first delta, with the arguments so far.
func (p *Parser) begin() {
	t := p.call
	p.flush()
	p.out = append(p.out, Delta{ToolCalls: []engine.ToolCallDelta{{Index: p.calls, ID: p.cfg.IDs(), Name: t.name}}})
	p.calls++
	t.begun, t.raw = true, nil
	p.held = p.held[:0] // white space before a call
	p.emit(outArguments, string(t.args))
	t.args = nil
}

// unquote returns the string that token is in JSON, "" if it is none.
func unquote(token []byte) string {
	var s string
	if json.Unmarshal(token, &s) != nil {
		return ""
	}
	return s
}
