// Package openapi is the contract of the HTTP API: openapi.yaml, which is served, and the Go types of what it
// describes. Both are written by hand, because generators fail on OpenAI's unions; tests hold them together.
package openapi

import (
	_ "embed" // openapi.yaml
	"fmt"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

//go:embed openapi.yaml
var document []byte

// YAML returns the document as it is written.
func YAML() []byte { return document }

// JSON returns the document as JSON, keys in the order of the YAML. It is converted once.
var JSON = sync.OnceValues(func() ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	return appendNode(nil, root.Content[0])
})

// appendNode appends a YAML node as JSON. Aliases and non-string keys are not used in the document.
func appendNode(dst []byte, n *yaml.Node) ([]byte, error) {
	var err error
	switch n.Kind {
	case yaml.MappingNode:
		dst = append(dst, '{')
		for i := 0; i < len(n.Content); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = jsontext.AppendQuote(dst, n.Content[i].Value); err != nil {
				return nil, err
			}
			dst = append(dst, ':')
			if dst, err = appendNode(dst, n.Content[i+1]); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, c := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendNode(dst, c); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, err
		}
		b, err := json.Marshal(v)
		return append(dst, b...), err
	}
	return nil, fmt.Errorf("openapi.yaml:%d: unexpected kind of node", n.Line)
}
