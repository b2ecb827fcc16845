package openapi

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The unions of the API. Each reads the forms the contract allows and says what they are when it gets another.

// Strings is a string or a list of strings.
type Strings []string

// UnmarshalJSONFrom reads a string, a list of strings or null.
func (s *Strings) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '"':
		*s = make(Strings, 1)
		return json.UnmarshalDecode(dec, &(*s)[0])
	case '[', 'n':
		return json.UnmarshalDecode(dec, (*[]string)(s))
	}
	return errors.New("must be a string or a list of strings")
}

// TokenIDs is a list of token ids. A plain slice would read null as the id 0.
type TokenIDs []int32

// UnmarshalJSONFrom reads a list of integers or null.
func (t *TokenIDs) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		_, err := dec.ReadToken()
		return err
	case '[':
	default:
		return errTokenIDs
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	*t = TokenIDs{}
	for dec.PeekKind() != ']' {
		if dec.PeekKind() != '0' {
			return errTokenIDs
		}
		if err := appendDecoded(dec, (*[]int32)(t)); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

var errTokenIDs = errors.New("must be a list of token ids")

// Content is the content of a message: absent (or null), a text, or a list of parts.
type Content struct {
	Text  *string
	Parts []ContentPart // non-nil for a list, even an empty one
}

// UnmarshalJSONFrom reads a string, a list of parts or null.
func (c *Content) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '"', 'n':
		return json.UnmarshalDecode(dec, &c.Text)
	case '[':
		c.Parts = []ContentPart{}
		return json.UnmarshalDecode(dec, &c.Parts)
	}
	return errors.New("must be a string or a list of content parts")
}

// MarshalJSONTo writes the form that is set.
func (c Content) MarshalJSONTo(enc *jsontext.Encoder) error {
	if c.Parts != nil {
		return json.MarshalEncode(enc, c.Parts)
	}
	return json.MarshalEncode(enc, c.Text)
}

// Prompt is the prompt of a completion: texts, or lists of token ids. One is a list of one. Exactly one field is set.
type Prompt struct {
	Texts  []string
	Tokens []TokenIDs
}

var errPrompt = errors.New("must be a string, a list of strings, a list of token ids or a list of such lists")

// UnmarshalJSONFrom reads the four forms, and null as no prompt.
func (p *Prompt) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		_, err := dec.ReadToken()
		return err
	case '"':
		p.Texts = make([]string, 1)
		return json.UnmarshalDecode(dec, &p.Texts[0])
	case '[':
		return p.readList(dec)
	}
	return errPrompt
}

// readList tells the three kinds of list apart by their first element; the rest must be like it.
func (p *Prompt) readList(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	kind := dec.PeekKind()
	if kind == '0' {
		p.Tokens = []TokenIDs{nil}
	}
	if kind == ']' {
		p.Texts = []string{}
	}
	for dec.PeekKind() != ']' {
		var err error
		switch k := dec.PeekKind(); {
		case k != kind:
			return errPrompt
		case k == '"':
			err = appendDecoded(dec, &p.Texts)
		case k == '0':
			err = appendDecoded(dec, (*[]int32)(&p.Tokens[0]))
		case k == '[':
			err = appendDecoded(dec, &p.Tokens)
		default:
			return errPrompt
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

func appendDecoded[T any](dec *jsontext.Decoder, list *[]T) error {
	var v T
	if err := json.UnmarshalDecode(dec, &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

// StopReason is what ended a choice beside the model's own end token: a stop string or, if Text is nil, a token id.
type StopReason struct {
	Text  *string
	Token int32
}

// MarshalJSONTo writes the string or the id.
func (s StopReason) MarshalJSONTo(enc *jsontext.Encoder) error {
	if s.Text != nil {
		return json.MarshalEncode(enc, s.Text)
	}
	return enc.WriteToken(jsontext.Int(int64(s.Token)))
}

// UnmarshalJSONFrom reads a string or an id.
func (s *StopReason) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '"':
		return json.UnmarshalDecode(dec, &s.Text)
	case '0':
		return json.UnmarshalDecode(dec, &s.Token)
	}
	return errors.New("must be a string or a token id")
}
