package encoder

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// spec is what config.json says of an encoder, or of a decoder that is one's trunk.
type spec struct {
	arch      string
	decoder   *model.Spec // nil: the rest describes an encoder
	*family               // of an encoder
	bothWays  bool        // a decoder's tokens see those after them
	labels    bool        // it has a head that scores
	rawScores bool        // the score is not put through a sigmoid

	Vocab      int     `json:"vocab_size"`
	Hidden     int     `json:"hidden_size"`
	Inter      int     `json:"intermediate_size"`
	NumLayers  int     `json:"num_hidden_layers"`
	Heads      int     `json:"num_attention_heads"`
	Positions  int     `json:"max_position_embeddings"`
	Types      int     `json:"type_vocab_size"`
	Eps        float64 `json:"layer_norm_eps"`
	Act        string  `json:"hidden_act"`
	Position   string  `json:"position_embedding_type"`
	Decoder    bool    `json:"is_decoder"`
	PadTokenID *int    `json:"pad_token_id"`
	TorchDType string  `json:"torch_dtype"`
	DType      string  `json:"dtype"`
	Matryoshka bool    `json:"is_matryoshka"`
	Dimensions []int   `json:"matryoshka_dimensions"`
	NumLabels  *int    `json:"num_labels"`

	AttentionBias bool `json:"attention_bias"`
	MLPBias       bool `json:"mlp_bias"`
	NormBias      bool `json:"norm_bias"`
	HeadBias      bool `json:"classifier_bias"`

	Buckets     int      `json:"relative_attention_num_buckets"` // of distances, those after and before
	GlobalEvery int      `json:"global_attn_every_n_layers"`
	LocalPlaces int      `json:"local_attention"`
	GlobalTheta float64  `json:"global_rope_theta"`
	LocalTheta  *float64 `json:"local_rope_theta"`
	HeadPooling string   `json:"classifier_pooling"`
	HeadActName string   `json:"classifier_activation"`
	OldScoreAct *string  `json:"sbert_ce_default_activation_function"`
	Sentence    struct {
		Act *string `json:"activation_fn"`
	} `json:"sentence_transformers"`
	Quantization json.RawMessage `json:"quantization_config"`

	// The tokens whose logits a decoder scores by: the one that says no and the one that says yes, or the latter alone.
	ScoreTokens []string `json:"classifier_from_token"`
	ScoreMethod string   `json:"method"`

	act, headAct kernels.Activation
	rotaries     []rotary // of layers; nil: positions have embeddings
}

// decoderOf is the name by which package model knows the decoder of an architecture, and whether that has a head that scores.
func decoderOf(arch string) (name string, labels, ok bool) {
	base, labels := strings.CutSuffix(arch, "ForSequenceClassification")
	for _, name := range []string{arch, base + "ForCausalLM", strings.TrimSuffix(base, "Model") + "ForCausalLM",
		strings.TrimSuffix(strings.TrimSuffix(base, "Model"), "Text") + "ForCausalLM"} {
		if slices.Contains(model.Architectures(), name) {
			return name, labels, true
		}
	}
	return "", false, false
}

// looksBothWays says whether a decoder's tokens see those after them.
func looksBothWays(c *checkpoint.Config) bool {
	return c.Bidirectional || c.IsCausal != nil && !*c.IsCausal
}

// Serves says whether a checkpoint is one for this package: an encoder, or a decoder of which its files or the option
// pooling_type ("" and auto are none) say that it makes vectors or scores.
func Serves(ck *checkpoint.Checkpoint, poolingType string) bool {
	c, err := ck.Config()
	if err != nil || len(c.Architectures) != 1 {
		return false
	}
	if _, ok := architectures[c.Architectures[0]]; ok {
		return true
	}
	name, _, ok := decoderOf(c.Architectures[0])
	if ok && looksBothWays(c) {
		return true
	}
	if !ok || name == c.Architectures[0] && c.Raw["classifier_from_token"] == nil && (poolingType == "" || poolingType == "auto") {
		_, err := ck.ReadFile("modules.json")
		return ok && err == nil
	}
	return true
}

var activations = map[string]kernels.Activation{
	"gelu": kernels.GELU, "gelu_new": kernels.GELUTanh, "gelu_pytorch_tanh": kernels.GELUTanh, "relu": kernels.ReLU,
	"silu": kernels.SiLU, "swish": kernels.SiLU,
}

// readSpec reads config.json. All that is wrong or not supported is reported at once.
func readSpec(ck *checkpoint.Checkpoint) (*spec, error) {
	c, err := ck.Config()
	if err != nil {
		return nil, err
	}
	if len(c.Architectures) != 1 {
		return nil, fmt.Errorf("config.json: %d architectures named, want one", len(c.Architectures))
	}
	s := &spec{arch: c.Architectures[0], Eps: 1e-12, Types: 2, Act: "gelu"}
	if a, ok := architectures[s.arch]; ok {
		s.family, s.labels = a.family, a.labels
		err = s.readEncoder(c)
	} else if err = s.read(c.Raw); err == nil {
		err = s.readDecoder(c)
	}
	if err == nil && s.labels {
		err = s.checkLabels(c)
	}
	if err != nil {
		return nil, fmt.Errorf("config.json: %s: %w", s.arch, err)
	}
	return s, nil
}

