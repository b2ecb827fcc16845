package kvcache

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newPool(t testing.TB, numBlocks, blockSize int) *Pool {
	t.Helper()
	p, err := New(numBlocks, blockSize, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fill grows a table over tokens and registers its full blocks.
func fill(t testing.TB, p *Pool, tb *Table, tokens []int32) {
	t.Helper()
	if !p.Grow(tb, len(tokens)) {
		t.Fatalf("no room for %d tokens: %d blocks free", len(tokens), p.NumFree())
	}
	p.Register(tb, tokens)
}

func check(t testing.TB, p *Pool, tables ...*Table) {
	t.Helper()
	if err := p.CheckIntegrity(tables); err != nil {
		t.Fatal(err)
	}
}

func sequence(from, n int) []int32 {
	s := make([]int32, n)
	for i := range s {
		s[i] = int32(from + i)
	}
	return s
}

func TestMatch(t *testing.T) {
	prompt := sequence(100, 10) // two full blocks of 4 and half of one
	other := slices.Clone(prompt)
	other[5] = -1
	cases := []struct {
		name      string
		adapter   uint64
		salt      string
		tokens    []int32
		maxTokens int
		want      int
	}{
		{"same prompt", 1, "a", prompt, 9, 8},
		{"longer prompt", 1, "a", sequence(100, 30), 29, 8},
		{"last token must be computed", 1, "a", prompt[:8], 7, 4},
		{"shorter than a block", 1, "a", prompt[:3], 2, 0},
		{"differs in the second block", 1, "a", other, 9, 4},
		{"second block first", 1, "a", prompt[4:], 5, 0},
		{"other adapter", 2, "a", prompt, 9, 0},
		{"base", 0, "a", prompt, 9, 0},
		{"other salt", 1, "b", prompt, 9, 0},
		{"no salt", 1, "", prompt, 9, 0},
		{"no tokens allowed", 1, "a", prompt, 0, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := newPool(t, 8, 4)
			first := NewTable(1, "a")
			fill(t, p, &first, prompt)
			tb := NewTable(c.adapter, c.salt)
			if got := p.Match(&tb, c.tokens, c.maxTokens); got != c.want {
				t.Errorf("found %d tokens, want %d", got, c.want)
			}
			check(t, p, &first, &tb)
			if want := first.Blocks()[:c.want/4]; !slices.Equal(tb.Blocks(), want) {
				t.Errorf("blocks %v, want %v", tb.Blocks(), want)
			}
			p.Release(&tb)
			p.Release(&first)
			check(t, p)
			if p.NumFree() != 8 || p.NumCached() != 2 {
				t.Errorf("%d free, %d cached, want 8, 2", p.NumFree(), p.NumCached())
			}
		})
	}
}

// A hash only finds candidates: with every key in one bucket and of one hash, contents still decide.
func TestCollision(t *testing.T) {
	p := newPool(t, 4, 2)
	a, b := NewTable(0, ""), NewTable(0, "")
	p.Grow(&a, 2)
	p.Grow(&b, 2)
	ka, kb := key{tokens: []int32{1, 2}}, key{tokens: []int32{3, 4}}
	p.register(a.blocks[0], ka, 7)
	p.register(b.blocks[0], kb, 7)
	for name, c := range map[string]struct {
		k    key
		want int32
	}{
		"first":         {ka, a.blocks[0]},
		"second":        {kb, b.blocks[0]},
		"other tokens":  {key{tokens: []int32{1, 4}}, none},
		"other adapter": {key{tokens: []int32{1, 2}, adapter: 1}, none},
		"other salt":    {key{tokens: []int32{1, 2}, salt: "x"}, none},
		"other parent":  {key{tokens: []int32{1, 2}, parent: 1}, none},
	} {
		if got := p.find(c.k, 7); got != c.want {
			t.Errorf("%s: block %d, want %d", name, got, c.want)
		}
	}
	p.unregister(a.blocks[0])
	if got := p.find(kb, 7); got != b.blocks[0] {
		t.Errorf("after unregistering its neighbour: block %d, want %d", got, b.blocks[0])
	}
}

func TestEvictsLeastRecentlyUsedTailFirst(t *testing.T) {
	p := newPool(t, 6, 2)
	chains := [][]int32{sequence(10, 4), sequence(20, 4), sequence(30, 4)} // two blocks each
	for _, tokens := range chains {
		tb := NewTable(0, "")
		fill(t, p, &tb, tokens)
		p.Release(&tb)
	}
	again := NewTable(0, "")
	p.Match(&again, chains[0], 4) // now the most recently used
	p.Release(&again)
	found := func() (n [3]int) {
		for i, tokens := range chains {
			tb := NewTable(0, "")
			n[i] = p.Match(&tb, tokens, 4)
			defer p.Release(&tb)
		}
		return n
	}
	grown := NewTable(0, "")
	p.Grow(&grown, 2)
	check(t, p, &grown)
	if got, want := found(), [3]int{4, 2, 4}; got != want {
		t.Fatalf("after evicting one block %v tokens are found, want %v", got, want)
	}
}

func TestGrow(t *testing.T) {
	p := newPool(t, 3, 4)
	a, b := NewTable(0, ""), NewTable(0, "")
	if !p.Grow(&a, 5) || len(a.Blocks()) != 2 {
		t.Fatalf("5 tokens got blocks %v", a.Blocks())
	}
	if !p.Grow(&a, 8) || len(a.Blocks()) != 2 {
		t.Fatalf("8 tokens got blocks %v", a.Blocks())
	}
	if p.Grow(&b, 5) || len(b.Blocks()) != 0 {
		t.Fatalf("took blocks %v of one free", b.Blocks())
	}
	check(t, p, &a, &b)
	p.Release(&a)
	if !p.Grow(&b, 12) {
		t.Fatal("the whole pool is free and cannot be had")
	}
	check(t, p, &a, &b)
}

func TestShareWithoutPrefixCache(t *testing.T) {
	p, err := New(4, 2, false)
	if err != nil {
		t.Fatal(err)
	}
	a, b := NewTable(0, ""), NewTable(0, "")
	fill(t, p, &a, sequence(0, 5))
	p.Share(&b, &a, 2)
	p.Release(&a)
	check(t, p, &a, &b)
	if p.NumUsed() != 2 {
		t.Errorf("%d blocks used, want the 2 shared", p.NumUsed())
	}
	c := NewTable(0, "")
	if n := p.Match(&c, sequence(0, 5), 4); n != 0 {
		t.Errorf("found %d tokens with the prefix cache off", n)
	}
	p.Release(&b)
	check(t, p)
}

func TestNewRefuses(t *testing.T) {
	for _, c := range [][2]int{{0, 16}, {-1, 16}, {4, 0}, {1<<30 + 1, 1}} {
		if _, err := New(c[0], c[1], true); err == nil {
			t.Errorf("%d blocks of %d tokens were accepted", c[0], c[1])
		}
	}
}

// holder is a table with the text whose keys and values its blocks should hold.
type holder struct {
	Table
	tokens []int32
}

// text is what a block's contents depend on: everything before its end, the adapter and the salt.
func (h *holder) text(end int) string { return fmt.Sprint(h.adapter, h.salt, h.tokens[:end]) }

// TestContents plays random sequences on a tiny pool with few tokens, adapters and salts, so that prefixes meet often,
// and remembers what was last computed into each block: no table may ever hold another text's block.
func TestContents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blockSize := rapid.IntRange(1, 4).Draw(t, "blockSize")
		p, err := New(rapid.IntRange(1, 12).Draw(t, "numBlocks"), blockSize, rapid.Bool().Draw(t, "prefixCache"))
		if err != nil {
			t.Fatal(err)
		}
		contents := make([]string, p.NumBlocks())
		var holders []*holder
		compute := func(h *holder, from int) {
			for i := from / blockSize; i < len(h.blocks); i++ {
				contents[h.blocks[i]] = h.text(min((i+1)*blockSize, len(h.tokens)))
			}
			p.Register(&h.Table, h.tokens)
		}
		pick := func() *holder {
			if len(holders) == 0 {
				t.Skip("no table")
			}
			return rapid.SampledFrom(holders).Draw(t, "holder")
		}
		token := rapid.Int32Range(0, 1)
		t.Repeat(map[string]func(*rapid.T){
			"new": func(t *rapid.T) {
				h := &holder{tokens: rapid.SliceOfN(token, 1, 20).Draw(t, "tokens")}
				h.Table = NewTable(rapid.Uint64Range(0, 1).Draw(t, "adapter"),
					rapid.SampledFrom([]string{"", "s"}).Draw(t, "salt"))
				hit := p.Match(&h.Table, h.tokens, len(h.tokens)-1)
				if !p.Grow(&h.Table, len(h.tokens)) {
					p.Release(&h.Table)
					return
				}
				compute(h, hit)
				holders = append(holders, h)
			},
			"append": func(t *rapid.T) {
				h := pick()
				if n := len(h.tokens); p.Grow(&h.Table, n+1) {
					h.tokens = append(h.tokens, token.Draw(t, "token"))
					compute(h, n)
				}
			},
			"guess": func(t *rapid.T) { // grown for tokens that were never computed, and back
				h := pick()
				before := slices.Clone(h.blocks)
				p.Grow(&h.Table, len(h.tokens)+rapid.IntRange(0, 9).Draw(t, "guessed"))
				p.Shrink(&h.Table, len(h.tokens))
				if !slices.Equal(h.blocks, before) {
					t.Fatalf("grown and shrunk from %v to %v", before, h.blocks)
				}
			},
			"share": func(t *rapid.T) {
				from := pick()
				n := (len(from.tokens) - 1) / blockSize
				h := &holder{Table: NewTable(from.adapter, from.salt), tokens: slices.Clone(from.tokens)}
				p.Share(&h.Table, &from.Table, n)
				if !p.Grow(&h.Table, len(h.tokens)) {
					p.Release(&h.Table)
					return
				}
				compute(h, n*blockSize)
				holders = append(holders, h)
			},
			"release": func(t *rapid.T) {
				h := pick()
				p.Release(&h.Table)
				holders = slices.DeleteFunc(holders, func(o *holder) bool { return o == h })
			},
			"": func(t *rapid.T) {
				var tables []*Table
				for _, h := range holders {
					tables = append(tables, &h.Table)
					for i, b := range h.blocks {
						want := h.text(min((i+1)*blockSize, len(h.tokens)))
						if contents[b] != want {
							t.Fatalf("block %d holds %q, its table says %q", b, contents[b], want)
						}
					}
				}
				if err := p.CheckIntegrity(tables); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

func BenchmarkMatchRelease(b *testing.B) {
	p := newPool(b, 1024, 16)
	tokens := sequence(0, 1024) // 64 blocks
	tb := NewTable(0, "")
	fill(b, p, &tb, tokens)
	p.Release(&tb)
	b.ReportAllocs()
	for b.Loop() {
		if p.Match(&tb, tokens, 1023) != 1008 {
			b.Fatal("missed")
		}
		p.Release(&tb)
	}
}
