package kernels

import "math"

// kAt and vAt return the element's index in the cache.
func (c KVCache) kAt(slot, head, i int) int {
	block, place := slot/c.BlockSize, slot%c.BlockSize
	return ((block*c.NumKVHeads+head)*c.HeadDim+i)*c.BlockSize + place
}

func (c KVCache) vAt(slot, head, i int) int {
	block, place := slot/c.BlockSize, slot%c.BlockSize
	return ((block*c.NumKVHeads+head)*c.BlockSize+place)*c.HeadDim + i
}

func setAt(t Tensor, i int, f float32) {
	p := t.Buf.ptr(t.Off + i*t.DType.Size())
	if t.DType == F32 {
		*(*float32)(p) = f
	} else {
		*(*uint16)(p) = toBF16(f)
	}
}

func (refBackend) storeKV(c KVCache, k, v, slots Tensor) error {
	for t, slot := range slots.ints(0) {
		if slot < 0 {
			continue
		}
		for i := range k.Cols {
			head, e := i/c.HeadDim, i%c.HeadDim
			setAt(c.K, c.kAt(int(slot), head, e), k.f32(t)[i])
			setAt(c.V, c.vAt(int(slot), head, e), v.f32(t)[i])
		}
	}
	return nil
}

// load reads the first n positions of a sequence's head as [n, HeadDim] each.
func (c KVCache) load(blocks []int32, head, n int) (keys, values []float32) {
	keys, values = make([]float32, n*c.HeadDim), make([]float32, n*c.HeadDim)
	for p := range n {
		slot := int(blocks[p/c.BlockSize])*c.BlockSize + p%c.BlockSize
		for i := range c.HeadDim {
			keys[p*c.HeadDim+i] = getAt(c.K, c.kAt(slot, head, i))
			values[p*c.HeadDim+i] = getAt(c.V, c.vAt(slot, head, i))
		}
	}
	return keys, values
}

func getAt(t Tensor, i int) float32 {
	p := t.Buf.ptr(t.Off + i*t.DType.Size())
	if t.DType == F32 {
		return *(*float32)(p)
	}
	return fromBF16(*(*uint16)(p))
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
