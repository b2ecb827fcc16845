package chat

import (
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"

	"pagoda/engine"
)

// Marks that several formats share.
const (
	openThink  = "<think>"
	closeThink = "</think>"
	openCall   = "<tool_call>"
	closeCall  = "</tool_call>"
)

// maxHeld bounds in bytes what is held back of one call or one run of white space; what is longer is shown as text.
const maxHeld = 1 << 20

// Delta is the next piece of an answer. Exactly one of its fields is set.
type Delta struct {
	Text      string
	Reasoning string
	ToolCalls []engine.ToolCallDelta
}

// ParserConfig says what to look for.
type ParserConfig struct {
	Reasoning string            // format of thoughts, one of ReasoningFormats; "": none are looked for
	OpenThink bool              // the prompt has opened the thoughts; see Prompt.OpenThink
	Tools     string            // format of tool calls, one of ToolFormats; "": they are content, as without tools in the request
	Schemas   []json.RawMessage // the request's tools, which tell the types of arguments that are written without
	OneCall   bool              // parallel_tool_calls is false: the answer ends with the first call
	IDs       func() string     // makes call ids; nil is NewCallID, or what the format insists on
}

// Parser splits an answer into thoughts, content and tool calls, byte by byte, so that the result does not depend on
// how the text was cut. Its rules, whatever the format:
//
//   - Thoughts are recognised at the beginning only, after optional white space. Line feeds at both ends of the block
//     and after it are dropped. A closing mark that opens the answer is dropped likewise; anywhere later it is content.
//   - White space next to a call is dropped, other text around calls is content.
//   - A call's first delta goes out when its name is known and the arguments' opening brace has come; the arguments
//     follow as the model wrote them. Arguments that are written before the name wait for it. Arguments given as a
//     string of JSON are unwrapped; none or null are {}. Other keys are ignored. A call whose object is closed counts
//     as whole without its closing mark; so does one whose arguments are closed and only the last brace is missing.
//   - What is no such call comes back as content, exactly as written. If its first delta is out already, the rest up
//     to the mark that ends a call or to the end goes out as arguments, and the call does not count as whole.
type Parser struct {
	cfg   ParserConfig
	think thinkFormat
	tool  toolFormat
	tools tools
	state parseState

	openings *matcher // marks that begin a call; nil: none
	at       int32    // its state
	part     []byte   // what may be the beginning of a mark

	held    []byte // atStart: all so far; content: white space that may lie before a call
	lead    int    // atStart: bytes of white space at the beginning of held
	newline int    // thinking: line feeds that are dropped if the block ends here
	thought bool   // thinking: something was shown
	fresh   bool   // content: nothing but white space since a call
	bare    bool   // content: nothing but white space since the beginning or a call

	call   *call
	list   bool // the calls stand in a list
	follow int  // of tool.after, those that have come or been passed over
	calls  int  // begun, that is with a delta out
	whole  int  // of them, those with whole arguments

	harmony *harmony // nil: another format

	out  []Delta
	buf  []byte // the piece being made, of kind
	kind outKind
}

type parseState int

const (
	atStart    parseState = iota
	thinking              // awaits the closing mark
	afterThink            // drops line feeds
	content               // awaits a mark that begins a call
	beforeBody            // after such a mark
	inCall                // a JSON object with name and arguments
	inHeader              // the text before the arguments
	inArgs                // the arguments, a JSON object
	inXML                 // see xml.go
	inPython              // see python.go
	inList                // between the objects of a list
	afterCall             // awaits what may follow a call
	badCall               // awaits the mark that ends it, passes all else on as arguments
	finished
)

type outKind int

const (
	outText outKind = iota
	outReasoning
	outArguments
)

// NewParser returns a parser for one choice. Formats that it does not know are none.
func NewParser(cfg ParserConfig) *Parser {
	p := &Parser{cfg: cfg, think: thinkFormats[cfg.Reasoning], tool: toolFormats[cfg.Tools], state: content, bare: true}
	if cfg.IDs == nil {
		p.cfg.IDs = NewCallID
		if p.tool.shortID {
			p.cfg.IDs = newShortID
		}
	}
	if len(cfg.Schemas) > 0 {
		p.tools = readTools(cfg.Schemas)
	}
	p.openings = newMatcher(p.tool.open)
	if p.think.open != nil {
		p.state = atStart
	}
	if p.think.harmony || p.tool.harmony {
		p.harmony = newHarmony(p)
	}
	return p
}

