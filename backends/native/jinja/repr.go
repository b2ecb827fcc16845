package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

func runeCount(s string) int { return utf8.RuneCountInString(s) }

// str is Python's str(v): how a value is printed.
func (st *state) str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case *undefined:
		return ""
	}
	return st.repr(v)
}

// repr is Python's repr(v): how a value is printed inside a list.
func (st *state) repr(v any) string {
	out := st.newText()
	st.appendRepr(out, v, 0)
	return out.String()
}

func (st *state) appendRepr(out *text, v any, depth int) {
	st.descend(depth)
	switch v := v.(type) {
	case nil:
		out.add("None")
	case bool:
		if v {
			out.add("True")
		} else {
			out.add("False")
		}
	case int64:
		out.add(strconv.FormatInt(v, 10))
	case *big.Int:
		st.charge(v.BitLen())
		out.add(v.String())
	case float64:
		out.add(floatRepr(v))
	case string:
		st.walk(len(v))
		out.add(quote(v))
	case markup:
		out.add("Markup(")
		st.appendRepr(out, string(v), depth)
		out.add(")")
	case *undefined:
		out.add("Undefined")
	case *list:
		st.reprItems(out, "[", v.items, "]", depth)
	case *tuple:
		st.reprTuple(out, v, depth)
	case *dict:
		st.reprDict(out, v, depth)
	case *view:
		st.reprItems(out, "dict_"+v.kind+"([", st.viewItems(v), "])", depth)
	case *rangeValue:
		out.add("range(" + strconv.FormatInt(v.start, 10) + ", " + strconv.FormatInt(v.stop, 10))
		if v.step != 1 {
			out.add(", " + strconv.FormatInt(v.step, 10))
		}
		out.add(")")
	case *namespace:
		out.add("<Namespace ")
		st.reprDict(out, &v.vars, depth)
		out.add(">")
	case *loop:
		out.add("<LoopContext " + strconv.Itoa(v.i+1) + "/" + strconv.Itoa(len(v.items)) + ">")
	case *function:
		if v.macro == nil {
			unsupported("printing the function %s", v.name)
		}
		out.add("<Macro ")
		out.add(quote(v.name))
		out.add(">")
	default:
		unsupported("printing a %s (add |list)", typeName(v))
	}
}

func (st *state) reprItems(out *text, before string, items []any, after string, depth int) {
	out.add(before)
	for i, item := range items {
		if i > 0 {
			out.add(", ")
		}
		st.appendRepr(out, item, depth+1)
	}
	out.add(after)
}

func (st *state) reprTuple(out *text, t *tuple, depth int) {
	if len(t.items) == 1 {
		st.reprItems(out, "(", t.items, ",)", depth)
		return
	}
	st.reprItems(out, "(", t.items, ")", depth)
}

func (st *state) reprDict(out *text, d *dict, depth int) {
	out.add("{")
	for i, k := range d.keys {
		if i > 0 {
			out.add(", ")
		}
		st.appendRepr(out, k, depth+1)
		out.add(": ")
		st.appendRepr(out, d.values[i], depth+1)
	}
	out.add("}")
}

// floatRepr is the shortest decimal that reads back as f, in Python's form.
func floatRepr(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// quote writes a string as Python would in source.
func quote(s string) string {
	var out strings.Builder
	mark := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		mark = '"'
	}
	out.WriteByte(mark)
	for _, r := range s {
		switch {
		case r == rune(mark) || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == '\t':
			out.WriteString(`\t`)
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			out.WriteString(codePointEscape(r))
		}
	}
	out.WriteByte(mark)
	return out.String()
}

func codePointEscape(r rune) string {
	switch {
	case r < 0x100:
		return sprintf(`\x%02x`, r)
	case r < 0x10000:
		return sprintf(`\u%04x`, r)
	}
	return sprintf(`\U%08x`, r)
}

// ascii escapes what is not ASCII in a repr.
func ascii(s string) string {
	var out strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			out.WriteByte(byte(r))
		} else {
			out.WriteString(codePointEscape(r))
		}
	}
	return out.String()
}
