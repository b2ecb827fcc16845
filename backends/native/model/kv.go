package model

import (
	"errors"
	"fmt"

	"pagoda/kernels"
)

// KV is the KV cache of all layers: numBlocks blocks, each of blockSize tokens.
type KV struct {
	layers               []kernels.KVCache // without buffers where the layer has none
	dtype                kernels.DType
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
	kv := &KV{dtype: m.options.kvDType(), numBlocks: numBlocks, blockSize: blockSize,
		bytes: int64(numBlocks) * m.KVBytesPerBlock(blockSize), layers: make([]kernels.KVCache, len(m.spec.Layers))}
	for i, l := range m.spec.Layers {
		d := l.Mixer.cache()
		if d.heads == 0 {
			continue
		}
		c, err := kernels.NewKVCache(m.dev, kv.dtype, numBlocks, blockSize, d.heads, d.keyDim, d.valueDim)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("KV cache of %d blocks: %w", numBlocks, err), kv.Close())
		}
		kv.layers[i] = c
	}
	return kv, nil
}

// NumBlocks is the number of blocks.
func (kv *KV) NumBlocks() int { return kv.numBlocks }

// BlockSize is the number of tokens of a block.
func (kv *KV) BlockSize() int { return kv.blockSize }

// DType is the type of the keys and values.
func (kv *KV) DType() kernels.DType { return kv.dtype }

// Bytes is the memory of the cache.
func (kv *KV) Bytes() int64 { return kv.bytes }

// Close frees the cache.
func (kv *KV) Close() error {
	var errs []error
	for _, c := range kv.layers {
		if c.K.Buf != nil {
			errs = append(errs, c.Close())
		}
	}
	kv.layers = nil
	return errors.Join(errs...)
}
