package encoder

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
)

// spec is what config.json says of an encoder, or of a decoder that is one's trunk.
type spec struct {
	arch      string
	decoder   *model.Spec // nil: the rest describes an encoder
	base      string      // what the weights' names begin with
	roberta   bool        // positions begin behind the padding token's id, pairs have two separators between them
	labels    bool        // it has a head that scores
	rawScores bool        // the score is not put through a sigmoid

	Vocab       int     `json:"vocab_size"`
	Hidden      int     `json:"hidden_size"`
	Inter       int     `json:"intermediate_size"`
	NumLayers   int     `json:"num_hidden_layers"`
	Heads       int     `json:"num_attention_heads"`
	Positions   int     `json:"max_position_embeddings"`
	Types       int     `json:"type_vocab_size"`
	Eps         float64 `json:"layer_norm_eps"`
	Act         string  `json:"hidden_act"`
	Position    string  `json:"position_embedding_type"`
	Decoder     bool    `json:"is_decoder"`
	PadTokenID  *int    `json:"pad_token_id"`
	TorchDType  string  `json:"torch_dtype"`
	DType       string  `json:"dtype"`
	Matryoshka  bool    `json:"is_matryoshka"`
	Dimensions  []int   `json:"matryoshka_dimensions"`
	NumLabels   *int    `json:"num_labels"`
	OldScoreAct *string `json:"sbert_ce_default_activation_function"`
	Sentence    struct {
		Act *string `json:"activation_fn"`
	} `json:"sentence_transformers"`
	Quantization json.RawMessage `json:"quantization_config"`

	// The tokens whose logits a decoder scores by: the one that says no and the one that says yes, or the latter alone.
	ScoreTokens []string `json:"classifier_from_token"`
	ScoreMethod string   `json:"method"`

	act kernels.Activation
}

// architecture is what the names of transformers' classes mean.
type architecture struct {
	base            string
	roberta, labels bool
}

var architectures = map[string]architecture{
	"BertModel":                           {base: "bert."},
	"BertForMaskedLM":                     {base: "bert."},
	"BertForSequenceClassification":       {base: "bert.", labels: true},
	"RobertaModel":                        {base: "roberta.", roberta: true},
	"RobertaForMaskedLM":                  {base: "roberta.", roberta: true},
	"RobertaForSequenceClassification":    {base: "roberta.", roberta: true, labels: true},
	"CamembertModel":                      {base: "roberta.", roberta: true},
	"XLMRobertaModel":                     {base: "roberta.", roberta: true},
	"XLMRobertaForMaskedLM":               {base: "roberta.", roberta: true},
	"XLMRobertaForSequenceClassification": {base: "roberta.", roberta: true, labels: true},
}

// Architectures lists the encoders that the package serves, as config.json names them.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }

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
	data, err := ck.ReadFile("config.json")
	if err != nil {
		return nil, err
	}
	if len(c.Architectures) != 1 {
		return nil, fmt.Errorf("config.json: %d architectures named, want one", len(c.Architectures))
	}
	s := &spec{arch: c.Architectures[0], Eps: 1e-12, Types: 2, Act: "gelu"}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if a, ok := architectures[s.arch]; ok {
		s.base, s.roberta, s.labels = a.base, a.roberta, a.labels
		err = s.check(c)
	} else {
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

// readDecoder has the model package read the configuration.
func (s *spec) readDecoder(c *checkpoint.Config) (err error) {
	name, labels, ok := decoderOf(s.arch)
	if !ok {
		return fmt.Errorf("it is neither one of %s nor a decoder", strings.Join(Architectures(), ", "))
	}
	decoder := *c
	decoder.Architectures = []string{name}
	if s.decoder, err = model.NewSpec(&decoder); err != nil {
		return err
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
	} {
		if n.value < 1 || n.value > n.max {
			bad("%s is %d, must be 1 to %d", n.key, n.value, n.max)
		}
	}
	if s.Heads > 0 && s.Hidden%s.Heads != 0 {
		bad("hidden_size %d is no multiple of num_attention_heads %d", s.Hidden, s.Heads)
	}
	if !(s.Eps > 0 && s.Eps < 1) {
		bad("layer_norm_eps %g is not between 0 and 1", s.Eps)
	}
	var ok bool
	if s.act, ok = activations[s.Act]; !ok {
		bad("hidden_act %q is none of %v", s.Act, slices.Sorted(maps.Keys(activations)))
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
	if s.maxLen() < 1 {
		bad("max_position_embeddings %d leaves no place behind pad_token_id", s.Positions)
	}
	return errors.Join(errs...)
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
