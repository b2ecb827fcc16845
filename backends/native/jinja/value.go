package jinja

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
)

// Values are Python's:
//
//	None nil          bool bool        int int64, or *big.Int if it does not fit
//	float float64     str string       list *list       tuple *tuple      dict *dict
//	Markup markup, what |safe and |escape give: + escapes what is added to it
//	undefined *undefined               range *rangeValue
//	generator *generator               dict.items() and the like *view
//	namespace *namespace               macros, methods, functions *function; loop *loop; cycler *cycler
type (
	markup string
	list   struct{ items []any }
	tuple  struct {
		items []any
		names []string // of a named tuple
	}
	dict struct {
		keys, values []any
		index        map[any]int // by hashKey; nil while there are few keys
	}
	undefined struct {
		what   string // what was not there, for messages
		unsafe bool   // it is there, but a template must not touch it
	}
	rangeValue struct{ start, stop, step int64 }
	// generator is read once; next makes its items one by one.
	generator struct {
		next  func() (item any, ok bool)
		depth int // generators that it reads one through another
	}
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

// maxScanned is how many keys a dict has before it keeps an index: looking through a few is faster.
const maxScanned = 8

func newDict() *dict { return &dict{} }

// at returns the place of the key with the hash key h.
func (d *dict) at(h any) (int, bool) {
	if d.index != nil {
		i, ok := d.index[h]
		return i, ok
	}
	for i, k := range d.keys {
		if hashKey(k) == h {
			return i, true
		}
	}
	return 0, false
}

func (d *dict) set(key, value any) {
	h := hashKey(key)
	if i, ok := d.at(h); ok {
		d.values[i] = value
		return
	}
	d.keys, d.values = append(d.keys, key), append(d.values, value)
	switch n := len(d.keys); {
	case d.index != nil:
		d.index[h] = n - 1
	case n > maxScanned:
		d.index = make(map[any]int, 2*n)
		for i, k := range d.keys {
			d.index[hashKey(k)] = i
		}
	}
}

func (d *dict) get(key any) (any, bool) {
	if i, ok := d.at(hashKey(key)); ok {
		return d.values[i], true
	}
	return nil, false
}

type (
	bigKey   string
	tupleKey string
)

// hashKey returns a Go map key: equal for values that Python holds to be the same key.
func hashKey(v any) any {
	switch v := v.(type) {
	case bool, int64:
		n, _ := asInt(v)
		return n
	case float64:
		if v == math.Trunc(v) && !math.IsInf(v, 0) {
			return hashKey(bigFloat(v))
		}
	case *big.Int:
		if v.IsInt64() {
			return v.Int64()
		}
		return bigKey(string(v.Bytes()) + string(rune(v.Sign()+1)))
	case markup:
		return string(v)
	case *tuple:
		var key strings.Builder
		appendKey(&key, v, 0)
		return tupleKey(key.String())
	case *undefined:
		return undefined{}
	case *list, *dict, *namespace:
		typeError("unhashable type: '%s'", typeName(v))
	}
	return v
}

// maxKey bounds the length of the key of a tuple, in bytes.
const maxKey = 1 << 14

// appendKey writes a tuple's items so that only equal tuples read the same.
func appendKey(out *strings.Builder, t *tuple, depth int) {
	if depth > maxValueDepth || out.Len() > maxKey {
		fail(kindLimit, "size of a key")
	}
	out.WriteByte('(')
	for _, item := range t.items {
		if inner, ok := item.(*tuple); ok {
			appendKey(out, inner, depth+1)
			continue
		}
		h := hashKey(item)
		text := sprintf("%v", h)
		fmt.Fprintf(out, "%T:%d:%s,", h, len(text), text)
		if out.Len() > maxKey {
			fail(kindLimit, "size of a key")
		}
	}
	out.WriteByte(')')
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
	case markup:
		return "Markup"
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
	case markup:
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

// descend counts one value at a depth of nesting.
func (st *state) descend(depth int) {
	st.step()
	if depth > maxValueDepth {
		fail(kindLimit, "nesting of values")
	}
}

// equal is a == b. Every item compared is a step, and long texts are more.
func (st *state) equal(a, b any) bool { return st.equalAt(a, b, 0) }

func (st *state) equalAt(a, b any, depth int) bool {
	st.descend(depth)
	if isNumber(a) && isNumber(b) {
		return st.compareNumbers(a, b) == 0
	}
	a, b = plain(a), plain(b)
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		if ok && len(a) == len(b) {
			st.charge(len(a))
		}
		return ok && a == b
	case *undefined:
		_, ok := b.(*undefined)
		return ok
	case *list:
		b, ok := b.(*list)
		return ok && (a == b || st.equalItems(a.items, b.items, depth))
	case *tuple:
		b, ok := b.(*tuple)
		return ok && (a == b || st.equalItems(a.items, b.items, depth))
	case *dict:
		b, ok := b.(*dict)
		if !ok || len(a.keys) != len(b.keys) {
			return false
		}
		for i, k := range a.keys {
			if v, ok := st.find(b, k); !ok || !st.equalAt(a.values[i], v, depth+1) {
				return false
			}
		}
		return true
	case *rangeValue:
		b, ok := b.(*rangeValue)
		n := a.len()
		return ok && n == b.len() && (n == 0 || a.start == b.start && (n == 1 || a.step == b.step))
	case *view:
		if _, ok := b.(*view); ok {
			unsupported("comparing dict views (add |list)")
		}
	}
	return a == b
}

func (st *state) equalItems(a, b []any, depth int) bool {
	return slices.EqualFunc(a, b, func(x, y any) bool { return st.equalAt(x, y, depth+1) })
}

// less is a < b; op is for the message when they have no order.
func (st *state) less(a, b any, op string) bool { return st.lessAt(a, b, op, 0) }

func (st *state) lessAt(a, b any, op string, depth int) bool {
	st.descend(depth)
	if isNumber(a) && isNumber(b) {
		return st.compareNumbers(a, b) == -1
	}
	a, b = plain(a), plain(b)
	if a, ok := a.(string); ok {
		if b, ok := b.(string); ok {
			st.charge(min(len(a), len(b)))
			return a < b // UTF-8 sorts by code point
		}
	}
	x, y, ok := sameSequences(a, b)
	if !ok {
		checkDefined(a, b)
		typeError("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	}
	for i := range min(len(x), len(y)) {
		if !st.equalAt(x[i], y[i], depth+1) {
			return st.lessAt(x[i], y[i], op, depth+1)
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

// plain returns the text of a markup as a string, other values as they are.
func plain(v any) any {
	if m, ok := v.(markup); ok {
		return string(m)
	}
	return v
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

// Working memory of one element, in bytes, that the steps of building it stand for.
const (
	itemBytes = 32  // of a list
	pairBytes = 128 // of a dict
)

func (st *state) viewItems(v *view) []any {
	switch v.kind {
	case "keys":
		return v.d.keys
	case "values":
		return v.d.values
	}
	return st.pairs(v.d)
}

// pairs returns the (key, value) tuples of d.
func (st *state) pairs(d *dict) []any {
	st.charge(len(d.keys) * pairBytes)
	out := make([]any, len(d.keys))
	for i, k := range d.keys {
		out[i] = &tuple{items: []any{k, d.values[i]}}
	}
	return out
}

// iterate returns the items that a Python for loop over v would see.
func (st *state) iterate(v any) []any {
	items, ok := st.tryIterate(v)
	if !ok {
		typeError("'%s' object is not iterable", typeName(v))
	}
	return items
}

func (st *state) tryIterate(v any) ([]any, bool) {
	switch v := plain(v).(type) {
	case *undefined:
		return nil, true
	case *list:
		return v.items, true
	case *tuple:
		return v.items, true
	case *dict:
		return v.keys, true
	case *view:
		return st.viewItems(v), true
	case *generator:
		var out []any
		for item, ok := v.next(); ok; item, ok = v.next() {
			st.charge(itemBytes)
			out = append(out, item)
		}
		return out, true
	case string:
		st.charge(len(v) * itemBytes)
		out := make([]any, 0, len(v))
		for _, r := range v {
			out = append(out, string(r))
		}
		return out, true
	case *rangeValue:
		n := int(v.len())
		st.charge(n * itemBytes)
		out := make([]any, n)
		for i := range out {
			out[i] = v.start + int64(i)*v.step
		}
		return out, true
	case *loop:
		unsupported("iterating over the loop variable")
	}
	return nil, false
}

// generate makes a generator of what f makes of the items of v that it keeps.
func (st *state) generate(v any, f func(item any) (made any, keep bool)) *generator {
	from, ok := v.(*generator)
	if !ok {
		from = st.later(nil, func() []any { return st.iterate(v) })
	}
	return st.reading(from, func() (any, bool) {
		for {
			item, ok := from.next()
			if !ok {
				return nil, false
			}
			st.step()
			if made, keep := f(item); keep {
				return made, true
			}
		}
	})
}

// later makes a generator of the items that list makes of v when the first is asked for.
func (st *state) later(v any, list func() []any) *generator {
	var items []any
	return st.reading(v, func() (any, bool) {
		if list != nil {
			items, list = list(), nil
		}
		if len(items) == 0 {
			return nil, false
		}
		item := items[0]
		items = items[1:]
		return item, true
	})
}

// reading makes a generator that reads v, which may be one too: only so many read one through another.
func (st *state) reading(v any, next func() (any, bool)) *generator {
	g := &generator{next: next}
	if from, ok := v.(*generator); ok {
		g.depth = from.depth + 1
	}
	st.descend(g.depth)
	return g
}

// length is Python's len; ok is false for what has none.
func (st *state) length(v any) (n int, ok bool) {
	switch v := v.(type) {
	case string:
		st.charge(len(v))
		return utf8.RuneCountInString(v), true
	case markup:
		return st.length(string(v))
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

// find looks key up in d.
func (st *state) find(d *dict, key any) (any, bool) {
	st.chargeKey(key)
	return d.get(key)
}

func (st *state) chargeKey(key any) {
	switch key := plain(key).(type) {
	case string:
		st.charge(len(key))
	case *tuple:
		st.charge(maxKey)
	}
}

// put sets d[key] = v.
func (st *state) put(d *dict, key, v any) {
	st.charge(pairBytes)
	st.chargeKey(key)
	d.set(key, v)
}

// contains is Python's "x in v".
func (st *state) contains(v, x any) bool {
	switch v := plain(v).(type) {
	case string:
		s, ok := plain(x).(string)
		if !ok {
			typeError("'in <string>' requires string as left operand, not %s", typeName(x))
		}
		st.charge(len(v))
		return strings.Contains(v, s)
	case *dict:
		_, ok := st.find(v, x)
		return ok
	}
	items, ok := st.tryIterate(v)
	if !ok {
		typeError("argument of type '%s' is not iterable", typeName(v))
	}
	return slices.ContainsFunc(items, func(item any) bool { return st.equal(item, x) })
}
