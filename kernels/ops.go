package kernels

// The ops. T is the number of tokens (rows); it may be 0. X tensors may be views (Stride > Cols).

// LoRARun is a run of rows that share an adapter: out[t] += Scale * (x[t]·Aᵀ)·Bᵀ for t in [Start, Start+Len).
type LoRARun struct {
	Start, Len int
	A, B       *Matrix // A [rank, in], B [out, rank]
	Scale      float32
}

// KVCache is one layer's keys and values: NumBlocks blocks of BlockSize slots, each slot NumKVHeads*HeadDim elements.
// Slot s is block s/BlockSize, place s%BlockSize. K and V are [NumBlocks*BlockSize, NumKVHeads*HeadDim] in logical
// terms; the layout inside a block is the device's own.
type KVCache struct {
	K, V                Tensor
	BlockSize           int
	NumKVHeads, HeadDim int
}

// AttentionBatch describes the sequences of a step. All are I32 tensors of one row but BlockTables.
//
//	QueryStarts [S+1]       rows QueryStarts[s] to QueryStarts[s+1] of q are sequence s's newest tokens, in order
//	SeqLens     [S]         tokens of sequence s in the cache, the new ones (already stored) included
//	BlockTables [S, B]      block ids of sequence s in order
type AttentionBatch struct {
	QueryStarts, SeqLens, BlockTables Tensor
	NumSeqs                           int
	MaxSeqLen                         int
}
