package model_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
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

// TestFamilies reads configurations as they are found, in older and newer spelling.
func TestFamilies(t *testing.T) {
	read := func(text string) *model.Spec {
		t.Helper()
		config, err := checkpoint.OpenFS(fstest.MapFS{"config.json": {Data: []byte(text)}}).Config()
		if err != nil {
			t.Fatal(err)
		}
		s, err := model.NewSpec(config)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	windows := func(s *model.Spec) (list []int) {
		for _, l := range s.Layers {
			list = append(list, l.Mixer.(*model.Attention).Window)
		}
		return list
	}

	s := read(`{"architectures":["Gemma3ForConditionalGeneration"],"torch_dtype":"bfloat16","text_config":{"hidden_size":2560,
		"intermediate_size":10240,"num_hidden_layers":7,"rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024}}`)
	if want := []int{1024, 1024, 1024, 1024, 1024, 0, 1024}; !slices.Equal(windows(s), want) {
		t.Errorf("windows %v, want %v", windows(s), want)
	}
	wantRopes := []model.Rope{{Dim: 256, Theta: 1e6, Scaling: "linear", Factor: 8}, {Dim: 256, Theta: 10000, Scaling: "default"}}
	if !reflect.DeepEqual(s.Ropes, wantRopes) || s.Vocab != 262208 || !s.TiedHead || s.Stored != model.BFloat16 || s.MaxLen != 131072 {
		t.Errorf("gemma 3: ropes %+v, %+v", s.Ropes, s)
	}
	a := attentionOf(t, s)
	if a.Rope != 1 || a.Scale != 1./16 || a.Heads != 8 || a.KVHeads != 4 || s.Layers[5].Mixer.(*model.Attention).Rope != 0 {
		t.Errorf("gemma 3: attention %+v", a)
	}

	const phi = `"architectures":["Phi3ForCausalLM"],"vocab_size":9,"hidden_size":16,"intermediate_size":12,"num_hidden_layers":2,
		"num_attention_heads":2,"max_position_embeddings":131072,"rms_norm_eps":1e-5,"hidden_act":"silu"`
	s = read(`{` + phi + `,"original_max_position_embeddings":4096,"partial_rotary_factor":0.75,"sliding_window":262144,
		"rope_scaling":{"type":"su","short_factor":[1,1,1],"long_factor":[1,2,3]}}`)
	r := s.Ropes[0]
	if r.Scaling != "longrope" || r.Dim != 6 || r.OriginalMaxLen != 4096 || !(math.Abs(r.Amplitude-1.1902380714238083) < 1e-9) {
		t.Errorf("phi 3: rope %+v", r)
	}
	if s = read(`{` + phi + `,"sliding_window":null}`); windows(s)[0] != 0 {
		t.Errorf("phi 3: window %v", windows(s))
	}

	mistral := strings.Replace(phi, "Phi3", "Mistral", 1)
	if s = read(`{` + mistral + `}`); windows(s)[0] != 4096 { // as in the first release, which does not say
		t.Errorf("mistral: window %v", windows(s))
	}
	if s = read(`{` + mistral + `,"sliding_window":null}`); windows(s)[0] != 0 {
		t.Errorf("mistral: window %v", windows(s))
	}

	s = tinySpec(t, `"use_sliding_window":true;"sliding_window":128;"max_window_layers":1`)
	if want := []int{0, 128}; !slices.Equal(windows(s), want) {
		t.Errorf("qwen 3: windows %v, want %v", windows(s), want)
	}
	s = tinySpec(t, `"use_sliding_window":false;"sliding_window":128;"max_window_layers":1`)
	if want := []int{0, 0}; !slices.Equal(windows(s), want) {
		t.Errorf("qwen 3: windows %v, want none", windows(s))
	}
}

func TestScaleRope(t *testing.T) {
	scaled := func(keys, kind string) model.Rope {
		t.Helper()
		s := tinySpec(t, keys)
		if err := s.ScaleRope(kind); err != nil {
			t.Fatal(err)
		}
		if s.MaxLen != 128 || s.LongestLen != 128 {
			t.Errorf("%s: %d, at most %d tokens", kind, s.MaxLen, s.LongestLen)
		}
		return s.Ropes[0]
	}
	for kind, want := range map[string]model.Rope{
		"linear":  {},
		"dynamic": {},
		"llama3":  {LowFreqFactor: 1, HighFreqFactor: 4},
		"yarn":    {BetaFast: 32, BetaSlow: 1, Amplitude: 1 + 0.1*math.Log(2)},
	} {
		want.Dim, want.Theta, want.Scaling, want.Factor, want.OriginalMaxLen = 4, 10000, kind, 2, 64
		if got := scaled("", kind); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", kind, got)
		}
		// It comes in place of the checkpoint's own.
		own := `"max_position_embeddings":512;"rope_scaling":{"rope_type":"yarn","factor":8;"original_max_position_embeddings":64}`
		if got := scaled(strings.ReplaceAll(own, `8;`, `8,`), kind); !reflect.DeepEqual(got, want) {
			t.Errorf("%s in place of yarn: %+v", kind, got)
		}
	}
	if err := tinySpec(t, "").ScaleRope("ntk"); err == nil || !strings.Contains(err.Error(), "ntk") {
		t.Errorf("error %v", err)
	}
}

