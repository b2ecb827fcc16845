package jinja

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
)

// Values are Python's:
//
//	None nil          bool bool        int int64, or *big.Int if it does not fit
//	float float64     str string       list *list       tuple *tuple      dict *dict
//	undefined *undefined               range *rangeValue
//	generator *generator               dict.items() and the like *view
//	namespace *namespace               macros, methods, functions *function; loop *loop; cycler *cycler
type (
	list  struct{ items []any }
	tuple struct {
		items []any
		names []string // of a named tuple
	}
	dict struct {
		keys, values []any
		index        map[any]int // by hashKey
	}
	undefined struct {
		what   string // what was not there, for messages
		unsafe bool   // it is there, but a template must not touch it
	}
	rangeValue struct{ start, stop, step int64 }
	// generator is read once.
	generator struct{ items []any }
	// view is a live list of a dict's keys, values or items.
	view struct {
		d    *dict
		kind string
	}
	namespace struct{ vars dict }
	function  struct {
		name  string
		call  func(st *state, a args) any
		macro *macroDef // of a macro
	}
	cycler struct {
		items []any
		at    int
	}
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func newDict() *dict { return &dict{index: map[any]int{}} }

func (d *dict) set(key, value any) {
	if d.index == nil {
		d.index = map[any]int{}
	}
	h := hashKey(key)
	if i, ok := d.index[h]; ok {
		d.values[i] = value
		return
	}
	d.index[h] = len(d.keys)
	d.keys, d.values = append(d.keys, key), append(d.values, value)
}

func (d *dict) get(key any) (any, bool) {
	i, ok := d.index[hashKey(key)]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

type (
	bigKey   string
	tupleKey string
)

// hashKey returns a Go map key: equal for values that Python holds to be the same key.
func hashKey(v any) any {
	switch v := v.(type) {
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case float64:
		if v == math.Trunc(v) && !math.IsInf(v, 0) {
			return hashKey(bigFloat(v))
		}
	case *big.Int:
		if v.IsInt64() {
			return v.Int64()
		}
		return bigKey(v.String())
	case *tuple:
		var key strings.Builder
		for _, item := range v.items {
			fmt.Fprintf(&key, "%T%q,", hashKey(item), fmt.Sprint(hashKey(item)))
		}
		return tupleKey(key.String())
	case *list:
		typeError("unhashable type: 'list'")
	case *dict:
		typeError("unhashable type: 'dict'")
	}
	return v
}

// typeName is Python's name of v's type.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *list:
		return "list"
	case *tuple:
		return "tuple"
	case *dict:
		return "dict"
	case *undefined:
		return "Undefined"
	case *rangeValue:
		return "range"
	case *view:
		return "dict_" + v.kind
	case *namespace:
		return "Namespace"
	case *generator:
		return "generator"
	case *loop:
		return "LoopContext"
	}
	return "function"
}

func (u *undefined) fail() {
	if u.unsafe {
		fail("SecurityError", "access to %s is unsafe", u.what)
	}
	fail("UndefinedError", "%s", u.what)
}

func missing(name string) *undefined { return &undefined{what: "'" + name + "' is undefined"} }

func noElement(of any, key any) *undefined {
	if _, ok := key.(string); ok {
		return &undefined{what: sprintf("'%s object' has no attribute '%s'", typeName(of), key)}
	}
	return &undefined{what: sprintf("'%s object' has no element %v", typeName(of), key)}
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil, *undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case *list:
		return len(v.items) > 0
	case *tuple:
		return len(v.items) > 0
	case *dict:
		return len(v.keys) > 0
	case *view:
		return len(v.d.keys) > 0
	case *rangeValue:
		return v.len() > 0
	}
	return true
}

// maxValueDepth bounds how deep lists are nested that are compared or printed.
const maxValueDepth = 500

func equal(a, b any) bool { return equalAt(a, b, 0) }

func equalAt(a, b any, depth int) bool {
	if depth > maxValueDepth {
		fail("RecursionError", "maximum recursion depth exceeded in comparison")
	}
	if isNumber(a) && isNumber(b) {
		return compareNumbers(a, b) == 0
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		b, ok := b.(string)
		return ok && a == b
	case *undefined:
		_, ok := b.(*undefined)
		return ok
	case *list:
		b, ok := b.(*list)
		return ok && equalItems(a.items, b.items, depth)
	case *tuple:
		b, ok := b.(*tuple)
		return ok && equalItems(a.items, b.items, depth)
	case *dict:
		b, ok := b.(*dict)
		if !ok || len(a.keys) != len(b.keys) {
			return false
		}
		for i, k := range a.keys {
			if v, ok := b.get(k); !ok || !equalAt(a.values[i], v, depth+1) {
				return false
			}
		}
		return true
	case *rangeValue:
		b, ok := b.(*rangeValue)
		return ok && slices.Equal(a.ints(), b.ints())
	}
	return a == b
}

