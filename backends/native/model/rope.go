package model

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"pagoda/checkpoint"
)

// Rope is how positions turn queries and keys: the pair i of a head's first Dim elements by position · frequency(i).
type Rope struct {
	Dim         int
	Interleaved bool // a pair lies side by side, not half of Dim apart
	Theta       float64
	Scaling     string // of the frequencies Theta^(-2i/Dim); "default" for none

	Factor         float64 // what positions, or low frequencies, are divided by; of dynamic, how the base grows
	OriginalMaxLen float64 // tokens that the model was first trained with; of dynamic, those up to which nothing changes
	Amplitude      float64 // what cosines and sines are multiplied by: YaRN and LongRoPE make attention sharper so; 0 is 1

	LowFreqFactor  float64 // llama3: waves that fit less often into OriginalMaxLen are divided by Factor
	HighFreqFactor float64 // llama3: waves that fit more often stay

	BetaFast, BetaSlow float64 // yarn: waves that fit this often into OriginalMaxLen stay, or are divided by Factor
	Fractional         bool    // yarn: the pairs between which frequencies are blended are not rounded to whole ones

	Short, Long []float64 // longrope: divisors of each frequency for up to OriginalMaxLen tokens, and for more
}

// maxLen bounds all lengths, so that float32 has every position.
const maxLen = 1 << 24

// ropeScalings are the kinds of scaling, by what they take from a configuration beyond the keys of all.
var ropeScalings = map[string]func(*builder, *Rope, *checkpoint.RopeParameters){
	"default":  func(*builder, *Rope, *checkpoint.RopeParameters) {},
	"linear":   func(b *builder, r *Rope, _ *checkpoint.RopeParameters) { b.ropeFactor(r) },
	"dynamic":  dynamicRope,
	"llama3":   llama3Rope,
	"yarn":     yarnRope,
	"longrope": longRope,
}

// rope reads a model's rope, for heads of headDim. Theta is what it is where the configuration does not say.
func (b *builder) rope(headDim int, theta float64) Rope {
	p := cmp.Or(b.c.RopeParameters, b.c.RopeScaling)
	if p != nil && (p.FullAttention != nil || p.SlidingAttention != nil) {
		b.bad("rope_parameters of kinds of layers are not supported")
	}
	return b.ropeOf(p, headDim, cmp.Or(b.c.RopeTheta, theta))
}

// ropeOf is rope with parameters that need not be the configuration's only ones.
func (b *builder) ropeOf(p *checkpoint.RopeParameters, headDim int, theta float64) (r Rope) {
	c := b.c
	if p == nil {
		p = &checkpoint.RopeParameters{}
	}
	r = Rope{Theta: cmp.Or(p.RopeTheta, theta), Scaling: p.Kind()}
	if !(r.Theta >= 1 && r.Theta < 1e12) {
		b.bad("rope_theta %g is not between 1 and 1e12", r.Theta)
	}
	r.Dim = int(float64(headDim) * or(cmp.Or(p.PartialRotaryFactor, c.PartialRotaryFactor), 1))
	switch {
	case headDim < 1: // reported as such
	case r.Dim < 1 || r.Dim > headDim:
		b.bad("partial_rotary_factor: %d of the %d elements of a head would be turned", r.Dim, headDim)
	case r.Dim%2 != 0:
		b.bad("head_dim %d: the %d elements that are turned are no pairs: odd", headDim, r.Dim)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Unknown)) {
		if key != "finetuned" { // a remark
			b.bad("rope scaling: key %q is not supported", key)
		}
	}
	read, ok := ropeScalings[r.Scaling]
	if !ok {
		b.bad("rope scaling %q is none of %v", r.Scaling, slices.Sorted(maps.Keys(ropeScalings)))
		return r
	}
	if r.Scaling != "default" {
		r.Factor = p.Factor
	}
	read(b, &r, p)
	return r
}

func (b *builder) ropeFactor(r *Rope) {
	if !(r.Factor >= 1 && r.Factor < 1e6) {
		b.bad("rope scaling %s: factor %g is not between 1 and 1e6", r.Scaling, r.Factor)
	}
}

// originalMaxLen reads the length that a model was first trained with; without one it is the model's own.
func (b *builder) originalMaxLen(r *Rope, p *checkpoint.RopeParameters) {
	r.OriginalMaxLen = cmp.Or(b.c.OriginalMaxPositions, p.OriginalMaxPositions, float64(b.MaxLen))
	if !(r.OriginalMaxLen >= 1 && r.OriginalMaxLen <= maxLen) {
		b.bad("rope scaling %s: original_max_position_embeddings %g is not between 1 and %d", r.Scaling, r.OriginalMaxLen, maxLen)
	}
}

