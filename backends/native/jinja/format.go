package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// spec is how one value is to be formatted: a conversion of % or a replacement field of str.format.
type spec struct {
	fill      string
	align     byte // '<', '>', '^', '='; 0: as the type has it
	sign      byte // '+', ' ' or 0
	alternate bool // #
	zero      bool // 0 before the width: numbers are filled behind the sign
	width     int
	comma     byte // ',', '_' or 0
	precision int  // -1: none
	verb      byte // 0: none
}

// percent is Python's "format % values".
func (st *state) percent(format string, values any) string {
	p := &percentArgs{st: st, values: values}
	if t, ok := values.(*tuple); ok {
		p.items, p.isTuple = t.items, true
	} else {
		p.items = []any{values}
	}
	out := st.newText()
	for i := 0; i < len(format); {
		at := strings.IndexByte(format[i:], '%')
		if at < 0 {
			out.add(format[i:])
			break
		}
		out.add(format[i : i+at])
		var text string
		text, i = p.conversion(format, i+at+1)
		out.add(text)
	}
	if p.used < len(p.items) {
		switch values.(type) {
		case *dict, *list, *rangeValue, *undefined: // what has keys may be left unread
		default:
			typeError("not all arguments converted during string formatting")
		}
	}
	return out.String()
}

type percentArgs struct {
	st      *state
	values  any
	items   []any
	isTuple bool
	used    int
}

func (p *percentArgs) next() any {
	if p.used >= len(p.items) {
		typeError("not enough arguments for format string")
	}
	p.used++
	return p.items[p.used-1]
}

// conversion formats what stands behind a % at i and returns where it ends.
func (p *percentArgs) conversion(f string, i int) (string, int) {
	s := spec{fill: " ", precision: -1}
	at := func() byte {
		if i >= len(f) {
			valueError("incomplete format")
		}
		return f[i]
	}
	var value any = unset{}
	if at() == '(' {
		end := strings.IndexByte(f[i:], ')')
		d, ok := p.values.(*dict)
		if !ok || end < 0 {
			typeError("format requires a mapping")
		}
		key := f[i+1 : i+end]
		if value, ok = d.get(key); !ok {
			fail("KeyError", "'%s'", key)
		}
		i += end + 1
		p.used = len(p.items)
	}
	left, zero := false, false
	for ; strings.IndexByte("#0- +", at()) >= 0; i++ {
		switch f[i] {
		case '#':
			s.alternate = true
		case '0':
			zero = true
		case '-':
			left = true
		case '+':
			s.sign = '+'
		case ' ':
			if s.sign == 0 {
				s.sign = ' '
			}
		}
	}
	number := func() (n int) {
		if at() == '*' {
			i++
			return mustInt(p.next())
		}
		for ; '0' <= at() && f[i] <= '9'; i++ {
			n = min(n*10+int(f[i]-'0'), 1<<40)
		}
		return n
	}
	if s.width = number(); s.width < 0 {
		left, s.width = true, -s.width
	}
	if at() == '.' {
		i++
		s.precision = number()
	}
	for strings.IndexByte("hlL", at()) >= 0 {
		i++
	}
	s.verb = at()
	i++
	if s.verb == '%' && f[i-2] == '%' {
		return "%", i
	}
	if value == (unset{}) {
		value = p.next()
	}
	s.align = '>'
	if left {
		s.align = '<'
	} else if zero && strings.IndexByte("crsa", s.verb) < 0 {
		s.align, s.fill = '=', "0"
	}
	return p.st.percentValue(s, value), i
}

func (st *state) percentValue(s spec, v any) string {
	switch s.verb {
	case 's':
		return st.padText(s, st.str(v))
	case 'r':
		return st.padText(s, st.repr(v))
	case 'a':
		return st.padText(s, ascii(st.repr(v)))
	case 'c':
		if n, ok := asInt(v); ok {
			if n < 0 || n > unicode.MaxRune {
				fail("OverflowError", "%%c arg not in range(0x110000)")
			}
			return st.padText(s, string(rune(n)))
		}
		text := mustStr(v)
		if runeCount(text) != 1 {
			typeError("%%c requires int or char")
		}
		return st.padText(s, text)
	case 'd', 'i', 'u', 'o', 'x', 'X':
		if f, ok := v.(float64); ok && strings.IndexByte("diu", s.verb) >= 0 {
			v = bigFloat(math.Trunc(finite(f)))
		}
		n, ok := asBig(v)
		if !ok {
			typeError("%%%c format: a real number is required, not %s", s.verb, typeName(v))
		}
		if s.verb == 'i' || s.verb == 'u' {
			s.verb = 'd'
		}
		if s.precision >= 0 { // digits at least
			digits := new(big.Int).Abs(n).Text(base(s.verb))
			zeros := st.repeatText("0", s.precision-len(digits))
			if s.align == '=' {
				s.align, s.fill = '>', " "
			}
			return st.padNumber(s, n.Sign() < 0, s.prefix(), s.upper(zeros+digits))
		}
		return st.formatInt(s, n)
	case 'e', 'E', 'f', 'F', 'g', 'G':
		if !isNumber(v) {
			checkDefined(v)
			typeError("must be real number, not %s", typeName(v))
		}
		return st.formatFloat(s, asFloat(v))
	}
	valueError("unsupported format character '%c'", s.verb)
	return ""
}

