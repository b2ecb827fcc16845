package model_test

import (
	"maps"
	"strings"
	"testing"

	"pagoda/backends/native/model"
)

// TestPackedFP8: which scales an FP8 matrix may have, and what is said of others.
func TestPackedFP8(t *testing.T) {
	const name = "model.layers.1.self_attn.q_proj.weight"
	const tiles = `"quantization_config":{"quant_method":"fp8","weight_block_size":[8,3]}`
	const rows = `"quantization_config":{"quant_method":"compressed-tensors","format":"float-quantized"}`
	codes := typed{"F8_E4M3", []int{16, 8}}
	for _, tt := range []struct {
		title, keys string
		with        map[string]typed
		mapped      bool
		want        string // of the error; "" for none
	}{
		{"tiles", tiles, map[string]typed{name: codes, name + "_scale_inv": {"F32", []int{2, 3}}}, false, ""},
		{"tiles in bfloat16", tiles, map[string]typed{name: codes, name + "_scale_inv": {"BF16", []int{2, 3}}}, false, ""},
		{"rows", rows, map[string]typed{name: codes, name + "_scale": {"BF16", []int{16, 1}}}, false, ""},
		{"a list of rows", rows, map[string]typed{name: codes, name + "_scale": {"F32", []int{16}}}, false, ""},
		{"one", rows, map[string]typed{name: codes, name + "_scale": {"F32", nil}}, false, ""},
		{"one in a list", rows, map[string]typed{name: codes, name + "_scale": {"F32", []int{1}}}, false, ""},
		{"scales of activations", rows, map[string]typed{name: codes, name + "_scale": {"F32", []int{1}},
			"model.layers.1.self_attn.q_proj.input_scale": {"F32", []int{1}}, "model.layers.1.self_attn.k_scale": {"F32", []int{1}}}, false, ""},
		{"none", tiles, map[string]typed{name: codes}, false, "missing: " + name + "_scale_inv, the scales of " + name},
		{"too few", tiles, map[string]typed{name: codes, name + "_scale_inv": {"F32", []int{2, 2}}}, false,
			"shape of " + name + "_scale_inv: [2 2], want [2 3]"},
		{"unknown tiles", rows, map[string]typed{name: codes, name + "_scale": {"F32", []int{2, 3}}}, false, "no weight_block_size"},
		{"scales of another type", tiles, map[string]typed{name: codes, name + "_scale_inv": {"U8", []int{2, 3}}}, false,
			"dtype of " + name + "_scale_inv: U8"},
		{"scales without codes", tiles, map[string]typed{name + "_scale_inv": {"F32", []int{2, 3}}}, false, "surplus: " + name + "_scale_inv"},
		{"a norm", tiles, map[string]typed{"model.norm.weight": {"F8_E4M3", []int{8}}}, false, "F8_E4M3, which only matrices may have"},
		{"another shape", tiles, map[string]typed{name: {"F8_E4M3", []int{8, 8}}, name + "_scale_inv": {"F32", []int{1, 3}}}, false,
			"shape of " + name + ": [8 8], want [16 8]"},
		{"mapped", tiles, map[string]typed{name: codes, name + "_scale_inv": {"F32", []int{2, 3}}}, true, "cannot be used from mapped files"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			tensors := map[string]typed{}
			for name, shape := range tinyShapes() {
				tensors[name] = typed{"F32", shape}
			}
			maps.Copy(tensors, tt.with)
			loads(t, tinySpec(t, tt.keys), tensors, tt.mapped, tt.want)
		})
	}
}

// TestPackedMXFP4: the same for experts in MXFP4.
func TestPackedMXFP4(t *testing.T) {
	ck := openCheckpoint(t, "testdata/gpt-oss-mxfp4")
	spec, w := openSpec(t, ck)
	defer w.Close()
	const name = "model.layers.1.mlp.experts.down_proj"
	for _, tt := range []struct {
		title, tensor string
		is            typed // none: the tensor is missing
		want          string
	}{
		{"no scales", name + "_scales", typed{}, "missing: " + name + "_scales"},
		{"no blocks", name + "_blocks", typed{}, "missing: " + name},
		{"smaller blocks", name + "_blocks", typed{"U8", []int{4, 32, 4, 8}}, "whose last dimension is not 16"},
		{"other scales", name + "_scales", typed{"U8", []int{4, 32, 1}}, "shape of " + name + "_scales: [4 32 1], want [4 32 2]"},
		{"another type", name + "_scales", typed{"F32", []int{4, 32, 2}}, "want U8"},
		{"a missing bias", name + "_bias", typed{}, "missing: " + name + "_bias"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			tensors := map[string]typed{}
			for _, name := range w.Names() {
				stored, _ := w.Tensor(name)
				tensors[name] = typed{stored.DType, stored.Shape}
			}
			if tensors[tt.tensor] = tt.is; tt.is.dtype == "" {
				delete(tensors, tt.tensor)
			}
			loads(t, spec, tensors, false, tt.want)
		})
	}
}

// loads loads such a checkpoint, or finds the error that it should.
func loads(t *testing.T, spec *model.Spec, tensors map[string]typed, mapped bool, want string) {
	t.Helper()
	w := typedFile(t, tensors)
	defer w.Close()
	m, err := model.Load(openDevice(t, "ref"), spec, w, model.Options{Mapped: mapped})
	if m != nil {
		defer m.Close()
	}
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want one with %q", err, want)
	}
}

// TestQuantizationConfig: methods that are not known, and what they are written with.
func TestQuantizationConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{"quant_method":"bitsandbytes"}`:                                 `quant_method "bitsandbytes" is not supported`,
		`{"load_in_8bit":true}`:                                           `quant_method "" is not supported`,
		`{"quant_method":"compressed-tensors","format":"pack-quantized"}`: `format "pack-quantized" of compressed-tensors`,
		`{"quant_method":"fp8","weight_block_size":[8]}`:                  "weight_block_size has 1 numbers",
		`{"quant_method":"fp8","weight_block_size":[8,0]}`:                "weight_block_size is [8 0]",
		`"fp8"`: "quantization_config",
	} {
		if _, err := newSpec(t, `"quantization_config":`+config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", config, err, want)
		}
	}
}