// read takes the values of keys.
func (s *spec) read(keys map[string]jsontext.Value) error {
	data, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, s)
}

// readEncoder reads what an encoder's configuration says in its words, or what is usual.
func (s *spec) readEncoder(c *checkpoint.Config) error {
	s.AttentionBias, s.MLPBias, s.NormBias, s.HeadBias = true, true, true, true
	s.Buckets, s.GlobalEvery, s.LocalPlaces, s.GlobalTheta = 32, 3, 128, 160000
	s.LocalTheta, s.HeadPooling, s.HeadActName = new(10000.0), poolCLS, "gelu"
	if s.defaults != nil {
		s.defaults(s)
	}
	keys := maps.Clone(c.Raw)
	for ours, theirs := range s.keys {
		delete(keys, ours)
		if value, ok := c.Raw[theirs]; ok {
			keys[ours] = value
		}
	}
	if err := s.read(keys); err != nil {
		return err
	}
	return s.check(c)
}

// readDecoder has the model package read the configuration.
func (s *spec) readDecoder(c *checkpoint.Config) (err error) {
	name, labels, ok := decoderOf(s.arch)
	if !ok {
		return fmt.Errorf("it is neither one of %s nor a decoder", strings.Join(Architectures(), ", "))
	}
	decoder := *c
	decoder.Architectures = []string{name}
	s.bothWays, decoder.Bidirectional, decoder.IsCausal = looksBothWays(c), false, nil
	if s.decoder, err = model.NewSpec(&decoder); err != nil {
		return err
	}
	if s.bothWays {
		if err := s.decoder.BothWays(c.Bidirectional); err != nil {
			return err
		}
	}
	s.labels = labels || len(s.ScoreTokens) > 0
	s.Vocab, s.Hidden = s.decoder.Vocab, s.decoder.Hidden
	return nil
}

// checkLabels checks the head that scores.
func (s *spec) checkLabels(c *checkpoint.Config) error {
	switch n := len(s.ScoreTokens); {
	case n > 2:
		return fmt.Errorf("classifier_from_token: %d tokens; the score is of one, or of two that say no and yes", n)
	case n == 1 && s.ScoreMethod == "from_2_way_softmax", n == 2 && s.ScoreMethod == "no_post_processing":
		return fmt.Errorf("method %q does not go with %d tokens", s.ScoreMethod, n)
	case n == 0:
		if n := s.numLabels(c); n != 1 {
			return fmt.Errorf("%d labels: only models with one, which is the score, are supported", n)
		}
	}
	switch s.ScoreMethod {
	case "", "from_2_way_softmax", "no_post_processing":
	default:
		return fmt.Errorf("method %q is neither from_2_way_softmax nor no_post_processing", s.ScoreMethod)
	}
	name := s.Sentence.Act
	if name == nil {
		name = s.OldScoreAct
	}
	return s.readScoreActivation(name)
}

func (s *spec) check(c *checkpoint.Config) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, n := range []struct {
		key        string
		value, max int
	}{
		{"vocab_size", s.Vocab, 1 << 24}, {"hidden_size", s.Hidden, 1 << 15}, {"intermediate_size", s.Inter, 1 << 17},
		{"num_hidden_layers", s.NumLayers, 1 << 10}, {"num_attention_heads", s.Heads, 1 << 10},
		{"max_position_embeddings", s.Positions, 1 << 20}, {"type_vocab_size", s.Types, 1 << 10},
		{"relative_attention_num_buckets", s.Buckets, 256}, {"global_attn_every_n_layers", s.GlobalEvery, 1 << 10},
		{"local_attention", s.LocalPlaces, 1 << 20},
	} {
		if n.value < 1 || n.value > n.max {
			bad("%s is %d, must be 1 to %d", s.word(n.key), n.value, n.max)
		}
	}
	if s.Heads > 0 && s.Hidden%s.Heads != 0 {
		bad("%s %d is no multiple of %s %d", s.word("hidden_size"), s.Hidden, s.word("num_attention_heads"), s.Heads)
	}
	if !(s.Eps > 0 && s.Eps < 1) {
		bad("%s %g is not between 0 and 1", s.word("layer_norm_eps"), s.Eps)
	}
	if s.Buckets < 4 {
		bad("relative_attention_num_buckets is %d, must be at least 4", s.Buckets)
	}
	var ok bool
	if s.act, ok = activations[s.Act]; !ok {
		bad("%s %q is none of %v", s.word("hidden_act"), s.Act, slices.Sorted(maps.Keys(activations)))
	}
	if s.Position != "" && s.Position != "absolute" {
		bad("position_embedding_type %q is not supported, only absolute", s.Position)
	}
	if s.Decoder {
		bad("is_decoder is not supported: the model is no encoder")
	}
	if q := string(s.Quantization); q != "" && q != "null" {
		bad("quantization_config: quantized weights of encoders are not supported")
	}
	if s.headAct, ok = s.family.headAct, true; s.headNorm != "" {
		s.headAct, ok = activations[s.HeadActName]
	}
	if !ok {
		bad("classifier_activation %q is none of %v", s.HeadActName, slices.Sorted(maps.Keys(activations)))
	}
	if s.HeadPooling != poolCLS && s.HeadPooling != poolMean {
		bad("classifier_pooling %q is neither cls nor mean", s.HeadPooling)
	}
	if s.positions == "" && len(errs) == 0 {
		errs = append(errs, s.readRotary(c))
	}
	if s.maxLen() < 1 {
		bad("max_position_embeddings %d leaves no place behind pad_token_id", s.Positions)
	}
	return errors.Join(errs...)
}

