package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Config is config.json. A key that is absent or null leaves its field zero; Raw has every key.
type Config struct {
	Architectures []string `json:"architectures"`
	ModelType     string   `json:"model_type"`
	TorchDType    string   `json:"torch_dtype"`
	DType         string   `json:"dtype"` // the newer spelling of torch_dtype

	VocabSize             int     `json:"vocab_size"`
	HiddenSize            int     `json:"hidden_size"`
	IntermediateSize      int     `json:"intermediate_size"`
	NumHiddenLayers       int     `json:"num_hidden_layers"`
	NumAttentionHeads     int     `json:"num_attention_heads"`
	NumKeyValueHeads      int     `json:"num_key_value_heads"`
	HeadDim               int     `json:"head_dim"`
	MaxPositionEmbeddings int     `json:"max_position_embeddings"`
	RMSNormEps            float64 `json:"rms_norm_eps"`
	HiddenAct             string  `json:"hidden_act"`
	HiddenActivation      string  `json:"hidden_activation"` // Gemma's spelling of hidden_act, which goes before it
	AttentionBias         *bool   `json:"attention_bias"`
	AttentionOutBias      bool    `json:"attention_out_bias"`
	UseBias               bool    `json:"use_bias"`
	MLPBias               bool    `json:"mlp_bias"`
	TieWordEmbeddings     *bool   `json:"tie_word_embeddings"`

	// Which layers see how much of the sequence, and where they turn queries and keys.
	UseSlidingWindow     *bool    `json:"use_sliding_window"`
	SlidingWindow        *int     `json:"sliding_window"`
	MaxWindowLayers      *int     `json:"max_window_layers"`
	SlidingWindowPattern Pattern  `json:"sliding_window_pattern"`
	LayerTypes           []string `json:"layer_types"` // full_attention, sliding_attention, ...
	NoRopeLayers         []int    `json:"no_rope_layers"`
	NoRopeLayerInterval  int      `json:"no_rope_layer_interval"`
	Bidirectional        bool     `json:"use_bidirectional_attention"`
	IsCausal             *bool    `json:"is_causal"`

	// Layers of linear attention.
	FullAttentionInterval *int `json:"full_attention_interval"`
	LinearConvKernelDim   *int `json:"linear_conv_kernel_dim"`
	LinearKeyHeadDim      *int `json:"linear_key_head_dim"`
	LinearValueHeadDim    *int `json:"linear_value_head_dim"`
	LinearNumKeyHeads     *int `json:"linear_num_key_heads"`
	LinearNumValueHeads   *int `json:"linear_num_value_heads"`

	// What some families scale or bound.
	QueryPreAttnScalar    float64  `json:"query_pre_attn_scalar"`
	AttnLogitSoftcapping  *float64 `json:"attn_logit_softcapping"`
	FinalLogitSoftcapping *float64 `json:"final_logit_softcapping"`
	EmbeddingMultiplier   *float64 `json:"embedding_multiplier"`
	ResidualMultiplier    *float64 `json:"residual_multiplier"`
	AttentionMultiplier   *float64 `json:"attention_multiplier"`
	LogitsScaling         *float64 `json:"logits_scaling"`

	// Experts. What families call them differs.
	NumExperts                   int      `json:"num_experts"`
	NumLocalExperts              int      `json:"num_local_experts"`
	NumRoutedExperts             int      `json:"n_routed_experts"`
	NumExpertsPerToken           int      `json:"num_experts_per_tok"`
	MoEIntermediateSize          int      `json:"moe_intermediate_size"`
	SharedExpertIntermediateSize int      `json:"shared_expert_intermediate_size"`
	NumSharedExperts             *int     `json:"n_shared_experts"`
	NormTopKProb                 *bool    `json:"norm_topk_prob"`
	RoutedScalingFactor          *float64 `json:"routed_scaling_factor"`
	NGroup                       *int     `json:"n_group"`
	TopKGroup                    *int     `json:"topk_group"`
	DecoderSparseStep            *int     `json:"decoder_sparse_step"`
	MLPOnlyLayers                []int    `json:"mlp_only_layers"`
	FirstKDenseReplace           *int     `json:"first_k_dense_replace"`
	NumNextNPredictLayers        *int     `json:"num_nextn_predict_layers"`
	SwiGLUAlpha                  *float64 `json:"swiglu_alpha"`
	SwiGLULimit                  *float64 `json:"swiglu_limit"`
	QKVBias                      *bool    `json:"qkv_bias"`
	UseQKNorm                    *bool    `json:"use_qk_norm"`

	// Latent attention. A q_lora_rank of null is none.
	QLoRARank      *int  `json:"q_lora_rank"`
	KVLoRARank     int   `json:"kv_lora_rank"`
	QKNoPEHeadDim  int   `json:"qk_nope_head_dim"`
	QKRoPEHeadDim  int   `json:"qk_rope_head_dim"`
	VHeadDim       int   `json:"v_head_dim"`
	RopeInterleave *bool `json:"rope_interleave"`

	RopeTheta            float64         `json:"rope_theta"`
	RopeLocalBaseFreq    float64         `json:"rope_local_base_freq"`
	RopeScaling          *RopeParameters `json:"rope_scaling"`
	RopeParameters       *RopeParameters `json:"rope_parameters"`                  // the newer home of the others
	PartialRotaryFactor  *float64        `json:"partial_rotary_factor"`            // also in RopeParameters
	OriginalMaxPositions float64         `json:"original_max_position_embeddings"` // also in RopeParameters

	TextConfig *Config `json:"text_config"` // of a model that takes more than text

	BOSTokenIDs TokenIDs `json:"bos_token_id"`
	EOSTokenIDs TokenIDs `json:"eos_token_id"`
	PadTokenID  *int32   `json:"pad_token_id"`

	QuantizationConfig jsontext.Value `json:"quantization_config"`

	Raw map[string]jsontext.Value `json:"-"`
}

