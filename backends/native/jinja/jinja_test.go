package jinja_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
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
