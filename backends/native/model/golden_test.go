package model_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/model"
	"pagoda/checkpoint"
)

// TestGolden compares the logits of tiny checkpoints, with and without an adapter, with those that Hugging Face's
// libraries computed in float32 (testdata/golden.py says which versions).
func TestGolden(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		files, err := filepath.Glob("testdata/*/golden.json")
		if err != nil || len(files) == 0 {
			t.Fatalf("%d golden files, %v", len(files), err)
		}
		for _, file := range files {
			dir := filepath.Dir(file)
			t.Run(filepath.Base(dir), func(t *testing.T) {
				var golden struct {
					Tokens        []int32
					Rows          []int
					Logits        [][]float64
					AdapterLogits [][]float64 `json:"adapter_logits"`
				}
				data, err := os.ReadFile(file)
				if err == nil {
					err = json.Unmarshal(data, &golden)
				}
				if err != nil {
					t.Fatal(err)
				}
				r := loadRig(t, variant, openCheckpoint(t, dir), openCheckpoint(t, dir+"/adapter"))
				for name, want := range map[string][][]float64{"": golden.Logits, "adapter": golden.AdapterLogits} {
					for i, row := range golden.Rows {
						s := r.newSeq(golden.Tokens[:row+1], name)
						r.prefill(s, 7)
						r.release(s)
						near(t, s.logits, want[i], 2e-5, "adapter %q, row %d", name, row)
					}
				}
			})
		}
	})
}

// near compares logits computed in float32 with better ones.
func near(t *testing.T, got []float32, want []float64, tolerance float64, format string, args ...any) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d logits, want %d", len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(float64(got[i])-want[i]) <= tolerance) {
			t.Errorf(format+": logit %d is %g, want %g", append(args, i, got[i], want[i])...)
			return
		}
	}
}

func openCheckpoint(t *testing.T, dir string) *checkpoint.Checkpoint {
	t.Helper()
	ck, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ck.Close(); err != nil {
			t.Error(err)
		}
	})
	return ck
}

// loadRig loads a tiny checkpoint in float32, and lora as its adapter named "adapter".
func loadRig(t *testing.T, variant string, base, lora *checkpoint.Checkpoint) *rig {
	t.Helper()
	config, err := base.Config()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := model.NewSpec(config)
	if err != nil {
		t.Fatal(err)
	}
	w, err := base.Weights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	dev := openDevice(t, variant)
	m, err := model.Load(dev, spec, w, model.Options{DType: model.Float32})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, dev, m, 16, model.Limits{MaxTokens: 32, MaxSeqs: 4, MaxLogitRows: 4})
	registry := adapter.NewRegistry(dev, m)
	r.cleanup("adapters", registry.Close)
	a, err := registry.Load("adapter", lora)
	if err != nil {
		t.Fatal(err)
	}
	r.loras["adapter"] = a.LoRA()
	return r
}
