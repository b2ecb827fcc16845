package jinja_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pagoda/backends/native/jinja"
)

// renderCase is one expectation that testdata/make.py wrote with Python's Jinja2.
type renderCase struct {
	Name, Template, File string
	Context              json.RawMessage
	Want                 *string
	Error, Message       string
}

func readCases(t testing.TB, name string) []renderCase {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var cases []renderCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatalf("%s has no cases", name)
	}
	return cases
}

// clock is the time at which make.py lets strftime_now look.
func clock() time.Time { return time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC) }

func render(source string, context []byte) (string, error) {
	template, err := jinja.Compile(source, jinja.Options{Now: clock})
	if err != nil {
		return "", err
	}
	return template.Render(context)
}

// kinds returns our kind for Python's: where Python runs out of stack, we reach a limit.
func kinds(python string) string {
	if python == "RecursionError" {
		return "limit"
	}
	return python
}

func (c *renderCase) check(t *testing.T, source string) {
	t.Helper()
	got, err := render(source, c.Context)
	var failed *jinja.Error
	switch {
	case c.Want != nil && err != nil:
		t.Errorf("%s\nerror %v\nwant  %q", source, err, *c.Want)
	case c.Want != nil && got != *c.Want:
		t.Errorf("%s\ngot  %q\nwant %q", source, got, *c.Want)
	case c.Want == nil && !errors.As(err, &failed):
		t.Errorf("%s\ngot %q (error %v)\nwant %s", source, got, err, c.Error)
	case c.Want == nil && failed.Kind != kinds(c.Error):
		t.Errorf("%s\ngot %v\nwant %s", source, err, c.Error)
	case c.Message != "" && failed.Message != c.Message:
		t.Errorf("%s\ngot %q\nwant %q", source, failed.Message, c.Message)
	}
}

// TestMicro: small templates, construct by construct.
func TestMicro(t *testing.T) {
	for _, c := range readCases(t, "micro.json") {
		t.Run(c.Name, func(t *testing.T) { c.check(t, c.Template) })
	}
}

// TestFamilies: templates in the manner of the models' own, each with every conversation of families.py.
func TestFamilies(t *testing.T) {
	for _, c := range readCases(t, "families.json") {
		source, err := os.ReadFile(filepath.Join("testdata", "templates", c.File))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(c.Name, func(t *testing.T) { c.check(t, string(source)) })
	}
}

// TestRefused: what Python has and this package has not is an error that names it.
func TestRefused(t *testing.T) {
	for _, source := range []string{
		"{{ 'x'.casefold() }}", "{{ 'x'.encode() }}", "{{ 'x'.translate({}) }}", "{{ '{a}'.format_map({}) }}",
		"{{ 'x'|wordwrap }}", "{{ 'x'|urlize }}", "{{ [1]|random }}", "{{ {}|pprint }}", "{{ lipsum() }}",
		"{{ [1]|map('abs') }}", "{{ {1: 2}|items }}", "{{ 'x'.upper }}", "{{ range }}", "{{ (-8) ** 0.5 }}", "{{ x[1, 2] }}",
		"{% autoescape true %}{% endautoescape %}", "{{ '%s'|safe % 1 }}", "{{ ('%s'|safe).format(1) }}",
		"{{ '{:{}}'.format(1, 2) }}", "{{ strftime_now('%U') }}", "{{ {}.keys() == {}.keys() }}",
		"{% for x in [1] %}{{ loop|list }}{% endfor %}",
	} {
		_, err := render(source, []byte(`{"x": {}}`))
		var failed *jinja.Error
		if !errors.As(err, &failed) || failed.Kind != "NotSupported" || failed.Message == "" || failed.Line != 1 {
			t.Errorf("%s: %#v", source, err)
		}
	}
}

// TestErrors: an error tells its line; what a template raises is passed on as it is.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ source, want string }{
		{"a\n{{ missing.x }}", "template line 2: UndefinedError: 'missing' is undefined"},
		{"a\n\n{% if %}", "template line 3: TemplateSyntaxError: Expected an expression, got 'end of statement block'"},
		{"{% macro f() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ f() }}", "template line 2: ZeroDivisionError: division by zero"},
		{"\n{{ raise_exception('no <b>') }}", "no <b>"},
		{"{{ 'a' * 10**9 }}", "template line 1: limit: output size"},
	} {
		if _, err := render(c.source, []byte("{}")); err == nil || err.Error() != c.want {
			t.Errorf("%q: got %v, want %s", c.source, err, c.want)
		}
	}
	var failed *jinja.Error
	_, err := render("{{ raise_exception('') }}", []byte("{}"))
	if !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if message, ok := failed.Raised(); !ok || message != "" {
		t.Errorf("Raised() = %q, %v", message, ok)
	}
	if _, ok := failed.Limit(); ok {
		t.Error("a raised error is no limit")
	}
}

// TestConcurrent: one template renders in many goroutines, each its own state.
func TestConcurrent(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("testdata", "templates", "harmony.jinja"))
	if err != nil {
		t.Fatal(err)
	}
	template, err := jinja.Compile(string(source), jinja.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, c := range readCases(t, "families.json") {
		if c.File != "harmony.jinja" || c.Want == nil {
			continue
		}
		all.Go(func() {
			for range 20 {
				if got, err := template.Render(c.Context); err != nil || got != *c.Want {
					t.Errorf("%s: error %v\ngot  %q\nwant %q", c.Name, err, got, *c.Want)
				}
			}
		})
	}
	all.Wait()
}
