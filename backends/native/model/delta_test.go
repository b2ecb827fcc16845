package model_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
)

// hybridKeys are what a small hybrid model has beyond the tiny configuration.
const hybridKeys = `"architectures":["Qwen3_5ForCausalLM"];"head_dim":8;"linear_num_key_heads":1;"linear_num_value_heads":2;` +
	`"linear_key_head_dim":3;"linear_value_head_dim":5`

func TestHybridSpec(t *testing.T) {
	s := tinySpec(t, hybridKeys+`;"num_hidden_layers":9;"full_attention_interval":3`)
	for i, l := range s.Layers {
		if _, full := l.Mixer.(*model.Attention); full != ((i+1)%3 == 0) {
			t.Errorf("layer %d is a %T", i, l.Mixer)
		}
	}
	if r := s.Ropes[0]; r.Dim != 2 || s.NormOffset != 1 {
		t.Errorf("rope %+v, norms plus %g", r, s.NormOffset)
	}
	// Six layers have two matrices of 3 by 5 and the last three inputs of a query, a key and two values.
	if got, want := s.StateBytes(), int64(6*4*(2*3*5+3*(3+3+2*5))); got != want {
		t.Errorf("states of %d bytes, want %d", got, want)
	}
	if got := tinySpec(t, "").StateBytes(); got != 0 {
		t.Errorf("states of %d bytes without linear attention", got)
	}
	for _, c := range []struct{ keys, want string }{
		{`"linear_num_value_heads":3;"linear_num_key_heads":2`, "linear_num_value_heads 3 is no multiple of linear_num_key_heads 2"},
		{`"linear_num_key_heads":0`, "linear_num_key_heads is 0"},
		{`"linear_key_head_dim":5000`, "linear_key_head_dim is 5000"},
		{`"linear_value_head_dim":-1`, "linear_value_head_dim is -1"},
		{`"linear_conv_kernel_dim":9`, "linear_conv_kernel_dim is 9"},
		{`"hidden_act":"gelu"`, `hidden_act "gelu"`},
		{`"layer_types":["linear_attention","linear_attention"]`, "at least one layer must have full_attention"},
		{`"layer_types":["linear_attention","sliding_attention"]`, `"sliding_attention" is not supported`},
		{`"layer_types":["full_attention"]`, "layer_types has 1 elements for 2 layers"},
		{`"full_attention_interval":0`, "full_attention_interval is 0"},
		{`"rope_parameters":{"rope_type":"default","mrope_colour":1}`, "mrope_colour"},
	} {
		if _, err := newSpec(t, hybridKeys+";"+c.keys); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.keys, err, c.want)
		}
	}
}

