package kvcache

// Table is the block table of one sequence. Make one with NewTable; give its blocks back with Release.
type Table struct {
	blocks  []int32
	adapter uint64
	salt    string

	// The first numRegistered blocks are registered; last is the identity of the last of them.
	numRegistered int
	last          identity
}

// NewTable returns an empty table. Only tables of equal adapter and salt ever share blocks.
func NewTable(adapter uint64, salt string) Table {
	return Table{adapter: adapter, salt: salt}
}

// Blocks are the table's block ids in order. The slice is the table's own.
func (t *Table) Blocks() []int32 { return t.blocks }

// Match fills the empty table with the longest registered chain of blocks that tokens begin with, and returns how many
// tokens they hold, at most maxTokens.
func (p *Pool) Match(t *Table, tokens []int32, maxTokens int) int {
	if !p.prefixCache || len(t.blocks) > 0 {
		return 0
	}
	n := min(maxTokens, len(tokens)) / p.blockSize
	for i := range n {
		k := p.key(t, tokens, i)
		b := p.find(k, p.hash(k))
		if b == none {
			break
		}
		p.hold(b)
		t.blocks = append(t.blocks, b)
		t.last = p.blocks[b].id
	}
	t.numRegistered = len(t.blocks)
	return len(t.blocks) * p.blockSize
}

func (p *Pool) key(t *Table, tokens []int32, i int) key {
	return key{t.last, t.adapter, t.salt, tokens[i*p.blockSize:][:p.blockSize]}
}

// Share fills the empty table with the first numBlocks blocks of from, which must be full, computed and, with the prefix
// cache, registered. It works without the prefix cache too. Both tables must be of the same adapter and salt.
func (p *Pool) Share(t, from *Table, numBlocks int) {
	for _, b := range from.blocks[:numBlocks] {
		p.hold(b)
		t.blocks = append(t.blocks, b)
	}
	t.numRegistered = min(numBlocks, from.numRegistered)
	if t.numRegistered > 0 {
		t.last = p.blocks[t.blocks[t.numRegistered-1]].id
	}
}

// Grow extends the table to cover numTokens tokens, or reports false and changes nothing.
func (p *Pool) Grow(t *Table, numTokens int) bool {
	n := p.BlocksFor(numTokens) - len(t.blocks)
	if n > p.NumFree() {
		return false
	}
	for range n {
		t.blocks = append(t.blocks, p.take())
	}
	return true
}

// Shrink gives back the blocks behind those that numTokens tokens need. None of them may be registered.
func (p *Pool) Shrink(t *Table, numTokens int) {
	n := p.BlocksFor(numTokens)
	for i := len(t.blocks) - 1; i >= n; i-- {
		p.drop(t.blocks[i])
	}
	t.blocks = t.blocks[:min(n, len(t.blocks))]
}

// Register makes the full blocks of tokens, all of them computed, findable. Where an equal block is registered already
// the table takes that one in place of its own: their contents are the same.
func (p *Pool) Register(t *Table, tokens []int32) {
	if !p.prefixCache {
		return
	}
	for i := t.numRegistered; i < len(tokens)/p.blockSize; i++ {
		k := p.key(t, tokens, i)
		hash := p.hash(k)
		if b := p.find(k, hash); b == none {
			p.register(t.blocks[i], k, hash)
		} else {
			p.hold(b)
			p.drop(t.blocks[i])
			t.blocks[i] = b
		}
		t.last = p.blocks[t.blocks[i]].id
		t.numRegistered++
	}
}

// Release gives the table's blocks back, tail first, and empties it. Registered blocks stay cached.
func (p *Pool) Release(t *Table) {
	for i := len(t.blocks) - 1; i >= 0; i-- {
		p.drop(t.blocks[i])
	}
	t.blocks, t.numRegistered, t.last = t.blocks[:0], 0, 0
}
