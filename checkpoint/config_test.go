package checkpoint

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func TestConfig(t *testing.T) {
	c := folder(t, map[string][]byte{
		"config.json": []byte(`{"architectures":["X"],"hidden_size":8,"rms_norm_eps":1e-06,"rope_theta":1000000,
			"head_dim":null,"sliding_window":null,"eos_token_id":[1,2],"bos_token_id":3,"pad_token_id":null,
			"rope_scaling":{"type":"yarn","factor":4},"novel":{"a":1}}`),
		"generation_config.json": []byte(`{"eos_token_id":5,"bos_token_id":null,"temperature":0.6,"do_sample":true}`),
	})
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	if config.HiddenSize != 8 || config.RMSNormEps != 1e-6 || config.RopeTheta != 1e6 || config.HeadDim != 0 ||
		config.RopeScaling.Kind() != "yarn" || config.RopeScaling.Factor != 4 || config.RopeParameters.Kind() != "default" || config.PadTokenID != nil ||
		!slices.Equal(config.EOSTokenIDs, []int32{1, 2}) || !slices.Equal(config.BOSTokenIDs, []int32{3}) ||
		string(config.Raw["novel"]) != `{"a":1}` {
		t.Errorf("config %+v", config)
	}
	gen, err := c.GenerationConfig()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(gen.EOSTokenIDs, []int32{5}) || gen.BOSTokenIDs != nil || *gen.Temperature != 0.6 || !*gen.DoSample ||
		gen.TopK != nil {
		t.Errorf("generation config %+v", gen)
	}
	if gen, err := folder(t, nil).GenerationConfig(); err != nil || gen.Temperature != nil {
		t.Errorf("without the file: %+v, %v", gen, err)
	}
}

func TestOverride(t *testing.T) {
	ck := folder(t, map[string][]byte{
		"config.json":            []byte(`{"model_type":"a","hidden_size":8,"rope_scaling":{"rope_type":"yarn"}}`),
		"generation_config.json": []byte(`{"top_k":3}`),
	})
	ck.Override(map[string]jsontext.Value{"hidden_size": jsontext.Value("16"), "rope_scaling": jsontext.Value("null"),
		"architectures": jsontext.Value(`["B"]`), "top_k": jsontext.Value("4")})
	c, err := ck.Config()
	if err != nil || c.ModelType != "a" || c.HiddenSize != 16 || c.RopeScaling != nil || !slices.Equal(c.Architectures, []string{"B"}) {
		t.Errorf("%+v, %v", c, err)
	}
	if g, err := ck.GenerationConfig(); err != nil || *g.TopK != 3 {
		t.Errorf("%+v, %v", g, err)
	}
}

// TestIdleOverrides: of what a reader of hidden_size and the text model's vocab_size is told.
func TestIdleOverrides(t *testing.T) {
	ck := folder(t, map[string][]byte{"config.json": []byte(`{"hidden_size":8,"use_cache":true,"text_config":{"vocab_size":4}}`)})
	describe := func() any {
		c, err := ck.Config()
		if err != nil {
			return err.Error()
		}
		return []int{c.HiddenSize, c.TextConfig.VocabSize}
	}
	for overrides, want := range map[string]string{
		`{}`:                                 "",
		`{"hidden_size":16}`:                 "",
		`{"hidden_size":8}`:                  "", // as it is
		`{"text_config":{"vocab_size":5}}`:   "",
		`{"vocab_size":5,"use_cache":false}`: "use_cache vocab_size",
		`{"hidden_size":16,"own":1}`:         "own",
		`{"hidden_sise":16}`:                 `no model has a key "hidden_sise"; did you mean "hidden_size"?`,
		`{"of_nobody_at_all":null}`:          `no model has a key "of_nobody_at_all"`,
	} {
		var keys map[string]jsontext.Value
		if err := json.Unmarshal([]byte(overrides), &keys); err != nil {
			t.Fatal(err)
		}
		ck.Override(keys)
		idle, err := ck.IdleOverrides(describe, struct {
			Own int `json:"own"`
		}{})
		got := strings.Join(idle, " ")
		if err != nil {
			got = err.Error()
		}
		if got != want || len(ck.overrides) != len(keys) {
			t.Errorf("%s: %q, want %q; %d overrides are left", overrides, got, want, len(ck.overrides))
		}
	}
}

// TestTextConfig: of a model that takes more than text, the text model's configuration is read with its own keys.
func TestTextConfig(t *testing.T) {
	c, err := folder(t, map[string][]byte{"config.json": []byte(`{"architectures":["X"],"bos_token_id":7,
		"text_config":{"hidden_size":8,"sliding_window":null,"bos_token_id":1,"eos_token_id":[2,3]}}`)}).Config()
	if err != nil {
		t.Fatal(err)
	}
	if c.TextConfig.HiddenSize != 8 || c.TextConfig.Raw["sliding_window"] == nil || c.TextConfig.Raw["head_dim"] != nil ||
		!slices.Equal(c.EOSTokenIDs, []int32{2, 3}) || !slices.Equal(c.BOSTokenIDs, []int32{7}) {
		t.Errorf("config %+v, text %+v", c, c.TextConfig)
	}
}

