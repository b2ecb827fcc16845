package jinja

import (
	"strings"
	"time"
)

// state is one rendering.
type state struct {
	limits Limits
	now    func() time.Time
	out    *text
	steps  int
	depth  int // macro calls and recursive loops now running
	line   int // of the statement that runs
}

// bytesPerStep is how much text may be built or read in one step.
const bytesPerStep = 32

// step counts one unit of work.
func (st *state) step() {
	if st.steps++; st.steps > st.limits.Steps {
		fail(kindLimit, "fuel")
	}
}

// charge counts the copying or skimming of n bytes before it is done.
func (st *state) charge(n int) {
	if st.steps += 1 + n/bytesPerStep; st.steps > st.limits.Steps {
		fail(kindLimit, "fuel")
	}
}

// walk counts work on n bytes one by one, which takes about eight times as long as copying them.
func (st *state) walk(n int) { st.charge(8 * n) }

// build is charge for a text of n bytes: no text is larger than the output may be.
func (st *state) build(n int) {
	if n > st.limits.Output {
		fail(kindLimit, "output size")
	}
	st.charge(n)
}

// text is a text being built, under the limits of a rendering.
type text struct {
	strings.Builder
	st *state
}

func (st *state) newText() *text { return &text{st: st} }

func (t *text) add(s string) {
	if t.Len()+len(s) > t.st.limits.Output {
		fail(kindLimit, "output size")
	}
	t.st.charge(len(s))
	t.WriteString(s)
}

// capture returns what run prints.
func (st *state) capture(run func()) string {
	outer := st.out
	st.out = st.newText()
	run()
	text := st.out.String()
	st.out = outer
	return text
}

// nested runs f one level deeper.
func (st *state) nested(f func()) {
	if st.depth++; st.depth > st.limits.Depth {
		fail(kindLimit, "recursion depth")
	}
	f()
	st.depth--
}

// scope holds the variables of a body. Loops, macros and the like have one each; if has none.
type scope struct {
	vars    []variable
	first   [3]variable // where vars begins: most scopes have few
	parent  *scope
	root    *scope
	context *dict // of the root: what the caller gave
}

type variable struct {
	name  string
	value any
}

func (sc *scope) child() *scope {
	inner := &scope{parent: sc, root: sc.root}
	inner.vars = inner.first[:0]
	return inner
}

func (st *state) set(sc *scope, name string, v any) {
	st.steps += len(sc.vars) / 8
	for i := range sc.vars {
		if sc.vars[i].name == name {
			sc.vars[i].value = v
			return
		}
	}
	sc.vars = append(sc.vars, variable{name, v})
}

func (st *state) lookup(sc *scope, name string) any {
	for s := sc; s != nil; s = s.parent {
		st.steps += 1 + len(s.vars)/8
		for i := range s.vars {
			if s.vars[i].name == name {
				return s.vars[i].value
			}
		}
	}
	if v, ok := sc.root.context.get(name); ok {
		return v
	}
	if f, ok := globals[name]; ok {
		return f
	}
	return missing(name)
}
