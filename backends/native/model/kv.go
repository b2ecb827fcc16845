package model

import (
	"errors"
	"fmt"

	"pagoda/kernels"
)

// KV is the KV cache of all layers: numBlocks blocks, each of blockSize tokens.
type KV struct {
	layers               []kernels.KVCache
	numBlocks, blockSize int
	bytes                int64
}

// KVBytesPerBlock is the memory of one block over all layers.
func (m *Model) KVBytesPerBlock(blockSize int) int64 {
	return m.spec.KVBytesPerBlock(m.options, blockSize)
}

// NewKV allocates a cache.
func (m *Model) NewKV(numBlocks, blockSize int) (*KV, error) {
	if numBlocks < 1 || blockSize < 1 {
		return nil, fmt.Errorf("KV cache of %d blocks of %d tokens", numBlocks, blockSize)
	}
	kv := &KV{numBlocks: numBlocks, blockSize: blockSize, bytes: int64(numBlocks) * m.KVBytesPerBlock(blockSize)}
	for range m.spec.Layers {
		c, err := kernels.NewKVCache(m.dev, m.options.kvDType(), numBlocks, blockSize, m.spec.KVHeads, m.spec.HeadDim)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("KV cache of %d blocks: %w", numBlocks, err), kv.Close())
		}
		kv.layers = append(kv.layers, c)
	}
	return kv, nil
}

// NumBlocks is the number of blocks.
func (kv *KV) NumBlocks() int { return kv.numBlocks }

// BlockSize is the number of tokens of a block.
func (kv *KV) BlockSize() int { return kv.blockSize }

// DType is the type of the keys and values.
func (kv *KV) DType() kernels.DType { return kv.layers[0].K.DType }

// Bytes is the memory of the cache.
func (kv *KV) Bytes() int64 { return kv.bytes }

// Close frees the cache.
func (kv *KV) Close() error {
	var errs []error
	for _, c := range kv.layers {
		errs = append(errs, c.Close())
	}
	kv.layers = nil
	return errors.Join(errs...)
}
