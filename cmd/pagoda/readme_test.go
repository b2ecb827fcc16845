package main

import (
	"bytes"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	formats "pagoda/backends/native/chat"
	"pagoda/config"
	"pagoda/openapi"
)

// between returns the part of the README between the markers of that name.
func between(t *testing.T, name string) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "<!-- "+name+":begin -->\n")
	part, _, ended := strings.Cut(rest, "<!-- "+name+":end -->")
	if !found || !ended {
		t.Fatalf("README.md lacks the markers of %s", name)
	}
	return part
}

func TestReadmeOptions(t *testing.T) {
	var want bytes.Buffer
	config.Markdown(&want)
	if got := between(t, "options"); got != want.String() {
		t.Error("README.md's table of options is not what pagoda flags --markdown prints")
	}
}

// The parsers that the options offer are those that there are.
func TestParserChoices(t *testing.T) {
	for _, o := range config.Options() {
		var want []string
		switch o.Name {
		case "tool_call_parser":
			want = formats.ToolFormats()
		case "reasoning_parser":
			want = formats.ReasoningFormats()
		default:
			continue
		}
		if want = append([]string{"auto", "none"}, want...); !slices.Equal(o.Choices, want) {
			t.Errorf("%s has choices %q, want %q", o.Name, o.Choices, want)
		}
	}
}

// The README's table of parameters has a row for each field of the contract's two requests, and no other.
func TestReadmeParameters(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
			}
		}
	}
	if err := yaml.Unmarshal(openapi.YAML(), &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, schema := range []string{"ChatCompletionRequest", "CompletionRequest"} {
		for name := range doc.Components.Schemas[schema].Properties {
			want[name] = true
		}
	}
	if len(want) < 40 {
		t.Fatalf("the contract has only %d fields", len(want))
	}
	got := map[string]bool{}
	code := regexp.MustCompile("`([a-z_]+)`")
	for line := range strings.Lines(between(t, "parameters")) {
		cells := strings.SplitN(line, "|", 3)
		if len(cells) < 3 {
			t.Fatalf("not a row: %q", line)
		}
		for _, m := range code.FindAllStringSubmatch(cells[1], -1) {
			got[m[1]] = true
		}
	}
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		for _, name := range w {
			if !got[name] {
				t.Errorf("README.md does not list %s", name)
			}
		}
		for _, name := range g {
			if !want[name] {
				t.Errorf("README.md lists %s, which is not in the contract", name)
			}
		}
	}
}
