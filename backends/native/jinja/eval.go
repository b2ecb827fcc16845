package jinja

import (
	"slices"
	"strings"
)

func (e *constExpr) eval(*state, *scope) any { return e.value }

func (e *nameExpr) eval(st *state, sc *scope) any {
	v := st.lookup(sc, e.name)
	st.step()
	return v
}

func (e *nsTarget) eval(*state, *scope) any { return nil } // only ever assigned to

func evalAll(st *state, sc *scope, in []expr) []any {
	out := make([]any, len(in))
	for i, e := range in {
		st.step()
		out[i] = e.eval(st, sc)
	}
	return out
}

func (e *tupleExpr) eval(st *state, sc *scope) any { return &tuple{items: evalAll(st, sc, e.items)} }

func (e *listExpr) eval(st *state, sc *scope) any { return &list{evalAll(st, sc, e.items)} }

func (e *dictExpr) eval(st *state, sc *scope) any {
	st.charge(pairBytes)
	d := newDict()
	for i, k := range e.keys {
		st.step()
		st.put(d, k.eval(st, sc), e.values[i].eval(st, sc))
	}
	return d
}

func (e *condExpr) eval(st *state, sc *scope) any {
	st.step()
	switch {
	case truth(e.test.eval(st, sc)):
		return e.then.eval(st, sc)
	case e.els == nil:
		return &undefined{what: "the inline if-expression evaluated to false and no else section was defined."}
	}
	return e.els.eval(st, sc)
}

func (e *logicExpr) eval(st *state, sc *scope) any {
	st.step()
	left := e.left.eval(st, sc)
	if truth(left) != e.and {
		return left
	}
	return e.right.eval(st, sc)
}

func (e *notExpr) eval(st *state, sc *scope) any {
	st.step()
	return !truth(e.x.eval(st, sc))
}

func (e *unaryExpr) eval(st *state, sc *scope) any {
	st.step()
	v := e.x.eval(st, sc)
	if !isNumber(v) {
		checkDefined(v)
		typeError("bad operand type for unary %c: '%s'", e.op, typeName(v))
	}
	if f, ok := v.(float64); ok {
		if e.op == '-' {
			return -f
		}
		return f
	}
	return st.arithmetic(map[byte]string{'-': "-", '+': "+"}[e.op], int64(0), v)
}

func (e *concatExpr) eval(st *state, sc *scope) any {
	out := st.newText()
	for _, part := range e.parts {
		out.add(st.str(part.eval(st, sc)))
	}
	return out.String()
}

func (e *compareExpr) eval(st *state, sc *scope) any {
	left := e.first.eval(st, sc)
	for i, op := range e.ops {
		st.step()
		right := e.rest[i].eval(st, sc)
		if !st.compare(op, left, right) {
			return false
		}
		left = right
	}
	return true
}

func (st *state) compare(op string, a, b any) bool {
	switch op {
	case "==":
		return st.equal(a, b)
	case "!=":
		return !st.equal(a, b)
	case "<":
		return st.less(a, b, op)
	case ">":
		return st.less(b, a, op)
	case "<=":
		return st.less(a, b, op) || st.equal(a, b)
	case ">=":
		return st.less(b, a, op) || st.equal(a, b)
	case "in":
		return st.contains(b, a)
	}
	return !st.contains(b, a)
}

func (e *binaryExpr) eval(st *state, sc *scope) any {
	st.step()
	left := e.left.eval(st, sc)
	return st.binary(e.op, left, e.right.eval(st, sc))
}