// TestHybridWeights: all tensors are demanded, and those of the layers that predict several tokens at once are not loaded.
func TestHybridWeights(t *testing.T) {
	shapes := func() map[string][]int {
		s := map[string][]int{"model.embed_tokens.weight": {20, 8}, "model.norm.weight": {8}, "mtp.fc.weight": {8, 16}}
		for layer, own := range []map[string][]int{
			{"in_proj_qkv.weight": {16, 8}, "in_proj_z.weight": {10, 8}, "in_proj_b.weight": {2, 8}, "in_proj_a.weight": {2, 8},
				"conv1d.weight": {16, 1, 4}, "A_log": {2}, "dt_bias": {2}, "norm.weight": {5}, "out_proj.weight": {8, 10}},
			{"q_proj.weight": {64, 8}, "k_proj.weight": {16, 8}, "v_proj.weight": {16, 8}, "o_proj.weight": {8, 32},
				"q_norm.weight": {8}, "k_norm.weight": {8}},
		} {
			for name, shape := range own {
				s[fmt.Sprintf("model.layers.%d.%s.%s", layer, []string{"linear_attn", "self_attn"}[layer], name)] = shape
			}
			for name, shape := range map[string][]int{"input_layernorm": {8}, "post_attention_layernorm": {8},
				"mlp.gate_proj": {12, 8}, "mlp.up_proj": {12, 8}, "mlp.down_proj": {8, 12}} {
				s[fmt.Sprintf("model.layers.%d.%s.weight", layer, name)] = shape
			}
		}
		return s
	}
	spec := tinySpec(t, hybridKeys+`;"layer_types":["linear_attention","full_attention"]`)
	load := func(shapes map[string][]int) error {
		m, err := model.Load(openDevice(t, "ref"), spec, weightFile(t, shapes), model.Options{})
		if err == nil {
			err = m.Close()
		}
		return err
	}
	if err := load(shapes()); err != nil {
		t.Fatal(err)
	}
	bad := shapes()
	delete(bad, "model.layers.0.linear_attn.A_log")
	bad["model.layers.0.linear_attn.conv1d.weight"] = []int{16, 4}
	bad["model.layers.1.self_attn.q_proj.weight"] = []int{32, 8}
	err := load(bad)
	for _, want := range []string{"missing: model.layers.0.linear_attn.A_log", "conv1d.weight: [16 4], want [16 1 4]",
		"q_proj.weight: [32 8], want [64 8]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	var names []string
	for _, m := range spec.Modules() {
		if m.Layer == 0 {
			names = append(names, strings.TrimPrefix(m.Name, "model.layers.0."))
		}
	}
	want := []string{"linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.in_proj_b", "linear_attn.in_proj_a",
		"linear_attn.out_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
	if !slices.Equal(names, want) {
		t.Errorf("adapters may address %v, want %v", names, want)
	}
}

// TestBadStates: rows of states outside of them, or of two sequences, are refused before anything is computed.
func TestBadStates(t *testing.T) {
	dev := openDevice(t, "ref")
	m := loadModel(t, dev, openCheckpoint(t, "testdata/qwen3_5"), model.Options{})
	r := newRig(t, dev, m, 4, model.Limits{MaxTokens: 8, MaxSeqs: 2, MaxLogitRows: 2})
	for _, states := range [][]int32{nil, {0}, {0, 4}, {-1, 0}, {1, 1}} {
		b := &model.Batch{Tokens: []int32{1, 2}, Positions: []int32{0, 0}, Slots: []int32{0, 16}, QueryStarts: []int32{0, 1, 2},
			SeqLens: []int32{1, 1}, BlockTables: [][]int32{{0}, {1}}, LogitRows: []int32{0, 1}, States: states}
		if err := r.ws.Forward(r.stream, b); !errors.Is(err, model.ErrBatch) {
			t.Errorf("states %v: %v", states, err)
		}
		b.States = []int32{3, 0}
		r.forward(b)
	}
	if err := m.AddStates(r.kv, 1); err == nil {
		t.Error("states were added twice")
	}
}

// TestStacksOfExperts: experts that are saved in stacks, as Qwen3.5's are published, are those that are saved one by one.
func TestStacksOfExperts(t *testing.T) {
	const dir = "testdata/qwen3_5-moe"
	ck := openCheckpoint(t, dir)
	w, err := ck.Weights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	type saved struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header, data := map[string]saved{}, []byte{}
	add := func(name string, shape []int, parts ...string) {
		from := len(data)
		for _, part := range parts {
			tensor, ok := w.Tensor(part)
			if !ok || tensor.DType != "BF16" {
				t.Fatalf("%s: %v", part, tensor.DType)
			}
			data = append(data, tensor.Data...)
		}
		header[name] = saved{"BF16", shape, [2]int{from, len(data)}}
	}
	for _, name := range w.Names() {
		if !strings.Contains(name, ".experts.") {
			tensor, _ := w.Tensor(name)
			add(name, tensor.Shape, name)
		}
	}
	for layer := range 2 {
		prefix := fmt.Sprintf("model.layers.%d.mlp.experts.", layer)
		var gateUp, down []string
		for e := range 4 {
			one := fmt.Sprint(prefix, e)
			gateUp, down = append(gateUp, one+".gate_proj.weight", one+".up_proj.weight"), append(down, one+".down_proj.weight")
		}
		add(prefix+"gate_up_proj", []int{4, 24, 16}, gateUp...)
		add(prefix+"down_proj", []int{4, 16, 12}, down...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	stacked := checkpoint.OpenFS(fstest.MapFS{"config.json": {Data: config}, "model.safetensors": {Data: append(file, data...)}})
	want := readGolden(t, dir+"/golden.json")
	var logits [][]float32
	for _, from := range []*checkpoint.Checkpoint{ck, stacked} {
		dev := openDevice(t, "")
		r := newRig(t, dev, loadModel(t, dev, from, model.Options{}), 8, model.Limits{MaxTokens: 32, MaxSeqs: 1, MaxLogitRows: 1})
		s := r.newSeq(want.Tokens, "")
		r.prefill(s, 32)
		logits = append(logits, s.logits)
	}
	compare(t, logits[1:], logits[:1], "in stacks")
}
