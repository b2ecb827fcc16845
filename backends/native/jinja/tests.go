package jinja

import "math/big"

// test is what stands behind "is": with one argument or none.
type test struct {
	takesOther bool
	holds      func(st *state, v, other any) bool
}

// test runs "v is name(args)".
func (st *state) test(name string, v any, a args) bool {
	t, ok := tests[name]
	if !ok {
		fail("TemplateRuntimeError", "No test named '%s'.", name)
	}
	if t.takesOther {
		return t.holds(st, v, a.bind(name, 1, "other")[0])
	}
	a.bind(name, 0)
	return t.holds(st, v, nil)
}

var tests map[string]test

func init() { // two look names up in it
	is := func(f func(v any) bool) test {
		return test{holds: func(_ *state, v, _ any) bool { return f(v) }}
	}
	hasType := func(name string) test { return is(func(v any) bool { return typeName(v) == name }) }
	compared := func(op string) test {
		return test{true, func(st *state, v, other any) bool { return st.compare(op, v, other) }}
	}
	rest := func(by, want int64) test {
		return test{holds: func(st *state, v, _ any) bool { return st.equal(st.binary("%", v, by), want) }}
	}
	hasCase := func(is func(rune) bool) test {
		return test{holds: func(st *state, v, _ any) bool { return cased(st.str(v), is) }}
	}
	tests = map[string]test{
		"==": compared("=="), "eq": compared("=="), "equalto": compared("=="), "!=": compared("!="), "ne": compared("!="),
		">": compared(">"), "gt": compared(">"), "greaterthan": compared(">"), ">=": compared(">="), "ge": compared(">="),
		"<": compared("<"), "lt": compared("<"), "lessthan": compared("<"), "<=": compared("<="), "le": compared("<="),
		"in":          compared("in"),
		"divisibleby": {true, func(st *state, v, other any) bool { return st.equal(st.binary("%", v, other), int64(0)) }},
		"sameas":      {true, func(st *state, v, other any) bool { return st.same(v, other) }},
		"odd":         rest(2, 1),
		"even":        rest(2, 0),

		"defined":   is(func(v any) bool { return !isUndefined(v) }),
		"undefined": is(isUndefined),
		"none":      is(func(v any) bool { return v == nil }),
		"true":      is(func(v any) bool { return v == true }),
		"false":     is(func(v any) bool { return v == false }),
		"boolean":   hasType("bool"),
		"integer":   hasType("int"),
		"float":     hasType("float"),
		"mapping":   hasType("dict"),
		"number":    is(isNumber),
		"string":    is(isText),
		"sequence":  is(isSequence),
		"iterable":  is(isIterable),
		"callable":  is(isCallable),
		"escaped":   hasType("Markup"),
		"lower":     hasCase(isLower),
		"upper":     hasCase(isUpper),
		"filter": is(func(v any) bool {
			name, _ := hashKey(v).(string)
			return filters[name] != nil
		}),
		"test": is(func(v any) bool {
			name, _ := hashKey(v).(string)
			return tests[name].holds != nil
		}),
	}
}

// same is Python's "is": for values that cannot change, being equal and of one type is as near as it gets.
func (st *state) same(a, b any) bool {
	if typeName(a) != typeName(b) {
		return false
	}
	switch a.(type) {
	case *big.Int, *undefined:
		return st.equal(a, b)
	}
	return a == b
}

func isText(v any) bool {
	_, ok := plain(v).(string)
	return ok
}

func isUndefined(v any) bool {
	_, ok := v.(*undefined)
	return ok
}

func isSequence(v any) bool {
	switch v.(type) {
	case string, markup, *list, *tuple, *dict, *rangeValue, *undefined:
		return true
	}
	return false
}

func isIterable(v any) bool {
	switch v.(type) {
	case *view, *generator, *loop:
		return true
	}
	return isSequence(v)
}

func isCallable(v any) bool {
	switch v.(type) {
	case *function, *undefined, *loop:
		return true
	}
	return false
}
