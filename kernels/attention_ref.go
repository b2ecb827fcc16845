package kernels

import "math"

// kAt and vAt return the element's index in the cache, scaleAt that of the scale of its head.
func (c KVCache) kAt(slot, head, i int) int {
	block, place := slot/c.BlockSize, slot%c.BlockSize
	return ((block*c.NumKVHeads+head)*c.HeadDim+i)*c.BlockSize + place
}

func (c KVCache) vAt(slot, head, i int) int {
	return c.scaleAt(slot, head)*c.ValueDim + i
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
			c.storeHead(c.V, c.VScales, v.f32(t)[head*c.ValueDim:][:c.ValueDim], int(slot), head, c.vAt)
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

// load reads the first n positions of a sequence's head as [n, HeadDim] and [n, ValueDim].
func (c KVCache) load(blocks []int32, head, n int) (keys, values []float32) {
	keys, values = make([]float32, n*c.HeadDim), make([]float32, n*c.ValueDim)
	for p := range n {
		slot := int(blocks[p/c.BlockSize])*c.BlockSize + p%c.BlockSize
		kScale, vScale := float32(1), float32(1)
		if c.K.DType == I8 {
			kScale, vScale = getAt(c.KScales, c.scaleAt(slot, head)), getAt(c.VScales, c.scaleAt(slot, head))
		}
		for i := range c.HeadDim {
			keys[p*c.HeadDim+i] = kScale * getAt(c.K, c.kAt(slot, head, i))
		}
		for i := range c.ValueDim {
			values[p*c.ValueDim+i] = vScale * getAt(c.V, c.vAt(slot, head, i))
		}
	}
	return keys, values
}

func (refBackend) pagedAttention(out, q Tensor, c KVCache, b AttentionBatch, numHeads int, o AttentionOptions) error {
	starts, lens, group := b.QueryStarts.ints(0), b.SeqLens.ints(0), numHeads/c.NumKVHeads
	for s := range b.NumSeqs {
		first, queries, length := int(starts[s]), int(starts[s+1]-starts[s]), int(lens[s])
		rows := make([]float32, queries*out.Cols)
		for kvHead := range c.NumKVHeads {
			keys, values := c.load(b.BlockTables.ints(s), kvHead, length)
			for i := range queries {
				own := length - queries + i
				from, to := 0, own+1
				if o.Bidirectional {
					to = length
				}
				if o.Window > 0 {
					from, to = max(0, own+1-o.Window), min(to, own+o.Window)
				}
				for h := kvHead * group; h < (kvHead+1)*group; h++ {
					scores := make([]float64, to-from)
					for p := range scores {
						scores[p] = dot(q.f32(first + i)[h*c.HeadDim:][:c.HeadDim], keys[(from+p)*c.HeadDim:][:c.HeadDim])
					}
					attend(rows[i*out.Cols+h*c.ValueDim:][:c.ValueDim], scores, values[from*c.ValueDim:], o.weigh(scores, h, from-own))
				}
			}
		}
		for i := range queries {
			storeRow(out, first+i, rows[i*out.Cols:][:out.Cols])
		}
	}
	return nil
}

// weigh turns the products of a query of head h with keys, the first of them `away` positions after its own, into weights and
// returns their sum, the sink's with it.
func (o AttentionOptions) weigh(scores []float64, h, away int) (sum float64) {
	most := math.Inf(-1)
	if o.Sinks.Rows > 0 {
		most = float64(o.Sinks.f32(0)[h])
	}
	for p := range scores {
		scores[p] *= float64(o.Scale)
		if o.Softcap > 0 {
			scores[p] = float64(o.Softcap) * math.Tanh(scores[p]/float64(o.Softcap))
		}
		if o.Bias.Rows > 0 {
			scores[p] += float64(o.Bias.f32(h)[o.Bias.Cols/2+away+p])
		}
		most = max(most, scores[p])
	}
	if o.Sinks.Rows > 0 {
		sum = math.Exp(float64(o.Sinks.f32(0)[h]) - most)
	}
	for p := range scores {
		scores[p] = math.Exp(scores[p] - most)
		sum += scores[p]
	}
	return sum
}

// attend is the mean of the values by their weights.
func attend(out []float32, weights []float64, values []float32, sum float64) {
	acc := make([]float64, len(out))
	for p, w := range weights {
		for i, v := range values[p*len(out):][:len(out)] {
			acc[i] += w * float64(v)
		}
	}
	for i, a := range acc {
		out[i] = float32(a / sum)
	}
}