func (st *state) binary(op string, a, b any) any {
	if isNumber(a) && isNumber(b) {
		return st.arithmetic(op, a, b)
	}
	checkDefined(a)
	if s, ok := a.(string); ok && op == "%" {
		return st.percent(s, b)
	}
	if _, ok := a.(markup); ok && op == "%" {
		unsupported("%% of text that is marked safe")
	}
	checkDefined(b)
	switch op {
	case "+":
		if v, ok := st.join(a, b); ok {
			return v
		}
	case "*":
		if v, ok := st.repeat(a, b); ok {
			return v
		}
	}
	typeError("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
	return nil
}

// join is + on sequences.
func (st *state) join(a, b any) (any, bool) {
	_, safeA := a.(markup)
	_, safeB := b.(markup)
	if isText(a) && isText(b) && (safeA || safeB) {
		s, t := st.escape(a), st.escape(b)
		st.build(len(s) + len(t))
		return s + t, true
	}
	if s, ok := a.(string); ok {
		t, ok := b.(string)
		st.build(len(s) + len(t))
		return s + t, ok
	}
	x, y, ok := sameSequences(a, b)
	if !ok {
		return nil, false
	}
	st.charge(itemBytes * (len(x) + len(y)))
	items := append(append(make([]any, 0, len(x)+len(y)), x...), y...)
	if _, ok := a.(*list); ok {
		return &list{items}, true
	}
	return &tuple{items: items}, true
}

// repeat is * on a sequence and a number.
func (st *state) repeat(a, b any) (any, bool) {
	if isNumber(a) {
		a, b = b, a
	}
	if _, ok := asBig(b); !ok {
		return nil, false
	}
	n := max(mustInt(b), 0)
	switch a := a.(type) {
	case string:
		return st.repeatText(a, n), true
	case markup:
		return markup(st.repeatText(string(a), n)), true
	case *list:
		return &list{st.repeatItems(a.items, n)}, true
	case *tuple:
		return &tuple{items: st.repeatItems(a.items, n)}, true
	}
	return nil, false
}

func (st *state) repeatText(s string, n int) string {
	if n <= 0 || s == "" {
		return ""
	}
	st.build(min(n, 1<<31) * min(len(s), 1<<31))
	return strings.Repeat(s, n)
}

func (st *state) repeatItems(items []any, n int) []any {
	var out []any
	if len(items) > 0 {
		st.charge(min(n, 1<<31) * len(items) * itemBytes)
		for range n {
			out = append(out, items...)
		}
	}
	return out
}

func (e *attrExpr) eval(st *state, sc *scope) any {
	st.step()
	return st.getAttr(e.x.eval(st, sc), e.name)
}

func (e *itemExpr) eval(st *state, sc *scope) any {
	st.step()
	return st.getItem(e.x.eval(st, sc), e.index.eval(st, sc))
}

// getAttr is x.name: an attribute (a method and the like) comes before an item.
func (st *state) getAttr(x any, name string) any {
	if u, ok := x.(*undefined); ok {
		u.fail()
	}
	if v, ok := attribute(x, name); ok {
		return v
	}
	if d, ok := x.(*dict); ok {
		if v, ok := st.find(d, name); ok {
			return v
		}
	}
	return noElement(x, name)
}

// getItem is x[key]: an item comes before an attribute.
func (st *state) getItem(x, key any) any {
	switch x := x.(type) {
	case *undefined:
		x.fail()
	case markup:
		v := st.getItem(string(x), key)
		if s, ok := v.(string); ok {
			return markup(s)
		}
		return v
	case *dict:
		if hashable(key) {
			if v, ok := st.find(x, key); ok {
				return v
			}
		}
	case string, *list, *tuple, *rangeValue:
		if n, ok := asInt(key); ok {
			if v, ok := st.elementAt(x, n); ok {
				return v
			}
		}
	}
	if name, ok := key.(string); ok {
		if v, ok := attribute(x, name); ok {
			return v
		}
	}
	return noElement(x, key)
}

func hashable(v any) bool {
	switch v.(type) {
	case *list, *dict, *namespace:
		return false
	}
	return true
}

// elementAt returns the n-th element of a sequence, from the end if n is negative.
func (st *state) elementAt(x any, n int64) (any, bool) {
	size, _ := st.length(x)
	if n < 0 {
		n += int64(size)
	}
	if n < 0 || n >= int64(size) {
		return nil, false
	}
	switch x := x.(type) {
	case string:
		if len(x) == size {
			return x[n : n+1], true
		}
		st.charge(4 * len(x))
		return string([]rune(x)[n]), true
	case *list:
		return x.items[n], true
	case *tuple:
		return x.items[n], true
	case *rangeValue:
		return x.start + n*x.step, true
	}
	return nil, false
}

func (e *sliceExpr) eval(st *state, sc *scope) any {
	st.step()
	x := e.x.eval(st, sc)
	var bounds [3]any
	for i, b := range []expr{e.start, e.stop, e.step} {
		if b != nil {
			bounds[i] = b.eval(st, sc)
		}
	}
	return st.slice(x, bounds)
}

// slice is x[start:stop:step].
func (st *state) slice(x any, bounds [3]any) any {
	checkDefined(x)
	switch x.(type) {
	case string, markup, *list, *tuple, *rangeValue:
	case *dict:
		typeError("unhashable type: 'slice'")
	default:
		typeError("'%s' object is not subscriptable", typeName(x))
	}
	for _, b := range bounds {
		if _, ok := asBig(b); !ok && b != nil {
			typeError("slice indices must be integers or None or have an __index__ method")
		}
	}
	size, _ := st.length(x)
	st.charge(size * 4)
	start, stop, step := sliceBounds(bounds, size)
	switch x := x.(type) {
	case markup:
		return markup(st.slice(string(x), bounds).(string))
	case string:
		runes := []rune(x)
		var out strings.Builder
		for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
			out.WriteRune(runes[i])
		}
		return out.String()
	case *list:
		return &list{pick(x.items, start, stop, step)}
	case *tuple:
		return &tuple{items: pick(x.items, start, stop, step)}
	case *rangeValue:
		from, to := x.start+int64(start)*x.step, x.start+int64(stop)*x.step
		return &rangeValue{from, to, x.step * int64(step)}
	}
	return noElement(x, "slice")
}

