package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

const maxFileBytes = 1 << 20

// file reads a YAML or JSON file of options.
func (l *loader) file(name string) {
	data, err := os.ReadFile(name)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("configuration file: %w", err))
		return
	}
	base := filepath.Base(name)
	if len(data) > maxFileBytes {
		l.fail(base, "larger than %d bytes", maxFileBytes)
		return
	}
	if strings.HasSuffix(name, ".json") {
		if err := checkJSON(data); err != nil {
			l.fail(base, "%w", err)
			return
		}
	}
	l.mapping(base, data) // JSON is YAML too
}

// checkJSON reports the line of a syntax error.
func checkJSON(data []byte) error {
	var v any
	err := json.Unmarshal(data, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("line %d: %w", 1+bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n")), err)
	}
	return err
}

// mapping sets options from a document whose top is a map of names to values.
func (l *loader) mapping(file string, data []byte) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		l.fail(file, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if len(doc.Content) == 0 {
		return // empty
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		l.fail(fmt.Sprintf("%s:%d", file, top.Line), "the file must be a map of option names to values")
		return
	}
	l.pairs(file, top)
}

// pairs sets options from a map of names to values.
func (l *loader) pairs(file string, top *yaml.Node) {
	seen := map[string]int{}
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		place := fmt.Sprintf("%s:%d", file, key.Line)
		if l.entry != "" {
			place += ": " + l.entry
		}
		o := l.lookup(key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			l.fail(place, "an option's name must be text")
		case normal(key.Value) == "models" && l.entry == "":
			l.models(file, place, value)
		case l.entry != "" && o != nil && o.Backends == "":
			l.fail(place, "%s is the server's, not a model's", o.Name)
		case o == nil && l.isIdle(place, key.Value, scalar(value)):
		case o == nil:
			l.unknown(place, key.Value)
		case seen[o.Name] > 0:
			l.fail(place, "%s stands at line %d already", o.Name, seen[o.Name])
		default:
			seen[o.Name] = key.Line
			if !o.heededBy(l.command) {
				l.warn("%s: %s has no effect on pagoda %s", place, o.Name, l.command)
			}
			l.node(o, place, value)
		}
	}
}

// keyValue reads an argument name=value, the value in YAML.
func (l *loader) keyValue(arg string) {
	name, text, _ := strings.Cut(arg, "=")
	o := l.lookup(name)
	if o == nil {
		if !l.isIdle("argument "+name, name, &text) {
			l.unknown("argument "+name, name)
		}
		return
	}
	place := "argument " + name
	if !o.heededBy(l.command) {
		l.fail(place, "pagoda %s does not heed %s (it is for: %s)", l.command, o.Name, o.Commands)
		return
	}
	if o.Type() == "list" { // a key or a path may hold anything
		l.set(o, place, text)
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		l.set(o, place, text)
		return
	}
	l.node(o, place, doc.Content[0])
}

// node sets an option from a YAML value. null leaves it as it is.
func (l *loader) node(o *Option, place string, n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.SequenceNode && o.Type() == "list" {
		var items []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || strings.Contains(item.Value, ",") {
				l.fail(place, "%s: the entries of a list must be text without commas", o.Name)
				return
			}
			items = append(items, item.Value)
		}
		l.set(o, place, strings.Join(items, ","))
		return
	}
	if n.Kind == yaml.MappingNode && o.Type() == "map" {
		text, err := yaml.Marshal(n)
		if err != nil {
			l.fail(place, "%s: %w", o.Name, err)
			return
		}
		l.set(o, place, string(text))
		return
	}
	if n.Kind != yaml.ScalarNode {
		l.fail(place, "%s: must be %s, not a %s", o.Name, article(o.Type()), kindName(n.Kind))
		return
	}
	if isNull(n) {
		return
	}
	plain := isPlain(n)
	switch isBool := o.Type() == "bool"; {
	case isBool && (!plain || !isYAMLBool(n.Value)):
		l.fail(place, "%s: must be true or false, not %q", o.Name, n.Value)
	case !isBool && plain && isYAMLBool(n.Value):
		l.fail(place, "%s: must be %s; %s is a boolean in YAML, put it in quotes to mean the text", o.Name,
			article(o.Type()), n.Value)
	default:
		l.set(o, place, n.Value)
	}
}

// isNull tells null and nothing from text.
func isNull(n *yaml.Node) bool {
	return isPlain(n) && (n.Value == "" || n.Value == "~" || strings.EqualFold(n.Value, "null"))
}

func isPlain(n *yaml.Node) bool {
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

// scalar is the text of a value that is neither a list nor a map, "" of null.
func scalar(n *yaml.Node) *string {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		return nil
	case isNull(n):
		return new(string)
	}
	return &n.Value
}

// isYAMLBool knows YAML 1.1's words as PyYAML reads them: y, n, t and f are not among them.
func isYAMLBool(s string) bool {
	lower := strings.ToLower(s)
	switch lower {
	case "yes", "no", "true", "false", "on", "off":
	default:
		return false
	}
	return s == lower || s == strings.ToUpper(s) || s == strings.ToUpper(s[:1])+lower[1:]
}

func article(typ string) string {
	switch typ {
	case "int":
		return "a whole number"
	case "text":
		return "text"
	case "bool":
		return "true or false"
	case "number", "size", "duration", "list", "map":
		return "a " + typ
	}
	return "one of " + typ
}

func kindName(k yaml.Kind) string {
	if k == yaml.SequenceNode {
		return "list"
	}
	return "map"
}