// Push takes the next piece of text and returns what is decided by it.
func (p *Parser) Push(text string) []Delta {
	for i := range len(text) {
		p.step(text[i])
	}
	return p.take()
}

// Close ends the text and returns what was held back.
func (p *Parser) Close() []Delta {
	if p.harmony != nil && p.state != finished {
		p.harmony.close()
	}
	switch p.state {
	case atStart:
		p.leaveStart()
		return p.Close()
	case thinking:
		if len(p.part) > 0 {
			p.reason(string(p.part))
		}
	case content:
		p.showPart()
	case beforeBody, inHeader, inPython:
		p.show(string(p.call.raw))
	case inCall:
		if p.settle() {
			p.callWhole()
		} else if !p.call.begun {
			p.show(string(p.call.raw))
		}
	case inXML:
		if !p.call.begun {
			p.show(string(p.call.raw))
		}
	case inList:
		if !p.call.again || p.call.comma {
			p.show(string(p.call.raw))
		}
	case afterCall:
		p.show(string(p.part))
	case badCall:
		p.emit(outArguments, string(p.part))
	}
	p.state, p.part, p.call = finished, nil, nil
	return p.take()
}

// InReasoning tells whether the text so far ends inside the thoughts.
func (p *Parser) InReasoning() bool {
	if p.harmony != nil {
		return p.state != finished && p.harmony.kind == outReasoning
	}
	return p.state == thinking || p.state == atStart && p.cfg.OpenThink
}

// WholeCalls returns how many calls with whole arguments there were.
func (p *Parser) WholeCalls() int { return p.whole }

// Done tells that the answer is complete whatever follows: the only call allowed has been made.
func (p *Parser) Done() bool { return p.state == finished }

func (p *Parser) step(c byte) {
	if p.harmony != nil && p.state != finished {
		p.harmony.step(c)
		return
	}
	switch p.state {
	case atStart:
		p.stepStart(c)
	case thinking:
		p.stepThinking(c)
	case afterThink:
		if c != '\n' {
			p.state = content
			p.stepContent(c)
		}
	case content:
		p.stepContent(c)
	case beforeBody:
		p.stepBody(c)
	case inCall:
		p.stepCall(c)
	case inHeader:
		p.stepHeader(c)
	case inArgs:
		p.stepArgs(c)
	case inXML:
		p.stepXML(c)
	case inPython:
		p.stepPython(c)
	case inList:
		p.stepList(c)
	case afterCall:
		p.stepAfterCall(c)
	case badCall:
		p.stepBadCall(c)
	}
}

func (p *Parser) stepStart(c byte) {
	p.held = append(p.held, c)
	if p.lead == len(p.held)-1 && isSpace(c) && p.lead < maxHeld {
		p.lead++
		return
	}
	mark := string(p.held[p.lead:])
	begins := func(m string) bool { return strings.HasPrefix(m, mark) }
	switch {
	case slices.Contains(p.think.open, mark):
		p.state, p.held = thinking, nil
	case slices.Contains(p.think.close, mark):
		p.state, p.held = afterThink, nil
	case !slices.ContainsFunc(p.think.open, begins) && !slices.ContainsFunc(p.think.close, begins):
		p.leaveStart()
	}
}

// leaveStart is for an answer that does not begin with a mark.
func (p *Parser) leaveStart() {
	held := p.held
	p.held, p.state = nil, content
	if p.cfg.OpenThink {
		p.state = thinking
	}
	for _, c := range held {
		p.step(c)
	}
}

// awaits takes c as the next byte of one of marks, none of which has its first byte again later on, and returns the mark
// that it completes. If c does not continue any, broken is what had come of one.
func (p *Parser) awaits(c byte, marks ...string) (came string, part bool, broken string) {
	p.part = append(p.part, c)
	for _, m := range marks {
		if m == string(p.part) {
			p.part = p.part[:0]
			return m, false, ""
		}
		part = part || strings.HasPrefix(m, string(p.part))
	}
	if part {
		return "", true, ""
	}
	broken = string(p.part[:len(p.part)-1])
	p.part = p.part[:0]
	return "", false, broken
}

