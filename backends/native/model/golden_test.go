package model_test

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// golden is what Hugging Face's libraries computed in float32 with a tiny checkpoint; testdata/golden.py says how.
type golden struct {
	Tokens        []int32
	Rows          []int
	Logits        [][]float64
	AdapterLogits [][]float64 `json:"adapter_logits"`
	Greedy        []int32
	Gap           float64
}

// TestGolden compares the logits of tiny checkpoints, with and without an adapter, and the tokens that follow greedily,
// with those that Hugging Face's libraries computed.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/golden.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	everyVariant(t, func(t *testing.T, variant string) {
		for _, file := range files {
			dir := filepath.Dir(file)
			t.Run(filepath.Base(dir), func(t *testing.T) {
				want := readGolden(t, file)
				r := loadRig(t, variant, openCheckpoint(t, dir), openCheckpoint(t, dir+"/adapter"), model.Float32)
				r.compareRows(want, "", want.Logits, 5e-5*rootMeanSquare(slices.Concat(want.Logits...)))
				r.compareRows(want, "adapter", want.AdapterLogits, 5e-5*rootMeanSquare(slices.Concat(want.AdapterLogits...)))
				if got := r.greedy(want.Tokens, len(want.Greedy)); !slices.Equal(got, want.Greedy) {
					t.Errorf("greedy tokens (least gap %g)\n got %v\nwant %v", want.Gap, got, want.Greedy)
				}
			})
		}
	})
}

// TestGoldenBFloat16 compares the logits that are computed in bfloat16 with those computed in float32 from the same
// weights. What differs is that the inputs of matrix products are rounded, some four times a layer on the way of every
// number: an error of at most 2⁻⁹ each, 2⁻⁹/√3 in the mean, with signs that do not hang together. They add up like the
// steps of a random walk to 2⁻⁹/√3·√(4·layers) of the logits' size. Attention enlarges that: with such large random weights
// its scores are some units apart, and softmax is exponential in their errors. The mean error may be eight times what the
// walk gives, and no error five times the largest mean.
func TestGoldenBFloat16(t *testing.T) {
	files, err := filepath.Glob("testdata/*/golden.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			want := readGolden(t, file)
			r := loadRig(t, kernels.Variants()[0], openCheckpoint(t, dir), openCheckpoint(t, dir+"/adapter"), model.BFloat16)
			walk := math.Pow(2, -9) / math.Sqrt(3) * math.Sqrt(4*float64(len(r.model.Spec().Layers)))
			bound := 8 * walk * rootMeanSquare(slices.Concat(want.Logits...))
			mean := rootMeanSquare(r.compareRows(want, "", want.Logits, 5*bound))
			t.Logf("mean error %.2g of the bound", mean/bound)
			if !(mean <= bound) {
				t.Errorf("mean error %g, bound %g", mean, bound)
			}
		})
	}
}

func rootMeanSquare(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v * v
	}
	return math.Sqrt(sum / float64(len(values)))
}

func readGolden(t *testing.T, file string) (g golden) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil || len(g.Rows) == 0 || len(g.Greedy) == 0 {
		t.Fatalf("%s: %d rows, %d greedy tokens, %v", file, len(g.Rows), len(g.Greedy), err)
	}
	return g
}

// compareRows compares the logits of the golden rows and returns the differences.
func (r *rig) compareRows(g golden, adapter string, want [][]float64, bound float64) (differences []float64) {
	r.t.Helper()
	for i, row := range g.Rows {
		s := r.newSeq(g.Tokens[:row+1], adapter)
		s.long = r.isLong(len(g.Tokens)) // as the reference has it, which computes all rows at once
		r.prefill(s, 7)
		r.release(s)
		near(r.t, s.logits, want[i], bound, "adapter %q, row %d", adapter, row)
		for k, v := range want[i] {
			differences = append(differences, float64(s.logits[k])-v)
		}
	}
	return differences
}

func (r *rig) isLong(tokens int) bool { return r.model.SwitchLen() > 0 && tokens > r.model.SwitchLen() }

// greedy returns the next n tokens after a prompt.
func (r *rig) greedy(prompt []int32, n int) []int32 {
	r.t.Helper()
	s := r.newSeq(prompt, "")
	defer r.release(s)
	for len(s.ids) < len(prompt)+n {
		if r.isLong(len(s.ids)) != s.long {
			r.release(s)
			s.long, s.computed = true, 0
		}
		r.prefill(s, 17)
		s.ids = append(s.ids, argmax(s.logits))
	}
	return s.ids[len(prompt):]
}

// TestDummies: every family's model can be made of random weights and written to a file, with activations of a usable size,
// and takes the memory that is estimated, of which tiny matrices that are packed together need less for padding.
func TestDummies(t *testing.T) {
	files, err := filepath.Glob("testdata/*/golden.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			config, err := openCheckpoint(t, dir).Config()
			if err != nil {
				t.Fatal(err)
			}
			spec, err := model.NewSpec(config)
			if err != nil {
				t.Fatal(err)
			}
			var written bytes.Buffer
			if err := model.WriteDummy(&written, spec, 1); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(dir + "/config.json")
			if err != nil {
				t.Fatal(err)
			}
			dev, limits := openDevice(t, kernels.Variants()[0]), model.Limits{MaxTokens: 32, MaxSeqs: 1, MaxLogitRows: 1}
			read := loadModel(t, dev, checkpoint.OpenFS(fstest.MapFS{"config.json": {Data: text},
				"model.safetensors": {Data: written.Bytes()}}), model.Options{})
			made, err := model.LoadDummy(dev, spec, 1, model.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if want := spec.WeightBytes(model.Options{}); made.Bytes() > want || made.Bytes() < want/2 {
				t.Errorf("%d bytes, estimated %d", made.Bytes(), want)
			}
			var logits [][]float32
			for _, m := range []*model.Model{made, read} {
				r := newRig(t, dev, m, 8, limits)
				s := r.newSeq([]int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, "")
				r.prefill(s, 8)
				logits = append(logits, s.logits)
			}
			if !slices.Equal(logits[0], logits[1]) {
				t.Errorf("made %v, written and read %v", logits[0], logits[1])
			}
			for _, v := range logits[0] {
				if !(math.Abs(float64(v)) < 100) {
					t.Fatalf("logits %v", logits[0])
				}
			}
		})
	}
}

// near compares logits computed in float32 with better ones.
func near(t testing.TB, got []float32, want []float64, tolerance float64, format string, args ...any) {
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

// openSpec reads what a checkpoint is, and opens its weights, which the caller closes.
func openSpec(t *testing.T, ck *checkpoint.Checkpoint) (*model.Spec, *checkpoint.Weights) {
	t.Helper()
	config, err := ck.Config()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := model.NewSpec(config)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ck.Weights()
	if err != nil {
		t.Fatal(err)
	}
	return spec, w
}

// loadModel loads a checkpoint.
func loadModel(t *testing.T, dev *kernels.Device, ck *checkpoint.Checkpoint, o model.Options) *model.Model {
	t.Helper()
	spec, w := openSpec(t, ck)
	defer w.Close()
	m, err := model.Load(dev, spec, w, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// loadRig loads a tiny checkpoint, computed in dtype, and lora as its adapter named "adapter".
func loadRig(t *testing.T, variant string, base, lora *checkpoint.Checkpoint, dtype model.DType) *rig {
	t.Helper()
	dev := openDevice(t, variant)
	m := loadModel(t, dev, base, model.Options{DType: dtype})
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
