package jinja

import (
	"fmt"
	"strings"
	"time"
)

// Limits bound what one rendering may use. Zero fields have the defaults of DefaultLimits.
type Limits struct {
	Source int // bytes of template
	Steps  int // nodes evaluated, and 32 bytes of values built or read are one more
	Output int // bytes of the result
	Depth  int // macro calls inside one another
}

// DefaultLimits are far above what chat templates use. The steps take about a second and bound memory: 320 MB
// can be built in all.
var DefaultLimits = Limits{Source: 1 << 20, Steps: 10_000_000, Output: 16 << 20, Depth: 100}

// Options adjust Compile.
type Options struct {
	Limits Limits
	Now    func() time.Time // the clock of strftime_now; nil: time.Now
}

// Template is a compiled template, safe for concurrent use.
type Template struct {
	body   []stmt
	limits Limits
	now    func() time.Time
}

// Error is what went wrong in a template: at compile time its syntax, else what it did.
type Error struct {
	Kind    string // Python's name for it, such as "TypeError"; "limit" if a limit was reached
	Message string
	Line    int // in the template, from 1
}

const (
	kindRaised = "raise_exception"
	kindLimit  = "limit"
)

func (e *Error) Error() string {
	if e.Kind == kindRaised {
		return e.Message
	}
	return fmt.Sprintf("template line %d: %s: %s", e.Line, e.Kind, e.Message)
}

// Raised returns the message that the template gave to raise_exception: it refuses what it was given.
func (e *Error) Raised() (message string, ok bool) { return e.Message, e.Kind == kindRaised }

// Limit returns the name of the limit that was reached.
func (e *Error) Limit() (name string, ok bool) { return e.Message, e.Kind == kindLimit }

func fail(kind, format string, args ...any) {
	panic(&Error{Kind: kind, Message: fmt.Sprintf(format, args...)})
}

func typeError(format string, args ...any)  { fail("TypeError", format, args...) }
func valueError(format string, args ...any) { fail("ValueError", format, args...) }

// unsupported is for what Python can do and this package cannot.
func unsupported(format string, args ...any) {
	fail("NotSupported", format, args...)
}

// recoverError turns a panic with *Error into err, at the line that line gives.
func recoverError(err *error, line func() int) {
	switch cause := recover().(type) {
	case nil:
	case *Error:
		if cause.Line == 0 {
			cause.Line = line()
		}
		*err = cause
	default:
		panic(cause)
	}
}

// Compile parses a template.
func Compile(source string, options Options) (t *Template, err error) {
	t = &Template{limits: options.Limits.withDefaults(), now: options.Now}
	if t.now == nil {
		t.now = time.Now
	}
	p := &parser{}
	defer recoverError(&err, func() int { return p.line() })
	if len(source) > t.limits.Source {
		fail(kindLimit, "source size")
	}
	p.tokens = lex(strings.ToValidUTF8(source, "\ufffd"))
	t.body = p.parseTemplate()
	return t, nil
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value *int
		def   int
	}{
		{&l.Source, DefaultLimits.Source}, {&l.Steps, DefaultLimits.Steps},
		{&l.Output, DefaultLimits.Output}, {&l.Depth, DefaultLimits.Depth},
	} {
		if *f.value <= 0 {
			*f.value = f.def
		}
	}
	return l
}

// Render fills the template in. context is a JSON object: its members are the template's variables.
func (t *Template) Render(context []byte) (text string, err error) {
	st := &state{limits: t.limits, now: t.now}
	st.out = st.newText()
	defer recoverError(&err, func() int { return st.line })
	vars, ok := parseJSON(context).(*dict)
	if !ok {
		typeError("the context is not a JSON object")
	}
	root := &scope{context: vars}
	root.root = root
	st.execAll(t.body, root)
	return st.out.String(), nil
}
