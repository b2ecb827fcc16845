package jsonstring

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestQuote compares with jsontext, each byte at each place of texts of all lengths about those that are looked over at once.
func TestQuote(t *testing.T) {
	for length := range 75 {
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

func BenchmarkIsPlain(b *testing.B) {
	text := []byte(strings.Repeat("word ", 20<<10))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if !IsPlain(text) {
			b.Fatal("not plain")
		}
	}
}
