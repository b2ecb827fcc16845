package kvcache

import (
	"fmt"
	"hash/maphash"
)

const none = int32(-1)

// Pool is a fixed number of blocks. Its methods take time proportional to the blocks they touch, and allocate nothing
// but a table's growth.
type Pool struct {
	blockSize   int
	prefixCache bool
	seed        maphash.Seed

	blocks []block
	tokens []int32 // [num_blocks, block_size]: a registered block's tokens
	free   []int32 // a stack: the last one is taken next
	heads  []int32 // hash index: first block of each bucket, linked by block.chain; a power of two long

	// Cached blocks, linked by block.prev and block.next, least recently used first.
	oldest, newest int32
	numCached      int

	lastID identity
}

// identity names a registered block's whole prefix. 0 is none.
type identity uint64

type block struct {
	refs       int32 // tables that hold it
	prev, next int32 // neighbours in the eviction order while cached
	chain      int32 // next block in the hash bucket while registered
	hash       uint64
	id         identity // 0: not registered
	parent     identity // 0: first of its chain
	adapter    uint64
	salt       string
}

// New returns a pool of numBlocks free blocks of blockSize tokens. Without prefixCache nothing is ever registered.
func New(numBlocks, blockSize int, prefixCache bool) (*Pool, error) {
	if numBlocks < 1 || numBlocks > 1<<30 || blockSize < 1 {
		return nil, fmt.Errorf("kvcache: %d blocks of %d tokens", numBlocks, blockSize)
	}
	p := &Pool{
		blockSize: blockSize, prefixCache: prefixCache, seed: maphash.MakeSeed(),
		blocks: make([]block, numBlocks), free: make([]int32, numBlocks), oldest: none, newest: none,
	}
	for i := range p.free {
		p.free[i] = int32(numBlocks - 1 - i) // block 0 is taken first
	}
	if !prefixCache {
		return p, nil
	}
	p.tokens = make([]int32, numBlocks*blockSize)
	numHeads := 1
	for numHeads < 2*numBlocks {
		numHeads *= 2
	}
	p.heads = make([]int32, numHeads)
	for i := range p.heads {
		p.heads[i] = none
	}
	return p, nil
}

// NumBlocks is the size of the pool.
func (p *Pool) NumBlocks() int { return len(p.blocks) }

// BlockSize is the number of tokens of a block.
func (p *Pool) BlockSize() int { return p.blockSize }

// NumFree is the number of blocks Grow can take: the free and the cached ones.
func (p *Pool) NumFree() int { return len(p.free) + p.numCached }

// NumCached is the number of cached blocks: registered, held by no table.
func (p *Pool) NumCached() int { return p.numCached }

// NumUsed is the number of blocks that tables hold.
func (p *Pool) NumUsed() int { return len(p.blocks) - p.NumFree() }

// BlocksFor is the number of blocks that numTokens tokens need.
func (p *Pool) BlocksFor(numTokens int) int { return (numTokens + p.blockSize - 1) / p.blockSize }

// take returns a block with one reference; there must be a free or cached one.
func (p *Pool) take() int32 {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		p.blocks[b].refs = 1
		return b
	}
	b := p.oldest
	p.unlink(b)
	p.unregister(b)
	p.blocks[b].refs = 1
	return b
}

// hold adds a reference.
func (p *Pool) hold(b int32) {
	if p.blocks[b].refs == 0 {
		p.unlink(b)
	}
	p.blocks[b].refs++
}

// drop takes a reference away. A registered block without references stays, as the most recently used cached one.
func (p *Pool) drop(b int32) {
	blk := &p.blocks[b]
	blk.refs--
	switch {
	case blk.refs > 0:
	case blk.id != 0:
		p.link(b)
	default:
		p.free = append(p.free, b)
	}
}

func (p *Pool) link(b int32) {
	p.blocks[b].prev, p.blocks[b].next = p.newest, none
	if p.newest == none {
		p.oldest = b
	} else {
		p.blocks[p.newest].next = b
	}
	p.newest = b
	p.numCached++
}

func (p *Pool) unlink(b int32) {
	prev, next := p.blocks[b].prev, p.blocks[b].next
	if prev == none {
		p.oldest = next
	} else {
		p.blocks[prev].next = next
	}
	if next == none {
		p.newest = prev
	} else {
		p.blocks[next].prev = prev
	}
	p.numCached--
}
