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

func getAt(t Tensor, i int) float64 {
	p := t.Buf.ptr(t.Off + i*t.DType.Size())
	if t.DType == F32 {
		return float64(*(*float32)(p))
	}
	return float64(fromBF16(*(*uint16)(p)))
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

func (refBackend) pagedAttention(out, q Tensor, c KVCache, b AttentionBatch, numHeads int, scale float32) error {
	starts, lens := b.QueryStarts.ints(0), b.SeqLens.ints(0)
	row := make([]float32, q.Cols)
	for s := range b.NumSeqs {
		queries := int(starts[s+1] - starts[s])
		for i := range queries {
			t, numVisible := int(starts[s])+i, int(lens[s])-queries+i+1
			for h := range numHeads {
				head := row[h*c.HeadDim:][:c.HeadDim]
				attend(head, q.f32(t)[h*c.HeadDim:], c, b.BlockTables.ints(s), h/(numHeads/c.NumKVHeads), numVisible, scale)
			}
			storeRow(out, t, row)
		}
	}
	return nil
}

// attend computes one head of one query over the first numVisible positions.
func attend(out, q []float32, c KVCache, blocks []int32, kvHead, numVisible int, scale float32) {
	slot := func(p int) int { return int(blocks[p/c.BlockSize])*c.BlockSize + p%c.BlockSize }
	scores, most := make([]float64, numVisible), math.Inf(-1)
	for p := range scores {
		for i := range c.HeadDim {
			scores[p] += float64(q[i]) * getAt(c.K, c.kAt(slot(p), kvHead, i))
		}
		scores[p] *= float64(scale)
		most = max(most, scores[p])
	}
	sum, acc := 0.0, make([]float64, c.HeadDim)
	for p, score := range scores {
		w := math.Exp(score - most)
		sum += w
		for i := range acc {
			acc[i] += w * getAt(c.V, c.vAt(slot(p), kvHead, i))
		}
	}
	for i, a := range acc {
		out[i] = float32(a / sum)
	}
}
