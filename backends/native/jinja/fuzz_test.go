package jinja_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pagoda/backends/native/jinja"
)

// fuzzLimits let one input take some milliseconds.
var fuzzLimits = jinja.Limits{Source: 1 << 16, Steps: 50_000, Output: 1 << 20}

// FuzzRender: any template with any context gives a text or an *Error.
func FuzzRender(f *testing.F) {
	for _, c := range readCases(f, "micro.json") {
		f.Add(c.Template, []byte(c.Context))
	}
	f.Fuzz(func(t *testing.T, source string, context []byte) {
		template, err := jinja.Compile(source, jinja.Options{Now: clock, Limits: fuzzLimits})
		if err == nil {
			var again string
			var text string
			text, err = template.Render(context)
			again, _ = template.Render(context)
			if text != again {
				t.Errorf("%q, then %q", text, again)
			}
			if len(text) > fuzzLimits.Output {
				t.Errorf("%d bytes", len(text))
			}
		}
		checkError(t, err)
	})
}

// FuzzCompile: any change to a real template compiles, or says why not.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "templates", "*.jinja"))
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(source))
	}
	var context json.RawMessage
	for _, c := range readCases(f, "families.json") {
		if c.Name == "chatml/call" {
			context = c.Context
		}
	}
	f.Fuzz(func(t *testing.T, source string) {
		template, err := jinja.Compile(source, jinja.Options{Now: clock, Limits: fuzzLimits})
		if err == nil {
			_, err = template.Render(context)
		}
		checkError(t, err)
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var failed *jinja.Error
	if err != nil && (!errors.As(err, &failed) || failed.Kind == "" || failed.Message == "" && failed.Kind != "raise_exception") {
		t.Errorf("%#v", err)
	}
}
