package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pagoda/spelling"
)

// architectures are the kinds of checkpoint that load, by the name in config.json: each describes itself to the builder
// and reports what of its configuration is not supported. The families are in families.go, those with
// experts in mixtures.go.
var architectures = map[string]func(*builder){
	"DeepseekV2ForCausalLM":            deepseekV2,
	"DeepseekV3ForCausalLM":            deepseekV3,
	"Ernie4_5ForCausalLM":              ernie45,
	"Exaone4ForCausalLM":               exaone4,
	"Gemma2ForCausalLM":                gemma2,
	"Gemma3ForCausalLM":                gemma3,
	"Gemma3ForConditionalGeneration":   gemma3Text,
	"GemmaForCausalLM":                 gemma1,
	"Glm4ForCausalLM":                  glm4,
	"Glm4MoeForCausalLM":               glm4Moe,
	"GlmForCausalLM":                   glm,
	"GptOssForCausalLM":                gptOss,
	"GraniteForCausalLM":               granite,
	"GraniteMoeForCausalLM":            graniteMoe,
	"HunYuanDenseV1ForCausalLM":        hunYuan,
	"LlamaForCausalLM":                 llama,
	"MinistralForCausalLM":             ministral,
	"Mistral3ForConditionalGeneration": mistral3Text,
	"MistralForCausalLM":               mistral,
	"MixtralForCausalLM":               mixtral,
	"Olmo2ForCausalLM":                 olmo2,
	"Olmo3ForCausalLM":                 olmo3,
	"OlmoeForCausalLM":                 olmoe,
	"Phi3ForCausalLM":                  phi3,
	"Qwen2ForCausalLM":                 qwen2,
	"Qwen2MoeForCausalLM":              qwen2Moe,
	"Qwen3ForCausalLM":                 qwen3,
	"Qwen3MoeForCausalLM":              qwen3Moe,
	"SeedOssForCausalLM":               seedOss,
	"SmolLM3ForCausalLM":               smolLM3,

	// Those that also see: seeing.go.
	"Qwen2VLForConditionalGeneration":    qwen2Sees,
	"Qwen2_5_VLForConditionalGeneration": qwen2Sees,
	"Qwen3VLForConditionalGeneration":    qwen3Sees,
	"Qwen3VLMoeForConditionalGeneration": qwen3MoeSees,

	// With linear attention: delta.go.
	"Qwen3NextForCausalLM":               qwen3Next,
	"Qwen3_5ForCausalLM":                 qwen35,
	"Qwen3_5ForConditionalGeneration":    sees(qwen35),
	"Qwen3_5MoeForCausalLM":              qwen35Moe,
	"Qwen3_5MoeForConditionalGeneration": sees(qwen35Moe),
}

// Architectures lists those that load, by the name in config.json.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }

// UnsupportedError names an architecture that does not load.
type UnsupportedError struct {
	Architecture string
	Supported    []string // nearest first
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("architecture %.120q is not supported; the nearest that is: %s; further: %s", e.Architecture,
		e.Supported[0], strings.Join(e.Supported[1:], ", "))
}

func unsupported(name string) *UnsupportedError {
	supported := Architectures()
	distance := func(to string) int {
		return spelling.Distance(family(name), family(to))
	}
	slices.SortStableFunc(supported, func(a, b string) int { return cmp.Compare(distance(a), distance(b)) })
	return &UnsupportedError{name, supported}
}

// family is the part of an architecture's name that tells it from others, shortened to a length at which names differ.
func family(name string) string {
	name = strings.ToLower(name[:min(len(name), 64)])
	for _, end := range []string{"forcausallm", "forconditionalgeneration", "lmheadmodel"} {
		name = strings.TrimSuffix(name, end)
	}
	return name
}
