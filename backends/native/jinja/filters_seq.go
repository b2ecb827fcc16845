package jinja

import (
	"slices"
	"strconv"
	"strings"
)

// getter returns what an attribute argument picks from an item: a path of names and positions with
// dots between them, or a position. nil picks the item itself.
func (st *state) getter(attr any, def any) func(item any) any {
	if attr == nil {
		return func(item any) any { return item }
	}
	parts := []any{attr}
	if path, ok := attr.(string); ok {
		st.walk(8 * len(path))
		parts = nil
		for _, part := range strings.Split(path, ".") {
			parts = append(parts, attrPart(part))
		}
	}
	return func(item any) any {
		for _, part := range parts {
			item = st.getItem(item, part)
			if def != nil && isUndefined(item) {
				item = def
			}
		}
		return item
	}
}

func attrPart(part string) any {
	if n, err := strconv.ParseUint(part, 10, 31); err == nil {
		return int64(n)
	}
	return part
}

// sortKey is getter for sorting: text is in lower case unless case matters.
func (st *state) sortKey(attr any, caseSensitive bool) func(item any) any {
	get := st.getter(attr, nil)
	return func(item any) any {
		v := get(item)
		if s, ok := plain(v).(string); ok && !caseSensitive {
			st.walk(len(s))
			return lower(s)
		}
		return v
	}
}

// sortKeys makes a list of the sortKey of each attribute; commas stand between them.
func (st *state) sortKeys(attr any, caseSensitive bool) func(item any) any {
	var keys []func(any) any
	if path, ok := plain(attr).(string); ok {
		for _, one := range strings.Split(path, ",") {
			keys = append(keys, st.sortKey(one, caseSensitive))
		}
	} else {
		keys = append(keys, st.sortKey(attr, caseSensitive))
	}
	return func(item any) any {
		out := &list{make([]any, len(keys))}
		for i, key := range keys {
			out.items[i] = key(item)
		}
		return out
	}
}

// sortBy returns items in the order of their keys; equal ones stay as they were, reversed or not.
func (st *state) sortBy(items []any, key func(any) any, reverse bool) []any {
	keys, order := make([]any, len(items)), make([]int, len(items))
	for i, item := range items {
		keys[i], order[i] = key(item), i
	}
	st.charge(pairBytes * len(items))
	st.sortStable(order, func(i, j int) bool {
		if reverse {
			i, j = j, i
		}
		return st.less(keys[i], keys[j], "<")
	})
	out := make([]any, len(items))
	for n, i := range order {
		out[n] = items[i]
	}
	return out
}

func sorted(st *state, v any, a args) any {
	p := a.bind("sort", 0, "reverse", "case_sensitive", "attribute")
	key := st.sortKeys(given(p[2], nil), truth(given(p[1], false)))
	return &list{st.sortBy(st.iterate(v), key, truth(given(p[0], false)))}
}

func dictsort(st *state, v any, a args) any {
	p := a.bind("dictsort", 0, "case_sensitive", "by", "reverse")
	d, ok := v.(*dict)
	if !ok {
		noItems(v)
	}
	at := int64(0)
	switch by := mustStr(given(p[1], "key")); by {
	case "key":
	case "value":
		at = 1
	default:
		fail("FilterArgumentError", `You can only sort by either "key" or "value"`)
	}
	return &list{st.sortBy(st.pairs(d), st.sortKey(at, truth(given(p[0], false))), truth(given(p[2], false)))}
}

func first(st *state, v any, a args) any {
	a.bind("first", 0)
	if g, ok := v.(*generator); ok {
		if item, ok := g.next(); ok {
			return item
		}
	} else if items := st.iterate(v); len(items) > 0 {
		return items[0]
	}
	return &undefined{what: "No first item, sequence was empty."}
}

func last(st *state, v any, a args) any {
	a.bind("last", 0)
	if _, ok := v.(*generator); ok {
		typeError("'generator' object is not reversible")
	}
	if items := st.iterate(v); len(items) > 0 {
		return items[len(items)-1]
	}
	return &undefined{what: "No last item, sequence was empty."}
}

func reverse(st *state, v any, a args) any {
	a.bind("reverse", 0)
	switch v := v.(type) {
	case string:
		return st.slice(v, [3]any{nil, nil, int64(-1)})
	case *generator:
		items := st.iterate(v)
		slices.Reverse(items)
		return &list{items}
	}
	items, ok := st.tryIterate(v)
	if !ok {
		fail("FilterArgumentError", "argument must be iterable")
	}
	at := len(items)
	return &generator{next: func() (any, bool) {
		if at == 0 {
			return nil, false
		}
		at--
		return items[at], true
	}}
}

func join(st *state, v any, a args) any {
	p := a.bind("join", 0, "d", "attribute")
	get := st.getter(given(p[1], nil), nil)
	var parts []string
	for _, item := range st.iterate(v) {
		st.step()
		parts = append(parts, st.str(get(item)))
	}
	return st.joinText(parts, st.str(given(p[0], "")))
}

