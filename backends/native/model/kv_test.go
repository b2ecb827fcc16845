package model_test

import (
	"fmt"
	"slices"
	"testing"

	"pagoda/backends/native/model"
)

// TestKVDTypes holds how far each type of the KV cache moves the built-in model: first-step log probabilities of all
// cases against the float32 reference, and greedy answers. docs/decisions.md has the figures.
func TestKVDTypes(t *testing.T) {
	for _, tt := range []struct {
		dtype, cache model.DType
		exact        float64 // least part of the cases with the very same tokens
		tolerance    float64 // of log probabilities
	}{
		{model.Float32, model.Float32, 1, 1e-3},
		{model.Float32, model.BFloat16, 0.98, 0.05},
		{model.Float32, model.FP8, 0.96, 1},
		{model.Float32, model.Int8, 0.98, 0.12},
		{model.BFloat16, model.Float32, 0.98, 0.05},
		{model.BFloat16, model.BFloat16, 0.98, 0.12},
		{model.BFloat16, model.FP8, 0.96, 1},
		{model.BFloat16, model.Int8, 0.98, 0.17},
	} {
		t.Run(fmt.Sprintf("%s cache %s", tt.dtype, tt.cache), func(t *testing.T) {
			cases := readCases(t)
			r := demoRig(t, "", model.Options{DType: tt.dtype, KVDType: tt.cache})
			same := 0
			for i, got := range r.decode(cases, tt.tolerance) {
				if slices.Equal(got, cases[i].Greedy) {
					same++
				}
			}
			t.Logf("%d of %d answers are the same", same, len(cases))
			if part := float64(same) / float64(len(cases)); !(part >= tt.exact) {
				t.Errorf("%d of %d cases are exact, want a part of at least %g", same, len(cases), tt.exact)
			}
		})
	}
}
