package model

import (
	"cmp"
	"math"
)

// Rope is how positions turn queries and keys.
type Rope struct {
	Dim     int // elements of each head that are turned, the first ones
	Theta   float64
	Scaling string // "default" (none), "linear" or "llama3"

	Factor         float64 // linear and llama3: what positions, or low frequencies, are divided by
	LowFreqFactor  float64 // llama3: waves that fit less often into OriginalMaxLen are divided by Factor
	HighFreqFactor float64 // llama3: waves that fit more often stay
	OriginalMaxLen float64 // llama3: tokens that the model was first trained with
}

// rope reads a model's rope, for heads of headDim, and says what of it is wrong or not supported.
func (b *builder) rope(headDim int) (r Rope) {
	c, bad := b.c, b.bad
	p := cmp.Or(c.RopeParameters, c.RopeScaling)
	r = Rope{Dim: headDim, Theta: cmp.Or(c.RopeTheta, 10000), Scaling: p.Kind()}
	partial := c.PartialRotaryFactor
	if p != nil {
		r.Theta = cmp.Or(p.RopeTheta, r.Theta)
		r.Factor, r.LowFreqFactor, r.HighFreqFactor = p.Factor, p.LowFreqFactor, p.HighFreqFactor
		r.OriginalMaxLen = p.OriginalMaxPositions
		partial = cmp.Or(p.PartialRotaryFactor, partial)
	}
	if !(r.Theta >= 1 && r.Theta < 1e12) {
		bad("rope_theta %g is not between 1 and 1e12", r.Theta)
	}
	if partial != nil && *partial != 1 {
		bad("partial_rotary_factor %g is not supported", *partial)
	}
	switch r.Scaling {
	case "default":
		return r
	case "linear":
	case "llama3":
		if !(r.LowFreqFactor > 0 && r.LowFreqFactor < r.HighFreqFactor && r.HighFreqFactor < 1e6) {
			bad("rope scaling llama3: low_freq_factor %g and high_freq_factor %g must be positive and ascending",
				r.LowFreqFactor, r.HighFreqFactor)
		}
		if !(r.OriginalMaxLen >= 1 && r.OriginalMaxLen <= 1<<24) {
			bad("rope scaling llama3: original_max_position_embeddings %g is not between 1 and %d", r.OriginalMaxLen, 1<<24)
		}
	default:
		bad("rope scaling %q is not supported", r.Scaling)
		return r
	}
	if !(r.Factor >= 1 && r.Factor < 1e6) {
		bad("rope scaling %s: factor %g is not between 1 and 1e6", r.Scaling, r.Factor)
	}
	return r
}

// table is [maxLen, Dim]: in row p the cosines of p·f for each frequency f, then the sines. Angles are rounded to
// float32 before, as the reference library does: at position 40,000 the difference is visible.
func (r Rope) table(maxLen int) []float32 {
	dim, half := r.Dim, r.Dim/2
	table := make([]float32, maxLen*dim)
	for i := range half {
		frequency := r.frequency(i)
		for p := range maxLen {
			sin, cos := math.Sincos(float64(float32(p) * frequency))
			table[p*dim+i], table[p*dim+half+i] = float32(cos), float32(sin)
		}
	}
	return table
}

// frequency is θ^(-2i/Dim), scaled. In llama3 a wave stays as it is if it fits HighFreqFactor times or more into the
// original length, is Factor times as long if it fits LowFreqFactor times or less, and is blended between.
func (r Rope) frequency(i int) float32 {
	f := 1 / float32(math.Pow(r.Theta, float64(float32(2*i)/float32(r.Dim))))
	slow := f / float32(r.Factor)
	switch r.Scaling {
	case "linear":
		return slow
	case "llama3":
		fits := float32(r.OriginalMaxLen) * f / (2 * math.Pi)
		blend := (fits - float32(r.LowFreqFactor)) / float32(r.HighFreqFactor-r.LowFreqFactor)
		blend = min(1, max(0, blend))
		return (1-blend)*slow + blend*f
	}
	return f
}
