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
	r := &jsonReader{src: string(data)}
	v := r.value(0)
	if r.space(); r.i != len(r.src) {
		r.fail()
	}
	return v
}

type jsonReader struct {
	src string
	i   int
}

func (r *jsonReader) fail() { valueError("the context is not valid JSON at byte %d", r.i) }

func (r *jsonReader) space() {
	for r.i < len(r.src) && r.src[r.i] <= ' ' && strings.IndexByte(" \t\r\n", r.src[r.i]) >= 0 {
		r.i++
	}
}

// next skips white space and returns the next byte, 0 at the end.
func (r *jsonReader) next() byte {
	r.space()
	if r.i == len(r.src) {
		return 0
	}
	return r.src[r.i]
}

func (r *jsonReader) take(text string) bool {
	r.space()
	ok := strings.HasPrefix(r.src[r.i:], text)
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
	for r.i < len(r.src) && strings.IndexByte("+-.eE0123456789", r.src[r.i]) >= 0 {
		r.i++
	}
	text := r.src[start:r.i]
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
	for r.i < len(r.src) && r.src[r.i] != '"' && r.src[r.i] != '\\' {
		r.i++
	}
	if r.i < len(r.src) && r.src[r.i] == '"' {
		r.i++
		return strings.ToValidUTF8(r.src[start:r.i-1], "\ufffd")
	}
	out := []byte(r.src[start:r.i])
	for r.i < len(r.src) {
		c := r.src[r.i]
		r.i++
		switch {
		case c == '"':
			return strings.ToValidUTF8(string(out), "\ufffd")
		case c != '\\':
			out = append(out, c)
		case r.i == len(r.src):
			r.fail()
		default:
			c = r.src[r.i]
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
	if first < 0xdc00 && strings.HasPrefix(r.src[r.i:], `\u`) {
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
	if r.i+4 > len(r.src) {
		r.fail()
	}
	n, err := strconv.ParseUint(r.src[r.i:r.i+4], 16, 16)
	if err != nil {
		r.fail()
	}
	r.i += 4
	return rune(n)
}

// jsonWriter writes as Python's json.dumps does.
type jsonWriter struct {
	st       *state
	out      *text
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
	w.out.add("\n" + w.st.repeatText(*w.indent, depth))
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
		w.string(v)
	case *big.Int:
		w.st.charge(v.BitLen())
		w.out.add(v.String())
	case nil, bool, int64, float64:
		w.out.add(scalarJSON(v))
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
		w.out.add("[]")
		return
	}
	w.out.add("[")
	for i, item := range items {
		if i > 0 {
			w.out.add(w.comma)
		}
		w.newline(depth + 1)
		w.value(item, depth+1)
	}
	w.newline(depth)
	w.out.add("]")
}

func (w *jsonWriter) object(d *dict, depth int) {
	if len(d.keys) == 0 {
		w.out.add("{}")
		return
	}
	order := make([]int, len(d.keys))
	for i := range order {
		order[i] = i
	}
	if w.sortKeys {
		w.st.sortStable(order, func(i, j int) bool { return w.st.less(d.keys[i], d.keys[j], "<") })
	}
	w.out.add("{")
	for n, i := range order {
		if n > 0 {
			w.out.add(w.comma)
		}
		w.newline(depth + 1)
		switch k := plain(d.keys[i]).(type) {
		case string:
			w.string(k)
		case nil, bool, int64, *big.Int, float64:
			w.string(scalarJSON(k))
		default:
			typeError("keys must be str, int, float, bool or None, not %s", typeName(k))
		}
		w.out.add(w.colon)
		w.value(d.values[i], depth+1)
	}
	w.newline(depth)
	w.out.add("}")
}

// plainJSON says which ASCII characters stand in a JSON string as they are.
var plainJSON = func() (plain [utf8.RuneSelf]bool) {
	for c := range plain {
		plain[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return plain
}()

func (w *jsonWriter) string(s string) {
	w.st.walk(len(s) / 4)
	w.out.add(`"`)
	from := 0 // what is not yet written
	for i, r := range s {
		if r < utf8.RuneSelf && (plainJSON[r] && !(w.ascii && r == 0x7f)) || r >= utf8.RuneSelf && !w.ascii {
			continue
		}
		w.out.add(s[from:i])
		from = i + utf8.RuneLen(r)
		if at := strings.IndexRune("\"\\\b\f\n\r\t", r); at >= 0 {
			w.out.add(`\` + `"\bfnrt`[at:at+1])
		} else if r < 0x10000 {
			w.out.add(sprintf(`\u%04x`, r))
		} else {
			r -= 0x10000
			w.out.add(sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff))
		}
	}
	w.out.add(s[from:])
	w.out.add(`"`)
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
