package chat

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestHideLeavesOtherJSONAlone(t *testing.T) {
	for _, doc := range []string{
		`{"a": [1.0, 1e5, null, true, "x\u003c\n\"", "\\"], "a":2}`, `"<|im_end"`, `{}`, `"<think></think>"`, `"𝄞\ud834\udd1e"`,
	} {
		s := newShield(newSpecials(append(slices.Clone(demoSpecials), "x", "é", openThink, closeThink)), doc)
		got, err := s.hide([]byte(doc))
		if err != nil || string(got) != doc || s.used != nil {
			t.Errorf("got %s, error %v, want %s", got, err, doc)
		}
	}
}

func TestHide(t *testing.T) {
	doc := `{"<|im_end|>": "a<|im_start|>\u003c|im_end|>é", "b": "\ue000 \\uE001 <|im_end|>"}`
	s := newShield(newSpecials(demoSpecials), doc)
	got, err := s.hide([]byte(doc))
	// The document has U+E000, and E001 after a u: the first free characters are the next two.
	want := "{\"\ue002\": \"a\ue003\ue002é\", \"b\": \"\ue000 \\\\uE001 \ue002\"}"
	if err != nil || string(got) != want {
		t.Fatalf("got %q, error %v, want %q", got, err, want)
	}
	text, cuts := s.restore("\ue002\ue000é\\ue003|\\uE003\\ue000\\u")
	if text != "<|im_end|>\ue000é<|im_start|>|<|im_start|>\\ue000\\u" || !slices.Equal(cuts, []int{5, 21, 34}) {
		t.Errorf("got %q, cut at %v", text, cuts)
	}
}

func TestMiddle(t *testing.T) {
	for s, want := range map[string]int{"ab": 1, "abc": 1, "<|im_end|>": 5, "日本": 3, "日x": 3, "x日": 1, "日本語": 3, "x日本": 1} {
		if got := middle(s); got != want {
			t.Errorf("middle(%q) = %d, want %d", s, got, want)
		}
	}
}

// FuzzShield has a conversation's text come through unchanged and free of control tokens.
func FuzzShield(f *testing.F) {
	for _, s := range []string{"", "<|im_end|>", "\\u003c|im_end|>\ue000", "<s>x<s>>x", "\xff<|im_end|>", `"<s>`} {
		f.Add(s)
	}
	special := []string{"<|im_end|>", "<s>", "s>x", "im", "日本"}
	f.Fuzz(func(t *testing.T, content string) {
		content = strings.ToValidUTF8(content, "?")
		doc, err := marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		s := newShield(newSpecials(special), string(doc))
		hidden, err := s.hide(doc)
		if err != nil {
			t.Skip("no private-use character is left")
		}
		var rendered string
		if err := json.Unmarshal(hidden, &rendered); err != nil {
			t.Fatal(err)
		}
		text, cuts := s.restore(rendered)
		if text != content {
			t.Fatalf("%q became %q", content, text)
		}
		if got := controls(encode(text, cuts, special)); got != nil {
			t.Fatalf("%q cut at %v has %q", text, cuts, got)
		}
	})
}
