package kvcache

import "fmt"

// CheckIntegrity verifies every invariant of the pool against tables, which must be all tables in existence: free,
// cached and used blocks are all blocks, reference counts are the tables', no block is in two lists, the hash index
// finds exactly the registered blocks, and every registered block's parent is registered. It takes time proportional to
// the pool.
func (p *Pool) CheckIntegrity(tables []*Table) error {
	refs := make([]int32, len(p.blocks))
	for _, t := range tables {
		for i, b := range t.blocks {
			refs[b]++
			if (i < t.numRegistered) != (p.blocks[b].id != 0) {
				return fmt.Errorf("kvcache: block %d at %d of a table with %d registered has identity %d",
					b, i, t.numRegistered, p.blocks[b].id)
			}
		}
		if t.numRegistered > 0 && p.blocks[t.blocks[t.numRegistered-1]].id != t.last {
			return fmt.Errorf("kvcache: a table's chain ends in identity %d", t.last)
		}
	}
	numUsed := 0
	for b := range p.blocks {
		if p.blocks[b].refs != refs[b] {
			return fmt.Errorf("kvcache: block %d counts %d references, tables hold %d", b, p.blocks[b].refs, refs[b])
		}
		if refs[b] > 0 {
			numUsed++
		}
	}
	listed, err := p.checkLists()
	if err != nil {
		return err
	}
	if listed+numUsed != len(p.blocks) {
		return fmt.Errorf("kvcache: %d free or cached + %d used of %d blocks", listed, numUsed, len(p.blocks))
	}
	return p.checkIndex()
}

// checkLists verifies the free stack and the eviction order, and counts their blocks.
func (p *Pool) checkLists() (int, error) {
	seen := make([]bool, len(p.blocks))
	visit := func(b int32, registered bool) error {
		if blk := &p.blocks[b]; seen[b] || blk.refs != 0 || (blk.id != 0) != registered {
			return fmt.Errorf("kvcache: block %d (references %d, identity %d) is in the wrong list or in two",
				b, blk.refs, blk.id)
		}
		seen[b] = true
		return nil
	}
	for _, b := range p.free {
		if err := visit(b, false); err != nil {
			return 0, err
		}
	}
	numCached, prev := 0, none
	for b := p.oldest; b != none; b = p.blocks[b].next {
		if err := visit(b, true); err != nil {
			return 0, err
		}
		if p.blocks[b].prev != prev {
			return 0, fmt.Errorf("kvcache: block %d links back to %d, not %d", b, p.blocks[b].prev, prev)
		}
		prev = b
		numCached++
	}
	if prev != p.newest || numCached != p.numCached {
		return 0, fmt.Errorf("kvcache: %d cached blocks counted as %d, the last is %d, not %d",
			numCached, p.numCached, prev, p.newest)
	}
	return len(p.free) + numCached, nil
}

func (p *Pool) checkIndex() error {
	ids := make(map[identity]bool)
	for b := range p.blocks {
		if id := p.blocks[b].id; id != 0 {
			if ids[id] {
				return fmt.Errorf("kvcache: identity %d is registered twice", id)
			}
			ids[id] = true
		}
	}
	numIndexed := 0
	for _, head := range p.heads {
		for b := head; b != none; b = p.blocks[b].chain {
			numIndexed++
			if numIndexed > len(ids) {
				return fmt.Errorf("kvcache: the hash index holds more than the %d registered blocks", len(ids))
			}
			blk := &p.blocks[b]
			k := key{blk.parent, blk.adapter, blk.salt, p.blockTokens(b)}
			if hash := p.hash(k); hash != blk.hash || p.find(k, hash) != b {
				return fmt.Errorf("kvcache: block %d is not found by its key", b)
			}
			if blk.parent != 0 && !ids[blk.parent] {
				return fmt.Errorf("kvcache: block %d outlives its parent", b)
			}
		}
	}
	if numIndexed != len(ids) {
		return fmt.Errorf("kvcache: %d of %d registered blocks are indexed", numIndexed, len(ids))
	}
	return nil
}