func TestPattern(t *testing.T) {
	for text, want := range map[string]Pattern{`"LLLG"`: 4, `"G"`: 1, "6": 6, "null": 0} {
		c, err := folder(t, map[string][]byte{"config.json": []byte(`{"sliding_window_pattern":` + text + "}")}).Config()
		if err != nil || c.SlidingWindowPattern != want {
			t.Errorf("%s: %+v, error %v", text, c, err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"not JSON":    {"x", "invalid character 'x'"},
		"array":       {"[]", "a list instead of an object"},
		"duplicate":   {`{"head_dim":1,"head_dim":2}`, "head_dim"},
		"wrong type":  {`{"hidden_size":"8"}`, `hidden_size: a string instead of an integer`},
		"fraction":    {`{"hidden_size":8.5}`, "hidden_size: 8.5 instead of an integer"},
		"list":        {`{"layer_types":"x"}`, `layer_types: a string instead of a list`},
		"in a list":   {`{"layer_types":[{}]}`, "layer_types.0: an object instead of a string"},
		"object":      {`{"rope_scaling":[1]}`, "rope_scaling: a list instead of an object"},
		"in another":  {`{"rope_scaling":{"factor":true}}`, "rope_scaling.factor: true instead of a number"},
		"boolean":     {`{"attention_bias":1}`, "attention_bias: a number instead of true or false"},
		"id":          {`{"eos_token_id":8589934592}`, "eos_token_id: 8589934592 instead of an integer of 32 bits"},
		"pattern":     {`{"sliding_window_pattern":"LGL"}`, `sliding_window_pattern: "LGL" is no pattern such as LLLG`},
		"no pattern":  {`{"sliding_window_pattern":[1]}`, "sliding_window_pattern: a list instead of an integer"},
		"text config": {`{"text_config":3}`, "text_config: a number instead of an object"},
		"deep":        {`{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}", "depth"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := folder(t, map[string][]byte{"config.json": []byte(c.text)}).Config()
			if err == nil || !strings.HasPrefix(err.Error(), "config.json: ") || !strings.Contains(err.Error(), c.want) ||
				strings.Contains(err.Error(), "Go ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %s", err, c.want)
			}
		})
	}
}

func adapterConfig(t *testing.T, text string) (*AdapterConfig, error) {
	t.Helper()
	return folder(t, map[string][]byte{"adapter_config.json": []byte(text)}).AdapterConfig()
}

func TestAdapterConfig(t *testing.T) {
	tests := []struct {
		name, text, module string
		targets            bool
		rank               int
		scale              float64
	}{
		{"plain", `"target_modules":["q_proj"]`, "l.0.q_proj", true, 4, 2},
		{"end only after a dot", `"target_modules":["proj"]`, "l.0.q_proj", false, 4, 2},
		{"excluded", `"target_modules":["q_proj"],"exclude_modules":["0.q_proj"]`, "l.0.q_proj", false, 4, 2},
		{"regular expression", `"target_modules":".*\\.q_proj"`, "l.0.q_proj", true, 4, 2},
		{"expression takes the whole name", `"target_modules":"q_proj"`, "l.0.q_proj", false, 4, 2},
		{"all-linear", `"target_modules":"all-linear"`, "l.0.q_proj", true, 4, 2},
		{"rslora", `"target_modules":["q_proj"],"use_rslora":true`, "l.0.q_proj", true, 4, 4},
		{"own rank", `"target_modules":["q_proj"],"rank_pattern":{"q_proj":16}`, "l.0.q_proj", true, 16, 0.5},
		{"own alpha", `"target_modules":["q_proj"],"alpha_pattern":{"1.q_proj":3,"q_proj":4,"0.q_proj":5}`, "l.0.q_proj", true, 4, 1},
		{"harmless keys", `"target_modules":["q_proj"],"bias":"none","use_dora":false,"layers_pattern":[],"modules_to_save":null`, "l.0.q_proj", true, 4, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := adapterConfig(t, `{"peft_type":"LORA","r":4,"lora_alpha":8,`+tt.text+`}`)
			if err != nil {
				t.Fatal(err)
			}
			scale := float64(a.Scale(tt.module))
			if a.Targets(tt.module) != tt.targets || a.Rank(tt.module) != tt.rank || !(math.Abs(scale-tt.scale) < 1e-6) {
				t.Errorf("targets %v, rank %d, scale %g", a.Targets(tt.module), a.Rank(tt.module), scale)
			}
		})
	}
}

func TestUnsupportedAdapterConfig(t *testing.T) {
	base := `"r":4,"lora_alpha":8,"target_modules":["q_proj"]`
	for _, tt := range []struct{ text, want string }{
		{`{"peft_type":"LORA",` + base + `,"use_dora":true}`, "use_dora"},
		{`{"peft_type":"LORA",` + base + `,"bias":"all"}`, "bias"},
		{`{"peft_type":"LORA",` + base + `,"modules_to_save":["lm_head"]}`, "modules_to_save"},
		{`{"peft_type":"LORA",` + base + `,"fan_in_fan_out":true}`, "fan_in_fan_out"},
		{`{"peft_type":"LORA",` + base + `,"layers_to_transform":[1]}`, "layers_to_transform"},
		{`{"peft_type":"LORA",` + base + `,"init_lora_weights":"pissa_niter_4"}`, "pissa"},
		{`{"peft_type":"IA3",` + base + `}`, "IA3"},
		{`{"peft_type":"LORA","r":0,"lora_alpha":8,"target_modules":["q"]}`, "r = 0"},
		{`{"peft_type":"LORA","r":1,"lora_alpha":8}`, "target_modules is missing"},
		{`{"peft_type":"LORA","r":1,"lora_alpha":8,"target_modules":"(?!x)q"}`, "regular expression"},
		{`{"peft_type":"LORA",` + base + `,"rank_pattern":{"q":-1}}`, "positive"},
	} {
		if _, err := adapterConfig(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.text, err, tt.want)
		}
	}
}