func dynamicRope(b *builder, r *Rope, _ *checkpoint.RopeParameters) {
	r.OriginalMaxLen = float64(b.MaxLen)
	b.ropeFactor(r)
	b.LongestLen = int(min(r.Factor*float64(b.MaxLen), maxLen))
	if r.Dim <= 2 {
		b.bad("rope scaling dynamic: heads of which %d elements are turned", r.Dim)
	}
}

func llama3Rope(b *builder, r *Rope, p *checkpoint.RopeParameters) {
	b.ropeFactor(r)
	b.originalMaxLen(r, p)
	r.LowFreqFactor, r.HighFreqFactor = p.LowFreqFactor, p.HighFreqFactor
	if !(r.LowFreqFactor > 0 && r.LowFreqFactor < r.HighFreqFactor && r.HighFreqFactor < 1e6) {
		b.bad("rope scaling llama3: low_freq_factor %g and high_freq_factor %g must be positive and ascending",
			r.LowFreqFactor, r.HighFreqFactor)
	}
}

func yarnRope(b *builder, r *Rope, p *checkpoint.RopeParameters) {
	b.originalMaxLen(r, p)
	r.Factor = cmp.Or(r.Factor, float64(b.MaxLen)/r.OriginalMaxLen)
	b.ropeFactor(r)
	r.BetaFast, r.BetaSlow = cmp.Or(p.BetaFast, 32), cmp.Or(p.BetaSlow, 1)
	if !(r.BetaSlow > 0 && r.BetaSlow < r.BetaFast && r.BetaFast < 1e6) {
		b.bad("rope scaling yarn: beta_slow %g and beta_fast %g must be positive and ascending", r.BetaSlow, r.BetaFast)
	}
	r.Fractional = !or(p.Truncate, true)
	switch {
	case p.AttentionFactor != nil:
		r.Amplitude = *p.AttentionFactor
	case p.MScale != 0 && p.MScaleAllDim != 0:
		r.Amplitude = yarnScale(r.Factor, p.MScale) / yarnScale(r.Factor, p.MScaleAllDim)
	default:
		r.Amplitude = yarnScale(r.Factor, 1)
	}
	b.amplitude(r)
}

// yarnScale is how much sharper YaRN makes attention for a context that is longer by factor.
func yarnScale(factor, weight float64) float64 {
	if factor <= 1 {
		return 1
	}
	return 0.1*weight*math.Log(factor) + 1
}

func longRope(b *builder, r *Rope, p *checkpoint.RopeParameters) {
	b.originalMaxLen(r, p)
	r.Factor, b.SwitchLen = cmp.Or(r.Factor, float64(b.MaxLen)/r.OriginalMaxLen), int(r.OriginalMaxLen)
	r.Short, r.Long = p.ShortFactor, p.LongFactor
	for _, divisors := range [][]float64{r.Short, r.Long} {
		if len(divisors) != r.Dim/2 || slices.ContainsFunc(divisors, func(d float64) bool { return !(d > 0 && d < 1e6) }) {
			b.bad("rope scaling longrope: short_factor and long_factor must be %d positive numbers each", r.Dim/2)
		}
	}
	switch {
	case p.AttentionFactor != nil:
		r.Amplitude = *p.AttentionFactor
	case r.Factor <= 1:
		r.Amplitude = 1
	default:
		r.Amplitude = math.Sqrt(1 + math.Log(r.Factor)/math.Log(r.OriginalMaxLen))
	}
	b.amplitude(r)
}

func (b *builder) amplitude(r *Rope) {
	if !(r.Amplitude > 0 && r.Amplitude < 1e3) {
		b.bad("rope scaling %s: attention_factor %g is not between 0 and 1000", r.Scaling, r.Amplitude)
	}
}

