package chat

import (
	"slices"
	"strings"

	"pagoda/engine"
)

// harmonyMarks are the control tokens of the format of gpt-oss, in which an answer is a row of messages:
//
//	<|channel|>analysis<|message|>thoughts<|end|>
//	<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>arguments<|call|>
//	<|start|>assistant<|channel|>final<|message|>content<|return|>
//
// The prompt has written the first <|start|>assistant. Source: OpenAI's description of the format, August 2025.
var harmonyMarks = []string{"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"}

// harmony reads that format. What stands outside of messages, and headers that come to nothing, is content.
type harmony struct {
	p     *Parser
	marks *matcher
	at    int32
	part  []byte // what may be the beginning of a mark

	inHeader bool
	header   []byte
	kind     outKind  // of the message
	call     *scanner // of the arguments if the message is a call
	bad      bool     // they are no JSON object
	shown    [3]bool  // by kind: something was shown in an earlier message
	begun    bool     // something of the message was shown
}

func newHarmony(p *Parser) *harmony { return &harmony{p: p, marks: newMatcher(harmonyMarks)} }

func (h *harmony) step(c byte) {
	h.part = append(h.part, c)
	h.at = h.marks.step(h.at, c)
	n := h.marks.nodes[h.at]
	decided := len(h.part) - n.depth
	for _, b := range h.part[:decided] {
		h.text(b)
	}
	h.part = append(h.part[:0], h.part[decided:]...)
	if n.match > 0 {
		mark := string(h.part)
		h.part, h.at = h.part[:0], 0
		h.mark(mark)
	}
}

func (h *harmony) mark(mark string) {
	switch mark {
	case "<|start|>", "<|channel|>":
		if !h.inHeader {
			h.endMessage()
			h.inHeader = true
		}
		h.header = append(h.header, mark...)
	case "<|message|>":
		if h.inHeader {
			h.beginMessage()
			return
		}
		h.literal(mark)
	case "<|constrain|>":
		h.literal(mark)
	default:
		h.dropHeader()
		h.endMessage()
	}
}

// literal takes a mark that stands where it means nothing by itself.
func (h *harmony) literal(mark string) {
	for i := range len(mark) {
		h.text(mark[i])
	}
}

// text takes a byte of a header or a message.
func (h *harmony) text(c byte) {
	switch {
	case h.inHeader:
		h.header = append(h.header, c)
		if len(h.header) > maxToken {
			h.dropHeader()
		}
	case h.call != nil:
		if isSpace(c) && !h.bad && (h.call.done() || h.call.state == wantObject) {
			return
		}
		if !h.bad {
			_, ok := h.call.step(c)
			h.bad = !ok
		}
		h.p.emit(outArguments, string([]byte{c}))
	default:
		if !h.begun && h.shown[h.kind] {
			h.p.emit(h.kind, "\n")
		}
		h.begun = true
		h.p.emit(h.kind, string([]byte{c}))
	}
}

// beginMessage reads the header.
func (h *harmony) beginMessage() {
	header := strings.ReplaceAll(string(h.header), "<|constrain|>", " ")
	before, channel, _ := strings.Cut(header, "<|channel|>")
	fields := strings.Fields(channel)
	h.inHeader, h.header, h.kind = false, h.header[:0], outText
	if len(fields) > 0 && fields[0] == "analysis" && h.p.cfg.Reasoning != "" {
		h.kind = outReasoning
	}
	to := func(f string) bool { return strings.HasPrefix(f, "to=") }
	all := append(strings.Fields(before), fields...)
	if i := slices.IndexFunc(all, to); i >= 0 && h.p.cfg.Tools != "" {
		name := functionName(strings.TrimPrefix(strings.TrimPrefix(all[i], "to="), "functions."))
		if name != "" {
			h.beginCall(name)
		}
	}
}

func (h *harmony) beginCall(name string) {
	p := h.p
	h.call, h.bad = &scanner{}, false
	h.kind = outText
	p.flush()
	p.out = append(p.out, Delta{ToolCalls: []engine.ToolCallDelta{{Index: p.calls, ID: p.cfg.IDs(), Name: name}}})
	p.calls++
}

// dropHeader shows a header that no message follows.
func (h *harmony) dropHeader() {
	if h.inHeader {
		h.inHeader, h.kind = false, outText
		h.p.emit(outText, string(h.header))
		h.header = h.header[:0]
	}
}

// endMessage ends a message; what follows without a header is content.
func (h *harmony) endMessage() {
	h.shown[h.kind] = h.shown[h.kind] || h.begun
	if h.call != nil {
		if !h.bad && h.call.state == wantObject {
			h.p.emit(outArguments, "{}")
			h.p.whole++
		} else if !h.bad && h.call.done() {
			h.p.whole++
		}
		if h.p.cfg.OneCall {
			h.p.state = finished
		}
	}
	h.call, h.kind, h.begun = nil, outText, false
}

func (h *harmony) close() {
	part := h.part
	h.part = nil
	for _, b := range part {
		h.text(b)
	}
	h.dropHeader()
	h.endMessage()
}
