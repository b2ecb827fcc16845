package kernels

import (
	"errors"
	"fmt"
)

// KVCache is one layer's keys and values: NumBlocks blocks of BlockSize slots. Slot s is block s/BlockSize, place s%BlockSize.
// K is [NumBlocks*BlockSize, NumKVHeads*HeadDim] in logical terms and V [.., NumKVHeads*ValueDim]; the layout inside a block
// is the device's own. On the CPU, with the lanes of the vectors running fastest:
//
//	K block            [num_kv_heads][head_dim][block_size]
//	V block            [num_kv_heads][block_size][value_dim]
//	scales of a block  [num_kv_heads][block_size]
//
// FP8 is e4m3fn without a scale: what is beyond 448 becomes 448, NaN stays NaN. I8 has a scale per token and head, the
// largest magnitude of its elements divided by 127, and keeps each element divided by it, rounded to nearest even; if
// an element is not finite the scale is NaN. So what is stored of a token depends on that token only.
type KVCache struct {
	K, V              Tensor
	KScales, VScales  Tensor // of I8 only: F32 [NumBlocks*BlockSize, NumKVHeads], in the buffers of K and V
	BlockSize         int
	NumKVHeads        int
	HeadDim, ValueDim int // elements of a key and of a value
}

// KVCacheBytes is the memory of a cache of NewKVCache.
func KVCacheBytes(dt DType, numBlocks, blockSize, numKVHeads, headDim, valueDim int) int64 {
	vectors := int64(numBlocks) * int64(blockSize) * int64(numKVHeads)
	return vectors * int64((headDim+valueDim)*dt.Size()+2*scaleBytes(dt))
}

// scaleBytes is the memory of the scale of a token's head.
func scaleBytes(dt DType) int {
	if dt == I8 {
		return F32.Size()
	}
	return 0
}

// NewKVCache allocates one layer's cache, of F32, BF16, FP8 or I8.
func NewKVCache(d *Device, dt DType, numBlocks, blockSize, numKVHeads, headDim, valueDim int) (KVCache, error) {
	if kvDTypes>>dt&1 == 0 {
		return KVCache{}, fmt.Errorf("kv cache of %v: %w", dt, ErrDType)
	}
	if numBlocks < 1 || blockSize < 1 || blockSize > maxBlockSize || numKVHeads < 1 ||
		headDim < 1 || headDim > maxHeadDim || valueDim < 1 || valueDim > maxHeadDim {
		return KVCache{}, fmt.Errorf("kv cache of %d blocks of %d slots, %d heads of %d and %d: %w",
			numBlocks, blockSize, numKVHeads, headDim, valueDim, ErrShape)
	}
	rows := numBlocks * blockSize
	scales := rows * numKVHeads * scaleBytes(dt) // they come first
	k, err := d.Alloc(scales + rows*numKVHeads*headDim*dt.Size())
	if err != nil {
		return KVCache{}, fmt.Errorf("kv cache: %w", err)
	}
	v, err := d.Alloc(scales + rows*numKVHeads*valueDim*dt.Size())
	if err != nil {
		return KVCache{}, errors.Join(fmt.Errorf("kv cache: %w", err), k.Close())
	}
	c := KVCache{
		K: NewTensor(k, scales, dt, rows, numKVHeads*headDim), V: NewTensor(v, scales, dt, rows, numKVHeads*valueDim),
		BlockSize: blockSize, NumKVHeads: numKVHeads, HeadDim: headDim, ValueDim: valueDim,
	}
	if dt == I8 {
		c.KScales, c.VScales = NewTensor(k, 0, F32, rows, numKVHeads), NewTensor(v, 0, F32, rows, numKVHeads)
	}
	return c, nil
}

// Bounds that keep the scratch memory of the kernels small.
const (
	maxHeadDim   = 1024
	maxBlockSize = 1024
)

// Close frees the cache. A second Close does nothing.
func (c KVCache) Close() error { return errors.Join(c.K.Buf.Close(), c.V.Buf.Close()) }

func (c KVCache) check() error {
	if c.BlockSize < 1 || c.BlockSize > maxBlockSize || c.NumKVHeads < 1 ||
		c.HeadDim < 1 || c.HeadDim > maxHeadDim || c.ValueDim < 1 || c.ValueDim > maxHeadDim {
		return fmt.Errorf("cache has blocks of %d, %d heads of %d and %d: %w", c.BlockSize, c.NumKVHeads, c.HeadDim, c.ValueDim, ErrShape)
	}
	if err := c.K.check("cache.K", kvDTypes, -1, c.NumKVHeads*c.HeadDim); err != nil {
		return err
	}
	if err := c.V.check("cache.V", kvDTypes, c.K.Rows, c.NumKVHeads*c.ValueDim); err != nil {
		return err
	}
	if c.K.DType != c.V.DType {
		return fmt.Errorf("cache.K is %v, cache.V is %v: %w", c.K.DType, c.V.DType, ErrDType)
	}
	if c.K.Rows%c.BlockSize != 0 || c.K.Stride != c.K.Cols || c.V.Stride != c.V.Cols {
		return fmt.Errorf("cache of %d slots in blocks of %d, strides %d and %d: %w",
			c.K.Rows, c.BlockSize, c.K.Stride, c.V.Stride, ErrShape)
	}
	if c.K.DType != I8 {
		return nil
	}
	for _, t := range []Tensor{c.KScales, c.VScales} {
		if err := t.check("cache scales", onlyF32, c.K.Rows, c.NumKVHeads); err != nil {
			return err
		}
		if t.Stride != c.NumKVHeads {
			return fmt.Errorf("cache scales have stride %d, want %d: %w", t.Stride, c.NumKVHeads, ErrShape)
		}
	}
	return nil
}

// StoreKV writes each token's keys and values to its slot.
//
//	k      F32 [num_tokens, num_kv_heads*head_dim], rounded to the cache's dtype as KVCache says
//	v      F32 [num_tokens, num_kv_heads*value_dim], likewise
//	slots  I32 [1, num_tokens], in [0, cache slots), or -1 to skip the token; no slot twice
func StoreKV(s *Stream, c KVCache, k, v, slots Tensor) error {
	if err := checkStoreKV(c, k, v, slots); err != nil {
		return fmt.Errorf("store kv: %w", err)
	}
	if k.Rows == 0 {
		return nil
	}
	impl, err := s.begin("store kv")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.storeKV(c, k, v, slots)
}

func checkStoreKV(c KVCache, k, v, slots Tensor) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := k.check("k", onlyF32, -1, c.NumKVHeads*c.HeadDim); err != nil {
		return err
	}
	if err := v.check("v", onlyF32, k.Rows, c.NumKVHeads*c.ValueDim); err != nil {
		return err
	}
	if err := slots.check("slots", onlyI32, 1, k.Rows); err != nil {
		return err
	}
	return slots.checkInts("slots", -1, c.K.Rows)
}
