package kernels

import "math"

// kAt and vAt return the element's index in the cache, scaleAt that of the scale of its head.
func (c KVCache) kAt(slot, head, i int) int {
	block, place := slot/c.BlockSize, slot%c.BlockSize
	return ((block*c.NumKVHeads+head)*c.HeadDim+i)*c.BlockSize + place
}

func (c KVCache) vAt(slot, head, i int) int {
	return c.scaleAt(slot, head)*c.HeadDim + i
}

func (c KVCache) scaleAt(slot, head int) int {
	block, place := slot/c.BlockSize, slot%c.BlockSize
	return (block*c.NumKVHeads+head)*c.BlockSize + place
}

func setAt(t Tensor, i int, f float32) {
	p := t.Buf.ptr(t.Off + i*t.DType.Size())
	switch t.DType {
	case F32:
		*(*float32)(p) = f
	case BF16:
		*(*uint16)(p) = toBF16(f)
	case FP8:
		*(*uint8)(p) = toFP8(f)
	case I8:
		*(*int8)(p) = int8(max(-127, min(127, math.RoundToEven(float64(f)))))
	}
}

func getAt(t Tensor, i int) float32 {
	p := t.Buf.ptr(t.Off + i*t.DType.Size())
	switch t.DType {
	case F32:
		return *(*float32)(p)
	case BF16:
		return fromBF16(*(*uint16)(p))
	case FP8:
		return fromFP8(*(*uint8)(p))
	}
	return float32(*(*int8)(p))
}

// scaleI8 is what a head's elements are divided by: NaN if one is not finite, 0 if all are too small to be divided.
func scaleI8(x []float32) float32 {
	var most float32
	for _, f := range x {
		most = max(most, float32(math.Abs(float64(f)))) // NaN if one is
	}
	if math.IsInf(float64(most), 0) {
		return float32(math.NaN())
	}
	return most / 127
}

func (refBackend) storeKV(c KVCache, k, v, slots Tensor) error {
	for t, slot := range slots.ints(0) {
		if slot < 0 {
			continue
		}
		for head := range c.NumKVHeads {
			c.storeHead(c.K, c.KScales, k.f32(t)[head*c.HeadDim:][:c.HeadDim], int(slot), head, c.kAt)
			c.storeHead(c.V, c.VScales, v.f32(t)[head*c.HeadDim:][:c.HeadDim], int(slot), head, c.vAt)
		}
	}
	return nil
}

func (c KVCache) storeHead(to, scales Tensor, x []float32, slot, head int, at func(slot, head, i int) int) {
	scale := float32(1)
	if to.DType == I8 {
		scale = scaleI8(x)
		setAt(scales, c.scaleAt(slot, head), scale)
	}
	for i, f := range x {
		if scale > 0 {
			setAt(to, at(slot, head, i), f/scale)
		} else {
			setAt(to, at(slot, head, i), 0)
		}
	}
}

// load reads the first n positions of a sequence's head as [n, HeadDim] each.
func (c KVCache) load(blocks []int32, head, n int) (keys, values []float32) {
	keys, values = make([]float32, n*c.HeadDim), make([]float32, n*c.HeadDim)
	for p := range n {
		slot := int(blocks[p/c.BlockSize])*c.BlockSize + p%c.BlockSize
		kScale, vScale := float32(1), float32(1)
		if c.K.DType == I8 {
			kScale, vScale = getAt(c.KScales, c.scaleAt(slot, head)), getAt(c.VScales, c.scaleAt(slot, head))
		}
		for i := range c.HeadDim {
			keys[p*c.HeadDim+i] = kScale * getAt(c.K, c.kAt(slot, head, i))
			values[p*c.HeadDim+i] = vScale * getAt(c.V, c.vAt(slot, head, i))
		}
	}
	return keys, values
}

func (refBackend) pagedAttention(out, q Tensor, c KVCache, b AttentionBatch, numHeads int, scale float32) error {
	starts, lens, group := b.QueryStarts.ints(0), b.SeqLens.ints(0), numHeads/c.NumKVHeads
	for s := range b.NumSeqs {
		first, queries := int(starts[s]), int(starts[s+1]-starts[s])
		rows := make([]float32, queries*q.Cols)
		for kvHead := range c.NumKVHeads {
			keys, values := c.load(b.BlockTables.ints(s), kvHead, int(lens[s]))
			for i := range queries {
				visible := (int(lens[s]) - queries + i + 1) * c.HeadDim
				for h := kvHead * group; h < (kvHead+1)*group; h++ {
					head := h * c.HeadDim
					attend(rows[i*q.Cols+head:][:c.HeadDim], q.f32(first + i)[head:], keys[:visible], values[:visible], scale)
				}
			}
		}
		for i := range queries {
			storeRow(out, first+i, rows[i*q.Cols:][:q.Cols])
		}
	}
	return nil
}

// attend computes one head of one query over the positions it sees.
func attend(out, q, keys, values []float32, scale float32) {
	d := len(out)
	scores, most := make([]float64, len(keys)/d), math.Inf(-1)
	for p := range scores {
		scores[p] = dot(q[:d], keys[p*d:][:d]) * float64(scale)
		most = max(most, scores[p])
	}
	sum, acc := 0.0, make([]float64, d)
	for p, score := range scores {
		w := math.Exp(score - most)
		sum += w
		for i, v := range values[p*d:][:d] {
			acc[i] += w * float64(v)
		}
	}
	for i, a := range acc {
		out[i] = float32(a / sum)
	}
}
