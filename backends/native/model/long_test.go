package model_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
)

// TestLongContext compares logits and greedy tokens at the end of 8,192 tokens with those that Hugging Face's libraries
// computed, under two rope scalings. One token, the needle, is there once, near the beginning, and shows in the last logits.
// Variants without SIMD stop at the last row that they reach in time.
func TestLongContext(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		for _, name := range []string{"long-yarn", "long-llama3"} {
			t.Run(name, func(t *testing.T) {
				var want struct {
					Length, Needle int
					Shows          float64 // the needle, in the logits of the last row
					Rows           []int
					Logits         [][]float64
					Greedy         []int32
				}
				data, err := os.ReadFile("testdata/" + name + "/long.json")
				if err == nil {
					err = json.Unmarshal(data, &want)
				}
				if err != nil || len(want.Rows) != 3 || want.Rows[2] != want.Length-1 || len(want.Greedy) == 0 {
					t.Fatalf("rows %v of %d, %d greedy tokens, %v", want.Rows, want.Length, len(want.Greedy), err)
				}
				rows := want.Rows
				switch {
				case variant == "ref" || raceDetector:
					rows = rows[:1]
				case variant == "portable":
					rows = rows[:2]
				}
				if n := rows[len(rows)-1] + 1; n < want.Length {
					t.Logf("%s is slow: %d tokens instead of %d, without what follows them", variant, n, want.Length)
				}
				prompt := haystack(want.Length, want.Needle)
				r := longRig(t, variant, openCheckpoint(t, "testdata/"+name), want.Length+len(want.Greedy))
				for i, row := range rows {
					bound := 5e-5 * rootMeanSquare(want.Logits[i])
					if row == want.Length-1 && !(want.Shows > 100*bound) {
						t.Fatalf("the needle makes %g, the bound is %g", want.Shows, bound)
					}
					s := r.newSeq(prompt[:row+1], "")
					r.prefill(s, 500)
					near(t, s.logits, want.Logits[i], bound, "row %d", row)
					r.release(s)
				}
				if len(rows) == len(want.Rows) {
					if got := r.greedy(prompt, len(want.Greedy)); !slices.Equal(got, want.Greedy) {
						t.Errorf("greedy tokens %v, want %v", got, want.Greedy)
					}
				}
			})
		}
	})
}

// haystack is the prompt that testdata/golden.py makes.
func haystack(length, needle int) []int32 {
	tokens, state := make([]int32, length), uint32(1)
	for i := range tokens {
		state = (state*1103515245 + 12345) % (1 << 31)
		tokens[i] = int32(4 + (state>>16)%60)
	}
	tokens[needle] = 3
	return tokens
}

// longRig loads a tiny checkpoint in float32 with a cache for one sequence.
func longRig(t *testing.T, variant string, ck *checkpoint.Checkpoint, length int) *rig {
	t.Helper()
	dev := openDevice(t, variant)
	m := loadModel(t, dev, ck, model.Options{DType: model.Float32})
	return newRig(t, dev, m, (length+blockSize-1)/blockSize, model.Limits{MaxTokens: 512, MaxSeqs: 1, MaxLogitRows: 1})
}
