package jinja

import (
	"slices"
	"strings"
)

type parser struct {
	tokens []token // ends with tokEOF
	i      int
	depth  int
	links  int         // operators in a row in the statement being parsed
	macros []*macroDef // being parsed, innermost last
	loops  int         // for bodies being parsed in this macro
	// Python finds unknown filters and tests when it compiles, but those in an if only when it gets there.
	inIf    bool
	unknown []*Error
}

const (
	maxNesting = 200  // of statements and expressions
	maxLinks   = 2000 // like a.b.c…, a + b + c… or a|b|c… in one statement: they nest from the left
)

func (p *parser) line() int {
	if len(p.tokens) == 0 {
		return 1
	}
	return p.tokens[p.i].line
}

func (p *parser) cur() token { return p.tokens[p.i] }

func (p *parser) look() token { return p.tokens[min(p.i+1, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.tokens[p.i]
	if t.kind != tokEOF {
		p.i++
	}
	return t
}

func (p *parser) fail(format string, args ...any) { fail("TemplateSyntaxError", format, args...) }

func (p *parser) op(text string) bool { return p.cur().is(tokOp, text) }

func (p *parser) word(text string) bool { return p.cur().is(tokName, text) }

func (p *parser) skipOp(text string) bool {
	ok := p.op(text)
	if ok {
		p.next()
	}
	return ok
}

func (p *parser) skipWord(text string) bool {
	ok := p.word(text)
	if ok {
		p.next()
	}
	return ok
}

func (p *parser) expectOp(text string) {
	if !p.skipOp(text) {
		p.fail("expected token '%s', got '%s'", text, p.cur())
	}
}

func (p *parser) expectWord(text string) {
	if !p.skipWord(text) {
		p.fail("expected token '%s', got '%s'", text, p.cur())
	}
}

func (p *parser) expect(kind tokenKind, what string) token {
	if p.cur().kind != kind {
		p.fail("expected %s, got '%s'", what, p.cur())
	}
	return p.next()
}

func (p *parser) enter() {
	if p.depth++; p.depth > maxNesting {
		fail(kindLimit, "template nesting")
	}
}

func (p *parser) leave() { p.depth-- }

// link counts an operator that takes what stands before it as its operand.
func (p *parser) link() {
	if p.links++; p.links > maxLinks {
		fail(kindLimit, "length of an expression")
	}
}

// checkName notes a filter or test that there is not.
func (p *parser) checkName(kind, name string, known bool) {
	if !known && !p.inIf {
		p.unknown = append(p.unknown, &Error{Kind: "TemplateAssertionError", Line: p.line(),
			Message: sprintf("No %s named '%s'.", kind, name)})
	}
}

func (p *parser) parseTemplate() []stmt {
	body := p.statements()
	if len(p.unknown) > 0 {
		panic(p.unknown[0])
	}
	return body
}

// statements parses up to a {% with one of the words in ends, or the end of the template. The block's
// begin is taken, the word is not.
func (p *parser) statements(ends ...string) []stmt {
	p.enter()
	defer p.leave()
	var body []stmt
	for {
		p.links = 0
		switch t := p.cur(); t.kind {
		case tokEOF:
			if len(ends) > 0 {
				p.fail("unexpected end of template, expected '%s'", strings.Join(ends, "' or '"))
			}
			return body
		case tokData:
			p.next()
			body = append(body, &output{pos(t.line), []expr{&constExpr{t.text}}})
		case tokVarBegin:
			p.next()
			body = append(body, &output{pos(t.line), []expr{p.tuple(tupleRules{})}})
			p.expect(tokVarEnd, "end of print statement")
		case tokBlockBegin:
			p.next()
			if word := p.cur(); word.kind == tokName && slices.Contains(ends, word.text) {
				return body
			}
			body = append(body, p.statement())
			p.expect(tokBlockEnd, "end of statement block")
		}
	}
}

// block parses the rest of an opening tag and the body up to one of ends.
func (p *parser) block(ends ...string) []stmt {
	outer := p.inIf
	p.inIf = false
	p.expect(tokBlockEnd, "end of statement block")
	body := p.statements(ends...)
	p.inIf = outer
	return body
}

// closed is block for a single end, which is taken.
func (p *parser) closed(end string) []stmt {
	body := p.block(end)
	p.expectWord(end)
	return body
}

func (p *parser) statement() stmt {
	t := p.expect(tokName, "a tag name")
	at := pos(t.line)
	switch t.text {
	case "for":
		return p.forLoop(at)
	case "if":
		return p.ifElse(at)
	case "set":
		return p.set(at)
	case "macro":
		name := p.target(targetRules{nameOnly: true}).(*nameExpr).name
		return &macroStmt{at, p.macro(name, p.signature, "endmacro")}
	case "call":
		return p.callBlock(at)
	case "filter":
		f := p.filters(nil, true)
		return &filterStmt{at, f.(*filterExpr), p.closed("endfilter")}
	case "with":
		return p.with(at)
	case "generation":
		return &scopeStmt{at, p.closed("endgeneration"), false}
	case "print":
		return &output{at, p.commaList()}
	case "break", "continue":
		return p.jump(at, t.text)
	case "block":
		return p.namedBlock(at)
	case "autoescape":
		if c, ok := p.expression().(*constExpr); !ok || truth(c.value) {
			unsupported("autoescape")
		}
		return &scopeStmt{at, p.closed("endautoescape"), false}
	case "include", "import", "from", "extends":
		p.fail("%s is not allowed: a template stands alone", t.text)
	}
	p.fail("unknown tag '%s'", t.text)
	return nil
}

func (p *parser) forLoop(at pos) stmt {
	s := &forStmt{pos: at}
	s.target = p.target(targetRules{ends: []string{"in"}})
	p.expectWord("in")
	s.iter = p.tuple(tupleRules{noCond: true, ends: []string{"recursive"}})
	if p.skipWord("if") {
		s.test = p.expression()
	}
	s.recursive = p.skipWord("recursive")
	p.loops++
	s.body = p.block("endfor", "else")
	p.loops--
	if p.next().text == "else" {
		s.els = p.closed("endfor")
	}
	return s
}

func (p *parser) ifElse(at pos) stmt {
	s := &ifStmt{pos: at}
	outer := p.inIf
	p.inIf = true
	for end := "elif"; end == "elif"; {
		b := branch{test: p.tuple(tupleRules{noCond: true})}
		p.expect(tokBlockEnd, "end of statement block")
		b.body = p.statements("elif", "else", "endif")
		s.branches = append(s.branches, b)
		if end = p.next().text; end == "else" {
			p.expect(tokBlockEnd, "end of statement block")
			s.els = p.statements("endif")
			p.next()
		}
	}
	p.inIf = outer
	return s
}

func (p *parser) set(at pos) stmt {
	target := p.target(targetRules{namespace: true})
	if p.skipOp("=") {
		return &setStmt{at, target, p.tuple(tupleRules{})}
	}
	s := &setBlock{pos: at, target: target}
	s.filter, _ = p.filters(nil, false).(*filterExpr)
	s.body = p.closed("endset")
	return s
}

// macro parses a signature and a body, noting which of the implicit arguments the body mentions.
func (p *parser) macro(name string, signature func(*macroDef), end string) *macroDef {
	m := &macroDef{name: name}
	signature(m)
	loops := p.loops
	p.loops = 0
	p.macros = append(p.macros, m)
	m.body = p.closed(end)
	p.macros = p.macros[:len(p.macros)-1]
	p.loops = loops
	return m
}

func (p *parser) signature(m *macroDef) {
	p.expectOp("(")
	for !p.op(")") {
		if len(m.params) > 0 {
			p.expectOp(",")
		}
		m.params = append(m.params, p.target(targetRules{nameOnly: true}).(*nameExpr).name)
		if p.skipOp("=") {
			m.defaults = append(m.defaults, p.expression())
		} else if len(m.defaults) > 0 {
			p.fail("non-default argument follows default argument")
		}
	}
	p.expectOp(")")
}

func (p *parser) callBlock(at pos) stmt {
	var params macroDef
	if p.op("(") {
		p.signature(&params)
	}
	call, ok := p.expression().(*callExpr)
	if !ok {
		p.fail("expected call")
	}
	copyParams := func(m *macroDef) { m.params, m.defaults = params.params, params.defaults }
	return &callStmt{at, call, p.macro("caller", copyParams, "endcall")}
}

func (p *parser) with(at pos) stmt {
	s := &withStmt{pos: at}
	for p.cur().kind != tokBlockEnd {
		if len(s.targets) > 0 {
			p.expectOp(",")
		}
		s.targets = append(s.targets, p.target(targetRules{}))
		p.expectOp("=")
		s.values = append(s.values, p.expression())
	}
	s.body = p.closed("endwith")
	return s
}

func (p *parser) jump(at pos, word string) stmt {
	if p.loops == 0 {
		p.fail("'%s' outside of a loop", word)
	}
	if word == "break" {
		return &jump{at, breakLoop}
	}
	return &jump{at, continueLoop}
}

func (p *parser) namedBlock(at pos) stmt {
	p.expect(tokName, "a block name")
	root := true
	for p.cur().kind == tokName {
		switch t := p.next(); t.text {
		case "scoped":
			root = false
		case "required":
		default:
			p.fail("unexpected '%s'", t)
		}
	}
	body := p.block("endblock")
	p.expectWord("endblock")
	if p.cur().kind == tokName {
		p.next()
	}
	return &scopeStmt{at, body, root}
}

func (p *parser) commaList() []expr {
	items := []expr{p.expression()}
	for p.skipOp(",") {
		items = append(items, p.expression())
	}
	return items
}

type targetRules struct {
	nameOnly, namespace bool
	ends                []string
}

// target parses what a value is assigned to.
func (p *parser) target(rules targetRules) expr {
	if rules.nameOnly {
		t := p.expect(tokName, "a name")
		return p.assignable(&nameExpr{t.text})
	}
	return p.assignable(p.tuple(tupleRules{simple: true, namespace: rules.namespace, ends: rules.ends}))
}

func (p *parser) assignable(e expr) expr {
	switch e := e.(type) {
	case *nameExpr:
		if slices.Contains([]string{"true", "false", "none", "True", "False", "None"}, e.name) {
			p.fail("can't assign to '%s'", e.name)
		}
	case *nsTarget:
	case *tupleExpr:
		for _, item := range e.items {
			p.assignable(item)
		}
	case *listExpr:
		for _, item := range e.items {
			p.assignable(item)
		}
		return &tupleExpr{e.items}
	default:
		p.fail("can't assign to this expression")
	}
	return e
}
