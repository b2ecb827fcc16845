package bench

import (
	"math"
	"slices"
	"time"
)

// Rate is a figure measured several times.
type Rate struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
	// Samples is how many there were.
	Samples int `json:"samples"`
}

// NewRate sums up samples; none is a zero Rate.
func NewRate(samples []float64) Rate {
	s := slices.Sorted(slices.Values(samples))
	if len(s) == 0 {
		return Rate{}
	}
	return Rate{s[0], quantile(s, 0.5), s[len(s)-1], len(s)}
}

// Spread is the distribution of times, in milliseconds.
type Spread struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

func newSpread(times []time.Duration) Spread {
	ms := make([]float64, len(times))
	for i, t := range times {
		ms[i] = float64(t) / float64(time.Millisecond)
	}
	slices.Sort(ms)
	if len(ms) == 0 {
		return Spread{}
	}
	return Spread{len(ms), quantile(ms, 0.5), quantile(ms, 0.9), quantile(ms, 0.99), ms[len(ms)-1]}
}

// quantile interpolates between the two nearest values of sorted, which is not empty (type 7 of Hyndman and Fan 1996,
// the default of R and NumPy).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := math.Floor(at)
	high := min(int(low)+1, len(sorted)-1)
	return sorted[int(low)] + (at-low)*(sorted[high]-sorted[int(low)])
}
