package encoder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// The ways to make one vector of a text's.
const (
	poolCLS  = "cls"  // the first token's
	poolMean = "mean" // the mean of all
	poolMax  = "max"  // the largest of each number
	poolLast = "last" // the last token's
)

// PoolingTypes lists the ways of pooling.
func PoolingTypes() []string { return []string{poolCLS, poolMean, poolMax, poolLast} }

// sentence is what sentence-transformers' files say.
type sentence struct {
	pooling   string // "": nothing
	normalize bool
	dense     []denseModule
	logits    *logitScore // nil: the score is not of tokens' logits
	scoreAct  *string     // what scores go through
	maxLen    int         // 0: not said
	dims      int         // 0: not said; vectors are cut to that many
	lower     bool        // texts are put in lower case
	prompts   map[string]string
	prompt    string // the name of the one put before texts, where the request does not say; "": none
}

// logitScore is a module of sentence-transformers that scores by the logits of tokens.
type logitScore struct {
	Yes *int `json:"true_token_id"`
	No  *int `json:"false_token_id"`
}

// denseModule is a module of sentence-transformers behind the pooling.
type denseModule struct {
	path string
	In   int    `json:"in_features"`
	Out  int    `json:"out_features"`
	Bias *bool  `json:"bias"`
	Act  string `json:"activation_function"`
}

