package jinja

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJSONDepth bounds the nesting of the context.
const maxJSONDepth = 200

// parseJSON reads a JSON text as Python's json.loads does: keys keep their order, of two equal ones the
// last wins, integers are exact. Half a surrogate pair becomes U+FFFD.
func parseJSON(data []byte) any {
	r := &jsonReader{data: data}
	v := r.value(0)
	if r.space(); r.i != len(data) {
		r.fail()
	}
	return v
}

type jsonReader struct {
	data []byte
	i    int
}

func (r *jsonReader) fail() { valueError("the context is not valid JSON at byte %d", r.i) }

func (r *jsonReader) space() {
	for r.i < len(r.data) && strings.IndexByte(" \t\r\n", r.data[r.i]) >= 0 {
		r.i++
	}
}

// next skips white space and returns the next byte, 0 at the end.
func (r *jsonReader) next() byte {
	r.space()
	if r.i == len(r.data) {
		return 0
	}
	return r.data[r.i]
}

func (r *jsonReader) take(text string) bool {
	r.space()
	ok := strings.HasPrefix(string(r.data[r.i:min(r.i+len(text), len(r.data))]), text)
	if ok {
		r.i += len(text)
	}
	return ok
}

func (r *jsonReader) must(text string) {
	if !r.take(text) {
		r.fail()
	}
}

func (r *jsonReader) value(depth int) any {
	if depth > maxJSONDepth {
		fail(kindLimit, "nesting of the messages and tools")
	}
	switch c := r.next(); {
	case c == '{':
		r.i++
		return r.object(depth)
	case c == '[':
		r.i++
		return r.array(depth)
	case c == '"':
		return r.text()
	case c == '-' || '0' <= c && c <= '9':
		return r.number()
	case r.take("true"):
		return true
	case r.take("false"):
		return false
	}
	r.must("null")
	return nil
}

func (r *jsonReader) object(depth int) any {
	d := newDict()
	if r.take("}") {
		return d
	}
	for {
		if r.next() != '"' {
			r.fail()
		}
		key := r.text()
		r.must(":")
		d.set(key, r.value(depth+1))
		if !r.take(",") {
			r.must("}")
			return d
		}
	}
}

func (r *jsonReader) array(depth int) any {
	l := &list{}
	if r.take("]") {
		return l
	}
	for {
		l.items = append(l.items, r.value(depth+1))
		if !r.take(",") {
			r.must("]")
			return l
		}
	}
}

func (r *jsonReader) number() any {
	start := r.i
	for r.i < len(r.data) && strings.IndexByte("+-.eE0123456789", r.data[r.i]) >= 0 {
		r.i++
	}
	text := string(r.data[start:r.i])
	if strings.ContainsAny(text, ".eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil && !math.IsInf(f, 0) {
			r.fail()
		}
		return f
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if len(text) > maxBits/4 {
		fail(kindLimit, "integer size")
	}
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		r.fail()
	}
	return normalize(n)
}

func (r *jsonReader) text() string {
	r.i++ // the quote
	start := r.i
	for r.i < len(r.data) && r.data[r.i] != '"' && r.data[r.i] != '\\' {
		r.i++
	}
	out := append([]byte(nil), r.data[start:r.i]...)
	for r.i < len(r.data) {
		c := r.data[r.i]
		r.i++
		switch {
		case c == '"':
			return strings.ToValidUTF8(string(out), "\ufffd")
		case c != '\\':
			out = append(out, c)
		case r.i == len(r.data):
			r.fail()
		default:
			c = r.data[r.i]
			r.i++
			if at := strings.IndexByte(`"\/bfnrt`, c); at >= 0 {
				out = append(out, "\"\\/\b\f\n\r\t"[at])
			} else if c == 'u' {
				out = utf8.AppendRune(out, r.codePoint())
			} else {
				r.fail()
			}
		}
	}
	r.fail()
	return ""
}

// codePoint reads the digits after \u and, behind the first half of a surrogate pair, the second half.
func (r *jsonReader) codePoint() rune {
	first := r.hex4()
	if first < 0xd800 || first > 0xdfff {
		return first
	}
	if first < 0xdc00 && strings.HasPrefix(string(r.data[r.i:min(r.i+2, len(r.data))]), `\u`) {
		back := r.i
		r.i += 2
		if second := r.hex4(); 0xdc00 <= second && second <= 0xdfff {
			return 0x10000 + (first-0xd800)<<10 + second - 0xdc00
		}
		r.i = back
	}
	return utf8.RuneError
}

