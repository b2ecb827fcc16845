package jinja

import (
	"strings"
	"time"
)

// state is one rendering.
type state struct {
	limits Limits
	now    func() time.Time
	out    *strings.Builder
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

// charge counts the building or reading of n bytes before it is done.
func (st *state) charge(n int) {
	if st.steps += 1 + n/bytesPerStep; st.steps > st.limits.Steps {
		fail(kindLimit, "fuel")
	}
}

func (st *state) print(text string) {
	if st.out.Len()+len(text) > st.limits.Output {
		fail(kindLimit, "output size")
	}
	st.out.WriteString(text)
}

// capture returns what run prints.
func (st *state) capture(run func()) string {
	outer := st.out
	st.out = &strings.Builder{}
	run()
	text := st.out.String()
	st.out = outer
	st.charge(len(text))
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
	names   []string
	values  []any
	parent  *scope
	root    *scope
	context *dict // of the root: what the caller gave
}

func (sc *scope) child() *scope { return &scope{parent: sc, root: sc.root} }

func (st *state) set(sc *scope, name string, v any) {
	st.steps += len(sc.names) / 8
	for i, n := range sc.names {
		if n == name {
			sc.values[i] = v
			return
		}
	}
	sc.names, sc.values = append(sc.names, name), append(sc.values, v)
}

func (st *state) lookup(sc *scope, name string) any {
	for s := sc; s != nil; s = s.parent {
		st.steps += len(s.names) / 8
		for i, n := range s.names {
			if n == name {
				return s.values[i]
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
