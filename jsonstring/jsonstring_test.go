package jsonstring

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestQuote compares with jsontext, each byte at each place of texts of all lengths about those that are looked over at once.
func TestQuote(t *testing.T) {
	for length := range 131 {
		if length > 75 && length < 126 {
			continue
		}
		for c := range 256 {
			for at := range length {
				text := []byte(strings.Repeat("a", length))
				text[at] = byte(c)
				want, _ := jsontext.AppendQuote([]byte("x"), text)
				if got := AppendQuote([]byte("x"), string(text)); string(got) != string(want) {
					t.Fatalf("%q: %s, want %s", text, got, want)
				}
				if plain := c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; IsPlain(text) != plain {
					t.Fatalf("%q: plain: %v", text, !plain)
				}
			}
		}
	}
}

// TestText compares with jsontext, each byte at each place of strings with and without an escape.
func TestText(t *testing.T) {
	for _, around := range []string{`"%s"`, `"%s\n"`, `"\\%s"`, `"é%s\u00e9"`, `"\%sx"`} {
		for length := range 20 {
			for c := range 256 {
				for at := range length {
					text := []byte(strings.Repeat("a", length))
					text[at] = byte(c)
					checkText(t, fmt.Appendf(nil, around, text))
				}
			}
		}
	}
}

// checkText compares what a Reader makes of a text that begins with a string with what jsontext does.
func checkText(t *testing.T, data []byte) {
	t.Helper()
	var r Reader
	r.Reset(data)
	var got string
	ok := r.Text(&got)
	end := End(data, 1)
	if end == len(data) {
		if ok {
			t.Fatalf("%q: read as %q, though it has no end", data, got)
		}
		return
	}
	want, err := jsontext.AppendUnquote(nil, data[:end+1])
	if ok != (err == nil) || ok && got != string(want) {
		t.Fatalf("%q: %q, %v; want %q, %v", data, got, ok, want, err)
	}
	quoted, _ := jsontext.AppendQuote(nil, want)
	if again := AppendQuote(nil, string(want)); string(again) != string(quoted) {
		t.Fatalf("%q: written as %s, want %s", want, again, quoted)
	}
}

// FuzzText: strings are read and written as jsontext does.
func FuzzText(f *testing.F) {
	for _, text := range []string{`a`, `\n\t\"\\\/\b\f\r`, `é\u00e9\ud83d\ude00`, `\ud800`, `\x`, "\x01", "\xff", `\`, "\u2028<"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		checkText(t, []byte(`"`+text+`"`))
		want, _ := jsontext.AppendQuote(nil, text)
		if got := AppendQuote(nil, text); string(got) != string(want) {
			t.Fatalf("%q: %s, want %s", text, got, want)
		}
	})
}

func BenchmarkIsPlain(b *testing.B) {
	text := []byte(strings.Repeat("word ", 20<<10))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if !IsPlain(text) {
			b.Fatal("not plain")
		}
	}
}
