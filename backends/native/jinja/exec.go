package jinja

import "slices"

// signal tells how a body ended.
type signal int

const (
	normal signal = iota
	breakLoop
	continueLoop
)

func (st *state) execAll(body []stmt, sc *scope) signal {
	for _, s := range body {
		if sig := st.exec(s, sc); sig != normal {
			return sig
		}
	}
	return normal
}

func (st *state) exec(s stmt, sc *scope) signal {
	st.step()
	st.line = s.at()
	switch s := s.(type) {
	case *output:
		for _, part := range s.parts {
			st.out.add(st.str(part.eval(st, sc)))
		}
	case *ifStmt:
		for _, b := range s.branches {
			st.step()
			if truth(b.test.eval(st, sc)) {
				return st.execAll(b.body, sc)
			}
		}
		return st.execAll(s.els, sc)
	case *forStmt:
		return st.runLoop(s, s.iter.eval(st, sc), sc, 1)
	case *setStmt:
		st.assign(s.target, s.value.eval(st, sc), sc)
	case *setBlock:
		text := st.capture(func() { st.execAll(s.body, sc.child()) })
		st.assign(s.target, st.applyFilters(s.filter, text, sc), sc)
	case *macroStmt:
		st.set(sc, s.name, st.macro(s.macroDef, sc))
	case *callStmt:
		st.out.add(st.str(s.call.call(st, sc, st.macro(s.body, sc))))
	case *filterStmt:
		text := st.capture(func() { st.execAll(s.body, sc.child()) })
		st.out.add(st.str(st.applyFilters(s.filter, text, sc)))
	case *withStmt:
		inner := sc.child()
		for i, target := range s.targets {
			st.assign(target, s.values[i].eval(st, sc), inner)
		}
		return st.execAll(s.body, inner)
	case *scopeStmt:
		if s.root {
			sc = sc.root
		}
		return st.execAll(s.body, sc.child())
	case *jump:
		return s.to
	}
	return normal
}

func (st *state) assign(target expr, v any, sc *scope) {
	switch target := target.(type) {
	case *nameExpr:
		st.set(sc, target.name, v)
	case *nsTarget:
		ns, ok := st.lookup(sc, target.name).(*namespace)
		if !ok {
			fail("TemplateRuntimeError", "cannot assign attribute on non-namespace object")
		}
		ns.vars.set(target.attr, v)
	case *tupleExpr:
		items := st.iterate(v)
		if len(items) != len(target.items) {
			valueError("cannot unpack %d values into %d", len(items), len(target.items))
		}
		for i, t := range target.items {
			st.assign(t, items[i], sc)
		}
	}
}

// applyFilters runs a chain whose innermost value is text.
func (st *state) applyFilters(f *filterExpr, text string, sc *scope) any {
	if f == nil {
		return text
	}
	var v any = text
	if inner, ok := f.x.(*filterExpr); ok {
		v = st.applyFilters(inner, text, sc)
	}
	return f.apply(st, sc, v)
}

// loop is the variable of that name inside a for.
type loop struct {
	items   []any
	i       int
	depth   int
	changed []any // what changed() saw last
	called  bool
	again   func(items any) string // of a recursive loop
}

func (st *state) runLoop(s *forStmt, over any, sc *scope, depth int) signal {
	l := &loop{items: st.iterate(over), depth: depth}
	st.charge(len(l.items))
	if s.test != nil {
		l.items = st.passing(s, l.items, sc)
	}
	if s.recursive {
		l.again = func(items any) string {
			return st.capture(func() {
				st.nested(func() { st.runLoop(s, items, sc, depth+1) })
			})
		}
	}
	for l.i = range l.items {
		inner := sc.child()
		st.set(inner, "loop", l)
		st.assign(s.target, l.items[l.i], inner)
		if st.execAll(s.body, inner) == breakLoop {
			break
		}
	}
	if len(l.items) == 0 {
		return st.execAll(s.els, sc.child())
	}
	return normal
}