// ScaleRope lets the model take twice the tokens that it was first trained with, by a kind of scaling that comes in place of
// its own: linear, dynamic, yarn or llama3, with factor 2 and otherwise usual numbers. The model then is the one that
// LlamaFactory's option of this name trains and serves. Of a model whose layers have different tables it scales the one
// of the layers that see everything.
func (s *Spec) ScaleRope(kind string) error {
	if len(s.Ropes) == 0 {
		return errors.New("the model has no rotary positions")
	}
	r := &s.Ropes[0]
	length := cmp.Or(r.OriginalMaxLen, float64(s.MaxLen))
	*r = Rope{Dim: r.Dim, Interleaved: r.Interleaved, Theta: r.Theta, Scaling: kind, Factor: 2, OriginalMaxLen: length}
	switch kind {
	case "linear", "dynamic":
	case "llama3":
		r.LowFreqFactor, r.HighFreqFactor = 1, 4
	case "yarn":
		r.BetaFast, r.BetaSlow, r.Amplitude = 32, 1, yarnScale(r.Factor, 1)
	default:
		return fmt.Errorf("%q is none of linear, dynamic, yarn, llama3", kind)
	}
	s.MaxLen = int(min(r.Factor*length, maxLen))
	s.LongestLen, s.SwitchLen = s.MaxLen, 0
	return nil
}

// switchLen is SwitchLen where sequences may have up to length tokens.
func (s *Spec) switchLen(length int) int {
	if length <= s.SwitchLen {
		return 0
	}
	return s.SwitchLen
}

// ropeRows is how many rows the rotary tables have where sequences may have up to length tokens: first those of sequences
// of up to switchLen, then those of longer ones.
func (s *Spec) ropeRows(length int) int { return s.switchLen(length) + length }

// Table is [length, Dim]: in row p the cosines of p·f for each frequency f, then the sines. Angles are rounded to
// float32 before, as the reference library does: at position 40,000 the difference is visible. Where frequencies depend on
// a sequence's length, length stands for it.
func (r Rope) Table(length int) []float32 {
	dim, half, amplitude := r.Dim, r.Dim/2, cmp.Or(float32(r.Amplitude), 1)
	table := make([]float32, length*dim)
	for i := range half {
		frequency := r.frequency(i, length)
		for p := range length {
			sin, cos := math.Sincos(float64(float32(p) * frequency))
			table[p*dim+i], table[p*dim+half+i] = float32(cos)*amplitude, float32(sin)*amplitude
		}
	}
	return table
}

// frequency is θ^(-2i/Dim), scaled for sequences of up to length tokens.
//
// Sources: linear: Chen et al. 2023, arXiv:2306.15595; yarn: Peng et al. 2023, arXiv:2309.00071, which has dynamic too;
// longrope: Ding et al. 2024, arXiv:2402.13753; llama3: the reference code of Llama 3.1.
func (r Rope) frequency(i, length int) float32 {
	theta, exponent := r.Theta, float64(float32(2*i)/float32(r.Dim))
	if r.Scaling == "dynamic" && float64(length) > r.OriginalMaxLen {
		theta *= math.Pow(r.Factor*float64(length)/r.OriginalMaxLen-(r.Factor-1), float64(r.Dim)/float64(r.Dim-2))
	}
	period := float32(math.Pow(theta, exponent))
	f := 1 / period
	slow := f / float32(r.Factor)
	switch r.Scaling {
	case "linear":
		return slow
	case "llama3": // a wave that fits between the two factors often is blended
		fits := float32(r.OriginalMaxLen) * f / (2 * math.Pi)
		blend := (fits - float32(r.LowFreqFactor)) / float32(r.HighFreqFactor-r.LowFreqFactor)
		blend = min(1, max(0, blend))
		return (1-blend)*slow + blend*f
	case "yarn":
		slowness := r.slowness(i)
		return slow*slowness + f*(1-slowness)
	case "longrope":
		divisors := r.Short
		if float64(length) > r.OriginalMaxLen {
			divisors = r.Long
		}
		return 1 / (float32(divisors[i]) * period)
	}
	return f
}

// slowness is the part of YaRN's slow frequency in pair i's: a ramp from 0 to 1, from the pair whose wave fits BetaFast
// times into OriginalMaxLen to the one whose wave fits BetaSlow times.
func (r Rope) slowness(i int) float32 {
	pair := func(fits float64) float64 {
		return float64(r.Dim) * math.Log(r.OriginalMaxLen/(fits*2*math.Pi)) / (2 * math.Log(r.Theta))
	}
	from, to := pair(r.BetaFast), pair(r.BetaSlow)
	if !r.Fractional {
		from, to = math.Floor(from), math.Ceil(to)
	}
	from, to = max(from, 0), min(to, float64(r.Dim-1))
	if from == to {
		to += 0.001
	}
	return float32(min(1, max(0, (float64(i)-from)/(to-from))))
}
