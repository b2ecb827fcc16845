package sample

import "math"

// expSteps is the number of table entries per doubling, and expUnit how many of them are one in the exponent of e.
const (
	expSteps = 256
	expUnit  = expSteps / math.Ln2
)

// expTable[i] holds the bits of 2^(i/expSteps).
var expTable = func() (t [expSteps]uint64) {
	for i := range t {
		t[i] = math.Float64bits(math.Exp2(float64(i) / expSteps))
	}
	return t
}()

// exp is e^(y/expUnit) for y <= 0 with a relative error below 1e-9, and 0 below e^-700. A vocabulary takes a hundred
// thousand of them per token; this is a fraction of math.Exp, and small enough to be inlined.
func exp(y float64) float64 {
	if y < -700*expUnit {
		return 0
	}
	// y = n + r with n whole and |r| <= 1/2: adding the number whose unit in the last place is 1 rounds, and leaves n
	// in the low bits. n's low bits choose the table entry, the others go into the exponent. The series' next term is
	// (r/expUnit)^3/6 < 5e-10.
	const round = 3 << 51
	t := y + round
	n := math.Float64bits(t)
	r := (y - (t - round)) * (1 / expUnit)
	return math.Float64frombits(expTable[n%expSteps]+n/expSteps<<52) * (1 + r*(1+r*0.5))
}

// sumExp is the sum of e^((v-best)*scale) over all logits v. No logit is above best.
func sumExp(logits []float32, best float32, scale float64) float64 {
	b := float64(best)
	scale *= expUnit
	sum := 0.0
	for _, v := range logits {
		sum += exp((float64(v) - b) * scale)
	}
	return sum
}