// TestDynamicRopeLength: a longer limit than the checkpoint's is accepted up to what the scaling is for.
func TestDynamicRopeLength(t *testing.T) {
	dev, s := openDevice(t, "ref"), tinySpec(t, `"rope_scaling":{"type":"dynamic","factor":2.5}`)
	for length, ok := range map[int]bool{0: true, 64: true, 160: true, 161: false} {
		m, err := model.LoadDummy(dev, s, 1, model.Options{MaxLen: length})
		if (err == nil) != ok {
			t.Errorf("limit %d: %v", length, err)
		}
		if err == nil {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestUnsupportedSpec(t *testing.T) {
	tests := []struct{ name, keys, want string }{
		{"architecture", `"architectures":["Qwen9ForCausalLM"]`, `"Qwen9ForCausalLM" is not supported; the nearest that is: Qwen2ForCausalLM; further: Qwen3ForCausalLM, `},
		{"no architecture", `"architectures":null`, "0 architectures"},
		{"activation", `"hidden_act":"relu"`, `hidden_act "relu" is none of [gelu gelu_pytorch_tanh silu]`},
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
		{"window", `"use_sliding_window":true;"sliding_window":-1`, "sliding_window is -1"},
		{"kinds of layers", `"layer_types":["full_attention","chunked_attention"]`, `layer_types: "chunked_attention"`},
		{"too few kinds of layers", `"layer_types":["full_attention"]`, "layer_types has 1 elements for 2 layers"},
		{"yarn upside down", `"rope_scaling":{"type":"yarn","factor":2,"beta_fast":1,"beta_slow":2}`, "beta_slow 2 and beta_fast 1"},
		{"huge attention factor", `"rope_scaling":{"type":"yarn","factor":2,"attention_factor":1e9}`, "attention_factor 1e+09"},
		{"rope by kinds of layers", `"rope_parameters":{"full_attention":{"rope_type":"default"}}`, "rope_parameters of kinds of layers"},
		{"both directions", `"architectures":["Gemma3ForCausalLM"];"use_bidirectional_attention":true`, "use_bidirectional_attention"},
		{"not causal", `"is_causal":false`, "is_causal"},
		{"negative cap", `"architectures":["Gemma2ForCausalLM"];"attn_logit_softcapping":-1`, "attn_logit_softcapping -1"},
		{"infinite scale", `"architectures":["GraniteForCausalLM"];"logits_scaling":0`, "logits_scaling"},
		{"quantized beside the text", `"architectures":["Gemma3ForConditionalGeneration"];"quantization_config":{"quant_method":"gptq"};"text_config":{}`, "quantization_config"},
		{"no text", `"architectures":["Gemma3ForConditionalGeneration"]`, "text_config is missing"},
		{"quantized", `"quantization_config":{"quant_method":"gptq"}`, `quant_method "gptq" is not supported; mxfp4, fp8`},
		{"no layers", `"num_hidden_layers":0`, "num_hidden_layers"},
		{"huge", `"hidden_size":1000000000000`, "hidden_size"},
		{"negative", `"vocab_size":-5`, "vocab_size"},
		{"odd head", `"head_dim":5`, "odd"},
		{"heads", `"num_attention_heads":3`, "multiple"},
		{"no eps", `"rms_norm_eps":0`, "rms_norm_eps"},
		{"rope theta", `"rope_theta":-1`, "rope_theta"},
		{"absent", `"hidden_size":null`, "hidden_size is missing"},
		{"no rope theta", `"rope_theta":0`, "rope_theta is 0, must be positive"},
		{"no key heads", `"num_key_value_heads":0`, "num_key_value_heads is 0, must be positive"},
		{"no window", `"use_sliding_window":true;"sliding_window":0`, "sliding_window is 0, must be 1"},
		{"pattern of 0", `"architectures":["Exaone4ForCausalLM"];"sliding_window_pattern":0`, "sliding_window_pattern is 0"},
		{"pattern", `"architectures":["Gemma3ForCausalLM"];"sliding_window_pattern":-2`, "sliding_window_pattern is -2"},
		{"alpha", `"architectures":["HunYuanDenseV1ForCausalLM"];"rope_scaling":{"type":"dynamic","alpha":-1}`, "alpha -1 for heads of 4 is not"},
		{"no text", `"architectures":["Qwen3VLForConditionalGeneration"]`, "text_config is missing"},
		{"no rope interval", `"architectures":["SmolLM3ForCausalLM"];"no_rope_layer_interval":0`, "no_rope_layer_interval is 0"},
		{"no residual", `"architectures":["GraniteForCausalLM"];"residual_multiplier":0.0`, "residual_multiplier is 0.0, must be positive"},
		{"dtype", `"torch_dtype":"int4"`, `torch_dtype: dtype "int4" is none of`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := newSpec(t, tt.keys); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	_, err := newSpec(t, `"hidden_act":"relu";"mlp_bias":true;"head_dim":5`)
	if err == nil || strings.Count(err.Error(), "\n") < 2 {
		t.Errorf("not all problems at once: %v", err)
	}
	for name, nearest := range map[string]string{"Qwen3VLForCausalLM": "Qwen3VLForConditionalGeneration", "llama": "LlamaForCausalLM", "GLM4": "Glm4ForCausalLM",
		"MixtralLMHeadModel": "MixtralForCausalLM", strings.Repeat("x", 1000): ""} {
		_, err = newSpec(t, `"architectures":["`+name+`"]`)
		u, ok := errors.AsType[*model.UnsupportedError](err)
		if !ok || u.Architecture != name || nearest != "" && u.Supported[0] != nearest || len(err.Error()) > 2000 {
			t.Errorf("%s: error %v, want %s as the nearest", name, err, nearest)
		}
	}
}

// weightFile makes a safetensors file of F32 tensors that hold ones.
func weightFile(t testing.TB, shapes map[string][]int) *checkpoint.Weights {
	t.Helper()
	tensors := map[string]typed{}
	for name, shape := range shapes {
		tensors[name] = typed{"F32", shape}
	}
	return typedFile(t, tensors)
}

// typed is a tensor by its type and shape.
type typed struct {
	dtype checkpoint.DType
	shape []int
}

// typedFile is a checkpoint of tensors of ones, or zeros where these are not of float32.
func typedFile(t testing.TB, tensors map[string]typed) *checkpoint.Weights {
	t.Helper()
	var header []string
	var data []byte
	for name, tensor := range tensors {
		from, n := len(data), 1
		for _, dim := range tensor.shape {
			n *= dim
		}
		if tensor.dtype == "F32" {
			for range n {
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(1))
			}
		} else {
			data = append(data, make([]byte, n*tensor.dtype.Size())...)
		}
		dims := strings.Join(strings.Fields(fmt.Sprint(tensor.shape)), ",")
		header = append(header, fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, name, tensor.dtype, dims, from, len(data)))
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
	old := tinyShapes()
	old["model.layers.0.self_attn.rotary_emb.inv_freq"] = []int{2}
	if err := load(old, ""); err != nil {
		t.Errorf("saved frequencies: %v", err)
	}
	bare := map[string][]int{}
	for name, shape := range tinyShapes() {
		bare[strings.TrimPrefix(name, "model.")] = shape
	}
	if err := load(bare, ""); err != nil {
		t.Errorf("names without model.: %v", err)
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

// TestUnusedParts: a Gemma 3 that also sees loads from both layouts in which there are such checkpoints, without the parts
// that see; any other tensor is surplus.
func TestUnusedParts(t *testing.T) {
	dev := openDevice(t, "ref")
	config := func() *checkpoint.Config {
		return &checkpoint.Config{Architectures: []string{"Gemma3ForConditionalGeneration"}, TextConfig: &checkpoint.Config{
			VocabSize: 20, HiddenSize: 8, IntermediateSize: 12, NumHiddenLayers: 2, NumAttentionHeads: 4, NumKeyValueHeads: 2, HeadDim: 4}}
	}
	spec, err := model.NewSpec(config())
	if err != nil {
		t.Fatal(err)
	}
	for _, layout := range [][2]string{{"model.language_model.", "model."}, {"language_model.model.", ""}} {
		shapes := map[string][]int{layout[1] + "vision_tower.a.weight": {3, 3}, layout[1] + "multi_modal_projector.b": {2}}
		for name, shape := range tinyShapes() {
			shapes[layout[0]+strings.TrimPrefix(name, "model.")] = shape
			if before, ok := strings.CutSuffix(name, "input_layernorm.weight"); ok {
				before = layout[0] + strings.TrimPrefix(before, "model.")
				shapes[before+"pre_feedforward_layernorm.weight"], shapes[before+"post_feedforward_layernorm.weight"] = shape, shape
			}
		}
		m, err := model.Load(dev, spec, weightFile(t, shapes), model.Options{})
		if err == nil {
			err = m.Close()
		}
		if err != nil {
			t.Errorf("%s: %v", layout[0], err)
		}
		shapes["audio_tower.a"] = []int{1}
		if _, err := model.Load(dev, spec, weightFile(t, shapes), model.Options{}); err == nil ||
			!strings.Contains(err.Error(), "surplus: audio_tower.a") || strings.Contains(err.Error(), "vision") {
			t.Errorf("%s: error %v", layout[0], err)
		}
	}
}

// TestEveryFamilysWeightsMustFit: of every family a tensor that is missing, one too many and one of another shape are all in one
// error.
func TestEveryFamilysWeightsMustFit(t *testing.T) {
	files, err := filepath.Glob("testdata/*/config.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d configurations, %v", len(files), err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		if strings.HasSuffix(dir, "fp8") || strings.HasSuffix(dir, "mxfp4") {
			continue // whose tensors belong together: packed_test.go
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			ck := openCheckpoint(t, dir)
			spec, w := openSpec(t, ck)
			defer w.Close()
			var names []string // of the layers' tensors
			shapes := map[string][]int{}
			for _, name := range w.Names() {
				tensor, _ := w.Tensor(name)
				shapes[name] = tensor.Shape
				if strings.Contains(name, "layers.1.") && !strings.Contains(name, "vision") {
					names = append(names, name)
				}
			}
			missing, bent := names[rand.IntN(len(names)/2)], names[len(names)/2+rand.IntN(len(names)/2)]
			delete(shapes, missing)
			shapes[bent] = append([]int{1}, shapes[bent]...)
			shapes["model.layers.1.extra.weight"] = []int{1}
			_, err = model.Load(openDevice(t, "ref"), spec, weightFile(t, shapes), model.Options{})
			for _, want := range []string{"missing: " + missing, "shape of " + bent, "surplus: model.layers.1.extra.weight"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want one with %q", err, want)
				}
			}
			if err != nil && strings.Count(err.Error(), "\n") != 3 {
				t.Errorf("more than three problems: %v", err)
			}
		})
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