// word is what the configuration calls a key.
func (s *spec) word(key string) string { return cmp.Or(s.keys[key], key) }

// rotary says where a layer's tokens are and how far they see.
type rotary struct {
	theta  float64
	window int // 0: all; else the positions less than that away
}

// readRotary reads which layers see all of a text, and their rotary positions.
func (s *spec) readRotary(c *checkpoint.Config) error {
	if n := len(c.LayerTypes); c.LayerTypes != nil && n != s.NumLayers {
		return fmt.Errorf("layer_types has %d elements for %d layers", n, s.NumLayers)
	}
	if s.Hidden/s.Heads%2 != 0 {
		return fmt.Errorf("heads of %d numbers, which is odd, cannot be turned", s.Hidden/s.Heads)
	}
	all, near := rotary{theta: s.GlobalTheta}, rotary{s.GlobalTheta, s.LocalPlaces/2 + 1}
	if s.LocalTheta != nil {
		near.theta = *s.LocalTheta
	}
	if p := c.RopeParameters; p != nil {
		if p.RopeTheta != 0 || p.Kind() != "default" {
			return errors.New("rope_parameters: they must be those of full_attention and sliding_attention")
		}
		for to, from := range map[*rotary]*checkpoint.RopeParameters{&all: p.FullAttention, &near: p.SlidingAttention} {
			if from.Kind() != "default" {
				return fmt.Errorf("rope_parameters: rope_type %q is not supported", from.Kind())
			}
			if from != nil && from.RopeTheta != 0 {
				to.theta = from.RopeTheta
			}
		}
	}
	if !(all.theta > 0 && near.theta > 0) {
		return fmt.Errorf("rope_theta is %g and %g, must be positive", all.theta, near.theta)
	}
	for i := range s.NumLayers {
		kind := "sliding_attention"
		if c.LayerTypes != nil {
			kind = c.LayerTypes[i]
		} else if i%s.GlobalEvery == 0 {
			kind = "full_attention"
		}
		switch kind {
		case "full_attention":
			s.rotaries = append(s.rotaries, all)
		case "sliding_attention":
			s.rotaries = append(s.rotaries, near)
		default:
			return fmt.Errorf("layer_types: %q is neither full_attention nor sliding_attention", kind)
		}
	}
	return nil
}

// numLabels is the number of the classification's classes, transformers' default being two.
func (s *spec) numLabels(c *checkpoint.Config) int {
	var labels map[string]string
	if raw, ok := c.Raw["id2label"]; ok && json.Unmarshal(raw, &labels) == nil && labels != nil {
		return len(labels)
	}
	if s.NumLabels != nil {
		return *s.NumLabels
	}
	return 2
}

// readScoreActivation reads what sentence-transformers puts scores through: a sigmoid if the files do not say.
func (s *spec) readScoreActivation(name *string) error {
	switch {
	case name == nil:
	case strings.HasSuffix(*name, ".Sigmoid"):
		s.rawScores = false
	case strings.HasSuffix(*name, ".Identity"):
		s.rawScores = true
	default:
		return fmt.Errorf("activation_fn %q is neither Sigmoid nor Identity", *name)
	}
	return nil
}

// firstPosition is the row of a text's first token in the table of positions.
func (s *spec) firstPosition() int {
	if !s.roberta {
		return 0
	}
	if s.PadTokenID == nil {
		return 2
	}
	return *s.PadTokenID + 1
}

// maxLen is how many tokens a text may have.
func (s *spec) maxLen() int {
	if s.decoder != nil {
		return s.decoder.MaxLen
	}
	return s.Positions - s.firstPosition()
}

// longest is the most that the option max_model_len may say.
func (s *spec) longest() int {
	if s.decoder != nil {
		return s.decoder.LongestLen
	}
	return s.maxLen()
}

// stored is the dtype that the checkpoint says it was saved in.
func (s *spec) stored() string {
	if s.TorchDType != "" {
		return s.TorchDType
	}
	return s.DType
}
