// Package kvcache keeps account of the KV cache: which blocks are free, which sequence holds which, and which hold
// text that a later sequence may begin with. It never sees keys or values; a block is a number.
//
// A block is in exactly one of three states:
//
//	state    references  found by content  next
//	free     0           no                Grow takes it
//	used     1 or more   once registered   Release and Shrink free it, or Release leaves it cached if registered
//	cached   0           yes               Match takes it back; Grow evicts it when no block is free
//
// A full block whose tokens are computed is registered under the key (parent, tokens), where the parent is the identity
// of the registered block before it, or, for the first, the pair (adapter, salt). Identities are never reused and a hit
// compares the whole key, so that by induction a hit means: same adapter, same salt, same tokens from the first on. The
// hash only finds candidates, and is seeded per process so that no client can aim many keys at one bucket.
//
// A table always holds the whole chain before each of its registered blocks (Register swaps a duplicate for the block
// already registered), and is released tail first. So a block is never older in the eviction order than its children:
// least recently used first out drops a chain from its tail, and no child outlives its parent.
//
// Nothing here is safe for concurrent use; the scheduler owns it.
package kvcache