// RopeParameters say which kind of rotary embedding a model has; which of the numbers count depends on the kind. Where
// layers differ in it, they are those of each kind of layer instead.
type RopeParameters struct {
	RopeType            string   `json:"rope_type"`
	Type                string   `json:"type"` // the older spelling of rope_type
	RopeTheta           float64  `json:"rope_theta"`
	PartialRotaryFactor *float64 `json:"partial_rotary_factor"`

	Factor               float64   `json:"factor"`
	LowFreqFactor        float64   `json:"low_freq_factor"`
	HighFreqFactor       float64   `json:"high_freq_factor"`
	OriginalMaxPositions float64   `json:"original_max_position_embeddings"`
	BetaFast             float64   `json:"beta_fast"`
	BetaSlow             float64   `json:"beta_slow"`
	Truncate             *bool     `json:"truncate"`
	AttentionFactor      *float64  `json:"attention_factor"`
	MScale               float64   `json:"mscale"`
	MScaleAllDim         float64   `json:"mscale_all_dim"`
	ShortFactor          []float64 `json:"short_factor"`
	LongFactor           []float64 `json:"long_factor"`

	FullAttention    *RopeParameters `json:"full_attention"`
	SlidingAttention *RopeParameters `json:"sliding_attention"`

	Unknown map[string]jsontext.Value `json:",unknown"`
}

// Kind is the kind of scaling, "default" for none.
func (p *RopeParameters) Kind() string {
	switch {
	case p == nil:
		return "default"
	case p.RopeType != "":
		return p.RopeType
	case p.Type != "":
		return p.Type
	}
	return "default"
}

// GenerationConfig is generation_config.json: the sampling that the model's makers advise. A nil field was not given.
type GenerationConfig struct {
	BOSTokenIDs       TokenIDs `json:"bos_token_id"`
	EOSTokenIDs       TokenIDs `json:"eos_token_id"`
	PadTokenID        *int32   `json:"pad_token_id"`
	DoSample          *bool    `json:"do_sample"`
	Temperature       *float64 `json:"temperature"`
	TopK              *int     `json:"top_k"`
	TopP              *float64 `json:"top_p"`
	MinP              *float64 `json:"min_p"`
	TypicalP          *float64 `json:"typical_p"`
	RepetitionPenalty *float64 `json:"repetition_penalty"`
	MaxNewTokens      *int     `json:"max_new_tokens"`
	MaxLength         *int     `json:"max_length"`

	Raw map[string]jsontext.Value `json:"-"`
}

// TokenIDs is one id, a list of them, or none (null).
type TokenIDs []int32

// UnmarshalJSONFrom reads a number, an array or null.
func (t *TokenIDs) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '[' {
		return json.UnmarshalDecode(d, (*[]int32)(t))
	}
	var id *int32
	if err := json.UnmarshalDecode(d, &id); err != nil {
		return err
	}
	*t = nil
	if id != nil {
		*t = TokenIDs{*id}
	}
	return nil
}

// Pattern is how many layers there are to one that sees all, which is their last: a number, or a letter for each of them, such
// as LLLG.
type Pattern int

// UnmarshalJSONFrom reads a number, letters or null.
func (p *Pattern) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '"' {
		return json.UnmarshalDecode(d, (*int)(p))
	}
	var letters string
	if err := json.UnmarshalDecode(d, &letters); err != nil {
		return err
	}
	if n := len(letters); n == 0 || letters != strings.Repeat("L", n-1)+"G" {
		return fmt.Errorf("%q is no pattern such as LLLG", letters)
	}
	*p = Pattern(len(letters))
	return nil
}

// Config reads config.json.
func (c *Checkpoint) Config() (*Config, error) {
	var config Config
	raw, err := c.readJSON("config.json", &config)
	if err != nil {
		return nil, err
	}
	config.Raw = raw
	if t := config.TextConfig; t != nil {
		if err := json.Unmarshal(raw["text_config"], &t.Raw); err != nil {
			return nil, fmt.Errorf("config.json: text_config: %w", plain(err))
		}
		if config.EOSTokenIDs == nil {
			config.EOSTokenIDs = t.EOSTokenIDs
		}
		if config.BOSTokenIDs == nil {
			config.BOSTokenIDs = t.BOSTokenIDs
		}
	}
	return &config, nil
}

// GenerationConfig reads generation_config.json; without the file all its fields are zero.
func (c *Checkpoint) GenerationConfig() (*GenerationConfig, error) {
	var config GenerationConfig
	raw, err := c.readJSON("generation_config.json", &config)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	config.Raw = raw
	return &config, nil
}

// ProcessorTemplate is the chat template in chat_template.json, where models that take more than text had theirs; "" without
// the file.
func (c *Checkpoint) ProcessorTemplate() (string, error) {
	var file struct {
		Template string `json:"chat_template"`
	}
	_, err := c.readJSON("chat_template.json", &file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return file.Template, err
}

// EndTokens lists the tokens that end an answer: those of generation_config.json, else config.json's. Nothing else of these files
// is read, so that it does not matter whether the rest is in terms that we know.
func (c *Checkpoint) EndTokens() ([]int32, error) {
	for _, name := range []string{"generation_config.json", "config.json"} {
		var file struct {
			End  TokenIDs `json:"eos_token_id"`
			Text struct {
				End TokenIDs `json:"eos_token_id"`
			} `json:"text_config"`
		}
		if _, err := c.readJSON(name, &file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if file.End == nil {
			file.End = file.Text.End
		}
		if len(file.End) > 0 {
			return file.End, nil
		}
	}
	return nil, nil
}
