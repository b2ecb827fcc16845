package kvcache

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// key is what a registered block is found by.
type key struct {
	parent  identity
	adapter uint64
	salt    string
	tokens  []int32 // block_size of them
}

func (p *Pool) hash(k key) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	var buf [128]byte
	b := binary.LittleEndian.AppendUint64(buf[:0], uint64(k.parent))
	if k.parent == 0 { // an identity stands for adapter and salt as well
		b = binary.LittleEndian.AppendUint64(b, k.adapter)
		h.WriteString(k.salt)
	}
	for _, t := range k.tokens {
		if len(b) == cap(b) {
			h.Write(b)
			b = b[:0]
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(t))
	}
	h.Write(b)
	return h.Sum64()
}

// find returns the block registered under k, or none.
func (p *Pool) find(k key, hash uint64) int32 {
	b := p.heads[hash&uint64(len(p.heads)-1)]
	for b != none && !p.matches(b, k, hash) {
		b = p.blocks[b].chain
	}
	return b
}

func (p *Pool) matches(b int32, k key, hash uint64) bool {
	blk := &p.blocks[b]
	return blk.hash == hash && blk.parent == k.parent && blk.adapter == k.adapter && blk.salt == k.salt &&
		slices.Equal(p.blockTokens(b), k.tokens)
}

func (p *Pool) blockTokens(b int32) []int32 {
	return p.tokens[int(b)*p.blockSize:][:p.blockSize]
}

// register makes the block findable under k.
func (p *Pool) register(b int32, k key, hash uint64) {
	p.lastID++
	head := &p.heads[hash&uint64(len(p.heads)-1)]
	blk := &p.blocks[b]
	blk.id, blk.hash, blk.chain = p.lastID, hash, *head
	blk.parent, blk.adapter, blk.salt = k.parent, k.adapter, k.salt
	copy(p.blockTokens(b), k.tokens)
	*head = b
}

func (p *Pool) unregister(b int32) {
	blk := &p.blocks[b]
	at := &p.heads[blk.hash&uint64(len(p.heads)-1)]
	for *at != b {
		at = &p.blocks[*at].chain
	}
	*at = blk.chain
	blk.id, blk.salt = 0, ""
}
