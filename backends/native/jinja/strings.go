package jinja

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// strMethods are the methods of str. Positions and lengths count code points.
var strMethods map[string]method[string]

func init() { // format looks methods up
	strMethods = map[string]method[string]{
		"upper":      bare("upper", upper),
		"lower":      bare("lower", lower),
		"title":      bare("title", title),
		"capitalize": bare("capitalize", capitalize),
		"swapcase":   bare("swapcase", swapcase),

		"strip":  stripMethod("strip", true, true),
		"lstrip": stripMethod("lstrip", true, false),
		"rstrip": stripMethod("rstrip", false, true),

		"split":      splitMethod("split", split),
		"rsplit":     splitMethod("rsplit", rsplit),
		"splitlines": splitlinesMethod,
		"partition":  partitionMethod("partition", strings.Index),
		"rpartition": partitionMethod("rpartition", strings.LastIndex),

		"startswith": affixMethod("startswith", strings.HasPrefix),
		"endswith":   affixMethod("endswith", strings.HasSuffix),
		"find":       findMethod("find", strings.Index, false),
		"rfind":      findMethod("rfind", strings.LastIndex, false),
		"index":      findMethod("index", strings.Index, true),
		"rindex":     findMethod("rindex", strings.LastIndex, true),
		"count": func(st *state, s string, a args) any {
			p := a.bind("count", 1, "sub", "start", "end")
			part, _, ok := st.window(s, p[1], p[2])
			if !ok {
				return int64(0)
			}
			return int64(strings.Count(part, mustStr(p[0])))
		},

		"replace": func(st *state, s string, a args) any {
			p := a.bind("replace", 2, "old", "new", "count")
			return st.replace(s, mustStr(p[0]), mustStr(p[1]), mustInt(given(p[2], int64(-1))))
		},
		"join": func(st *state, s string, a args) any {
			var parts []string
			for i, item := range st.iterate(a.bind("join", 1, "iterable")[0]) {
				text, ok := plain(item).(string)
				if !ok {
					typeError("sequence item %d: expected str instance, %s found", i, typeName(item))
				}
				parts = append(parts, text)
			}
			return st.joinText(parts, s)
		},
		"removeprefix": func(_ *state, s string, a args) any {
			return strings.TrimPrefix(s, mustStr(a.bind("removeprefix", 1, "prefix")[0]))
		},
		"removesuffix": func(_ *state, s string, a args) any {
			return strings.TrimSuffix(s, mustStr(a.bind("removesuffix", 1, "suffix")[0]))
		},

		"center": padMethod("center", func(n, width int) int { return n/2 + n&width&1 }),
		"ljust":  padMethod("ljust", func(int, int) int { return 0 }),
		"rjust":  padMethod("rjust", func(n, _ int) int { return n }),
		"zfill": func(st *state, s string, a args) any {
			zeros := st.repeatText("0", mustInt(a.bind("zfill", 1, "width")[0])-runeCount(s))
			if s != "" && (s[0] == '-' || s[0] == '+') {
				return s[:1] + zeros + s[1:]
			}
			return zeros + s
		},
		"expandtabs": expandtabs,
		"format":     formatMethod,

		"isalpha":   each("isalpha", unicode.IsLetter),
		"isdigit":   each("isdigit", isDigit),
		"isdecimal": each("isdecimal", func(r rune) bool { return unicode.Is(unicode.Nd, r) }),
		"isnumeric": each("isnumeric", unicode.IsNumber),
		"isalnum":   each("isalnum", func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
		"isspace":   each("isspace", isSpace),
		"isprintable": bare("isprintable", func(s string) any {
			return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
		}),
		"isascii": bare("isascii", func(s string) any {
			return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
		}),
		"isidentifier": bare("isidentifier", func(s string) any { return s != "" && nameLen(s) == len(s) }),
		"islower":      bare("islower", func(s string) any { return cased(s, isLower) }),
		"isupper":      bare("isupper", func(s string) any { return cased(s, isUpper) }),
		"istitle":      bare("istitle", istitle),

		"encode": notThere("encode"), "translate": notThere("translate"), "maketrans": notThere("maketrans"),
		"casefold": notThere("casefold"), "format_map": notThere("format_map"),
	}
}

// bare is a method without arguments.
func bare[T any](name string, f func(string) T) method[string] {
	return func(st *state, s string, a args) any {
		a.bind(name, 0)
		st.walk(len(s))
		return f(s)
	}
}

func notThere(name string) method[string] {
	return func(*state, string, args) any {
		unsupported("str.%s", name)
		return nil
	}
}

func mustStr(v any) string {
	s, ok := plain(v).(string)
	if !ok {
		checkDefined(v)
		typeError("must be str, not %s", typeName(v))
	}
	return s
}

func (st *state) replace(s, old, new string, count int) string {
	if old == new || count == 0 {
		return s
	}
	n := strings.Count(s, old)
	if count > 0 {
		n = min(n, count)
	}
	st.walk(len(s))
	st.build(len(s) + n*len(new))
	return strings.Replace(s, old, new, count)
}

func (st *state) joinText(parts []string, sep string) string {
	size := len(sep) * len(parts)
	for _, part := range parts {
		size += len(part)
	}
	st.build(size)
	return strings.Join(parts, sep)
}

// strip takes white space, or the characters of chars if it is a string, from the ends of s.
func (st *state) strip(s string, chars any, left, right bool) string {
	drop := isSpace
	if chars != nil {
		set := mustStr(chars)
		st.charge(len(s) * len(set))
		drop = func(r rune) bool { return strings.ContainsRune(set, r) }
	}
	st.charge(len(s))
	if left {
		s = strings.TrimLeftFunc(s, drop)
	}
	if right {
		s = strings.TrimRightFunc(s, drop)
	}
	return s
}

func stripMethod(name string, left, right bool) method[string] {
	return func(st *state, s string, a args) any {
		return st.strip(s, given(a.bind(name, 0, "chars")[0], nil), left, right)
	}
}

func splitMethod(name string, f func(st *state, s string, sep *string, n int) []string) method[string] {
	return func(st *state, s string, a args) any {
		p := a.bind(name, 0, "sep", "maxsplit")
		n := mustInt(given(p[1], int64(-1)))
		if given(p[0], nil) == nil {
			return &list{stringsToAny(f(st, s, nil, n))}
		}
		sep := mustStr(p[0])
		if sep == "" {
			valueError("empty separator")
		}
		return &list{stringsToAny(f(st, s, &sep, n))}
	}
}

// split splits at sep, or at white space if there is none, at most n times if n is not negative.
func split(st *state, s string, sep *string, n int) []string {
	st.walk(len(s))
	if sep != nil {
		st.charge(2 * itemBytes * strings.Count(s, *sep))
		if n < 0 {
			return strings.Split(s, *sep)
		}
		return strings.SplitN(s, *sep, n+1)
	}
	var out []string
	for {
		s = strings.TrimLeftFunc(s, isSpace)
		if s == "" {
			return out
		}
		at := strings.IndexFunc(s, isSpace)
		if at < 0 || n >= 0 && len(out) == n {
			return append(out, s)
		}
		st.charge(2 * itemBytes)
		out = append(out, s[:at])
		s = s[at:]
	}
}

// rsplit is split from the right.
func rsplit(st *state, s string, sep *string, n int) []string {
	if n < 0 {
		return split(st, s, sep, n)
	}
	st.walk(len(s))
	var out []string
	for sep != nil {
		at := strings.LastIndex(s, *sep)
		if at < 0 || len(out) == n {
			out = append(out, s)
			slices.Reverse(out)
			return out
		}
		st.charge(2 * itemBytes)
		out = append(out, s[at+len(*sep):])
		s = s[:at]
	}
	for {
		s = strings.TrimRightFunc(s, isSpace)
		if s == "" {
			break
		}
		at := strings.LastIndexFunc(s, isSpace)
		if at < 0 || len(out) == n {
			out = append(out, s)
			break
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		st.charge(2 * itemBytes)
		out = append(out, s[at+size:])
		s = s[:at]
	}
	slices.Reverse(out)
	return out
}

func splitlinesMethod(st *state, s string, a args) any {
	keep := truth(given(a.bind("splitlines", 0, "keepends")[0], false))
	return &list{stringsToAny(st.splitlines(s, keep))}
}

func (st *state) splitlines(s string, keep bool) []string {
	st.walk(len(s))
	var out []string
	for s != "" {
		st.charge(2 * itemBytes)
		at := strings.IndexAny(s, "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029")
		if at < 0 {
			return append(out, s)
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		if strings.HasPrefix(s[at:], "\r\n") {
			size = 2
		}
		line := s[:at]
		if keep {
			line = s[:at+size]
		}
		out = append(out, line)
		s = s[at+size:]
	}
	return out
}

func partitionMethod(name string, find func(s, sep string) int) method[string] {
	return func(st *state, s string, a args) any {
		st.walk(len(s))
		sep := mustStr(a.bind(name, 1, "sep")[0])
		if sep == "" {
			valueError("empty separator")
		}
		parts := []any{s, "", ""}
		if at := find(s, sep); at >= 0 {
			parts = []any{s[:at], sep, s[at+len(sep):]}
		} else if name == "rpartition" {
			parts = []any{"", "", s}
		}
		return &tuple{items: parts}
	}
}

// window is s[start:end], with its first code point's place; ok is false if start is behind the end.
func (st *state) window(s string, start, end any) (part string, from int, ok bool) {
	st.walk(len(s))
	if start == (unset{}) && end == (unset{}) {
		return s, 0, true
	}
	runes := []rune(s)
	if n := given(start, nil); n != nil && mustInt(n) > len(runes) {
		return "", 0, false
	}
	from, to, _ := sliceBounds([3]any{given(start, nil), given(end, nil)}, len(runes))
	if from > to {
		return "", 0, false
	}
	return string(runes[from:to]), from, true
}

func findMethod(name string, find func(s, sub string) int, must bool) method[string] {
	return func(st *state, s string, a args) any {
		p := a.bind(name, 1, "sub", "start", "end")
		part, from, ok := st.window(s, p[1], p[2])
		at := -1
		if ok {
			at = find(part, mustStr(p[0]))
		}
		if at < 0 {
			if must {
				valueError("substring not found")
			}
			return int64(-1)
		}
		return int64(from + runeCount(part[:at]))
	}
}

func affixMethod(name string, has func(s, affix string) bool) method[string] {
	return func(st *state, s string, a args) any {
		p := a.bind(name, 1, "affix", "start", "end")
		affixes := []any{p[0]}
		if t, ok := p[0].(*tuple); ok {
			affixes = t.items
		}
		part, _, ok := st.window(s, p[1], p[2])
		return ok && slices.ContainsFunc(affixes, func(v any) bool { return has(part, mustStr(v)) })
	}
}

// padMethod makes a method that fills up to a width; left says how much of n goes to the left.
func padMethod(name string, left func(n, width int) int) method[string] {
	return func(st *state, s string, a args) any {
		p := a.bind(name, 1, "width", "fillchar")
		fill := mustStr(given(p[1], " "))
		if runeCount(fill) != 1 {
			typeError("The fill character must be exactly one character long")
		}
		width := mustInt(p[0])
		n := width - runeCount(s)
		if n <= 0 {
			return s
		}
		before := left(n, width)
		return st.repeatText(fill, before) + s + st.repeatText(fill, n-before)
	}
}

func expandtabs(st *state, s string, a args) any {
	size := mustInt(given(a.bind("expandtabs", 0, "tabsize")[0], int64(8)))
	out := st.newText()
	column := 0
	for _, r := range s {
		switch {
		case r == '\t' && size > 0:
			n := size - column%size
			out.add(st.repeatText(" ", n))
			column += n
		case r == '\t':
		case r == '\n' || r == '\r':
			out.add(string(r))
			column = 0
		default:
			out.add(string(r))
			column++
		}
	}
	return out.String()
}

func each(name string, is func(rune) bool) method[string] {
	return bare(name, func(s string) any {
		return s != "" && strings.IndexFunc(s, func(r rune) bool { return !is(r) }) < 0
	})
}
