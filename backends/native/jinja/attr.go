package jinja

import (
	"slices"
	"strings"
)

// method is a method of a Python type: called with the value it belongs to.
type method[T any] func(st *state, x T, a args) any

func bound[T any](name string, m method[T], x T) *function {
	return &function{name: name, call: func(st *state, a args) any { return m(st, x, a) }}
}

// Methods that change their value exist, but the immutable sandbox keeps templates away from them.
var (
	dictChanges = []string{"clear", "pop", "popitem", "setdefault", "update"}
	listChanges = []string{"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}
)

// attribute returns x.name where Python's type of x has it.
func attribute(x any, name string) (any, bool) {
	if strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__") {
		if _, ok := x.(*namespace); !ok {
			return unsafeAttr(x, name), true
		}
	}
	switch x := x.(type) {
	case string:
		if m, ok := strMethods[name]; ok {
			return bound(name, m, x), true
		}
	case markup:
		if m, ok := strMethods[name]; ok {
			return markupMethod(name, m, x), true
		}
	case *dict:
		if slices.Contains(dictChanges, name) {
			return unsafeAttr(x, name), true
		}
		if m, ok := dictMethods[name]; ok {
			return bound(name, m, x), true
		}
	case *list:
		if slices.Contains(listChanges, name) {
			return unsafeAttr(x, name), true
		}
		if name == "copy" {
			return bound(name, func(st *state, l *list, a args) any {
				a.bind("copy", 0)
				st.charge(len(l.items) * itemBytes)
				return &list{slices.Clone(l.items)}
			}, x), true
		}
		return sequenceMethod(name, x.items)
	case *tuple:
		if at := slices.Index(x.names, name); at >= 0 {
			return x.items[at], true
		}
		return sequenceMethod(name, x.items)
	case *rangeValue:
		switch name {
		case "start":
			return x.start, true
		case "stop":
			return x.stop, true
		case "step":
			return x.step, true
		}
	case float64:
		if name == "is_integer" {
			return bound(name, func(_ *state, f float64, a args) any {
				a.bind("is_integer", 0)
				return f == float64(int64(f)) || f >= 1<<62 || f <= -1<<62
			}, x), true
		}
	case *namespace:
		return x.vars.get(name)
	case *loop:
		return x.attr(name)
	case *function:
		return x.attr(name)
	case *cycler:
		return x.attr(name)
	}
	return nil, false
}

// markupMethod is a method of str on safe text: what it puts in is escaped, what comes out is safe.
func markupMethod(name string, m method[string], x markup) *function {
	return &function{name: name, call: func(st *state, a args) any {
		switch name {
		case "replace":
			if len(a.pos) > 1 {
				a.pos = slices.Clone(a.pos)
				a.pos[1] = st.escape(a.pos[1])
			}
		case "join":
			items := slices.Clone(st.iterate(a.bind("join", 1, "iterable")[0]))
			for i, item := range items {
				items[i] = st.escape(item)
			}
			a = args{pos: []any{&list{items}}}
		case "format", "ljust", "rjust", "center":
			unsupported("%s of text that is marked safe", name)
		}
		return keepMarkup(m(st, string(x), a))
	}}
}

func unsafeAttr(x any, name string) *undefined {
	return &undefined{what: sprintf("attribute '%s' of '%s' object", name, typeName(x)), unsafe: true}
}

var dictMethods = map[string]method[*dict]{
	"items":  viewMethod("items"),
	"keys":   viewMethod("keys"),
	"values": viewMethod("values"),
	"get": func(st *state, d *dict, a args) any {
		p := a.bind("get", 1, "key", "default")
		if v, ok := st.find(d, p[0]); ok {
			return v
		}
		return given(p[1], nil)
	},
	"copy": func(st *state, d *dict, a args) any {
		a.bind("copy", 0)
		st.charge(len(d.keys) * pairBytes)
		return d.clone()
	},
}

func viewMethod(kind string) method[*dict] {
	return func(_ *state, d *dict, a args) any {
		a.bind(kind, 0)
		return &view{d, kind}
	}
}

func (d *dict) clone() *dict {
	out := newDict()
	for i, k := range d.keys {
		out.set(k, d.values[i])
	}
	return out
}

func sequenceMethod(name string, items []any) (any, bool) {
	switch name {
	case "count":
		return &function{name: name, call: func(st *state, a args) any {
			x, n := a.bind(name, 1, "value")[0], int64(0)
			for _, item := range items {
				if st.equal(item, x) {
					n++
				}
			}
			return n
		}}, true
	case "index":
		return &function{name: name, call: func(st *state, a args) any {
			x := a.bind(name, 1, "value")[0]
			at := slices.IndexFunc(items, func(item any) bool { return st.equal(item, x) })
			if at < 0 {
				valueError("value is not in list")
			}
			return int64(at)
		}}, true
	}
	return nil, false
}

func (f *function) attr(name string) (any, bool) {
	if f.macro == nil {
		return nil, false
	}
	switch name {
	case "name":
		return f.name, true
	case "arguments":
		return &tuple{items: stringsToAny(f.macro.params)}, true
	case "catch_kwargs":
		return f.macro.takesKwargs, true
	case "catch_varargs":
		return f.macro.takesVarargs, true
	case "caller":
		return f.macro.takesCaller, true
	}
	return nil, false
}

func (c *cycler) attr(name string) (any, bool) {
	switch name {
	case "current":
		return c.items[c.at], true
	case "next":
		return &function{name: name, call: func(_ *state, a args) any {
			a.bind(name, 0)
			v := c.items[c.at]
			c.at = (c.at + 1) % len(c.items)
			return v
		}}, true
	case "reset":
		return &function{name: name, call: func(_ *state, a args) any {
			a.bind(name, 0)
			c.at = 0
			return nil
		}}, true
	}
	return nil, false
}
