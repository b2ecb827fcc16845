package model_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pagoda/backends/native/model"
)

// TestCases decodes the cases of the built-in model greedily, up to 24 at once with different adapters, and compares
// with the reference implementation.
func TestCases(t *testing.T) {
	tests := []struct {
		options   model.Options
		exact     float64 // least part of the cases with the very same tokens
		tolerance float64 // of log probabilities
	}{
		// The sums' order differs, nothing else.
		{model.Options{DType: model.Float32}, 1, 1e-3},
		// Inputs of matrix products keep 8 bits.
		{model.Options{DType: model.BFloat16}, 0.98, 0.05},
		// bfloat16 weights rounded to float16 lose only subnormals.
		{model.Options{DType: model.Float16}, 1, 1e-3},
		// Rounded weights are another model; a small one suffers more than a large one.
		{model.Options{DType: model.BFloat16, Bits: 8}, 0.98, 0.5},
		{model.Options{DType: model.BFloat16, Bits: 4}, 0.9, 2.5},
	}
	everyVariant(t, func(t *testing.T, variant string) {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/bits=%d", tt.options.DType, tt.options.Bits), func(t *testing.T) {
				cases := readCases(t)
				switch variant { // slow ones
				case "ref":
					cases = few(cases)
				case "portable":
					cases = append(few(cases), cases[100:]...) // those with adapters come last
				}
				r := demoRig(t, variant, tt.options)
				same := 0
				for i, got := range r.decode(cases, tt.tolerance) {
					if c := cases[i]; slices.Equal(got, c.Greedy) {
						same++
					} else {
						t.Logf("%v, reference gap %.3f:\n got %v\nwant %v", c, c.Gap, got, c.Greedy)
					}
				}
				t.Logf("%d of %d cases exact", same, len(cases))
				if part := float64(same) / float64(len(cases)); !(part >= tt.exact) {
					t.Errorf("%d of %d cases are exact, want a part of at least %g", same, len(cases), tt.exact)
				}
			})
		}
	})
}

// few are short cases: one of each adapter, and one with known log probabilities.
func few(cases []oneCase) (some []oneCase) {
	taken := map[string]int{}
	for _, c := range cases {
		kind := c.Adapter
		if c.FirstTop != nil {
			kind = "top"
		}
		if len(c.Prompt) < 30 && taken[kind] < 1 {
			taken[kind]++
			some = append(some, c)
		}
	}
	return some
}

// decode runs all cases as a server would: new sequences join while others decode, prompts come in chunks. It checks
// the first step's log probabilities where a case has them.
func (r *rig) decode(cases []oneCase, tolerance float64) [][]int32 {
	r.t.Helper()
	out := make([][]int32, len(cases))
	running := map[int]*seq{}
	worst := 0.0
	for next := 0; next < len(cases) || len(running) > 0; {
		for ; next < len(cases) && len(running) < 24; next++ {
			running[next] = &seq{ids: slices.Clone(cases[next].Prompt), lora: r.loras[cases[next].Adapter]}
		}
		var items []item
		budget := r.limits.MaxTokens
		for i := range cases {
			if s := running[i]; s != nil && budget > 0 {
				n := min(len(s.ids)-s.computed, 100, budget)
				items = append(items, item{s, n})
				budget -= n
			}
		}
		r.step(items...)
		for i, s := range running {
			if s.computed < len(s.ids) {
				continue
			}
			c := cases[i]
			if len(out[i]) == 0 {
				for _, top := range c.FirstTop {
					diff := math.Abs(logprob(s.logits, int(top[0])) - top[1])
					if !(diff <= tolerance) {
						r.t.Errorf("%v: token %g has log probability %.5f, want %.5f", c, top[0], logprob(s.logits, int(top[0])), top[1])
					}
					worst = max(worst, diff)
				}
			}
			token := argmax(s.logits)
			out[i] = append(out[i], token)
			s.ids = append(s.ids, token)
			if token == c.Greedy[len(c.Greedy)-1] || len(out[i]) > len(c.Greedy)+8 {
				r.release(s)
				delete(running, i)
			}
		}
	}
	r.t.Logf("largest difference of a log probability: %.2g", worst)
	return out
}
