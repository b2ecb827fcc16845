package encoder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
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
	pooling   string
	normalize bool
	dense     []denseModule
	maxLen    int    // 0: not said
	lower     bool   // texts are put in lower case
	prompt    string // put before each text
}

// denseModule is a module of sentence-transformers behind the pooling.
type denseModule struct {
	path string
	In   int    `json:"in_features"`
	Out  int    `json:"out_features"`
	Bias *bool  `json:"bias"`
	Act  string `json:"activation_function"`
}

// readSentence reads them. Without modules.json it is the mean of all tokens, not normalised: what sentence-transformers
// makes of a plain checkpoint.
func readSentence(ck *checkpoint.Checkpoint) (*sentence, error) {
	s := &sentence{pooling: poolMean}
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
		case "Normalize":
			s.normalize = true
		default:
			err = fmt.Errorf("a module %q is not supported", m.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("modules.json: %w", err)
		}
	}
	var bert struct {
		MaxLen *int `json:"max_seq_length"`
		Lower  bool `json:"do_lower_case"`
	}
	var prompts struct {
		Prompts map[string]string `json:"prompts"`
		Default *string           `json:"default_prompt_name"`
	}
	err := errors.Join(optionalJSON(ck, "sentence_bert_config.json", &bert), optionalJSON(ck, "config_sentence_transformers.json", &prompts))
	if s.lower = bert.Lower; bert.MaxLen != nil {
		s.maxLen = *bert.MaxLen
	}
	if prompts.Default != nil {
		s.prompt = prompts.Prompts[*prompts.Default]
	}
	return s, err
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

// pool makes one vector, out, of a text's, each of len(out) numbers, one after another.
func pool(way string, out, rows []float32) {
	n := len(rows) / len(out)
	switch way {
	case poolCLS:
		copy(out, rows)
	case poolLast:
		copy(out, rows[(n-1)*len(out):])
	case poolMax:
		copy(out, rows)
		for t := 1; t < n; t++ {
			for i, v := range rows[t*len(out):][:len(out)] {
				out[i] = max(out[i], v)
			}
		}
	case poolMean:
		for i := range out {
			sum := 0.0
			for t := range n {
				sum += float64(rows[t*len(out)+i])
			}
			out[i] = float32(sum / float64(n))
		}
	}
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
