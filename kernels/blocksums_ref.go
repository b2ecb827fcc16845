package kernels

import (
	"math"
	"slices"
)

func (refBackend) blockSums(max []float32, sum []float64, row []float32, scale float64) error {
	b := 0
	for block := range slices.Chunk(row, SumBlock) {
		max[b] = slices.Max(block) // NaN if any is
		if len(sum) > 0 {
			sum[b] = 0
			for _, x := range block {
				if e := math.Exp((float64(x) - float64(max[b])) * scale); x > float32(math.Inf(-1)) {
					sum[b] += e
				}
			}
		}
		b++
	}
	return nil
}