func equalItems(a, b []any, depth int) bool {
	return slices.EqualFunc(a, b, func(x, y any) bool { return equalAt(x, y, depth+1) })
}

// less is a < b; op is for the message when they have no order.
func less(a, b any, op string) bool { return lessAt(a, b, op, 0) }

func lessAt(a, b any, op string, depth int) bool {
	if depth > maxValueDepth {
		fail("RecursionError", "maximum recursion depth exceeded in comparison")
	}
	if isNumber(a) && isNumber(b) {
		return compareNumbers(a, b) == -1
	}
	if a, ok := a.(string); ok {
		if b, ok := b.(string); ok {
			return a < b // UTF-8 sorts by code point
		}
	}
	x, y, ok := sameSequences(a, b)
	if !ok {
		checkDefined(a, b)
		typeError("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	}
	for i := range min(len(x), len(y)) {
		if !equalAt(x[i], y[i], depth+1) {
			return lessAt(x[i], y[i], op, depth+1)
		}
	}
	return len(x) < len(y)
}

func sameSequences(a, b any) (x, y []any, ok bool) {
	switch a := a.(type) {
	case *list:
		b, ok := b.(*list)
		if ok {
			return a.items, b.items, true
		}
	case *tuple:
		b, ok := b.(*tuple)
		if ok {
			return a.items, b.items, true
		}
	}
	return nil, nil, false
}

func checkDefined(values ...any) {
	for _, v := range values {
		if u, ok := v.(*undefined); ok {
			u.fail()
		}
	}
}

func (r *rangeValue) len() int64 {
	switch {
	case r.step > 0 && r.start < r.stop:
		return (r.stop-r.start-1)/r.step + 1
	case r.step < 0 && r.start > r.stop:
		return (r.start-r.stop-1)/(-r.step) + 1
	}
	return 0
}

func (r *rangeValue) ints() []int64 {
	out := make([]int64, r.len())
	for i := range out {
		out[i] = r.start + int64(i)*r.step
	}
	return out
}

func (v *view) items() []any {
	switch v.kind {
	case "keys":
		return v.d.keys
	case "values":
		return v.d.values
	}
	return pairs(v.d)
}

func pairs(d *dict) []any {
	out := make([]any, len(d.keys))
	for i, k := range d.keys {
		out[i] = &tuple{items: []any{k, d.values[i]}}
	}
	return out
}

// iterate returns the items that a Python for loop over v would see.
func iterate(v any) []any {
	items, ok := tryIterate(v)
	if !ok {
		typeError("'%s' object is not iterable", typeName(v))
	}
	return items
}

func tryIterate(v any) ([]any, bool) {
	switch v := v.(type) {
	case *undefined:
		if v.unsafe {
			v.fail()
		}
		return nil, true
	case *list:
		return v.items, true
	case *tuple:
		return v.items, true
	case *dict:
		return v.keys, true
	case *view:
		return v.items(), true
	case *generator:
		items := v.items
		v.items = nil
		return items, true
	case string:
		out := make([]any, 0, len(v))
		for _, r := range v {
			out = append(out, string(r))
		}
		return out, true
	case *rangeValue:
		ints := v.ints()
		out := make([]any, len(ints))
		for i, n := range ints {
			out[i] = n
		}
		return out, true
	case *loop:
		return v.rest(), true
	}
	return nil, false
}

// length is Python's len; ok is false for what has none.
func length(v any) (n int, ok bool) {
	switch v := v.(type) {
	case string:
		return runeCount(v), true
	case *list:
		return len(v.items), true
	case *tuple:
		return len(v.items), true
	case *dict:
		return len(v.keys), true
	case *view:
		return len(v.d.keys), true
	case *rangeValue:
		return int(v.len()), true
	case *undefined:
		return 0, true
	case *loop:
		return len(v.items), true
	}
	return 0, false
}

// contains is Python's "x in v".
func contains(v, x any) bool {
	switch v := v.(type) {
	case string:
		s, ok := x.(string)
		if !ok {
			checkDefined(x)
			typeError("'in <string>' requires string as left operand, not %s", typeName(x))
		}
		return strings.Contains(v, s)
	case *dict:
		_, ok := v.get(x)
		return ok
	}
	items, ok := tryIterate(v)
	if !ok {
		typeError("argument of type '%s' is not iterable", typeName(v))
	}
	return slices.ContainsFunc(items, func(item any) bool { return equal(item, x) })
}
