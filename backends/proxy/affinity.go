package proxy

import (
	"encoding/binary"
	"hash/maphash"

	"pagoda/engine"
)

const (
	affinityChunk = 512     // bytes of a prompt in a link of its chain; doubled after every chainStep links
	chainStep     = 16      //
	maxChain      = 128     // links; what two prompts share beyond does not matter any more
	maxAffinities = 1 << 16 // links remembered
)

// affinity remembers which upstream has seen the beginning of a prompt, so that it may have it in its prefix cache. It
// belongs to a pool, under whose lock it is used.
type affinity struct {
	seed maphash.Seed
	seen map[uint64]*replica
	ring []uint64 // the keys of seen, the oldest at next once it is full
	next int
}

func newAffinity() *affinity {
	return &affinity{seed: maphash.MakeSeed(), seen: map[uint64]*replica{}}
}

// chain hashes the prompt's text in pieces, each together with all before it; beginnings that are equal have equal links.
// model tells adapters apart, whose caches have nothing in common.
func (a *affinity) chain(req *engine.Request) []uint64 {
	c := chain{seed: a.seed}
	c.mix(req.Model)
	c.mix(req.CacheSalt)
	switch {
	case req.Chat != nil:
		for _, t := range req.Chat.Tools {
			c.write(string(t))
		}
		for i := range req.Chat.Messages {
			m := &req.Chat.Messages[i]
			c.write(m.Role)
			if m.Content != nil {
				c.write(*m.Content)
			}
			for _, p := range m.Parts {
				c.write(string(p))
			}
			if i == 1 || i == 0 { // short conversations have a link too: a system message, and the first turn
				c.link()
			}
		}
	case req.Text != nil:
		c.write(*req.Text)
	default:
		ids := make([]byte, 0, 4*len(req.Tokens))
		for _, t := range req.Tokens {
			ids = binary.LittleEndian.AppendUint32(ids, uint32(t))
		}
		c.write(string(ids))
	}
	return c.links
}

// chain is a list of hashes in the making.
type chain struct {
	seed  maphash.Seed
	sum   uint64 // of all pieces so far
	size  int    // bytes since the last link
	links []uint64
}

// mix adds a piece to the sum. A piece is hashed in one go, which is several times as fast as through a maphash.Hash.
func (c *chain) mix(piece string) {
	const odd = 0x9e3779b97f4a7c15 // makes the order count
	c.sum = (c.sum ^ maphash.String(c.seed, piece)) * odd
}

func (c *chain) write(s string) {
	for len(s) > 0 && len(c.links) < maxChain {
		chunk := affinityChunk << (len(c.links) / chainStep)
		n := min(len(s), max(0, chunk-c.size))
		c.mix(s[:n])
		if c.size += n; c.size >= chunk {
			c.link()
		}
		s = s[n:]
	}
}

func (c *chain) link() {
	if c.size = 0; len(c.links) < maxChain {
		c.links = append(c.links, c.sum)
	}
}

// find returns the upstream that has seen the longest beginning, and how much of the chain that is; nil if none has.
func (a *affinity) find(links []uint64) (*replica, int) {
	for i := len(links) - 1; i >= 0; i-- {
		if r := a.seen[links[i]]; r != nil {
			return r, i + 1
		}
	}
	return nil, 0
}

// note remembers that r sees the prompt now.
func (a *affinity) note(links []uint64, r *replica) {
	for _, l := range links {
		if _, ok := a.seen[l]; !ok {
			if len(a.ring) < maxAffinities {
				a.ring = append(a.ring, l)
			} else {
				delete(a.seen, a.ring[a.next])
				a.ring[a.next] = l
				a.next = (a.next + 1) % maxAffinities
			}
		}
		a.seen[l] = r
	}
}

// forget drops an upstream that is gone.
func (a *affinity) forget(r *replica) {
	for l, seen := range a.seen {
		if seen == r {
			a.seen[l] = nil // its place in the ring stays
		}
	}
}
