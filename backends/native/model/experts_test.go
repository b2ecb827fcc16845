package model_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// mixtures are the fixtures with experts.
var mixtures = []string{"deepseek-v2", "deepseek-v3", "glm4-moe", "gpt-oss", "granite-moe", "mixtral", "olmoe", "qwen2-moe", "qwen3-moe"}

// TestExpertBits: experts whose weights are rounded when they are loaded give nearly the same, and bit for bit the same in any
// batch.
func TestExpertBits(t *testing.T) {
	for _, name := range mixtures {
		for bits, bound := range map[int]float64{8: 0.15, 4: 0.8} {
			t.Run(fmt.Sprint(name, " ", bits), func(t *testing.T) {
				want := readGolden(t, "testdata/"+name+"/golden.json")
				dev := openDevice(t, kernels.Variants()[0])
				m := loadModel(t, dev, openCheckpoint(t, "testdata/"+name), model.Options{DType: model.Float32, Bits: bits})
				r := newRig(t, dev, m, 40, model.Limits{MaxTokens: 128, MaxSeqs: 8, MaxLogitRows: 8})
				alone := r.alone(r.newSeq(want.Tokens, ""), len(want.Tokens), 4)
				compare(t, r.alone(r.newSeq(want.Tokens, ""), 7, 4), alone, "chunks of 7")
				compare(t, r.crowded(want.Tokens, "", 4), alone, "among others")
				first := r.alone(r.newSeq(want.Tokens[:1], ""), 1, 1)[0]
				var differences []float64
				for i, v := range want.Logits[0] {
					differences = append(differences, float64(first[i])-v)
				}
				size := rootMeanSquare(want.Logits[0])
				if got := rootMeanSquare(differences); !(got <= bound*size) {
					t.Errorf("off by %g, logits are of size %g", got, size)
				}
			})
		}
	}
}

