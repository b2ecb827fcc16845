package model_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// TestPublishedLayouts: models that also see, as they are published, are those that transformers writes.
func TestPublishedLayouts(t *testing.T) {
	for dir, change := range map[string]struct {
		config func(map[string]any)
		name   func(string) string
	}{
		// All keys beside each other, and the kind of rope by its older name.
		"testdata/qwen2_5-vl": {func(c map[string]any) {
			for key, value := range c["text_config"].(map[string]any) {
				if key != "model_type" {
					c[key] = value
				}
			}
			c["rope_scaling"] = map[string]any{"type": "mrope", "mrope_section": []int{2, 1, 1}}
			c["rope_theta"], c["architectures"] = 1000, []string{"Qwen2_5_VLForConditionalGeneration"}
			delete(c, "text_config")
			delete(c, "rope_parameters")
		}, func(name string) string {
			return strings.Replace(strings.Replace(name, "model.language_model.", "model.", 1), "model.visual.", "visual.", 1)
		}},
		// Stacks of turned matrices.
		"testdata/qwen3-vl-moe": {func(map[string]any) {}, func(name string) string { return name }},
	} {
		t.Run(dir, func(t *testing.T) {
			text, err := os.ReadFile(dir + "/config.json")
			var config map[string]any
			if err == nil {
				err = json.Unmarshal(text, &config)
			}
			if err != nil {
				t.Fatal(err)
			}
			change.config(config)
			text, err = json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			files := fstest.MapFS{"config.json": {Data: text}, "model.safetensors": {Data: rewritten(t, dir, change.name)}}
			want := readGolden(t, dir+"/golden.json")
			dev := openDevice(t, kernels.Variants()[0])
			m := loadModel(t, dev, checkpoint.OpenFS(files), model.Options{DType: model.Float32})
			r := newRig(t, dev, m, 16, model.Limits{MaxTokens: 32, MaxSeqs: 4, MaxLogitRows: 4})
			r.compareRows(want, "", want.Logits, 5e-5*rootMeanSquare(slices.Concat(want.Logits...)))
		})
	}
}

// rewritten is a checkpoint's file with other names, and with stacks of matrices turned.
func rewritten(t *testing.T, dir string, rename func(string) string) []byte {
	t.Helper()
	w, err := openCheckpoint(t, dir).Weights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var data []byte
	header := map[string]any{}
	for _, name := range w.Names() {
		tensor, _ := w.Tensor(name)
		shape, from := slices.Clone(tensor.Shape), len(data)
		if strings.Contains(name, ".experts.") {
			shape[1], shape[2] = shape[2], shape[1]
			for e := range shape[0] {
				for k := range shape[1] {
					for row := range shape[2] {
						at := 2 * ((e*shape[2]+row)*shape[1] + k)
						data = append(data, tensor.Data[at:at+2]...)
					}
				}
			}
		} else {
			data = append(data, tensor.Data...)
		}
		header[rename(name)] = map[string]any{"dtype": tensor.DType, "shape": shape, "data_offsets": []int{from, len(data)}}
	}
	text, err := json.Marshal(header)
	if err != nil || len(header) != len(w.Names()) {
		t.Fatal(fmt.Errorf("%d of %d names: %w", len(header), len(w.Names()), err))
	}
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, data)
}
