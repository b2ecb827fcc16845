package token

import (
	"encoding/json"
	"errors"
	"fmt"
)

// config is what we read of tokenizer_config.json.
type config struct {
	BOS      name      `json:"bos_token"`
	EOS      name      `json:"eos_token"`
	PAD      name      `json:"pad_token"`
	UNK      name      `json:"unk_token"`
	SEP      name      `json:"sep_token"`
	CLS      name      `json:"cls_token"`
	MASK     name      `json:"mask_token"`
	Template templates `json:"chat_template"`
}

func parseConfig(data []byte) (config, error) {
	var c config
	if len(data) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("tokenizer_config.json: %w", err)
	}
	return c, nil
}

// name is a special token: a string, null, or an object with its content.
type name string

func (n *name) UnmarshalJSON(data []byte) error {
	var object struct {
		Content string `json:"content"`
	}
	if data[0] == '{' {
		err := json.Unmarshal(data, &object)
		*n = name(object.Content)
		return err
	}
	return json.Unmarshal(data, (*string)(n))
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