func (p *Parser) stepThinking(c byte) {
	came, part, broken := p.awaits(c, p.think.close...)
	switch {
	case came != "":
		p.state = afterThink
	case part:
	case broken != "":
		p.reason(broken)
		p.stepThinking(c)
	case c == '\n':
		p.newline++
	default:
		p.reason(string([]byte{c}))
	}
}

func (p *Parser) stepContent(c byte) {
	switch {
	case p.cfg.Tools == "":
		p.emit(outText, string([]byte{c}))
		return
	case p.bare && p.tool.bare && len(p.part) == 0 && p.beginBare(c):
		return
	case p.openings == nil:
		p.showByte(c)
		return
	}
	p.part = append(p.part, c)
	p.at = p.openings.step(p.at, c)
	n := p.openings.nodes[p.at]
	undecided := n.depth
	if n.match > 0 {
		undecided = n.match
	}
	for _, b := range p.part[:len(p.part)-undecided] {
		p.showByte(b)
	}
	p.part = append(p.part[:0], p.part[len(p.part)-undecided:]...)
	if n.match > 0 {
		p.beginCall(p.part)
	}
}

// showByte takes a byte of content.
func (p *Parser) showByte(c byte) {
	switch {
	case isSpace(c) && p.fresh:
	case isSpace(c) && len(p.held) < maxHeld:
		p.held = append(p.held, c)
	default:
		p.show(string([]byte{c}))
	}
}

// showPart shows the beginning of a mark that has not come.
func (p *Parser) showPart() {
	part := string(p.part)
	p.part, p.at = p.part[:0], 0
	for i := range len(part) {
		p.showByte(part[i])
	}
	if !p.fresh {
		p.show("")
	}
}

// beginCall follows a mark.
func (p *Parser) beginCall(mark []byte) {
	p.state, p.call, p.list = beforeBody, &call{raw: slices.Clone(mark), mark: len(mark)}, false
	p.part, p.at = p.part[:0], 0
}

// beginBare takes the first byte of a call without a mark.
func (p *Parser) beginBare(c byte) bool {
	switch {
	case c == '[' && p.tool.bodies&pythonBody != 0:
		p.state, p.call, p.list = inPython, &call{}, false
		p.stepPython(c)
	case isSpace(c) || c == '{' && p.tool.bodies&objectBody == 0 || c != '{' && p.tool.bodies&headerBody == 0:
		return false
	case c == '{':
		p.state, p.call, p.list = inCall, &call{}, false
		p.stepCall(c)
	default:
		p.state, p.call, p.list = inHeader, &call{}, false
		p.stepHeader(c)
	}
	return true
}

// stepBody tells by the first byte which form the call has.
func (p *Parser) stepBody(c byte) {
	t := p.call
	has := func(b body) bool { return p.tool.bodies&b != 0 }
	switch {
	case isSpace(c) && len(t.raw) < maxHeld:
		t.raw = append(t.raw, c)
	case c == '{' && has(objectBody):
		p.state = inCall
		p.stepCall(c)
	case c == '[' && has(pythonBody):
		p.state = inPython
		p.stepPython(c)
	case c == '[' && has(listBody):
		t.raw = append(t.raw, c)
		p.state, p.list = inList, true
	case isSpace(c) || c == '{' || c == '[':
		p.abandon(c, false)
	case has(headerBody):
		p.state = inHeader
		p.stepHeader(c)
	case has(xmlBody):
		p.state = inXML
		p.stepXML(c)
	default:
		p.abandon(c, false)
	}
}

// stepList takes what stands between the objects of a list.
func (p *Parser) stepList(c byte) {
	t := p.call
	switch {
	case isSpace(c) && len(t.raw) < maxHeld, c == ',' && t.again && !t.comma:
		t.comma = t.comma || c == ','
		t.raw = append(t.raw, c)
	case c == '{' && (t.comma || !t.again):
		p.state = inCall
		p.stepCall(c)
	case c == ']' && t.again && !t.comma:
		p.state, p.call, p.list, p.follow = afterCall, nil, false, 0
	case t.again && len(t.raw) == 0: // the list is broken off after a call
		p.endCall()
		p.step(c)
	default:
		p.abandon(c, false)
	}
}