// readSentence reads them.
func readSentence(ck *checkpoint.Checkpoint) (*sentence, error) {
	s := &sentence{}
	var modules []struct{ Path, Type string }
	if err := optionalJSON(ck, "modules.json", &modules); err != nil {
		return nil, err
	}
	for _, m := range modules {
		kind := m.Type[strings.LastIndexByte(m.Type, '.')+1:]
		var err error
		switch kind {
		case "Transformer":
			if m.Path != "" {
				err = fmt.Errorf("the transformer is in a folder %q", m.Path)
			}
		case "Pooling":
			err = s.readPooling(ck, m.Path)
		case "Dense":
			d := denseModule{path: m.Path}
			err = optionalJSON(ck, path.Join(m.Path, "config.json"), &d)
			s.dense = append(s.dense, d)
		case "LogitScore":
			s.logits = &logitScore{}
			err = optionalJSON(ck, path.Join(m.Path, "config.json"), s.logits)
			if no := s.logits.No; err == nil && (s.logits.Yes == nil || *s.logits.Yes < 0 || no != nil && *no < 0) {
				err = fmt.Errorf("%s: true_token_id is absent, or an id is negative", m.Path)
			}
		case "Normalize":
			s.normalize = true
		default:
			err = fmt.Errorf("a module %q is not supported", m.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("modules.json: %w", err)
		}
	}
	var transformer struct {
		MaxLen *int `json:"max_seq_length"`
		Lower  bool `json:"do_lower_case"`
	}
	var model struct {
		Prompts  map[string]string `json:"prompts"`
		Default  *string           `json:"default_prompt_name"`
		Dims     *int              `json:"truncate_dim"`
		ScoreAct *string           `json:"activation_fn"`
	}
	err := errors.Join(optionalJSON(ck, "sentence_bert_config.json", &transformer), optionalJSON(ck, "config_sentence_transformers.json", &model))
	if err != nil {
		return nil, err
	}
	s.lower, s.prompts, s.scoreAct = transformer.Lower, model.Prompts, model.ScoreAct
	for to, from := range map[*int]*int{&s.maxLen: transformer.MaxLen, &s.dims: model.Dims} {
		if from == nil {
			continue
		}
		if *from < 1 {
			return nil, fmt.Errorf("sentence_bert_config.json or config_sentence_transformers.json: max_seq_length or truncate_dim is %d, must be at least 1", *from)
		}
		*to = *from
	}
	if model.Default != nil {
		if s.prompt = *model.Default; s.prompt != "" {
			if _, ok := s.prompts[s.prompt]; !ok {
				return nil, fmt.Errorf("config_sentence_transformers.json: default_prompt_name: there is no prompt %q", s.prompt)
			}
		}
	}
	return s, nil
}

// before is the prompt of that name; nil is the usual one, "" is none.
func (s *sentence) before(name *string) (text string, ok bool) {
	if name == nil {
		name = &s.prompt
	}
	text, ok = s.prompts[*name]
	return text, ok || *name == ""
}

// first is the name of the first of these prompts that there is, "" if there is none.
func (s *sentence) first(names ...string) *string {
	for _, name := range names {
		if _, ok := s.prompts[name]; ok {
			return &name
		}
	}
	return new(string)
}

func (s *sentence) readPooling(ck *checkpoint.Checkpoint, folder string) error {
	var raw map[string]json.RawMessage
	if err := optionalJSON(ck, path.Join(folder, "config.json"), &raw); err != nil {
		return err
	}
	ways := map[string]string{"pooling_mode_cls_token": poolCLS, "pooling_mode_mean_tokens": poolMean,
		"pooling_mode_max_tokens": poolMax, "pooling_mode_lasttoken": poolLast}
	var found []string
	for key, value := range raw {
		if way, ok := ways[key]; string(value) == "true" && strings.HasPrefix(key, "pooling_mode_") {
			if !ok {
				return fmt.Errorf("%s is not supported", key)
			}
			found = append(found, way)
		}
	}
	if string(raw["include_prompt"]) == "false" {
		return errors.New("include_prompt false is not supported")
	}
	var mode string
	if json.Unmarshal(raw["pooling_mode"], &mode) == nil && mode != "" {
		found = []string{strings.TrimSuffix(mode, "token")}
	}
	if len(found) != 1 || !isPooling(found[0]) {
		return fmt.Errorf("the pooling is %q, must be one of %q", found, PoolingTypes())
	}
	s.pooling = found[0]
	return nil
}

func isPooling(name string) bool {
	for _, p := range PoolingTypes() {
		if p == name {
			return true
		}
	}
	return false
}

// optionalJSON reads a file into v, if it is there.
func optionalJSON(ck *checkpoint.Checkpoint, name string, v any) error {
	data, err := ck.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// wanted says which of a text's tokens, those of the piece, go into its vector.
func (p piece) wanted(way string) (from, to int) {
	n := len(p.t.ids)
	switch way {
	case poolCLS:
		return p.t.done, min(p.end, max(p.t.done, 1))
	case poolLast:
		return min(p.end, max(p.t.done, n-1)), p.end
	}
	return p.t.done, p.end
}

// pool takes the hidden states of the text's next tokens that are wanted, each of h numbers, into its vector. What comes out
// does not depend on how the text was cut into pieces.
func (t *text) pool(way string, rows []float32, h int) {
	for ; len(rows) > 0; rows = rows[h:] {
		switch {
		case way == poolMean:
			t.sum = append(t.sum, make([]float64, h-len(t.sum))...)
			for i, v := range rows[:h] {
				t.sum[i] += float64(v)
			}
		case t.out == nil:
			t.out = slices.Clone(rows[:h])
		default: // poolMax
			for i, v := range rows[:h] {
				t.out[i] = max(t.out[i], v)
			}
		}
	}
}

// vector is what pooling made of all tokens.
func (t *text) vector() []float32 {
	if t.sum != nil {
		t.out = make([]float32, len(t.sum))
		for i, v := range t.sum {
			t.out[i] = float32(v / float64(len(t.ids)))
		}
		t.sum = nil
	}
	return t.out
}

// normalize gives v length 1, in place. A vector of zeros stays one.
func normalize(v []float32) {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		return
	}
	for i, x := range v {
		v[i] = float32(float64(x) / math.Sqrt(sum))
	}
}

// denseActivations are what a dense module may end with, by the last part of torch's name; 0: nothing.
var denseActivations = map[string]kernels.Activation{"": kernels.Tanh, "Tanh": kernels.Tanh, "Identity": 0, "ReLU": kernels.ReLU,
	"GELU": kernels.GELU, "SiLU": kernels.SiLU}

// score puts a cross-encoder's number through what its configuration says.
func (e *Engine) score(x float32) float64 {
	if e.spec.rawScores {
		return float64(x)
	}
	return 1 / (1 + math.Exp(-float64(x)))
}
