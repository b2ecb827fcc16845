package model_test

import (
	"math"
	"testing"

	"pagoda/backends/native/model"
)

// TestGrow: logits are linear in the output matrix's rows, so a new row's logit is the mean of the others'; the rest of the
// model is as it was, and a new token's embedding can be computed with.
func TestGrow(t *testing.T) {
	const old = 2048
	rows := map[int][]int32{old + 1: {5, 9, 9}}
	r := demoRig(t, "", model.Options{DType: model.Float32, Grow: &model.Growth{Vocab: old + 64, From: rows}})
	plain := demoRig(t, "", model.Options{DType: model.Float32})
	prompt := []int32{2040, 84, 12, 301}
	grown, before := &seq{ids: prompt}, &seq{ids: prompt}
	r.prefill(grown, len(prompt))
	plain.prefill(before, len(prompt))
	if len(grown.logits) != old+64 || r.model.VocabSize() != old+64 {
		t.Fatalf("%d logits, VocabSize %d", len(grown.logits), r.model.VocabSize())
	}
	mean, top := 0.0, 0.0
	for i, want := range before.logits {
		if got := grown.logits[i]; !(math.Abs(float64(got-want)) <= 1e-4*(1+math.Abs(float64(want)))) {
			t.Fatalf("logit %d = %v, was %v", i, got, want)
		}
		mean += float64(want) / old
		top = max(top, math.Abs(float64(want)))
	}
	three := (float64(before.logits[5]) + 2*float64(before.logits[9])) / 3
	for i, want := range map[int]float64{old: mean, old + 1: three, old + 63: mean} {
		// The new rows are rounded to the checkpoint's bfloat16.
		if got := float64(grown.logits[i]); !(math.Abs(got-want) <= top/256) {
			t.Errorf("logit %d = %v, want %v", i, got, want)
		}
	}
	s := &seq{ids: []int32{old, old + 1, 84}}
	r.prefill(s, 3)
	for i, l := range s.logits {
		if math.IsNaN(float64(l)) {
			t.Fatalf("logit %d after new tokens is NaN", i)
		}
	}
}

func TestGrowRefuses(t *testing.T) {
	dev := openDevice(t, "ref")
	spec := tinySpec(t, "")
	for _, o := range []model.Options{{Grow: &model.Growth{Vocab: 1}}, {Grow: &model.Growth{Vocab: spec.Vocab + 1}, Mapped: true},
		{Grow: &model.Growth{Vocab: spec.Vocab + 1, From: map[int][]int32{spec.Vocab: {int32(spec.Vocab)}}}}} {
		if _, err := model.LoadDummy(dev, spec, 1, o); err == nil {
			t.Errorf("loaded with %+v", *o.Grow)
		}
	}
}