func finite(f float64) float64 {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		fail("OverflowError", "cannot convert float %s to integer", floatRepr(f))
	}
	return f
}

func base(verb byte) int {
	switch verb {
	case 'b':
		return 2
	case 'o':
		return 8
	case 'x', 'X':
		return 16
	}
	return 10
}

func (s spec) prefix() string {
	if s.alternate && base(s.verb) != 10 {
		return "0" + string(s.verb)
	}
	return ""
}

func (s spec) upper(text string) string {
	if s.verb == 'X' || s.verb == 'E' || s.verb == 'F' || s.verb == 'G' {
		return strings.ToUpper(text)
	}
	return text
}

func (st *state) formatInt(s spec, n *big.Int) string {
	st.walk(n.BitLen())
	digits := s.upper(new(big.Int).Abs(n).Text(base(s.verb)))
	return st.padNumber(s, n.Sign() < 0, s.prefix(), digits)
}

func (st *state) formatFloat(s spec, f float64) string {
	a := math.Abs(f)
	negative := math.Signbit(f) && !math.IsNaN(f)
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return st.padNumber(s, negative, "", s.upper(floatRepr(a)))
	}
	if s.alternate {
		unsupported("# in the format of a float")
	}
	precision := s.precision
	if precision < 0 {
		precision = 6
	}
	st.build(precision)
	st.walk(precision)
	var text string
	switch s.verb {
	case 'e', 'E':
		text = strconv.FormatFloat(a, 'e', precision, 64)
	case 'f', 'F':
		text = strconv.FormatFloat(a, 'f', precision, 64)
	case '%':
		text = strconv.FormatFloat(a*100, 'f', precision, 64) + "%"
	case 0:
		text = floatRepr(a)
		if s.precision >= 0 {
			text = generalFloat(a, max(precision, 1))
			if !strings.ContainsAny(text, ".e") {
				text += ".0"
			}
		}
	default:
		text = generalFloat(a, max(precision, 1))
	}
	return st.padNumber(s, negative, "", s.upper(text))
}

// generalFloat is C's %g.
func generalFloat(f float64, precision int) string {
	if precision > 400 { // no float64 has more digits before the exponent
		precision = 400
	}
	text := strconv.FormatFloat(f, 'g', precision, 64)
	mantissa, exponent, _ := strings.Cut(text, "e")
	if strings.Contains(mantissa, ".") {
		mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
	}
	if exponent != "" {
		return mantissa + "e" + exponent
	}
	return mantissa
}

// padNumber puts sign, prefix and digits together and fills up to the width.
func (st *state) padNumber(s spec, negative bool, prefix, digits string) string {
	sign := ""
	if negative {
		sign = "-"
	} else if s.sign != 0 {
		sign = string(s.sign)
	}
	if s.comma != 0 {
		digits = group(digits, string(s.comma), base(s.verb))
	}
	head := sign + prefix
	if s.align == '=' && s.comma != 0 {
		unsupported("separators between digits that zeros are put before")
	}
	if s.align == '=' {
		return head + st.repeatText(s.fill, s.width-len(head)-len(digits)) + digits
	}
	s.precision = -1
	return st.padText(s, head+digits)
}

// group puts separators between the digits before the point.
func group(digits, comma string, base int) string {
	size := 3
	if base != 10 {
		size = 4
	}
	end := strings.IndexFunc(digits, func(r rune) bool { return strings.ContainsRune(".e%", r) && base == 10 })
	if end < 0 {
		end = len(digits)
	}
	head, tail := digits[:end], digits[end:]
	grouped := ""
	for len(head) > size {
		grouped = comma + head[len(head)-size:] + grouped
		head = head[:len(head)-size]
	}
	return head + grouped + tail
}

// padText cuts to the precision and fills up to the width; text goes to the left unless aligned.
func (st *state) padText(s spec, text string) string {
	if s.precision >= 0 {
		st.walk(len(text))
		runes := []rune(text)
		text = string(runes[:min(s.precision, len(runes))])
	}
	n := s.width - runeCount(text)
	if n <= 0 {
		return text
	}
	switch s.align {
	case '>':
		return st.repeatText(s.fill, n) + text
	case '^':
		return st.repeatText(s.fill, n/2) + text + st.repeatText(s.fill, n-n/2)
	}
	return text + st.repeatText(s.fill, n)
}

