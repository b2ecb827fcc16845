package chat

import (
	"crypto/rand"
	"strings"

	"pagoda/engine"
)

// The marks of the formats: "qwen3" for thoughts, "hermes" for tool calls.
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
	Reasoning bool          // thoughts between <think> and </think>
	OpenThink bool          // the prompt has opened the thoughts; see Prompt.OpenThink
	Tools     bool          // tool calls; set it only if the request has tools, else their text is content
	OneCall   bool          // parallel_tool_calls is false: the answer ends with the first call
	IDs       func() string // makes call ids; nil is NewCallID
}

// Parser splits an answer into thoughts, content and tool calls, byte by byte, so that the result does not depend on
// how the text was cut. Its rules:
//
//   - Thoughts are recognised at the beginning only, after optional white space. Line feeds at both ends of the block
//     and after it are dropped. A </think> that opens the answer is dropped likewise; anywhere later it is content.
//   - White space next to a call is dropped, other text around calls is content.
//   - A call's first delta goes out when its name is known and the arguments' opening brace has come; the arguments
//     follow as the model wrote them. Arguments that are written before the name wait for it. Arguments given as a
//     string of JSON are unwrapped; none or null are {}. Other keys are ignored. A call whose object is closed counts
//     as whole without its closing mark; so does one whose arguments are closed and only the last brace is missing.
//   - What is no such call comes back as content, exactly as written. If its first delta is out already, the rest up
//     to </tool_call> or the end goes out as arguments, and the call does not count as whole.
type Parser struct {
	cfg   ParserConfig
	state parseState
	tag   int // bytes of the mark awaited in this state that have come

	held    []byte // atStart: all so far; content: white space that may lie before a call
	lead    int    // atStart: bytes of white space at the beginning of held
	newline int    // thinking: line feeds that are dropped if the block ends here
	thought bool   // thinking: something was shown
	fresh   bool   // content: nothing but white space since a call

	call  *call
	calls int // begun, that is with a delta out
	whole int // of them, those with whole arguments

	out  []Delta
	buf  []byte // the piece being made, of kind
	kind outKind
}

type parseState int

const (
	atStart    parseState = iota
	thinking              // awaits </think>
	afterThink            // drops line feeds
	content               // awaits <tool_call>
	inCall                // the call's object
	afterCall             // awaits </tool_call>
	badCall               // awaits </tool_call>, passes all else on as arguments
	finished
)

type outKind int

const (
	outText outKind = iota
	outReasoning
	outArguments
)

// NewParser returns a parser for one choice.
func NewParser(cfg ParserConfig) *Parser {
	if cfg.IDs == nil {
		cfg.IDs = NewCallID
	}
	p := &Parser{cfg: cfg, state: content}
	if cfg.Reasoning {
		p.state = atStart
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
	switch p.state {
	case atStart:
		p.leaveStart()
		return p.Close()
	case thinking:
		if p.tag > 0 {
			p.reason(closeThink[:p.tag])
		}
	case content:
		p.show(openCall[:p.tag])
	case inCall:
		if p.settle() {
			p.whole++
		} else if !p.call.begun {
			p.show(string(p.call.raw))
		}
	case afterCall:
		p.show(closeCall[:p.tag])
	case badCall:
		p.emit(outArguments, closeCall[:p.tag])
	}
	p.state, p.tag, p.call = finished, 0, nil
	return p.take()
}

// InReasoning tells whether the text so far ends inside the thoughts.
func (p *Parser) InReasoning() bool {
	return p.state == thinking || p.state == atStart && p.cfg.OpenThink
}

// WholeCalls returns how many calls with whole arguments there were.
func (p *Parser) WholeCalls() int { return p.whole }

// Done tells that the answer is complete whatever follows: the only call allowed has been made.
func (p *Parser) Done() bool { return p.state == finished }

func (p *Parser) step(c byte) {
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
	case inCall:
		p.stepCall(c)
	case afterCall:
		p.stepAfterCall(c)
	case badCall:
		p.stepBadCall(c)
	}
}

// awaits takes c as the next byte of mark, which has its first byte nowhere else. If c does not continue it, broken is
// what had come of it.
func (p *Parser) awaits(mark string, c byte) (came, part bool, broken string) {
	if mark[p.tag] == c {
		p.tag++
		if p.tag < len(mark) {
			return false, true, ""
		}
		p.tag = 0
		return true, false, ""
	}
	broken = mark[:p.tag]
	p.tag = 0
	return false, false, broken
}

func (p *Parser) stepStart(c byte) {
	p.held = append(p.held, c)
	if p.lead == len(p.held)-1 && isSpace(c) && p.lead < maxHeld {
		p.lead++
		return
	}
	switch mark := string(p.held[p.lead:]); {
	case mark == openThink:
		p.state, p.held = thinking, nil
	case mark == closeThink:
		p.state, p.held = afterThink, nil
	case !strings.HasPrefix(openThink, mark) && !strings.HasPrefix(closeThink, mark):
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

func (p *Parser) stepThinking(c byte) {
	came, part, broken := p.awaits(closeThink, c)
	switch {
	case came:
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
	if !p.cfg.Tools {
		p.emit(outText, string([]byte{c}))
		return
	}
	came, part, broken := p.awaits(openCall, c)
	switch {
	case came:
		p.state, p.call = inCall, &call{raw: []byte(openCall)}
	case part:
	case broken != "":
		p.show(broken)
		p.stepContent(c)
	case isSpace(c) && p.fresh:
	case isSpace(c) && len(p.held) < maxHeld:
		p.held = append(p.held, c)
	default:
		p.show(string([]byte{c}))
	}
}

// stepAfterCall takes what follows a call's object.
func (p *Parser) stepAfterCall(c byte) {
	came, part, broken := p.awaits(closeCall, c)
	switch {
	case part || !came && broken == "" && isSpace(c):
	default:
		p.endCall()
		if !came {
			p.replay(broken, c)
		}
	}
}

func (p *Parser) stepBadCall(c byte) {
	came, part, broken := p.awaits(closeCall, c)
	switch {
	case came:
		p.endCall()
	case part:
	case broken != "":
		p.emit(outArguments, broken)
		p.stepBadCall(c)
	default:
		p.emit(outArguments, string([]byte{c}))
	}
}

// endCall goes back to content, or ends the answer if one call is all that is wanted.
func (p *Parser) endCall() {
	p.state, p.call, p.fresh = content, nil, true
	if p.cfg.OneCall {
		p.state = finished
	}
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
		p.fresh = false
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
func NewCallID() string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := []byte("call_")
	for len(id) < len("call_")+24 {
		var b [32]byte
		rand.Read(b[:]) // never fails: it ends the program if the system has no randomness
		for _, c := range b {
			if c < 4*62 && len(id) < len("call_")+24 { // larger values would favour some digits
				id = append(id, digits[c%62])
			}
		}
	}
	return string(id)
}
