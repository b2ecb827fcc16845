package chat

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// cutUp cuts s into random pieces, some of them empty.
func cutUp(r *rand.Rand, s string) []string {
	var parts []string
	for len(s) > 0 {
		n := r.IntN(min(len(s), 1+r.IntN(12)) + 1)
		parts = append(parts, s[:n])
		s = s[n:]
	}
	return parts
}

func runStops(s *Stops, parts []string) (out, stop string) {
	for _, p := range parts {
		o, st, hit := s.Push(p)
		out += o
		if hit {
			o, again, still := s.Push("more")
			return out + o + again + s.Flush(), map[bool]string{true: st, false: "not kept"}[still]
		}
	}
	return out + s.Flush(), ""
}

// stopOracle looks at every prefix of text, the slow and obvious way.
func stopOracle(text string, stops []string, include bool) (out, stop string) {
	for end := range len(text) + 1 {
		for _, s := range stops {
			if s != "" && strings.HasSuffix(text[:end], s) && len(s) > len(stop) {
				stop = s
			}
		}
		if stop != "" {
			out = text[:end]
			if !include {
				out = strings.TrimSuffix(out, stop)
			}
			return out, stop
		}
	}
	return text, ""
}

func TestStops(t *testing.T) {
	for _, c := range []struct {
		name      string
		stops     []string
		include   bool
		text      string
		out, stop string
	}{
		{"none", nil, false, "a\nb", "a\nb", ""},
		{"empty ones are ignored", []string{""}, false, "ab", "ab", ""},
		{"cut before", []string{"\n"}, false, "a\nb", "a", "\n"},
		{"cut after", []string{"\n"}, true, "a\nb", "a\n", "\n"},
		{"at the start", []string{"a"}, false, "ab", "", "a"},
		{"prefix that comes to nothing", []string{"###"}, false, "a##b", "a##b", ""},
		{"prefix at the end", []string{"###"}, false, "a##", "a##", ""},
		{"overlapping itself", []string{"aab"}, false, "aaab", "a", "aab"},
		{"first to end wins", []string{"abc", "b"}, false, "xabc", "xa", "b"},
		{"longest of those that end together", []string{"c", "abc"}, false, "xabc", "x", "abc"},
		{"suffix inside a longer prefix", []string{"abcd", "bc"}, false, "abcx", "a", "bc"},
		{"not ASCII", []string{"é"}, false, "cafè é", "cafè ", "é"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for cut := range len(c.text) + 1 {
				out, stop := runStops(NewStops(c.stops, c.include), []string{c.text[:cut], c.text[cut:]})
				if out != c.out || stop != c.stop {
					t.Errorf("cut at %d: got %q, %q, want %q, %q", cut, out, stop, c.out, c.stop)
				}
			}
		})
	}
}

func TestStopsHoldsBackOnlyWhatItMust(t *testing.T) {
	s := NewStops([]string{"STOP", "OPAL"}, false)
	for _, c := range []struct{ in, want string }{
		{"say ", "say "}, {"ST", ""}, {"O", ""}, {"x", "STOx"}, {"STO", ""}, {"", ""}, {"R", "STOR"}, {"OPA", ""}, {"!", "OPA!"},
	} {
		if got, _, hit := s.Push(c.in); got != c.want || hit {
			t.Errorf("Push(%q) = %q, hit %v, want %q", c.in, got, hit, c.want)
		}
	}
}

func TestStopsAnyCuts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte("aab\n"[r.IntN(4)])
		}
		return b.String()
	}
	hits := 0
	for range 8000 {
		stops := make([]string, r.IntN(4))
		for i := range stops {
			stops[i] = word(r.IntN(6))
		}
		text, include := word(r.IntN(24)), r.IntN(2) == 0
		wantOut, wantStop := stopOracle(text, stops, include)
		out, stop := runStops(NewStops(stops, include), cutUp(r, text))
		if out != wantOut || stop != wantStop {
			t.Fatalf("%q with stops %q: got %q, %q, want %q, %q", text, stops, out, stop, wantOut, wantStop)
		}
		if stop != "" {
			hits++
		}
	}
	if hits < 400 {
		t.Errorf("only %d texts held a stop string: the test is too weak", hits)
	}
}
