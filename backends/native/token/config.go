package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// config is what we read of tokenizer_config.json.
type config struct {
	Class       string             `json:"tokenizer_class"`
	Named       map[string]special `json:"-"` // "bos_token" and the like; absent keys take the class's defaults
	Extra       *specialList       `json:"extra_special_tokens"`
	Additional  *specialList       `json:"additional_special_tokens"` // the older name
	AddedTokens map[int]addedToken `json:"added_tokens_decoder"`
	Template    templates          `json:"chat_template"`
	CleanUp     bool               `json:"clean_up_tokenization_spaces"`
	CleanUpBPE  bool               `json:"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"`

	// What a conversion heeds.
	AddBOS         *bool `json:"add_bos_token"`
	AddEOS         *bool `json:"add_eos_token"`
	Legacy         *bool `json:"legacy"`
	AddPrefixSpace *bool `json:"add_prefix_space"`
	Lower          *bool `json:"do_lower_case"`
	StripAccents   *bool `json:"strip_accents"`
	ChineseChars   *bool `json:"tokenize_chinese_chars"`
	TrimOffsets    *bool `json:"trim_offsets"`
	ExtraIDs       *int  `json:"extra_ids"`

	class string // what transformers would make: a key of classes, or "" for its generic class
}

// addedToken is an entry of a tokenizer.json's added_tokens.
type addedToken struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

func parseConfig(data []byte) (config, error) {
	c := config{Named: map[string]special{}}
	if len(data) == 0 {
		return c, nil
	}
	if err := unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("tokenizer_config.json: %w", err)
	}
	if err := c.merge(data); err != nil {
		return c, fmt.Errorf("tokenizer_config.json: %w", err)
	}
	return c, nil
}

// unmarshal is json.Unmarshal, but says of what is of the wrong kind in which key it is, and nothing of Go.
func unmarshal(data []byte, to any) error {
	err := json.Unmarshal(data, to)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		where := ""
		if e.Field != "" {
			where = e.Field + ": "
		}
		return fmt.Errorf("%sa value of the wrong kind: %s", where, e.Value)
	}
	return err
}

// namedTokens are the names that every tokenizer has.
var namedTokens = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

