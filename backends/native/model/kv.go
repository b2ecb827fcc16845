package model

import (
	"errors"
	"fmt"

	"pagoda/kernels"
)

// KV is what layers keep of sequences: a cache of keys and values, numBlocks blocks, each of blockSize tokens, and where
// layers have them the states of numStates sequences.
type KV struct {
	layers               []kernels.KVCache  // without buffers where the layer has none
	states               [][]kernels.Tensor // by layer, F32 [numStates, elements]
	stateBuffers         []*kernels.Buffer
	dtype                kernels.DType
	numBlocks, blockSize int
	numStates            int
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

// AddStates allocates the states of n sequences, if the model keeps any. It must come before NewWorkspace.
func (m *Model) AddStates(kv *KV, n int) error {
	if m.spec.StateBytes() == 0 {
		return nil
	}
	if n < 1 || kv.numStates > 0 {
		return fmt.Errorf("states of %d sequences beside those of %d", n, kv.numStates)
	}
	kv.states = make([][]kernels.Tensor, len(m.spec.Layers))
	for i, l := range m.spec.Layers {
		for _, elements := range l.states() {
			b, err := m.dev.Alloc(n * elements * kernels.F32.Size())
			if err != nil {
				return fmt.Errorf("states of %d sequences: %w", n, err)
			}
			kv.stateBuffers = append(kv.stateBuffers, b)
			kv.states[i] = append(kv.states[i], kernels.NewTensor(b, 0, kernels.F32, n, elements))
		}
	}
	kv.numStates = n
	kv.bytes += int64(n) * m.spec.StateBytes()
	return nil
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
	for _, b := range kv.stateBuffers {
		errs = append(errs, b.Close())
	}
	kv.layers, kv.states, kv.stateBuffers = nil, nil, nil
	return errors.Join(errs...)
}
