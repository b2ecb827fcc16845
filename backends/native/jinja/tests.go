package jinja

import (
	"math/big"
	"strings"
)

// test runs "v is name(args)".
func (st *state) test(name string, v any, a args) bool {
	if op, ok := comparisons[name]; ok {
		return compare(op, v, a.bind(name, 1, "other")[0])
	}
	if f, ok := argTests[name]; ok {
		return f(st, v, a.bind(name, 1, "other")[0])
	}
	f, ok := simpleTests[name]
	if !ok {
		fail("TemplateRuntimeError", "No test named '%s'.", name)
	}
	a.bind(name, 0)
	return f(v)
}

var comparisons = map[string]string{
	"==": "==", "eq": "==", "equalto": "==", "!=": "!=", "ne": "!=", ">": ">", "gt": ">", "greaterthan": ">",
	">=": ">=", "ge": ">=", "<": "<", "lt": "<", "lessthan": "<", "<=": "<=", "le": "<=", "in": "in",
}

var argTests = map[string]func(st *state, v, other any) bool{
	"divisibleby": func(_ *state, v, other any) bool { return equal(mod(v, other), int64(0)) },
	"sameas":      func(_ *state, v, other any) bool { return same(v, other) },
}

func mod(v, by any) any {
	checkDefined(v, by)
	if !isNumber(v) || !isNumber(by) {
		typeError("unsupported operand type(s) for %%: '%s' and '%s'", typeName(v), typeName(by))
	}
	return arithmetic("%", v, by)
}

// same is Python's "is": for values that cannot change, being equal and of one type is as near as it gets.
func same(a, b any) bool {
	if typeName(a) != typeName(b) {
		return false
	}
	switch a.(type) {
	case *big.Int, *undefined:
		return equal(a, b)
	}
	return a == b
}

var simpleTests map[string]func(v any) bool

func init() { // they look filters and tests up
	simpleTests = map[string]func(v any) bool{
		"defined":   func(v any) bool { return !isUndefined(v) },
		"undefined": isUndefined,
		"none":      func(v any) bool { return v == nil },
		"boolean":   func(v any) bool { return typeName(v) == "bool" },
		"true":      func(v any) bool { return v == true },
		"false":     func(v any) bool { return v == false },
		"integer":   func(v any) bool { return typeName(v) == "int" },
		"float":     func(v any) bool { return typeName(v) == "float" },
		"number":    isNumber,
		"string":    func(v any) bool { return typeName(v) == "str" },
		"mapping":   func(v any) bool { return typeName(v) == "dict" },
		"sequence":  isSequence,
		"iterable":  isIterable,
		"callable":  isCallable,
		"odd":       func(v any) bool { return equal(mod(v, int64(2)), int64(1)) },
		"even":      func(v any) bool { return equal(mod(v, int64(2)), int64(0)) },
		"lower":     func(v any) bool { return cased((&state{limits: DefaultLimits}).str(v), isLower) },
		"upper":     func(v any) bool { return cased((&state{limits: DefaultLimits}).str(v), isUpper) },
		"escaped":   func(any) bool { return false },
		"filter":    func(v any) bool { return filters[mustStr(v)] != nil },
		"test":      func(v any) bool { return isTest(mustStr(v)) },
	}
}

func isTest(name string) bool {
	return simpleTests[name] != nil || argTests[name] != nil || comparisons[name] != ""
}

func isUndefined(v any) bool {
	_, ok := v.(*undefined)
	return ok
}

func isSequence(v any) bool {
	switch v.(type) {
	case string, *list, *tuple, *dict, *rangeValue, *undefined:
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
	switch v := v.(type) {
	case *function, *undefined:
		return true
	case *loop:
		return v.again != nil || strings.HasPrefix(typeName(v), "Loop")
	}
	return false
}