// merge takes the named tokens and the further control tokens of a JSON object. A name of its own that ends in _token
// counts if it is a token.
func (c *config) merge(data []byte) error {
	var all map[string]json.RawMessage
	if err := unmarshal(data, &all); err != nil {
		return err
	}
	for key, value := range all {
		if !strings.HasSuffix(key, "_token") || value[0] != '"' && value[0] != '{' && !slices.Contains(namedTokens, key) {
			continue
		}
		var t special
		if err := unmarshal(value, &t); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		c.Named[key] = t
	}
	for key, list := range map[string]**specialList{
		"extra_special_tokens": &c.Extra, "additional_special_tokens": &c.Additional,
	} {
		if value, ok := all[key]; ok {
			*list = new(specialList)
			if err := unmarshal(value, *list); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	return nil
}

// named returns the named tokens that are set, in a fixed order.
func (c *config) named() []special {
	var out []special
	for _, key := range slices.Sorted(maps.Keys(c.Named)) {
		if t := c.Named[key]; t.Content != "" {
			out = append(out, t)
		}
	}
	return out
}

// extra returns the control tokens without a name.
func (c *config) extra() []special {
	switch {
	case c.Extra != nil && len(*c.Extra) > 0:
		return *c.Extra
	case c.Additional != nil:
		return *c.Additional
	}
	return nil
}

// special is a control token: a string, null, or an object with its content and how it is found in text.
type special struct{ addedToken }

func (s *special) UnmarshalJSON(data []byte) error {
	if data[0] == '{' {
		err := json.Unmarshal(data, &s.addedToken)
		s.Special = true
		return err
	}
	s.addedToken = addedToken{Special: true}
	return json.Unmarshal(data, &s.Content)
}

// specialList is a list of control tokens, or an object of them by name.
type specialList []special

func (l *specialList) UnmarshalJSON(data []byte) error {
	if data[0] != '{' {
		return json.Unmarshal(data, (*[]special)(l))
	}
	var named map[string]special
	err := json.Unmarshal(data, &named)
	for _, key := range slices.Sorted(maps.Keys(named)) {
		*l = append(*l, named[key])
	}
	return err
}

// templates are chat templates by name; a file with a single one calls it "default".
type templates map[string]string

func (t *templates) UnmarshalJSON(data []byte) error {
	*t = templates{}
	switch data[0] {
	case 'n':
		return nil
	case '"':
		var source string
		err := json.Unmarshal(data, &source)
		(*t)["default"] = source
		return err
	case '[':
		var list []struct{ Name, Template string }
		err := json.Unmarshal(data, &list)
		for _, entry := range list {
			(*t)[entry.Name] = entry.Template
		}
		return err
	}
	return errors.New("chat_template is neither a string nor a list")
}

func (t templates) pick(name string) string {
	if source, ok := t[name]; ok {
		return source
	}
	return t["default"]
}

// defaults are the named tokens of transformers' classes.
var defaults = map[string]map[string]string{
	"LlamaTokenizer":      {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
	"GemmaTokenizer":      {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
	"T5Tokenizer":         {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
	"XLMRobertaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
	"RobertaTokenizer":    {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
	"BertTokenizer":       {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"},
	"GPT2Tokenizer":       {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
	"Qwen2Tokenizer":      {"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
	"Qwen3_5Tokenizer":    {"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
	"QWenTokenizer":       {"eos_token": "<|endoftext|>"}, // the checkpoint's own code
}

// classOf are transformers' classes by config.json's model_type. "" is its generic class, which goes by the file.
var classOf = map[string]string{
	"bert": "BertTokenizer", "distilbert": "BertTokenizer", "electra": "BertTokenizer", "nomic_bert": "BertTokenizer",
	"xlm-roberta": "XLMRobertaTokenizer", "roberta": "RobertaTokenizer", "t5": "T5Tokenizer", "mt5": "T5Tokenizer",
	"gpt2": "GPT2Tokenizer", "phi": "GPT2Tokenizer", "gemma": "GemmaTokenizer", "gemma2": "GemmaTokenizer",
	"gemma3": "GemmaTokenizer", "gemma3_text": "GemmaTokenizer", "qwen2": "Qwen2Tokenizer", "qwen2_moe": "Qwen2Tokenizer",
	"qwen3": "Qwen2Tokenizer", "qwen3_moe": "Qwen2Tokenizer", "qwen3_next": "Qwen2Tokenizer",
	"qwen3_5": "Qwen3_5Tokenizer", "qwen3_5_text": "Qwen3_5Tokenizer", "qwen3_5_moe": "Qwen3_5Tokenizer",
	"mistral": "", "mistral3": "", "ministral": "", "mixtral": "", "granite": "", "granitemoe": "", "olmo2": "", "glm": "",
	"glm4": "", "glm4_moe": "", "phi3": "", "phimoe": "", "internlm2": "",
}

// className returns the class that transformers would make: the configuration's, unless the kind of model is one for
// which it takes its generic class whatever the configuration says.
func (c *config) className(modelConfig []byte) string {
	var m struct {
		Type  string `json:"model_type"`
		Class string `json:"tokenizer_class"`
	}
	_ = json.Unmarshal(modelConfig, &m) // the model's loader reports what is wrong with it
	class := c.Class
	if class == "" {
		class = m.Class
	}
	class = strings.TrimSuffix(class, "Fast")
	byModel, known := classOf[m.Type]
	if known && (class == "" || byModel == "") {
		class = byModel
	}
	if defaults[class] == nil {
		return ""
	}
	return class
}

// setDefaults gives the named tokens that the files do not mention their class's spelling; null stays none.
func (c *config) setDefaults() {
	for key, content := range defaults[c.class] {
		c.setDefault(key, content)
	}
}

func (c *config) setDefault(key, content string) {
	if _, ok := c.Named[key]; !ok {
		c.Named[key] = special{addedToken{Content: content, Special: true}}
	}
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