func (r *jsonReader) hex4() rune {
	if r.i+4 > len(r.data) {
		r.fail()
	}
	n, err := strconv.ParseUint(string(r.data[r.i:r.i+4]), 16, 16)
	if err != nil {
		r.fail()
	}
	r.i += 4
	return rune(n)
}

// jsonWriter writes as Python's json.dumps does.
type jsonWriter struct {
	st       *state
	out      strings.Builder
	ascii    bool
	sortKeys bool
	indent   *string // one level's; nil: all in one line
	comma    string
	colon    string
}

func (w *jsonWriter) newline(depth int) {
	if w.indent == nil {
		return
	}
	w.out.WriteByte('\n')
	w.out.WriteString(w.st.repeatText(*w.indent, depth))
}

func (w *jsonWriter) value(v any, depth int) {
	w.st.descend(depth)
	switch v := plain(v).(type) {
	case *dict:
		w.object(v, depth)
	case *list:
		w.array(v.items, depth)
	case *tuple:
		w.array(v.items, depth)
	case string:
		w.text(v)
	case *big.Int:
		w.st.charge(v.BitLen())
		w.out.WriteString(v.String())
	case nil, bool, int64, float64:
		w.out.WriteString(scalarJSON(v))
	default:
		typeError("Object of type %s is not JSON serializable", typeName(v))
	}
}

func scalarJSON(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case *big.Int:
		return v.String()
	case float64:
		switch {
		case math.IsInf(v, 1):
			return "Infinity"
		case math.IsInf(v, -1):
			return "-Infinity"
		case math.IsNaN(v):
			return "NaN"
		}
		return floatRepr(v)
	}
	return ""
}

func (w *jsonWriter) array(items []any, depth int) {
	if len(items) == 0 {
		w.out.WriteString("[]")
		return
	}
	w.out.WriteByte('[')
	for i, item := range items {
		if i > 0 {
			w.st.charge(len(w.comma))
			w.out.WriteString(w.comma)
		}
		w.newline(depth + 1)
		w.value(item, depth+1)
	}
	w.newline(depth)
	w.out.WriteByte(']')
}

func (w *jsonWriter) object(d *dict, depth int) {
	if len(d.keys) == 0 {
		w.out.WriteString("{}")
		return
	}
	order := make([]int, len(d.keys))
	for i := range order {
		order[i] = i
	}
	if w.sortKeys {
		w.st.sortStable(order, func(i, j int) bool { return w.st.less(d.keys[i], d.keys[j], "<") })
	}
	w.out.WriteByte('{')
	for n, i := range order {
		if n > 0 {
			w.st.charge(len(w.comma))
			w.out.WriteString(w.comma)
		}
		w.newline(depth + 1)
		switch k := plain(d.keys[i]).(type) {
		case string:
			w.text(k)
		case nil, bool, int64, *big.Int, float64:
			w.text(scalarJSON(k))
		default:
			typeError("keys must be str, int, float, bool or None, not %s", typeName(k))
		}
		w.st.charge(len(w.colon))
		w.out.WriteString(w.colon)
		w.value(d.values[i], depth+1)
	}
	w.newline(depth)
	w.out.WriteByte('}')
}

func (w *jsonWriter) text(s string) {
	w.st.charge(len(s))
	w.out.WriteByte('"')
	for _, r := range s {
		switch at := strings.IndexRune("\"\\\b\f\n\r\t", r); {
		case at >= 0:
			w.out.WriteByte('\\')
			w.out.WriteByte(`"\bfnrt`[at])
		case r < 0x20 || w.ascii && r > 0x7e && r < 0x10000:
			w.out.WriteString(sprintf(`\u%04x`, r))
		case w.ascii && r >= 0x10000:
			r -= 0x10000
			w.out.WriteString(sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff))
		default:
			w.out.WriteRune(r)
		}
	}
	w.out.WriteByte('"')
}

// sortStable sorts indices; every comparison is a step.
func (st *state) sortStable(order []int, before func(i, j int) bool) {
	slices.SortStableFunc(order, func(i, j int) int {
		st.step()
		switch {
		case before(i, j):
			return -1
		case before(j, i):
			return 1
		}
		return 0
	})
}