func unique(st *state, v any, a args) any {
	p := a.bind("unique", 0, "case_sensitive", "attribute")
	key := st.sortKey(given(p[1], nil), truth(given(p[0], false)))
	seen := newDict()
	return st.generate(v, func(item any) (any, bool) {
		k := key(item)
		_, known := st.find(seen, k)
		st.put(seen, k, nil)
		return item, !known
	})
}

func groupby(st *state, v any, a args) any {
	p := a.bind("groupby", 1, "attribute", "default", "case_sensitive")
	def := given(p[1], nil)
	get := st.getter(p[0], def)
	fold := st.sortKey(nil, truth(given(p[2], false)))
	key := func(item any) any { return fold(get(item)) }
	out := &list{}
	var lastKey any
	var group *list
	for _, item := range st.sortBy(st.iterate(v), key, false) {
		k := key(item)
		if group == nil || !st.equal(k, lastKey) {
			group, lastKey = &list{}, k
			named := &tuple{items: []any{get(item), group}, names: []string{"grouper", "list"}}
			out.items = append(out.items, named)
		}
		group.items = append(group.items, item)
	}
	return out
}

func sum(st *state, v any, a args) any {
	p := a.bind("sum", 0, "attribute", "start")
	get := st.getter(given(p[0], nil), nil)
	total := given(p[1], int64(0))
	for _, item := range st.iterate(v) {
		st.step()
		total = st.binary("+", total, get(item))
	}
	return total
}

func extreme(name, op string) func(*state, any, args) any {
	return func(st *state, v any, a args) any {
		p := a.bind(name, 0, "case_sensitive", "attribute")
		key := st.sortKey(nil, truth(given(p[0], false)))
		get := st.getter(given(p[1], nil), nil)
		items := st.iterate(v)
		if len(items) == 0 {
			return &undefined{what: "No aggregated item, sequence was empty."}
		}
		best, bestKey := items[0], key(get(items[0]))
		for _, item := range items[1:] {
			st.step()
			if k := key(get(item)); st.compare(op, k, bestKey) {
				best, bestKey = item, k
			}
		}
		return best
	}
}

func batch(st *state, v any, a args) any {
	p := a.bind("batch", 1, "linecount", "fill_with")
	size := mustInt(p[0])
	fill := given(p[1], nil)
	return st.later(v, func() []any { return st.rows(v, size, fill) })
}

// rows cuts the items of v into lists of size items, the last of which is filled up.
func (st *state) rows(v any, size int, fill any) []any {
	var rows, row []any
	for _, item := range st.iterate(v) {
		st.charge(itemBytes)
		if len(row) == size {
			rows = append(rows, &list{row})
			row = nil
		}
		row = append(row, item)
	}
	if row != nil {
		if fill != nil && len(row) < size {
			row = append(row, st.repeatItems([]any{fill}, size-len(row))...)
		}
		rows = append(rows, &list{row})
	}
	return rows
}

func slice(st *state, v any, a args) any {
	p := a.bind("slice", 1, "slices", "fill_with")
	n, fill := mustInt(p[0]), given(p[1], nil)
	return st.later(v, func() []any { return st.columns(v, n, fill) })
}

// columns cuts the items of v into n lists; those that have one less than the others are filled up.
func (st *state) columns(v any, n int, fill any) []any {
	items := st.iterate(v)
	if n <= 0 {
		fail("ZeroDivisionError", "integer modulo by zero")
	}
	st.charge(n * pairBytes)
	size, longer := len(items)/n, len(items)%n
	var rows []any
	offset := 0
	for i := range n {
		start := offset + i*size
		if i < longer {
			offset++
		}
		row := append([]any(nil), items[start:offset+(i+1)*size]...)
		if fill != nil && i >= longer {
			row = append(row, fill)
		}
		rows = append(rows, &list{row})
	}
	return rows
}

func mapFilter(st *state, v any, a args) any {
	var f func(item any) any
	switch {
	case len(a.pos) == 0:
		p := a.bind("map", 0, "attribute", "default")
		if p[0] == (unset{}) {
			fail("FilterArgumentError", "map requires a filter argument")
		}
		f = st.getter(p[0], given(p[1], nil))
	default:
		name, rest := mustStr(a.pos[0]), args{a.pos[1:], a.names, a.named}
		f = func(item any) any { return st.filter(name, item, rest) }
	}
	if !truth(v) { // None as well
		v = &list{}
	}
	return st.generate(v, func(item any) (any, bool) { return f(item), true })
}

func selectFilter(keep, byAttr bool) func(*state, any, args) any {
	return func(st *state, v any, a args) any {
		get := st.getter(nil, nil)
		if byAttr {
			if len(a.pos) == 0 {
				fail("FilterArgumentError", "Missing parameter for attribute name")
			}
			get = st.getter(a.pos[0], nil)
			a.pos = a.pos[1:]
		}
		passes := truth
		if len(a.pos) > 0 {
			name, rest := mustStr(a.pos[0]), args{a.pos[1:], a.names, a.named}
			passes = func(item any) bool { return st.test(name, item, rest) }
		}
		if !truth(v) { // None as well
			v = &list{}
		}
		return st.generate(v, func(item any) (any, bool) { return item, passes(get(item)) == keep })
	}
}
