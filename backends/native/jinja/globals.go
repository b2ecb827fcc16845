package jinja

import (
	"strconv"
	"strings"
	"time"
)

// maxRange is how long a range may be, as in Python's sandbox.
const maxRange = 100_000

var globals = map[string]*function{}

func init() {
	for name, call := range map[string]func(st *state, a args) any{
		"range": newRange, "dict": dictOf, "namespace": newNamespace, "cycler": newCycler, "joiner": newJoiner,
		"raise_exception": func(st *state, a args) any {
			fail(kindRaised, "%s", st.str(a.bind("raise_exception", 1, "message")[0]))
			return nil
		},
		"strftime_now": func(st *state, a args) any {
			return strftime(mustStr(a.bind("strftime_now", 1, "format")[0]), st.now())
		},
		"lipsum": func(*state, args) any {
			unsupported("lipsum")
			return nil
		},
	} {
		globals[name] = &function{name: name, call: call}
	}
}

func newRange(_ *state, a args) any {
	p := a.bind("range", 1, "start", "stop", "step")
	r := &rangeValue{stop: int64(mustInt(p[0])), step: 1}
	if p[1] != (unset{}) {
		r.start, r.stop = r.stop, int64(mustInt(p[1]))
	}
	if p[2] != (unset{}) {
		r.step = int64(mustInt(p[2]))
	}
	if r.step == 0 {
		valueError("range() arg 3 must not be zero")
	}
	if r.len() > maxRange {
		fail("OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	return r
}

// dictOf is dict(mapping or pairs, **more).
func dictOf(st *state, a args) any {
	d := newDict()
	if len(a.pos) > 1 {
		typeError("dict expected at most 1 argument, got %d", len(a.pos))
	}
	if len(a.pos) == 1 {
		if from, ok := a.pos[0].(*dict); ok {
			st.charge(len(from.keys) * pairBytes)
			d = from.clone()
		} else {
			for _, item := range st.iterate(a.pos[0]) {
				pair := st.iterate(item)
				if len(pair) != 2 {
					valueError("dictionary update sequence element has length %d; 2 is required", len(pair))
				}
				st.put(d, pair[0], pair[1])
			}
		}
	}
	for i, name := range a.names {
		st.put(d, name, a.named[i])
	}
	return d
}

func newNamespace(st *state, a args) any {
	st.charge(pairBytes)
	return &namespace{vars: *dictOf(st, a).(*dict)}
}

func newCycler(_ *state, a args) any {
	if len(a.pos) == 0 {
		fail("RuntimeError", "at least one item has to be provided")
	}
	return &cycler{items: a.pos}
}

func newJoiner(_ *state, a args) any {
	sep := given(a.bind("joiner", 0, "sep")[0], ", ")
	used := false
	return &function{name: "joiner", call: func(_ *state, a args) any {
		a.bind("joiner", 0)
		if !used {
			used = true
			return ""
		}
		return sep
	}}
}

// strftime formats a local time; the directives that depend on a locale are as in C's.
func strftime(format string, t time.Time) string {
	layouts := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'B': "January", 'b': "Jan",
		'h': "Jan", 'A': "Monday", 'a': "Mon", 'I': "03", 'p': "PM", 'e': "_2", 'j': "002", 'F': "2006-01-02",
		'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05",
	}
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			out.WriteByte(format[i])
			continue
		}
		i++
		unpadded := format[i] == '-' && i+1 < len(format)
		if unpadded {
			i++
		}
		layout, ok := layouts[format[i]]
		switch {
		case ok && unpadded:
			out.WriteString(strings.TrimLeft(t.Format(layout), "0 "))
		case ok:
			out.WriteString(t.Format(layout))
		case format[i] == '%':
			out.WriteByte('%')
		case format[i] == 'n':
			out.WriteByte('\n')
		case format[i] == 't':
			out.WriteByte('\t')
		case format[i] == 'z' || format[i] == 'Z': // a time without a zone has none to print
		case format[i] == 'f':
			out.WriteString(sprintf("%06d", t.Nanosecond()/1000))
		case format[i] == 'u':
			out.WriteString(strconv.Itoa((int(t.Weekday())+6)%7 + 1))
		case format[i] == 'w':
			out.WriteString(strconv.Itoa(int(t.Weekday())))
		default:
			unsupported("strftime_now's %%%c", format[i])
		}
	}
	return out.String()
}