// stepAfterCall takes what follows a call.
func (p *Parser) stepAfterCall(c byte) {
	came, part, broken := p.awaits(c, p.tool.after[p.follow:]...)
	switch {
	case came != "":
		p.follow += 1 + slices.Index(p.tool.after[p.follow:], came)
		if p.follow == len(p.tool.after) {
			p.endCall()
		}
	case part || broken == "" && isSpace(c):
	default:
		p.endCall()
		p.replay(broken, c)
	}
}

func (p *Parser) stepBadCall(c byte) {
	came, part, broken := p.awaits(c, p.tool.end)
	switch {
	case came != "":
		p.endCall()
	case part:
	case broken != "":
		p.emit(outArguments, broken)
		p.stepBadCall(c)
	default:
		p.emit(outArguments, string([]byte{c}))
	}
}

// callWhole is for a call that needs no more than its closing mark.
func (p *Parser) callWhole() {
	p.whole++
	switch {
	case p.cfg.OneCall:
		p.endCall()
	case p.list:
		p.state, p.call = inList, &call{again: true}
	default:
		p.state, p.call, p.follow = afterCall, nil, 0
	}
}

// endCall goes back to content, or ends the answer if one call is all that is wanted.
func (p *Parser) endCall() {
	p.state, p.call, p.fresh, p.bare = content, nil, true, true
	if p.cfg.OneCall {
		p.state = finished
	}
}

// abandon gives the call up before anything of it was shown. c is not part of it. With again what has come after the mark
// may end in the beginning of another one.
func (p *Parser) abandon(c byte, again bool) {
	raw, mark := string(p.call.raw), p.call.mark
	p.state, p.call = content, nil
	p.bare = false
	if !again || mark == 0 {
		mark = len(raw)
	}
	p.show(raw[:mark])
	p.replay(raw[mark:], c)
}

// replay takes text and c once more, in the state that has been entered since.
func (p *Parser) replay(text string, c byte) {
	for i := range len(text) {
		p.step(text[i])
	}
	p.step(c)
}

// show emits content, with the white space that was held back before it.
func (p *Parser) show(text string) {
	p.emit(outText, string(p.held))
	p.held = p.held[:0]
	if text != "" {
		p.fresh, p.bare = false, false
	}
	p.emit(outText, text)
}

// reason emits thoughts, with the line feeds that were held back before them unless they lead.
func (p *Parser) reason(text string) {
	if p.thought {
		p.emit(outReasoning, strings.Repeat("\n", p.newline))
	}
	p.newline, p.thought = 0, true
	p.emit(outReasoning, text)
}

func (p *Parser) emit(kind outKind, text string) {
	if text == "" {
		return
	}
	if kind != p.kind {
		p.flush()
		p.kind = kind
	}
	p.buf = append(p.buf, text...)
}

// flush turns buf into a delta.
func (p *Parser) flush() {
	if len(p.buf) == 0 {
		return
	}
	text := string(p.buf)
	p.buf = p.buf[:0]
	switch p.kind {
	case outText:
		p.out = append(p.out, Delta{Text: text})
	case outReasoning:
		p.out = append(p.out, Delta{Reasoning: text})
	case outArguments:
		if n := len(p.out); n > 0 && p.out[n-1].ToolCalls != nil && p.out[n-1].ToolCalls[0].Index == p.calls-1 {
			p.out[n-1].ToolCalls[0].Arguments += text
			return
		}
		p.out = append(p.out, Delta{ToolCalls: []engine.ToolCallDelta{{Index: p.calls - 1, Arguments: text}}})
	}
}

func (p *Parser) take() []Delta {
	p.flush()
	out := p.out
	p.out = nil
	return out
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// NewCallID returns a random id for a tool call: "call_" and 24 letters and digits.
func NewCallID() string { return "call_" + randomLetters(24) }

func newShortID() string { return randomLetters(9) }

func randomLetters(n int) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := make([]byte, 0, n)
	for len(id) < n {
		var b [32]byte
		rand.Read(b[:]) // never fails: it ends the program if the system has no randomness
		for _, c := range b {
			if c < 4*62 && len(id) < n { // larger values would favour some digits
				id = append(id, digits[c%62])
			}
		}
	}
	return string(id)
}