// formatMethod is str.format.
func formatMethod(st *state, format string, a args) any {
	st.walk(len(format))
	out := st.newText()
	next := 0
	for i := 0; i < len(format); {
		c := format[i]
		doubled := i+1 < len(format) && format[i+1] == c
		switch {
		case (c == '{' || c == '}') && doubled:
			out.add(format[i : i+1])
			i += 2
		case c == '}':
			valueError("Single '}' encountered in format string")
		case c == '{':
			end := strings.IndexByte(format[i:], '}')
			if end < 0 {
				valueError("expected '}' before end of string")
			}
			field := format[i+1 : i+end]
			if strings.Contains(field, "{") {
				unsupported("nested fields in str.format")
			}
			out.add(st.formatField(field, a, &next))
			i += end + 1
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.String()
}

// formatField formats name[.attr][[item]]…[!conversion][:spec].
func (st *state) formatField(field string, a args, next *int) string {
	path, form, _ := strings.Cut(field, ":")
	path, conversion, _ := strings.Cut(path, "!")
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		end = len(path)
	}
	v := st.formatArg(path[:end], a, next)
	for path = path[end:]; path != ""; {
		if path[0] == '.' {
			end = strings.IndexAny(path[1:], ".[") + 1
			if end == 0 {
				end = len(path)
			}
			v = st.getAttr(v, path[1:end])
			path = path[end:]
			continue
		}
		end = strings.IndexByte(path, ']')
		if end < 0 {
			valueError("Missing ']' in format string")
		}
		v = st.getItem(v, attrPart(path[1:end]))
		path = path[end+1:]
	}
	switch conversion {
	case "r":
		v = st.repr(v)
	case "a":
		v = ascii(st.repr(v))
	case "s":
		v = st.str(v)
	case "":
	default:
		valueError("Unknown conversion specifier %s", conversion)
	}
	return st.formatValue(form, v)
}

func (st *state) formatArg(name string, a args, next *int) any {
	if name == "" {
		name = strconv.Itoa(*next)
		*next++
	}
	if n, err := strconv.Atoi(name); err == nil {
		if n >= len(a.pos) {
			fail("IndexError", "Replacement index %d out of range for positional args tuple", n)
		}
		return a.pos[n]
	}
	st.charge(8 * len(a.names))
	for i, known := range a.names {
		if known == name {
			return a.named[i]
		}
	}
	fail("KeyError", "'%s'", name)
	return nil
}

// formatValue is Python's format(v, form).
func (st *state) formatValue(form string, v any) string {
	if form == "" {
		return st.str(v)
	}
	v = plain(v)
	s := parseSpec(form)
	if text, ok := v.(string); ok {
		if s.verb != 0 && s.verb != 's' || s.align == '=' || s.sign != 0 || s.comma != 0 {
			valueError("Invalid format specifier '%s' for object of type 'str'", form)
		}
		return st.padText(s, text)
	}
	if !isNumber(v) {
		typeError("unsupported format string passed to %s.__format__", typeName(v))
	}
	n, whole := asBig(v)
	switch {
	case s.align != 0:
	case s.zero:
		s.align = '='
	default:
		s.align = '>'
	}
	switch {
	case s.verb == 'n' && whole: // the locale's separators: C has none
		s.verb = 'd'
	case s.verb == 'n':
		s.verb = 'g'
	}
	switch {
	case strings.IndexByte("eEfFgG%", s.verb) >= 0 && s.verb != 0:
		return st.formatFloat(s, asFloat(v))
	case !whole && s.verb == 0:
		return st.formatFloat(s, v.(float64))
	case whole && (s.verb == 0 || strings.IndexByte("bdoxX", s.verb) >= 0) && s.precision < 0:
		return st.formatInt(s, n)
	}
	unsupported("the format specifier '%s'", form)
	return ""
}

// parseSpec reads [[fill]align][sign][#][0][width][,][.precision][type].
func parseSpec(form string) spec {
	s := spec{fill: " ", precision: -1}
	runes := []rune(form)
	isAlign := func(i int) bool { return i < len(runes) && strings.ContainsRune("<>^=", runes[i]) }
	i := 0
	filled := isAlign(1)
	if filled {
		s.fill, s.align, i = string(runes[0]), byte(runes[1]), 2
	} else if isAlign(0) {
		s.align, i = byte(runes[0]), 1
	}
	take := func(set string) byte {
		if i < len(runes) && strings.ContainsRune(set, runes[i]) {
			i++
			return byte(runes[i-1])
		}
		return 0
	}
	if s.sign = take("+- "); s.sign == '-' {
		s.sign = 0
	}
	s.alternate = take("#") != 0
	if take("0") != 0 {
		if !filled {
			s.fill = "0"
		}
		s.zero = s.align == 0
	}
	number := func() (n int) {
		for c := take("0123456789"); c != 0; c = take("0123456789") {
			n = min(n*10+int(c-'0'), 1<<40)
		}
		return n
	}
	s.width = number()
	s.comma = take(",_")
	if take(".") != 0 {
		s.precision = number()
	}
	s.verb = take("bcdeEfFgGosxX%n")
	if i != len(runes) {
		valueError("Invalid format specifier '%s'", form)
	}
	return s
}