func (st *state) passing(s *forStmt, items []any, sc *scope) []any {
	var kept []any
	for _, item := range items {
		st.step()
		inner := sc.child()
		st.assign(s.target, item, inner)
		if truth(s.test.eval(st, inner)) {
			kept = append(kept, item)
		}
	}
	return kept
}

func (l *loop) attr(name string) (any, bool) {
	at, n := int64(l.i), int64(len(l.items))
	switch name {
	case "index":
		return at + 1, true
	case "index0":
		return at, true
	case "revindex":
		return n - at, true
	case "revindex0":
		return n - at - 1, true
	case "first":
		return at == 0, true
	case "last":
		return at == n-1, true
	case "length":
		return n, true
	case "depth":
		return int64(l.depth), true
	case "depth0":
		return int64(l.depth - 1), true
	case "previtem":
		if at == 0 {
			return &undefined{what: "there is no previous item"}, true
		}
		return l.items[at-1], true
	case "nextitem":
		if at == n-1 {
			return &undefined{what: "there is no next item"}, true
		}
		return l.items[at+1], true
	case "cycle":
		return &function{name: name, call: l.cycle}, true
	case "changed":
		return &function{name: name, call: l.hasChanged}, true
	}
	return nil, false
}

func (l *loop) cycle(_ *state, a args) any {
	if len(a.pos) == 0 {
		typeError("no items for cycling given")
	}
	return a.pos[l.i%len(a.pos)]
}

func (l *loop) hasChanged(st *state, a args) any {
	same := l.called && st.equalItems(l.changed, a.pos, 0)
	l.changed, l.called = a.pos, true
	return !same
}

// macro makes the function of a macro defined in sc.
func (st *state) macro(m *macroDef, sc *scope) *function {
	st.charge(pairBytes)
	return &function{name: m.name, macro: m, call: func(st *state, a args) any {
		inner := sc.child()
		var text string
		line := st.line
		st.nested(func() {
			m.bind(st, inner, a)
			text = st.capture(func() { st.execAll(m.body, inner) })
		})
		st.line = line
		return text
	}}
}

// bind sets the macro's parameters from the arguments of a call.
func (m *macroDef) bind(st *state, sc *scope, a args) {
	st.charge(pairBytes * len(a.names))
	named := newDict()
	for i, name := range a.names {
		named.set(name, a.named[i])
	}
	taken := map[string]bool{}
	take := func(name string) (any, bool) {
		v, ok := named.get(name)
		taken[name] = true
		return v, ok
	}
	firstDefault := len(m.params) - len(m.defaults)
	for i, param := range m.params {
		v, ok := take(param)
		switch {
		case i < len(a.pos):
			if ok {
				typeError("macro '%s' got multiple values for argument '%s'", m.name, param)
			}
			v = a.pos[i]
		case !ok && i >= firstDefault:
			v = m.defaults[i-firstDefault].eval(st, sc)
		case !ok:
			v = &undefined{what: sprintf("parameter '%s' was not provided", param)}
		}
		st.set(sc, param, v)
	}
	if m.takesCaller && !slices.Contains(m.params, "caller") {
		v, ok := take("caller")
		if !ok {
			v = &undefined{what: "No caller defined"}
		}
		st.set(sc, "caller", v)
	}
	rest := newDict()
	for i, k := range named.keys {
		if !taken[k.(string)] {
			rest.set(k, named.values[i])
		}
	}
	if m.takesKwargs {
		st.set(sc, "kwargs", rest)
	} else if len(rest.keys) > 0 {
		typeError("macro '%s' takes no keyword argument '%s'", m.name, rest.keys[0])
	}
	extra := a.pos[min(len(m.params), len(a.pos)):]
	if m.takesVarargs {
		st.set(sc, "varargs", &tuple{items: extra})
	} else if len(extra) > 0 {
		typeError("macro '%s' takes not more than %d argument(s)", m.name, len(m.params))
	}
}

func stringsToAny(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}
