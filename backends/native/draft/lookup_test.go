package draft

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newLookup(t testing.TB, minMatch, maxMatch int) *Lookup {
	t.Helper()
	l, err := NewLookup(minMatch, maxMatch)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDraft(t *testing.T) {
	for _, c := range []struct {
		name               string
		minMatch, maxMatch int
		text               []int32
		n                  int
		want               []int32
	}{
		{"empty", 1, 3, nil, 3, nil},
		{"nothing before", 1, 3, []int32{1, 2, 3}, 3, nil},
		{"found", 2, 3, []int32{1, 2, 3, 4, 5, 1, 2}, 3, []int32{3, 4, 5}},
		{"too short", 3, 3, []int32{1, 2, 3, 4, 5, 1, 2}, 3, nil},
		{"the last of equals", 1, 3, []int32{1, 2, 1, 3, 1}, 1, []int32{3}},
		{"the longest", 1, 3, []int32{7, 1, 2, 8, 1, 3, 7, 1}, 1, []int32{2}},
		{"no longer than the maximum", 1, 1, []int32{7, 1, 2, 8, 1, 3, 7, 1}, 1, []int32{3}},
		{"round in circles", 1, 3, []int32{9, 1, 2, 1, 2}, 5, []int32{1, 2, 1, 2, 1}},
		{"all the same", 2, 5, []int32{4, 4, 4, 4}, 3, []int32{4, 4, 4}},
		{"none wished", 1, 3, []int32{1, 1}, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLookup(t, c.minMatch, c.maxMatch)
			l.Add(c.text...)
			if got := l.Draft(nil, c.n); !slices.Equal(got, c.want) {
				t.Errorf("drafted %v, want %v", got, c.want)
			}
		})
	}
}

// scan is Draft without an index: it compares every place.
func scan(text []int32, minMatch, maxMatch, n int) (list []int32) {
	best, longest := 0, minMatch-1
	for p := len(text) - 1; p > 0; p-- {
		k := 0
		for k < maxMatch && k < p && text[p-1-k] == text[len(text)-1-k] {
			k++
		}
		if k > longest {
			best, longest = p, k
		}
	}
	if best == 0 {
		return nil
	}
	all := slices.Clone(text)
	for i := range n {
		all = append(all, all[best+i])
	}
	return all[len(text):]
}

// TestAgainstScan adds random texts piece by piece. They are short enough for all places to be compared.
func TestAgainstScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minMatch := rapid.IntRange(1, 4).Draw(t, "min")
		maxMatch := minMatch + rapid.IntRange(0, 4).Draw(t, "more")
		numTokens := rapid.Int32Range(1, 5).Draw(t, "vocabulary")
		l, err := NewLookup(minMatch, maxMatch)
		if err != nil {
			t.Fatal(err)
		}
		var text []int32
		for len(text) < maxCandidates {
			piece := rapid.SliceOfN(rapid.Int32Range(0, numTokens), 1, 9).Draw(t, "piece")
			text = append(text, piece...)
			text = text[:min(len(text), maxCandidates)]
			l.Add(text[l.Len():]...)
			n := rapid.IntRange(0, 12).Draw(t, "n")
			if got, want := l.Draft([]int32{-1}, n), scan(text, minMatch, maxMatch, n); !slices.Equal(got[1:], want) {
				t.Fatalf("after %v drafted %v, want %v", text, got[1:], want)
			}
		}
	})
}

// TestLongText grows the index many times: what was added before is still found.
func TestLongText(t *testing.T) {
	l := newLookup(t, 3, 5)
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]int32, 20_000)
	for i := range text {
		text[i] = random.Int32N(150_000)
		l.Add(text[i])
	}
	for range 100 {
		at := random.IntN(len(text) - 20)
		l.Add(text[at : at+5]...)
		if got, want := l.Draft(nil, 8), text[at+5:at+13]; !slices.Equal(got, want) {
			t.Fatalf("at %d: %v, want %v", at, got, want)
		}
	}
}

func TestNewLookupRefuses(t *testing.T) {
	for _, c := range [][2]int{{0, 3}, {-1, 3}, {4, 3}} {
		if _, err := NewLookup(c[0], c[1]); err == nil {
			t.Errorf("matches of %d to %d tokens accepted", c[0], c[1])
		}
	}
}

// BenchmarkLookup is a token's cost: added, and eight drafted. "common" is the worst text, where every place is a
// candidate and none is good.
func BenchmarkLookup(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 16} {
		for name, token := range map[string]func(i int) int32{
			"random": func(int) int32 { return rand.Int32N(1000) },
			"common": func(i int) int32 { return int32(min(1, i%7)) * int32(1+i%5*(i%3)) },
		} {
			b.Run(fmt.Sprintf("%s/len=%d", name, size), func(b *testing.B) {
				l := newLookup(b, 2, 5)
				for i := range size {
					l.Add(token(i))
				}
				var list []int32
				b.ReportAllocs()
				i := size
				for b.Loop() {
					l.Add(token(i))
					list = l.Draft(list[:0], 8)
					i++
				}
			})
		}
	}
}
