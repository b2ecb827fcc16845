package jinja

import (
	"html"
	"math"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// filter runs "v | name(args)".
func (st *state) filter(name string, v any, a args) any {
	f, ok := filters[name]
	if !ok {
		fail("TemplateRuntimeError", "No filter named '%s'.", name)
	}
	m, safe := v.(markup)
	if !safe || slices.Contains(filtersOfMarkup, name) {
		return f(st, v, a)
	}
	v = f(st, string(m), a)
	if slices.Contains(filtersKeepMarkup, name) {
		return keepMarkup(v)
	}
	return v
}

// Some filters see that a value is safe; of the others some give what is safe again.
var (
	filtersOfMarkup   = []string{"default", "d", "escape", "e", "pprint"}
	filtersKeepMarkup = []string{"upper", "lower", "capitalize", "trim", "center", "string", "reverse"}
)

// keepMarkup turns the strings of a result into markup.
func keepMarkup(v any) any {
	each := func(in []any) []any {
		out := make([]any, len(in))
		for i, item := range in {
			out[i] = keepMarkup(item)
		}
		return out
	}
	switch v := v.(type) {
	case string:
		return markup(v)
	case *list:
		return &list{each(v.items)}
	case *tuple:
		return &tuple{items: each(v.items)}
	}
	return v
}

var filters map[string]func(st *state, v any, a args) any

func init() { // some look others up
	filters = map[string]func(st *state, v any, a args) any{
		"upper":       textFilter("upper", upper),
		"lower":       textFilter("lower", lower),
		"capitalize":  textFilter("capitalize", capitalize),
		"title":       textFilter("title", titleFilter),
		"escape":      escapeFilter,
		"e":           escapeFilter,
		"forceescape": func(st *state, v any, a args) any { return escapeFilter(st, st.str(v), a) },
		"safe": func(st *state, v any, a args) any {
			a.bind("safe", 0)
			return markup(st.str(v))
		},
		"string":    textFilter("string", func(s string) string { return s }),
		"striptags": textFilter("striptags", striptags),
		"wordcount": func(st *state, v any, a args) any {
			a.bind("wordcount", 0)
			text := st.str(v)
			st.walk(4 * len(text))
			return int64(len(wordRE.FindAllStringIndex(text, -1)))
		},
		"trim": func(st *state, v any, a args) any {
			text := st.str(v)
			st.charge(len(text))
			return st.strip(text, given(a.bind("trim", 0, "chars")[0], nil), true, true)
		},
		"replace": func(st *state, v any, a args) any {
			p := a.bind("replace", 2, "old", "new", "count")
			count := given(p[2], nil)
			if count == nil {
				count = int64(-1)
			}
			return st.replace(st.str(v), st.str(p[0]), st.str(p[1]), mustInt(count))
		},
		"format": func(st *state, v any, a args) any {
			if len(a.names) == 0 {
				return st.percent(st.str(v), &tuple{items: a.pos})
			}
			if len(a.pos) > 0 {
				typeError("can't handle positional and keyword arguments at the same time")
			}
			return st.percent(st.str(v), dictOf(st, a))
		},
		"center": func(st *state, v any, a args) any {
			width := given(a.bind("center", 0, "width")[0], int64(80))
			return strMethods["center"](st, st.str(v), args{pos: []any{width}})
		},
		"indent": indent, "truncate": truncate, "urlencode": urlencode, "tojson": tojson, "xmlattr": xmlattr,
		"filesizeformat": filesizeformat,

		"default": defaultFilter, "d": defaultFilter,
		"abs": abs, "round": round, "int": intFilter, "float": floatFilter,
		"length": count, "count": count,
		"attr": func(_ *state, v any, a args) any {
			name := mustStr(a.bind("attr", 1, "name")[0])
			checkDefined(v)
			if found, ok := attribute(v, name); ok {
				return found
			}
			return noElement(v, name)
		},

		"list": func(st *state, v any, a args) any {
			a.bind("list", 0)
			items := st.iterate(v)
			st.charge(itemBytes * len(items))
			return &list{append([]any(nil), items...)}
		},
		"items": func(st *state, v any, a args) any {
			a.bind("items", 0)
			return st.later(v, func() []any {
				d, ok := v.(*dict)
				switch {
				case isUndefined(v):
					return nil
				case !ok:
					typeError("Can only get item pairs from a mapping.")
				}
				return st.pairs(d)
			})
		},
		"first": first, "last": last, "reverse": reverse, "join": join,
		"sort": sorted, "dictsort": dictsort, "unique": unique, "groupby": groupby, "sum": sum,
		"min": extreme("min", "<"), "max": extreme("max", ">"), "batch": batch, "slice": slice,
		"map":    mapFilter,
		"select": selectFilter(true, false), "reject": selectFilter(false, false),
		"selectattr": selectFilter(true, true), "rejectattr": selectFilter(false, true),

		"wordwrap": missingFilter("wordwrap"), "urlize": missingFilter("urlize"),
		"pprint": missingFilter("pprint"), "random": missingFilter("random"),
	}
}

func missingFilter(name string) func(*state, any, args) any {
	return func(*state, any, args) any {
		unsupported("the filter %s", name)
		return nil
	}
}

func escapeFilter(st *state, v any, a args) any {
	a.bind("escape", 0)
	return st.escape(v)
}

// textFilter is a filter without arguments on the text of a value.
func textFilter(name string, f func(string) string) func(*state, any, args) any {
	return func(st *state, v any, a args) any {
		a.bind(name, 0)
		text := st.str(v)
		st.walk(len(text))
		return f(text)
	}
}

var (
	wordRE     = regexp.MustCompile(`[\p{L}\p{N}_]+`)
	wordPartRE = regexp.MustCompile(`[-({\[<\s\x{a0}\x{2000}-\x{200a}\x{2028}\x{2029}\x{3000}]+`)
	tagRE      = regexp.MustCompile(`(?s)<!--.*?-->|<[^>]*>`)
)

// titleFilter differs from str.title: words begin after white space, dashes and opening brackets.
func titleFilter(s string) string {
	var out strings.Builder
	word := func(w string) {
		for i := range w {
			if i > 0 {
				out.WriteString(upper(w[:i]) + lower(w[i:]))
				return
			}
		}
		out.WriteString(upper(w))
	}
	at := 0
	for _, loc := range wordPartRE.FindAllStringIndex(s, -1) {
		word(s[at:loc[0]])
		out.WriteString(s[loc[0]:loc[1]])
		at = loc[1]
	}
	word(s[at:])
	return out.String()
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", `"`, "&#34;")

// escape makes text safe for HTML, unless it already is.
func (st *state) escape(v any) markup {
	if m, ok := v.(markup); ok {
		return m
	}
	s := st.str(v)
	st.walk(len(s))
	return markup(htmlEscaper.Replace(s))
}

func striptags(s string) string {
	return html.UnescapeString(strings.Join(strings.FieldsFunc(tagRE.ReplaceAllString(s, ""), isSpace), " "))
}

func indent(st *state, v any, a args) any {
	p := a.bind("indent", 0, "width", "first", "blank")
	space, ok := given(p[0], int64(4)).(string)
	if !ok {
		space = st.repeatText(" ", mustInt(given(p[0], int64(4))))
	}
	lines := st.splitlines(mustStr(v)+"\n", false)
	out := st.newText()
	for i, line := range lines {
		if i > 0 {
			out.add("\n")
		}
		if i == 0 && truth(given(p[1], false)) || i > 0 && (line != "" || truth(given(p[2], false))) {
			out.add(space)
		}
		out.add(line)
	}
	return out.String()
}

func truncate(st *state, v any, a args) any {
	p := a.bind("truncate", 0, "length", "killwords", "end", "leeway")
	size, end := mustInt(given(p[0], int64(255))), mustStr(given(p[2], "..."))
	leeway := given(p[3], nil)
	if leeway == nil {
		leeway = int64(5)
	}
	if size < runeCount(end) || mustInt(leeway) < 0 {
		fail("AssertionError", "expected length >= %d and leeway >= 0", runeCount(end))
	}
	if n, ok := st.length(v); !ok || !isText(v) && n > size+mustInt(leeway) {
		typeError("object of type '%s' cannot be truncated", typeName(v))
	} else if !isText(v) {
		return v
	}
	text := st.str(v)
	st.walk(len(text))
	runes := []rune(text)
	if len(runes) <= size+mustInt(leeway) {
		return text
	}
	text = string(runes[:size-runeCount(end)])
	if !truth(given(p[1], false)) {
		if at := strings.LastIndexByte(text, ' '); at >= 0 {
			text = text[:at]
		}
	}
	return text + end
}

func urlencode(st *state, v any, a args) any {
	a.bind("urlencode", 0)
	quote := func(v any) string {
		st.walk(len(st.str(v)))
		return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(st.str(v)), "+", "%20"), "%7E", "~")
	}
	if s, ok := v.(string); ok {
		return strings.ReplaceAll(quote(s), "%2F", "/")
	}
	items, ok := st.tryIterate(v)
	if d, isDict := v.(*dict); isDict {
		items = st.pairs(d)
	}
	if !ok {
		return strings.ReplaceAll(quote(v), "%2F", "/")
	}
	var parts []string
	for _, item := range items {
		pair := st.iterate(item)
		if len(pair) != 2 {
			valueError("not a pair")
		}
		key, value := strings.ReplaceAll(quote(pair[0]), "%20", "+"), strings.ReplaceAll(quote(pair[1]), "%20", "+")
		parts = append(parts, key+"="+value)
	}
	return strings.Join(parts, "&")
}

// noItems fails because v, not a mapping, has no items().
func noItems(v any) {
	checkDefined(v)
	fail("AttributeError", "'%s' object has no attribute 'items'", typeName(v))
}

func xmlattr(st *state, v any, a args) any {
	space := truth(given(a.bind("xmlattr", 0, "autospace")[0], true))
	d, ok := v.(*dict)
	if !ok {
		noItems(v)
	}
	var parts []string
	for i, k := range d.keys {
		if value := d.values[i]; value != nil && !isUndefined(value) {
			if strings.ContainsAny(st.str(k), " \t\n\f\r/>=") {
				valueError("Invalid character in attribute name")
			}
			parts = append(parts, string(st.escape(k)+`="`+st.escape(value)+`"`))
		}
	}
	out := strings.Join(parts, " ")
	if space && out != "" {
		out = " " + out
	}
	return out
}

func filesizeformat(st *state, v any, a args) any {
	binary := truth(given(a.bind("filesizeformat", 0, "binary")[0], false))
	if f, ok := pythonFloat(strings.TrimFunc(st.str(v), isSpace)); ok && isText(v) {
		v = f
	} else if isText(v) {
		valueError("could not convert string to float: '%s'", v)
	}
	size, base, units := asFloat(mustNumber(v)), 1000.0, []string{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}
	if binary {
		base, units = 1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}
	}
	switch {
	case size == 1:
		return "1 Byte"
	case size < base:
		return strconv.Itoa(int(size)) + " Bytes"
	}
	unit := base
	for i, name := range units {
		unit *= base
		if size < unit || i == len(units)-1 {
			return sprintf("%.1f %s", base*size/unit, name)
		}
	}
	return ""
}

// tojson is the filter that transformers defines in place of Jinja2's own.
func tojson(st *state, v any, a args) any {
	p := a.bind("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys")
	w := &jsonWriter{st: st, out: st.newText(), comma: ", ", colon: ": "}
	w.ascii = truth(given(p[0], false))
	w.sortKeys = truth(given(p[3], false))
	switch level := given(p[1], nil).(type) {
	case nil:
	case string:
		w.indent, w.comma = &level, ","
	default:
		space := st.repeatText(" ", mustInt(level))
		w.indent, w.comma = &space, ","
	}
	if separators := given(p[2], nil); separators != nil {
		pair := st.iterate(separators)
		if len(pair) != 2 {
			valueError("separators must be a pair")
		}
		w.comma, w.colon = mustStr(pair[0]), mustStr(pair[1])
	}
	w.value(v, 0)
	return w.out.String()
}

func defaultFilter(_ *state, v any, a args) any {
	p := a.bind("default", 0, "default_value", "boolean")
	if isUndefined(v) || truth(given(p[1], false)) && !truth(v) {
		return given(p[0], "")
	}
	return v
}

func count(st *state, v any, a args) any {
	a.bind("length", 0)
	n, ok := st.length(v)
	if !ok {
		typeError("object of type '%s' has no len()", typeName(v))
	}
	return int64(n)
}

func mustNumber(v any) any {
	if !isNumber(v) {
		typeError("must be a number, not '%s'", typeName(v))
	}
	return v
}

func abs(_ *state, v any, a args) any {
	a.bind("abs", 0)
	if f, ok := mustNumber(v).(float64); ok {
		return math.Abs(f)
	}
	n, _ := asBig(v)
	return normalize(new(big.Int).Abs(n))
}

func round(st *state, v any, a args) any {
	p := a.bind("round", 0, "precision", "method")
	digits, how := mustInt(given(p[0], int64(0))), mustStr(given(p[1], "common"))
	mustNumber(v)
	if how != "common" && how != "ceil" && how != "floor" {
		fail("FilterArgumentError", "method must be common, ceil or floor")
	}
	if how != "common" {
		if n, ok := asBig(v); ok && !n.IsInt64() {
			unsupported("rounding large integers up or down")
		}
		scale := math.Pow(10, float64(digits))
		if how == "ceil" {
			return math.Ceil(asFloat(v)*scale) / scale
		}
		return math.Floor(asFloat(v)*scale) / scale
	}
	f, ok := v.(float64)
	if !ok {
		n, _ := asBig(v)
		st.walk(n.BitLen())
		return roundInt(n, digits)
	}
	switch {
	case math.IsInf(f, 0) || math.IsNaN(f) || digits > 330:
		return f
	case digits < 0:
		return math.RoundToEven(f/math.Pow(10, float64(-digits))) * math.Pow(10, float64(-digits))
	}
	f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'f', digits, 64), 64)
	return f
}

// roundInt rounds to tens, hundreds … where digits is negative, halves to even.
func roundInt(n *big.Int, digits int) any {
	if digits >= 0 {
		return normalize(n)
	}
	if -digits > len(n.String())+1 {
		return int64(0)
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-digits)), nil)
	down := new(big.Int)
	floorDiv(down, n, unit)
	rest := new(big.Int).Sub(n, new(big.Int).Mul(down, unit))
	switch rest.Lsh(rest, 1).Cmp(unit) {
	case 1:
		down.Add(down, big.NewInt(1))
	case 0:
		down.Add(down, big.NewInt(int64(down.Bit(0))))
	}
	return normalize(down.Mul(down, unit))
}

func intFilter(st *state, v any, a args) any {
	p := a.bind("int", 0, "default", "base")
	switch v := v.(type) {
	case string:
		text := strings.TrimFunc(v, isSpace)
		st.walk(16 * len(v))
		if n, ok := pythonInt(text, mustInt(given(p[1], int64(10)))); ok {
			return normalize(n)
		}
		if f, ok := pythonFloat(text); ok && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return normalize(bigFloat(math.Trunc(f)))
		}
	case float64:
		if !math.IsNaN(v) {
			return normalize(bigFloat(math.Trunc(finite(v))))
		}
	default:
		if n, ok := asBig(v); ok {
			return normalize(n)
		}
		checkDefined(v)
	}
	return given(p[0], int64(0))
}

// pythonInt reads what Python's int(text, base) accepts.
func pythonInt(text string, base int) (*big.Int, bool) {
	sign, digits := "", text
	if text != "" && (text[0] == '-' || text[0] == '+') {
		sign, digits = text[:1], text[1:]
	}
	prefix := map[int]string{2: "0b", 8: "0o", 16: "0x"}[base]
	if prefix != "" && strings.HasPrefix(strings.ToLower(digits), prefix) {
		digits = strings.TrimPrefix(digits[2:], "_")
	}
	plain := strings.ReplaceAll(digits, "_", "")
	if plain == "" || strings.Contains(digits, "__") || digits[0] == '_' || digits[len(digits)-1] == '_' ||
		strings.ContainsAny(plain, "+-") || base < 2 || base > 36 || len(plain) > maxBits/3 {
		return nil, false
	}
	return new(big.Int).SetString(sign+plain, base)
}

var pythonFloatRE = regexp.MustCompile(
	`^[-+]?(?i:(\d+(_\d+)*)?\.?(\d+(_\d+)*)?(e[-+]?\d+(_\d+)*)?|inf(inity)?|nan)$`)

// pythonFloat reads what Python's float(text) accepts.
func pythonFloat(text string) (float64, bool) {
	if !pythonFloatRE.MatchString(text) {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
	return f, err == nil || math.IsInf(f, 0)
}

func floatFilter(st *state, v any, a args) any {
	def := given(a.bind("float", 0, "default")[0], 0.0)
	switch v := v.(type) {
	case string:
		st.walk(16 * len(v))
		if f, ok := pythonFloat(strings.TrimFunc(v, isSpace)); ok {
			return f
		}
	default:
		if isNumber(v) {
			return asFloat(v)
		}
		checkDefined(v)
	}
	return def
}