// TestMappedExperts: used from the checkpoint's files they give the same bit for bit, unless they are stored the other way round.
func TestMappedExperts(t *testing.T) {
	for _, name := range mixtures {
		t.Run(name, func(t *testing.T) {
			ck, dev := openCheckpoint(t, "testdata/"+name), openDevice(t, kernels.Variants()[0])
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
			t.Cleanup(func() {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
			m, err := model.Load(dev, spec, w, model.Options{Mapped: true})
			if name == "gpt-oss" || strings.HasPrefix(name, "deepseek") {
				if err == nil || !strings.Contains(err.Error(), "cannot be used from mapped files") {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			limits, prompt := model.Limits{MaxTokens: 32, MaxSeqs: 1, MaxLogitRows: 1}, []int32{1, 5, 9, 33, 12}
			mapped := newRig(t, dev, m, 8, limits)
			packed := newRig(t, dev, loadModel(t, dev, ck, model.Options{}), 8, limits)
			compare(t, mapped.alone(mapped.newSeq(prompt, ""), 3, 2), packed.alone(packed.newSeq(prompt, ""), 3, 2), "mapped")
			if a, b := mapped.model.StepBytes(), packed.model.StepBytes(); a <= 0 || b <= 0 {
				t.Errorf("a step reads %d and %d bytes", a, b)
			}
		})
	}
}

const moeConfig = `"num_experts":4;"num_experts_per_tok":1;"moe_intermediate_size":256;"vocab_size":512;"hidden_size":256;` +
	`"intermediate_size":256;"head_dim":64;"torch_dtype":"bfloat16"`

// TestExpertMemory: estimates agree with what is then allocated, and a step reads the chosen experts.
func TestExpertMemory(t *testing.T) {
	for _, arch := range []string{"Qwen3MoeForCausalLM", "GptOssForCausalLM", "GraniteMoeForCausalLM"} {
		for _, o := range []model.Options{{}, {Bits: 8}, {Bits: 4, DType: model.BFloat16}} {
			t.Run(fmt.Sprintf("%s %+v", arch, o), func(t *testing.T) {
				dev := openDevice(t, kernels.Variants()[0])
				spec := tinySpec(t, moeConfig+`;"architectures":["`+arch+`"]`)
				m, err := model.LoadDummy(dev, spec, 1, o)
				if err != nil {
					t.Fatal(err)
				}
				want, got := spec.WeightBytes(o), dev.Allocated()
				if got < want || got > want+want/20 || m.Bytes() > got || m.Bytes() < want {
					t.Errorf("estimated %d, has %d, allocated %d", want, m.Bytes(), got)
				}
				dt := map[int]kernels.DType{0: kernels.BF16, 8: kernels.W8, 4: kernels.W4}[o.Bits]
				idle := 2 * 3 * (kernels.MatrixBytes(dt, 512, 256) + kernels.MatrixBytes(dt, 256, 256)) // of two layers
				if got := m.Bytes() - m.StepBytes(); got != idle {
					t.Errorf("a step leaves out %d bytes, want %d", got, idle)
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestPredictingLayersAreSkipped: the layer that predicts a further token is not loaded, and one beyond it is surplus.
func TestPredictingLayersAreSkipped(t *testing.T) {
	ck := openCheckpoint(t, "testdata/glm4-moe")
	spec, w := openSpec(t, ck)
	defer w.Close()
	shapes := map[string][]int{"model.layers.3.eh_proj.weight": {16, 32}, "model.layers.3.mlp.experts.0.up_proj.weight": {12, 16}}
	for _, name := range w.Names() {
		tensor, _ := w.Tensor(name)
		shapes[name] = tensor.Shape
	}
	m, err := model.Load(openDevice(t, "ref"), spec, weightFile(t, shapes), model.Options{})
	if err == nil {
		err = m.Close()
	}
	if err != nil {
		t.Error(err)
	}
	shapes["model.layers.4.eh_proj.weight"] = []int{16, 32}
	if _, err := model.Load(openDevice(t, "ref"), spec, weightFile(t, shapes), model.Options{}); err == nil ||
		!strings.Contains(err.Error(), "surplus: model.layers.4.eh_proj.weight") {
		t.Errorf("error %v", err)
	}
}

// TestRefusedAdapters: one that changes an expert, or what latent attention absorbs, is refused by the module's name.
func TestRefusedAdapters(t *testing.T) {
	for _, tt := range []struct{ dir, module, target, want string }{
		{"qwen3-moe", "mlp.experts.2.up_proj", "up_proj", "adapters of experts are not supported: "},
		{"deepseek-v3", "self_attn.kv_b_proj", "kv_b_proj", "adapters of latent attention's kv_b_proj are not supported: "},
	} {
		t.Run(tt.module, func(t *testing.T) {
			dev := openDevice(t, "ref")
			m := loadModel(t, dev, openCheckpoint(t, "testdata/"+tt.dir), model.Options{})
			registry := adapter.NewRegistry(dev, m)
			t.Cleanup(func() {
				if err := errors.Join(registry.Close(), m.Close()); err != nil {
					t.Error(err)
				}
			})
			module := "base_model.model.model.layers.0." + tt.module
			header := []byte(`{"` + module + `.lora_A.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}`)
			file := append([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}, append(header, 0, 0, 0, 0)...)
			_, err := registry.Load("a", checkpoint.OpenFS(fstest.MapFS{"adapter_model.safetensors": {Data: file},
				"adapter_config.json": {Data: []byte(`{"peft_type":"LORA","r":1,"lora_alpha":1,"target_modules":["` + tt.target + `"]}`)}}))
			if err == nil || !strings.Contains(err.Error(), tt.want+module) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestMixtures(t *testing.T) {
	expertsOf := func(s *model.Spec) (list []int) { // 0: dense
		for _, l := range s.Layers {
			x, ok := l.FF.(*model.Experts)
			if !ok {
				list = append(list, 0)
				continue
			}
			list = append(list, x.Count)
		}
		return list
	}
	for keys, want := range map[string][]int{
		`"architectures":["MixtralForCausalLM"];"num_local_experts":4;"num_experts_per_tok":2`:                                                     {4, 4},
		`"architectures":["Qwen3MoeForCausalLM"];"decoder_sparse_step":2`:                                                                          {0, 4},
		`"architectures":["Qwen3MoeForCausalLM"];"mlp_only_layers":[1]`:                                                                            {4, 0},
		`"architectures":["Qwen2MoeForCausalLM"];"shared_expert_intermediate_size":8`:                                                              {4, 4},
		`"architectures":["Glm4MoeForCausalLM"];"num_experts":null;"n_routed_experts":4`:                                                           {0, 4},
		`"architectures":["Glm4MoeForCausalLM"];"num_experts":null;"n_routed_experts":4;"first_k_dense_replace":0;"num_nextn_predict_layers":null`: {4, 4},
	} {
		if got := expertsOf(tinySpec(t, moeConfig+";"+keys)); !slices.Equal(got, want) {
			t.Errorf("%s: experts %v, want %v", keys, got, want)
		}
	}
	s := tinySpec(t, moeConfig+`;"architectures":["GptOssForCausalLM"]`)
	if r := s.Ropes[0]; r.Scaling != "yarn" || !r.Fractional || r.Theta != 150000 || math.Abs(r.Amplitude-(1+0.1*math.Log(32))) > 1e-12 {
		t.Errorf("gpt-oss without rope parameters: %+v", r)
	}
}

func TestUnsupportedMixtures(t *testing.T) {
	for _, tt := range []struct{ keys, want string }{
		{`"architectures":["Qwen3MoeForCausalLM"];"num_experts":null`, "num_experts or num_local_experts or n_routed_experts is missing"},
		{`"architectures":["Qwen3MoeForCausalLM"];"num_experts_per_tok":5`, "num_experts_per_tok is 5, must be 1 to 4"},
		{`"architectures":["Qwen3MoeForCausalLM"];"moe_intermediate_size":null`, "moe_intermediate_size is missing"},
		{`"architectures":["Qwen3MoeForCausalLM"];"decoder_sparse_step":0`, "decoder_sparse_step is 0"},
		{`"architectures":["Qwen2MoeForCausalLM"]`, "shared_expert_intermediate_size is missing"},
		{`"architectures":["OlmoeForCausalLM"];"clip_qkv":8`, "clip_qkv 8 is not supported"},
		{`"architectures":["Glm4MoeForCausalLM"];"n_group":3`, "n_group 3 and topk_group 1 do not fit 1 of 4 experts"},
		{`"architectures":["Glm4MoeForCausalLM"];"n_shared_experts":-1`, "n_shared_experts is -1"},
		{`"architectures":["DeepseekV3ForCausalLM"];"num_experts":null;"n_routed_experts":0;"first_k_dense_replace":0`, "n_routed_experts is 0"},
		{`"architectures":["MixtralForCausalLM"];"num_experts":null`, "num_experts or num_local_experts or n_routed_experts is missing"},
		{`"architectures":["Glm4MoeForCausalLM"];"n_group":-1`, "n_group is -1"},
		{`"architectures":["Glm4MoeForCausalLM"];"routed_scaling_factor":-1`, "routed_scaling_factor -1"},
		{`"architectures":["Glm4MoeForCausalLM"];"scoring_func":"softmax"`, `scoring_func "softmax" is not supported`},
		{`"architectures":["DeepseekV2ForCausalLM"];"topk_method":"noaux_tc"`, `topk_method "noaux_tc" is not supported`},
		{`"architectures":["DeepseekV2ForCausalLM"];"norm_topk_prob":true`, "norm_topk_prob true is not supported"},
		{`"architectures":["DeepseekV2ForCausalLM"];"q_lora_rank":0`, "q_lora_rank is 0"},
		{`"architectures":["DeepseekV3ForCausalLM"];"kv_lora_rank":1024`, "kv_lora_rank + qk_rope_head_dim is 1088"},
		{`"architectures":["GptOssForCausalLM"];"swiglu_limit":8`, "swiglu_limit 8"},
	} {
		if _, err := newSpec(t, moeConfig+";"+tt.keys); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.keys, err, tt.want)
		}
	}
}
