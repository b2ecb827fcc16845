package jinja

import (
	"math/big"
	"slices"
	"strconv"
	"strings"
)

type tupleRules struct {
	simple    bool     // items are names and the like
	noCond    bool     // items have no if-else
	namespace bool     // items may be ns.attr
	parens    bool     // inside parentheses: may be empty
	ends      []string // words that end the list
}

// tuple parses expressions with commas between them: one without a comma is itself.
func (p *parser) tuple(rules tupleRules) expr {
	var items []expr
	for {
		if p.tupleEnd(rules) {
			break
		}
		items = append(items, p.tupleItem(rules))
		if !p.skipOp(",") {
			if len(items) == 1 {
				return items[0]
			}
			break
		}
	}
	if len(items) == 0 && !rules.parens {
		p.fail("Expected an expression, got '%s'", p.cur())
	}
	return &tupleExpr{items}
}

func (p *parser) tupleEnd(rules tupleRules) bool {
	t := p.cur()
	return t.kind == tokVarEnd || t.kind == tokBlockEnd || t.is(tokOp, ")") ||
		t.kind == tokName && slices.Contains(rules.ends, t.text)
}

func (p *parser) tupleItem(rules tupleRules) expr {
	switch {
	case rules.namespace && p.cur().kind == tokName && p.look().is(tokOp, "."):
		name := p.next().text
		p.next()
		return &nsTarget{name, p.expect(tokName, "an attribute name").text}
	case rules.simple:
		return p.primary()
	case rules.noCond:
		return p.or()
	}
	return p.expression()
}

func (p *parser) expression() expr {
	p.enter()
	defer p.leave()
	unknown := len(p.unknown)
	e := p.or()
	for p.skipWord("if") {
		p.link()
		c := &condExpr{test: p.or(), then: e}
		if p.skipWord("else") {
			c.els = p.expression()
		}
		e = c
		p.unknown = p.unknown[:unknown]
	}
	return e
}

func (p *parser) or() expr {
	left := p.and()
	for p.skipWord("or") {
		p.link()
		left = &logicExpr{false, left, p.and()}
	}
	return left
}

func (p *parser) and() expr {
	left := p.not()
	for p.skipWord("and") {
		p.link()
		left = &logicExpr{true, left, p.not()}
	}
	return left
}

