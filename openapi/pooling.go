package openapi

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// EmbeddingRequest is the body of POST /v1/embeddings.
type EmbeddingRequest struct {
	Model            string  `json:"model"`
	Input            Prompt  `json:"input"`
	EncodingFormat   *string `json:"encoding_format"`
	Dimensions       *int    `json:"dimensions"`
	Normalize        *bool   `json:"normalize"`
	AddSpecialTokens *bool   `json:"add_special_tokens"`
	PromptName       *string `json:"prompt_name"`
	Pooling
	Unknown Unknown `json:",unknown"`
}

// Pooling is what the routes that turn texts into numbers have in common.
type Pooling struct {
	TruncatePromptTokens *int    `json:"truncate_prompt_tokens"`
	TruncationSide       *string `json:"truncation_side"`
	Priority             *int    `json:"priority"`
	User                 *string `json:"user"`
}

// RerankRequest is the body of POST /v1/rerank.
type RerankRequest struct {
	Model           string     `json:"model"`
	Query           *string    `json:"query"`
	Documents       []Document `json:"documents"`
	TopN            *int       `json:"top_n"`
	ReturnDocuments *bool      `json:"return_documents"`
	Instruction     *string    `json:"instruction"`
	MaxTokensPerDoc *int       `json:"max_tokens_per_doc"`
	Pooling
	Unknown Unknown `json:",unknown"`
}

// ScoreRequest is the body of POST /v1/score.
type ScoreRequest struct {
	Model       string  `json:"model"`
	Text1       Strings `json:"text_1"`
	Text2       Strings `json:"text_2"`
	Instruction *string `json:"instruction"`
	Pooling
	Unknown Unknown `json:",unknown"`
}

// Document is a text to be ranked: a string, or an object with it.
type Document struct {
	Text string `json:"text"`
}

// UnmarshalJSONFrom reads a string or an object.
func (d *Document) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '"':
		return json.UnmarshalDecode(dec, &d.Text)
	case '{':
		var object struct {
			Text *string `json:"text"`
		}
		if err := json.UnmarshalDecode(dec, &object, json.RejectUnknownMembers(true)); err != nil {
			return err
		}
		if object.Text != nil {
			d.Text = *object.Text
			return nil
		}
	}
	return errors.New(`must be a string or an object {"text": string}`)
}

// EmbeddingList is the answer of POST /v1/embeddings.
type EmbeddingList struct {
	Object string       `json:"object"` // "list"
	Data   []Embedding  `json:"data"`
	Model  string       `json:"model"`
	Usage  PoolingUsage `json:"usage"`
}

// Embedding is one vector.
type Embedding struct {
	Object    string `json:"object"` // "embedding"
	Index     int    `json:"index"`
	Embedding Vector `json:"embedding"`
}

// Vector is a list of numbers, or their bytes in base64: float32, little-endian.
type Vector struct {
	Floats []float32
	Base64 string // if Floats is nil
}

// MarshalJSONTo writes the form that is set.
func (v Vector) MarshalJSONTo(enc *jsontext.Encoder) error {
	if v.Floats == nil {
		return enc.WriteToken(jsontext.String(v.Base64))
	}
	return json.MarshalEncode(enc, v.Floats)
}

// UnmarshalJSONFrom reads either form.
func (v *Vector) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '"' {
		return json.UnmarshalDecode(dec, &v.Base64)
	}
	return json.UnmarshalDecode(dec, &v.Floats)
}

// PoolingUsage counts the tokens of a request's texts.
type PoolingUsage struct {
	PromptTokens int `json:"prompt_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

// Ranking is the answer of POST /v1/rerank, the best document first.
type Ranking struct {
	ID      string       `json:"id"`
	Model   string       `json:"model"`
	Results []Ranked     `json:"results"`
	Usage   PoolingUsage `json:"usage"`
}

// Ranked is a document with its score. Document is absent unless it is to be returned.
type Ranked struct {
	Index          int       `json:"index"` // in the request's documents
	RelevanceScore float64   `json:"relevance_score"`
	Document       *Document `json:"document,omitzero"`
}

// ScoreList is the answer of POST /v1/score.
type ScoreList struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"` // "list"
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Data    []Score      `json:"data"`
	Usage   PoolingUsage `json:"usage"`
}

// Score is the score of one pair.
type Score struct {
	Index  int     `json:"index"`
	Object string  `json:"object"` // "score"
	Score  float64 `json:"score"`
}
