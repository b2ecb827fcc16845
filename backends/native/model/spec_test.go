package model_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

const tinyConfig = `"architectures":["Qwen3ForCausalLM"],"vocab_size":20,"hidden_size":8,"intermediate_size":12,
	"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":4,"max_position_embeddings":64,
	"rms_norm_eps":1e-6,"hidden_act":"silu","tie_word_embeddings":true`

// newSpec reads the tiny configuration with further keys, which come instead of those of the same name.
func newSpec(t testing.TB, keys string) (*model.Spec, error) {
	t.Helper()
	text := tinyConfig
	for _, pair := range strings.Split(keys, ";") {
		if pair == "" {
			continue
		}
		key, _, _ := strings.Cut(pair, ":")
		if at := strings.Index(text, key+":"); at >= 0 {
			end := at + strings.IndexAny(text[at:]+",", ",")
			text = text[:at] + pair + text[end:]
		} else {
			text += "," + pair
		}
	}
	files := fstest.MapFS{"config.json": &fstest.MapFile{Data: []byte("{" + text + "}")}}
	config, err := checkpoint.OpenFS(files).Config()
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return model.NewSpec(config)
}

func tinySpec(t testing.TB, keys string) *model.Spec {
	t.Helper()
	s, err := newSpec(t, keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSpec(t *testing.T) {
	s := tinySpec(t, `"torch_dtype":"bfloat16";"head_dim":null;"rope_parameters":{"rope_theta":5000000,"rope_type":"default"}`)
	a := attentionOf(t, s)
	if a.HeadDim != 128 || a.QNorm == "" || !s.TiedHead || s.Ropes[0].Theta != 5e6 || s.Stored != model.BFloat16 {
		t.Errorf("spec %+v, attention %+v", s, a)
	}
}

// attentionOf is the attention of a spec's first layer.
func attentionOf(t *testing.T, s *model.Spec) *model.Attention {
	t.Helper()
	a, ok := s.Layers[0].Mixer.(*model.Attention)
	if !ok {
		t.Fatalf("mixer %T", s.Layers[0].Mixer)
	}
	return a
}

func TestArchitectures(t *testing.T) {
	s := tinySpec(t, `"architectures":["Qwen2ForCausalLM"];"hidden_size":24;"head_dim":null`)
	if a := attentionOf(t, s); a.HeadDim != 6 || a.QNorm != "" || !a.QKVBias || a.OBias || s.Layers[0].FF.(*model.Dense).Bias {
		t.Errorf("qwen2 %+v", a)
	}
	s = tinySpec(t, `"architectures":["LlamaForCausalLM"];"attention_bias":true;"mlp_bias":true;"rope_theta":500000;
		"rope_scaling":{"rope_type":"llama3","factor":32,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}`)
	want := model.Rope{Dim: 4, Theta: 500000, Scaling: "llama3", Factor: 32, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxLen: 8192}
	if a := attentionOf(t, s); a.HeadDim != 4 || a.QNorm != "" || !a.QKVBias || !a.OBias || !s.Layers[0].FF.(*model.Dense).Bias || !reflect.DeepEqual(s.Ropes[0], want) {
		t.Errorf("llama %+v, rope %+v", a, s.Ropes[0])
	}
}

func TestUnsupportedSpec(t *testing.T) {
	tests := []struct{ name, keys, want string }{
		{"architecture", `"architectures":["Qwen9ForCausalLM"]`, `"Qwen9ForCausalLM" is not supported; supported are: Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM`},
		{"no architecture", `"architectures":null`, "0 architectures"},
		{"activation", `"hidden_act":"gelu"`, "gelu"},
		{"rope scaling", `"rope_scaling":{"type":"ntk"}`, `"ntk" is none of [default dynamic linear llama3 longrope yarn]`},
		{"newer rope scaling", `"rope_parameters":{"rope_type":"longrope"}`, "short_factor and long_factor must be 2 positive"},
		{"part of a rope scaling", `"rope_scaling":{"type":"default","mrope_section":[1]}`, `"mrope_section"`},
		{"linear without factor", `"rope_scaling":{"type":"linear"}`, "linear: factor 0"},
		{"llama3 without factors", `"rope_scaling":{"rope_type":"llama3"}`, "low_freq_factor 0 and high_freq_factor 0"},
		{"llama3 with a length", `"rope_scaling":{"rope_type":"llama3","original_max_position_embeddings":-1}`, "original_max_position_embeddings -1"},
		{"more than a head", `"partial_rotary_factor":1.5`, "partial_rotary_factor"},
		{"nothing of a head", `"rope_parameters":{"partial_rotary_factor":0.1}`, "partial_rotary_factor"},
		{"mlp bias", `"mlp_bias":true`, "mlp_bias"},
		{"hidden size that heads do not share", `"architectures":["LlamaForCausalLM"];"head_dim":null;"hidden_size":10`, "head_dim is absent"},
		{"window", `"use_sliding_window":true;"sliding_window":128`, "use_sliding_window"},
		{"quantized", `"quantization_config":{"quant_method":"gptq"}`, "quantization_config"},
		{"no layers", `"num_hidden_layers":0`, "num_hidden_layers"},
		{"huge", `"hidden_size":1000000000000`, "hidden_size"},
		{"negative", `"vocab_size":-5`, "vocab_size"},
		{"odd head", `"head_dim":5`, "odd"},
		{"heads", `"num_attention_heads":3`, "multiple"},
		{"no eps", `"rms_norm_eps":0`, "rms_norm_eps"},
		{"rope theta", `"rope_theta":-1`, "rope_theta"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := newSpec(t, tt.keys); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	_, err := newSpec(t, `"hidden_act":"gelu";"mlp_bias":true;"head_dim":5`)
	if err == nil || strings.Count(err.Error(), "\n") < 2 {
		t.Errorf("not all problems at once: %v", err)
	}
	_, err = newSpec(t, `"architectures":["X"]`)
	if u, ok := errors.AsType[*model.UnsupportedError](err); !ok || u.Architecture != "X" || len(u.Supported) == 0 {
		t.Errorf("error %v", err)
	}
}

// weightFile makes a safetensors file of F32 tensors that hold ones.
func weightFile(t testing.TB, shapes map[string][]int) *checkpoint.Weights {
	t.Helper()
	var header []string
	var data []byte
	for name, shape := range shapes {
		from, n := len(data), 1
		for _, dim := range shape {
			n *= dim
		}
		for range n {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(1))
		}
		dims := strings.Join(strings.Fields(fmt.Sprint(shape)), ",")
		header = append(header, fmt.Sprintf(`%q:{"dtype":"F32","shape":%s,"data_offsets":[%d,%d]}`, name, dims, from, len(data)))
	}
	text := "{" + strings.Join(header, ",") + "}"
	file := append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
	w, err := checkpoint.OpenFS(fstest.MapFS{"model.safetensors": &fstest.MapFile{Data: file}}).Weights()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// tinyShapes are the tensors of the tiny configuration.
func tinyShapes() map[string][]int {
	shapes := map[string][]int{"model.embed_tokens.weight": {20, 8}, "model.norm.weight": {8}}
	for layer := range 2 {
		for name, shape := range map[string][]int{
			"input_layernorm": {8}, "post_attention_layernorm": {8}, "self_attn.q_norm": {4}, "self_attn.k_norm": {4},
			"self_attn.q_proj": {16, 8}, "self_attn.k_proj": {8, 8}, "self_attn.v_proj": {8, 8}, "self_attn.o_proj": {8, 16},
			"mlp.gate_proj": {12, 8}, "mlp.up_proj": {12, 8}, "mlp.down_proj": {8, 12},
		} {
			shapes[fmt.Sprintf("model.layers.%d.%s.weight", layer, name)] = shape
		}
	}
	return shapes
}

func TestWeightsMustFit(t *testing.T) {
	dev := openDevice(t, "ref")
	load := func(shapes map[string][]int, keys string) error {
		m, err := model.Load(dev, tinySpec(t, keys), weightFile(t, shapes), model.Options{})
		if err == nil {
			err = m.Close()
		}
		return err
	}
	if err := load(tinyShapes(), ""); err != nil {
		t.Fatal(err)
	}
	withHead := tinyShapes()
	withHead["lm_head.weight"] = []int{20, 8}
	if err := load(withHead, ""); err != nil {
		t.Errorf("saved head of a tied model: %v", err)
	}
	if err := load(withHead, `"tie_word_embeddings":false`); err != nil {
		t.Errorf("head of its own: %v", err)
	}
	bad := tinyShapes()
	delete(bad, "model.layers.1.mlp.up_proj.weight")
	bad["model.norm.weight"] = []int{9}
	bad["model.layers.2.mlp.up_proj.weight"] = []int{12, 8}
	err := load(bad, "")
	for _, want := range []string{"missing: model.layers.1.mlp.up_proj.weight", "shape of model.norm.weight: [9], want [8]",
		"surplus: model.layers.2.mlp.up_proj.weight"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if err := load(tinyShapes(), `"tie_word_embeddings":false`); err == nil || !strings.Contains(err.Error(), "missing: lm_head") {
		t.Errorf("missing head: %v", err)
	}
}

func TestOptions(t *testing.T) {
	dev := openDevice(t, "ref")
	for _, o := range []model.Options{{DType: "int8"}, {KVDType: "fp4"}, {KVDType: model.Float16}, {MaxLen: 65}, {MaxLen: -1}} {
		if _, err := model.LoadDummy(dev, tinySpec(t, ""), 1, o); err == nil {
			t.Errorf("loaded with %+v", o)
		}
	}
}

// TestMemoryIsKnownBefore: estimates agree with what is then allocated.
func TestMemoryIsKnownBefore(t *testing.T) {
	for _, o := range []model.Options{{}, {DType: model.BFloat16}, {DType: model.Float16}, {DType: model.Float32, KVDType: model.BFloat16}, {KVDType: model.FP8}, {KVDType: model.Int8}, {MaxLen: 300},
		{Bits: 8}, {Bits: 4, DType: model.BFloat16}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			dev := openDevice(t, "ref")
			// Sizes that the packing need not pad.
			spec := tinySpec(t, `"torch_dtype":"bfloat16";"vocab_size":512;"hidden_size":256;"intermediate_size":256;"head_dim":64;"max_position_embeddings":1000`)
			m, err := model.LoadDummy(dev, spec, 1, o)
			if err != nil {
				t.Fatal(err)
			}
			want, got := spec.WeightBytes(o), dev.Allocated()
			if got < want || got > want+want/50 || m.Bytes() > got || m.Bytes() < want {
				t.Errorf("estimated %d, has %d, allocated %d", want, m.Bytes(), got)
			}
			kv, err := m.NewKV(10, blockSize)
			if err != nil {
				t.Fatal(err)
			}
			if n := dev.Allocated() - got; n != 10*spec.KVBytesPerBlock(o, blockSize) || n != kv.Bytes() {
				t.Errorf("cache of 10 blocks has %d bytes, a block is estimated at %d", n, spec.KVBytesPerBlock(o, blockSize))
			}
			before := dev.Allocated()
			ws, err := m.NewWorkspace(kv, model.Limits{MaxTokens: 33, MaxSeqs: 5, MaxLogitRows: 7})
			if err != nil {
				t.Fatal(err)
			}
			if n := dev.Allocated() - before; n != ws.Bytes() {
				t.Errorf("workspace has %d bytes, says %d", n, ws.Bytes())
			}
			if err := errors.Join(ws.Close(), kv.Close(), m.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDummyIsDeterministic: a seed says it all, also when written to a file, and the activations stay of a usable size.
func TestDummyIsDeterministic(t *testing.T) {
	dev := openDevice(t, kernels.Variants()[0])
	spec := tinySpec(t, `"architectures":["Qwen2ForCausalLM"];"torch_dtype":"bfloat16"`)
	first := func(m *model.Model, err error) []float32 {
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t, dev, m, 8, model.Limits{MaxTokens: 8, MaxSeqs: 2, MaxLogitRows: 2})
		s := &seq{ids: []int32{1, 2, 3}}
		r.prefill(s, 8)
		return s.logits
	}
	logits := func(seed uint64) []float32 {
		return first(model.LoadDummy(dev, spec, seed, model.Options{}))
	}
	written := func() []float32 {
		var file bytes.Buffer
		if err := model.WriteDummy(&file, spec, 1); err != nil {
			t.Fatal(err)
		}
		w, err := checkpoint.OpenFS(fstest.MapFS{"model.safetensors": {Data: file.Bytes()}}).Weights()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return first(model.Load(dev, spec, w, model.Options{}))
	}
	a, b, c := logits(1), logits(1), logits(2)
	if got := written(); !slices.Equal(got, a) {
		t.Errorf("seed 1 gives %v, written and read %v", a, got)
	}
	if !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("seeds 1, 1 and 2 give %v, %v and %v", a, b, c)
	}
	for _, v := range a {
		if !(math.Abs(float64(v)) < 100) {
			t.Errorf("logit %g", v)
		}
	}
}
