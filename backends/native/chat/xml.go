package chat

import "strings"

// xmlState is where a call stands whose arguments come one by one between tags.
type xmlState struct {
	phase xmlPhase
	key   string
	args  int // that have come
}

type xmlPhase int

const (
	xmlStart   xmlPhase = iota // before what comes before the name
	xmlName                    // until the mark after it
	xmlBetween                 // awaits an argument or the end
	xmlKey                     // until the mark after it
	xmlGap                     // awaits the mark before the value
	xmlValue                   // until the mark after it
)

// stepXML takes a byte of the call. What has come of the phase's text or mark is in call.token.
func (p *Parser) stepXML(c byte) {
	t, x := p.call, p.tool.xml
	if t.xml.phase == xmlStart && x.name == "" {
		t.xml.phase = xmlName
	}
	if !t.begun && len(t.raw) >= maxHeld || len(t.token) >= maxHeld {
		p.failXML(c)
		return
	}
	ok := true
	t.token = append(t.token, c)
	switch t.xml.phase {
	case xmlStart:
		ok = p.mark(x.name, xmlName)
	case xmlName:
		ok = p.xmlName()
	case xmlBetween:
		ok = p.xmlBetween(c)
	case xmlKey:
		if key, end := t.cut(x.keyEnd); end {
			t.xml.key = strings.TrimSpace(key)
			p.enter(xmlGap)
			if x.value == "" {
				p.enter(xmlValue)
			}
		}
	case xmlGap:
		ok = p.skipSpace(c) || p.mark(x.value, xmlValue)
	case xmlValue:
		if value, end := t.cut(x.valueEnd); end {
			p.xmlArgument(value)
			p.enter(xmlBetween)
		}
	}
	switch {
	case !ok:
		t.token = t.token[:len(t.token)-1]
		p.failXML(c)
	case p.call == t && !t.begun:
		t.raw = append(t.raw, c)
		p.restart()
	}
}

// cut returns what has come of the phase's text if it ends in mark.
func (t *call) cut(mark string) (before string, ok bool) {
	n := len(t.token) - len(mark)
	if n < 0 || string(t.token[n:]) != mark {
		return "", false
	}
	return string(t.token[:n]), true
}

func (p *Parser) enter(phase xmlPhase) { p.call.xml.phase, p.call.token = phase, p.call.token[:0] }

// mark enters a phase when a mark has come; false is for text that is not its beginning.
func (p *Parser) mark(mark string, next xmlPhase) bool {
	if !strings.HasPrefix(mark, string(p.call.token)) {
		return false
	}
	if len(p.call.token) == len(mark) {
		p.enter(next)
	}
	return true
}

// skipSpace drops white space before a mark.
func (p *Parser) skipSpace(c byte) bool {
	if len(p.call.token) > 1 || !isSpace(c) {
		return false
	}
	p.call.token = p.call.token[:0]
	return true
}

func (p *Parser) xmlName() bool {
	t, x := p.call, p.tool.xml
	for _, end := range x.nameEnd {
		name, ends := t.cut(end)
		if !ends {
			continue
		}
		if t.name = functionName(name); t.name == "" {
			return false
		}
		p.enter(xmlBetween)
		switch end {
		case x.key:
			p.begin()
			p.enter(xmlKey)
		case x.end:
			p.endXML()
		}
		return true
	}
	return len(t.token) <= maxToken
}

func (p *Parser) xmlBetween(c byte) bool {
	t, x := p.call, p.tool.xml
	if p.skipSpace(c) {
		return true
	}
	if text := string(t.token); !strings.HasPrefix(x.key, text) && !strings.HasPrefix(x.end, text) {
		return false
	}
	switch string(t.token) {
	case x.key:
		if !t.begun {
			p.begin()
		}
		p.enter(xmlKey)
	case x.end:
		p.endXML()
	}
	return true
}

func (p *Parser) xmlArgument(value string) {
	t := p.call
	if p.tool.xml.trim {
		value = strings.TrimSuffix(strings.TrimPrefix(value, "\n"), "\n")
	}
	separator := "{"
	if t.xml.args > 0 {
		separator = ", "
	}
	t.xml.args++
	p.emit(outArguments, separator+quote(t.xml.key)+": "+p.tools.value(t.name, t.xml.key, value))
}

// endXML ends a whole call. Its last mark may be the one that ends any call.
func (p *Parser) endXML() {
	t := p.call
	if !t.begun {
		p.begin()
	}
	if t.xml.args == 0 {
		p.emit(outArguments, "{")
	}
	p.emit(outArguments, "}")
	p.callWhole()
	if p.state == afterCall && p.tool.xml.end == p.tool.end {
		p.endCall()
	}
}

// failXML is for a call that goes on as none does. c has not been taken.
func (p *Parser) failXML(c byte) {
	if !p.call.begun {
		p.abandon(c, len(p.call.raw) < maxHeld)
		return
	}
	p.emit(outArguments, string(p.call.token))
	p.state = badCall
	p.step(c)
}