func pick(items []any, start, stop, step int) []any {
	var out []any
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		out = append(out, items[i])
	}
	return out
}

// sliceBounds returns where [start:stop:step] begins and ends in a sequence of n elements.
func sliceBounds(bounds [3]any, n int) (start, stop, step int) {
	step = 1
	if bounds[2] != nil {
		if step = mustInt(bounds[2]); step == 0 {
			valueError("slice step cannot be zero")
		}
	}
	low, high := 0, n // where start and stop may lie
	if step < 0 {
		low, high = -1, n-1
	}
	limit := func(v any, missing int) int {
		if v == nil {
			return missing
		}
		at := mustInt(v)
		if at < 0 {
			at += n
		}
		return max(low, min(at, high))
	}
	if step < 0 {
		return limit(bounds[0], high), limit(bounds[1], low), step
	}
	return limit(bounds[0], low), limit(bounds[1], high), step
}

// args are the arguments of one call.
type args struct {
	pos   []any
	names []string
	named []any
}

func (a *argList) eval(st *state, sc *scope) args {
	out := args{pos: evalAll(st, sc, a.pos), names: a.names, named: evalAll(st, sc, a.named)}
	if a.spread != nil {
		items := st.iterate(a.spread.eval(st, sc))
		st.charge(itemBytes * len(items))
		out.pos = append(out.pos, items...)
	}
	if a.kwargs != nil {
		d, ok := a.kwargs.eval(st, sc).(*dict)
		if !ok {
			typeError("argument after ** must be a mapping")
		}
		st.charge(len(d.keys) * (pairBytes + len(a.names)))
		out.names = slices.Clip(out.names)
		for i, k := range d.keys {
			name, ok := k.(string)
			if !ok {
				typeError("keywords must be strings")
			}
			if slices.Contains(a.names, name) {
				typeError("got multiple values for keyword argument '%s'", name)
			}
			out.names, out.named = append(out.names, name), append(out.named, d.values[i])
		}
	}
	return out
}

// with returns a with one more named argument.
func (a args) with(name string, v any) args {
	a.names, a.named = append(slices.Clip(a.names), name), append(a.named, v)
	return a
}

// unset is the value of an argument that was not given.
type unset struct{}

// bind puts the arguments of a call to a function of this name in the order of params, the first
// required of which must be there; those not given are unset{}.
func (a args) bind(fn string, required int, params ...string) []any {
	if len(a.pos) > len(params) {
		typeError("%s() takes at most %d arguments (%d given)", fn, len(params), len(a.pos))
	}
	out := make([]any, len(params))
	for i, param := range params {
		out[i] = unset{}
		if i < len(a.pos) {
			out[i] = a.pos[i]
		}
		for j, name := range a.names {
			if name == param {
				if out[i] != (unset{}) {
					typeError("%s() got multiple values for argument '%s'", fn, param)
				}
				out[i] = a.named[j]
			}
		}
		if out[i] == (unset{}) && i < required {
			typeError("%s() missing required argument '%s'", fn, param)
		}
	}
	for _, name := range a.names {
		known := false
		for _, param := range params {
			known = known || name == param
		}
		if !known {
			typeError("%s() got an unexpected keyword argument '%s'", fn, name)
		}
	}
	return out
}

// given returns v, or def if the argument was not given.
func given(v, def any) any {
	if v == (unset{}) {
		return def
	}
	return v
}

func (e *callExpr) eval(st *state, sc *scope) any { return e.call(st, sc, nil) }

// call calls, with a block's body as caller if there is one.
func (e *callExpr) call(st *state, sc *scope, caller *function) any {
	st.step()
	fn := e.fn.eval(st, sc)
	a := e.args.eval(st, sc)
	if caller != nil {
		a = a.with("caller", caller)
	}
	return st.call(fn, a)
}

func (st *state) call(fn any, a args) any {
	switch fn := fn.(type) {
	case *function:
		return fn.call(st, a)
	case *loop:
		if fn.again == nil {
			typeError("The loop must have the 'recursive' marker to be called recursively.")
		}
		return fn.again(a.bind("loop", 1, "iterable")[0])
	}
	checkDefined(fn)
	typeError("'%s' object is not callable", typeName(fn))
	return nil
}

func (e *filterExpr) eval(st *state, sc *scope) any { return e.apply(st, sc, e.x.eval(st, sc)) }

func (e *filterExpr) apply(st *state, sc *scope, v any) any {
	st.step()
	return st.filter(e.name, v, e.args.eval(st, sc))
}

func (e *testExpr) eval(st *state, sc *scope) any {
	st.step()
	v := e.x.eval(st, sc)
	return st.test(e.name, v, e.args.eval(st, sc))
}
