package kernels

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

// sumRow is like a model's logits, with what is forbidden, ties and the extremes among them.
func sumRow(rng *rand.Rand, n int) []float32 {
	row := make([]float32, n)
	spread := math.Exp(rng.Float64()*8 - 3)
	for i := range row {
		row[i] = float32(rng.NormFloat64() * spread)
		switch rng.IntN(40) {
		case 0:
			row[i] = float32(math.Inf(-1))
		case 1:
			row[i] = -math.MaxFloat32
		case 2:
			row[i] = row[rng.IntN(i+1)]
		}
	}
	return row
}

// TestBlockSums compares with sums written out here, over all lengths of the last block.
func TestBlockSums(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for i := range 300 {
			row := sumRow(r.Rand, r.IntN(3*SumBlock)+i%2*r.IntN(60000))
			if len(row) > SumBlock && i%3 == 0 { // a block in which all is forbidden
				for j := range SumBlock {
					row[j] = float32(math.Inf(-1))
				}
			}
			scale := math.Exp(r.Float64()*6 - 3)
			blocks := (len(row) + SumBlock - 1) / SumBlock
			most, sums, alone := make([]float32, blocks), make([]float64, blocks), make([]float32, blocks)
			r.ok(BlockSums(r.s, most, sums, row, scale))
			r.ok(BlockSums(r.s, alone, nil, row, 0))
			for b := range most {
				block := row[b*SumBlock : min((b+1)*SumBlock, len(row))]
				want, sum := float32(math.Inf(-1)), 0.0
				for _, x := range block {
					want = max(want, x)
				}
				for _, x := range block {
					if x > float32(math.Inf(-1)) {
						sum += math.Exp((float64(x) - float64(want)) * scale)
					}
				}
				if most[b] != want || alone[b] != want || !(math.Abs(sums[b]-sum) <= 1e-9*sum) {
					t := []any{b, len(row), most[b], alone[b], sums[b], want, sum}
					r.Fatalf("block %d of %d: max %v and %v, sum %v; want %v, %v", t...)
				}
			}
		}
	})
}

func TestBlockSumsFindsNaN(t *testing.T) {
	eachVariant(t, func(r *rig) {
		for range 200 {
			row := sumRow(r.Rand, 1+r.IntN(5*SumBlock))
			bad := r.IntN(len(row))
			row[bad] = float32(math.NaN())
			most := make([]float32, (len(row)+SumBlock-1)/SumBlock)
			r.ok(BlockSums(r.s, most, nil, row, 0))
			for b, m := range most {
				if isNaN := m != m; isNaN != (b == bad/SumBlock) {
					r.Fatalf("NaN at %d: the maximum of block %d is %v", bad, b, m)
				}
			}
		}
	})
}

// TestBlockSumsThreads: the number of threads changes no bit.
func TestBlockSumsThreads(t *testing.T) {
	eachThreads(t, func(rigs []*rig) {
		row := sumRow(rigs[0].Rand, 151936)
		var want []float64
		for _, r := range rigs {
			most, sums := make([]float32, 594), make([]float64, 594)
			r.ok(BlockSums(r.s, most, sums, row, 0.8))
			if want == nil {
				want = sums
			}
			for b := range sums {
				if sums[b] != want[b] {
					r.Fatalf("block %d: %v, with one thread %v", b, sums[b], want[b])
				}
			}
		}
	})
}

func TestBlockSumsRefuses(t *testing.T) {
	r := newRig(t, freshSeed(t), "ref", 1)
	row := make([]float32, SumBlock+1)
	for name, err := range map[string]error{
		"too few maxima": BlockSums(r.s, make([]float32, 1), nil, row, 1),
		"too few sums":   BlockSums(r.s, make([]float32, 2), make([]float64, 1), row, 1),
	} {
		if !errors.Is(err, ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, scale := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if err := BlockSums(r.s, make([]float32, 2), make([]float64, 2), row, scale); !errors.Is(err, ErrIndex) {
			t.Errorf("scale %v: %v", scale, err)
		}
	}
}

// BenchmarkBlockSums reads a row of 151,936 logits, of 64 in turn.
func BenchmarkBlockSums(b *testing.B) {
	dev, err := OpenCPU(CPUOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close() //nolint:errcheck // holds nothing
	s, rows := dev.NewStream(), make([][]float32, 64)
	for i := range rows {
		rows[i] = sumRow(rand.New(rand.NewPCG(1, uint64(i))), 151936)
	}
	for name, sums := range map[string][]float64{"max": nil, "sums": make([]float64, 594)} {
		b.Run(name, func(b *testing.B) {
			most := make([]float32, 594)
			b.SetBytes(4 * 151936)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := BlockSums(s, most, sums, rows[i%64], 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