func (p *parser) not() expr {
	if p.word("not") {
		p.enter()
		defer p.leave()
		p.next()
		return &notExpr{p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	c := &compareExpr{first: p.math1()}
	for {
		op := ""
		switch t := p.cur(); {
		case t.kind == tokOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.text):
			op = t.text
		case t.is(tokName, "in"):
			op = "in"
		case t.is(tokName, "not") && p.look().is(tokName, "in"):
			op = "not in"
			p.next()
		}
		if op == "" {
			break
		}
		p.next()
		c.ops = append(c.ops, op)
		c.rest = append(c.rest, p.math1())
	}
	if len(c.ops) == 0 {
		return c.first
	}
	return c
}

// binary parses operands with operators between them, from the left.
func (p *parser) binary(operand func() expr, ops ...string) expr {
	left := operand()
	for p.cur().kind == tokOp && slices.Contains(ops, p.cur().text) {
		p.link()
		op := p.next().text
		left = &binaryExpr{op, left, operand()}
	}
	return left
}

func (p *parser) math1() expr { return p.binary(p.concat, "+", "-") }

func (p *parser) concat() expr {
	parts := []expr{p.math2()}
	for p.skipOp("~") {
		parts = append(parts, p.math2())
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return &concatExpr{parts}
}

func (p *parser) math2() expr { return p.binary(p.pow, "*", "/", "//", "%") }

func (p *parser) pow() expr {
	return p.binary(func() expr { return p.unary(true) }, "**")
}

func (p *parser) unary(withFilter bool) expr {
	p.enter()
	defer p.leave()
	var e expr
	if p.op("-") || p.op("+") {
		op := p.next().text[0]
		e = &unaryExpr{op, p.unary(false)}
	} else {
		e = p.primary()
	}
	e = p.postfix(e)
	if withFilter {
		e = p.filterExpr(e)
	}
	return e
}

func (p *parser) primary() expr {
	p.enter()
	defer p.leave()
	switch t := p.next(); t.kind {
	case tokName:
		switch t.text {
		case "true", "True":
			return &constExpr{true}
		case "false", "False":
			return &constExpr{false}
		case "none", "None":
			return &constExpr{nil}
		}
		p.mention(t.text)
		return &nameExpr{t.text}
	case tokString:
		parts := []string{t.text}
		for p.cur().kind == tokString {
			parts = append(parts, p.next().text)
		}
		return &constExpr{strings.Join(parts, "")}
	case tokInt:
		n, _ := parseBig(t.text, 0) // intRE has seen it
		return &constExpr{normalize(n)}
	case tokFloat:
		f, _ := strconv.ParseFloat(t.text, 64) // out of range is infinite, as in Python
		return &constExpr{f}
	case tokOp:
		switch t.text {
		case "(":
			e := p.tuple(tupleRules{parens: true})
			p.expectOp(")")
			return e
		case "[":
			return &listExpr{p.listItems()}
		case "{":
			return p.dict()
		}
	}
	p.i = max(p.i-1, 0)
	p.fail("unexpected '%s'", p.cur())
	return nil
}

// mention notes that the innermost macro uses one of its implicit arguments.
func (p *parser) mention(name string) {
	if len(p.macros) == 0 {
		return
	}
	m := p.macros[len(p.macros)-1]
	m.takesVarargs = m.takesVarargs || name == "varargs"
	m.takesKwargs = m.takesKwargs || name == "kwargs"
	m.takesCaller = m.takesCaller || name == "caller"
}

func (p *parser) listItems() []expr {
	var items []expr
	for !p.skipOp("]") {
		if len(items) > 0 {
			p.expectOp(",")
			if p.skipOp("]") {
				break
			}
		}
		items = append(items, p.expression())
	}
	return items
}

func (p *parser) dict() expr {
	d := &dictExpr{}
	for !p.skipOp("}") {
		if len(d.keys) > 0 {
			p.expectOp(",")
			if p.skipOp("}") {
				break
			}
		}
		d.keys = append(d.keys, p.expression())
		p.expectOp(":")
		d.values = append(d.values, p.expression())
	}
	return d
}

func (p *parser) postfix(e expr) expr {
	for ; ; p.link() {
		switch {
		case p.skipOp("."):
			switch t := p.next(); t.kind {
			case tokName:
				e = &attrExpr{e, t.text}
			case tokInt:
				n, _ := parseBig(t.text, 0)
				e = &itemExpr{e, &constExpr{normalize(n)}}
			default:
				p.fail("expected name or number")
			}
		case p.skipOp("["):
			e = p.subscript(e)
		case p.op("("):
			e = &callExpr{e, p.callArgs()}
		default:
			return e
		}
	}
}

func (p *parser) subscript(e expr) expr {
	var start expr
	if !p.op(":") {
		start = p.expression()
		if p.skipOp("]") {
			return &itemExpr{e, start}
		}
	}
	if p.op(",") {
		unsupported("subscripts with commas")
	}
	s := &sliceExpr{x: e, start: start}
	p.expectOp(":")
	if !p.op(":") && !p.op("]") {
		s.stop = p.expression()
	}
	if p.skipOp(":") && !p.op("]") {
		s.step = p.expression()
	}
	p.expectOp("]")
	return s
}

func (p *parser) callArgs() argList {
	var a argList
	p.expectOp("(")
	for first := true; !p.skipOp(")"); first = false {
		if !first {
			p.expectOp(",")
			if p.skipOp(")") {
				break
			}
		}
		switch {
		case p.op("*") && a.spread == nil && a.kwargs == nil:
			p.next()
			a.spread = p.expression()
		case p.op("**") && a.kwargs == nil:
			p.next()
			a.kwargs = p.expression()
		case p.cur().kind == tokName && p.look().is(tokOp, "="):
			a.names = append(a.names, p.next().text)
			p.next()
			a.named = append(a.named, p.expression())
		case a.spread == nil && a.kwargs == nil && len(a.names) == 0:
			a.pos = append(a.pos, p.expression())
		default:
			p.fail("invalid syntax for function call expression")
		}
	}
	return a
}

// filterExpr parses the filters, tests and calls behind an operand.
func (p *parser) filterExpr(e expr) expr {
	for ; ; p.link() {
		switch {
		case p.op("|"):
			e = p.filters(e, false)
		case p.word("is"):
			e = p.test(e)
		case p.op("("):
			e = &callExpr{e, p.callArgs()}
		default:
			return e
		}
	}
}

// filters parses |name(args)|…; inline, the first has no bar.
func (p *parser) filters(e expr, inline bool) expr {
	for inline || p.skipOp("|") {
		inline = false
		p.link()
		f := &filterExpr{x: e, name: p.dotted()}
		p.checkName("filter", f.name, filters[f.name] != nil)
		if p.op("(") {
			f.args = p.callArgs()
		}
		e = f
	}
	return e
}

func (p *parser) dotted() string {
	name := p.expect(tokName, "a name").text
	for p.skipOp(".") {
		name += "." + p.expect(tokName, "a name").text
	}
	return name
}

func (p *parser) test(e expr) expr {
	p.next()
	negated := p.skipWord("not")
	t := &testExpr{x: e, name: p.dotted()}
	p.checkName("test", t.name, tests[t.name].holds != nil)
	switch c := p.cur(); {
	case p.op("("):
		t.args = p.callArgs()
	case c.is(tokName, "is"):
		p.fail("You cannot chain multiple tests with is")
	case c.kind == tokName && !slices.Contains([]string{"else", "or", "and"}, c.text),
		c.kind == tokString, c.kind == tokInt, c.kind == tokFloat, p.op("["), p.op("{"):
		t.args.pos = []expr{p.postfix(p.primary())}
	}
	if negated {
		return &notExpr{t}
	}
	return t
}

// parseBig reads an integer, with base 0 in a notation of the template language.
func parseBig(s string, base int) (*big.Int, bool) {
	if base == 0 && strings.Trim(s, "0") == "" {
		return new(big.Int), s != ""
	}
	return new(big.Int).SetString(s, base)
}
