package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

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
	data = bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF")) // Windows' editors begin a file so
	if strings.HasSuffix(name, ".json") {
		if offset, err := checkJSON(data); err != nil {
			l.fail(fmt.Sprintf("%s:%d", base, lineOf(data, offset)), "%w", err)
			return
		}
		data = jsonEscape.ReplaceAllFunc(data, unescape)
	}
	l.mapping(base, data) // JSON is YAML too, but for some escapes
}

// jsonEscape matches the escapes of JSON's strings, of which YAML lacks \/ and halves of characters.
var jsonEscape = regexp.MustCompile(`\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.`)

func unescape(escape []byte) []byte {
	if len(escape) == 2 && escape[1] != '/' {
		return escape
	}
	var s string
	if err := json.Unmarshal(append(append([]byte{'"'}, escape...), '"'), &s); err != nil {
		panic("config: " + err.Error()) // it stood in valid JSON
	}
	return []byte(s)
}

// checkJSON reports a syntax error and where it is.
func checkJSON(data []byte) (offset int, err error) {
	var v any
	err = json.Unmarshal(data, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = int(syntax.Offset)
	}
	return offset, err
}

// lineOf is the line in which the byte at offset stands.
func lineOf(data []byte, offset int) int {
	return 1 + bytes.Count(data[:min(offset, len(data))], []byte("\n"))
}

// mapping sets options from a document whose top is a map of names to values.
func (l *loader) mapping(file string, data []byte) {
	if at := notUTF8(data); at >= 0 {
		l.fail(fmt.Sprintf("%s:%d", file, lineOf(data, at)), "the text is not UTF-8")
		return
	}
	var doc, more yaml.Node
	in := yaml.NewDecoder(bytes.NewReader(data))
	if err := in.Decode(&doc); err == io.EOF {
		return // empty
	} else if err != nil {
		l.syntax(file, err)
		return
	}
	if err := in.Decode(&more); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("line %d: a second document begins; a file is one", more.Line)
		}
		l.syntax(file, err)
		return
	}
	top := doc.Content[0]
	switch {
	case top.Kind == yaml.MappingNode:
		l.pairs(file, top)
	case !isNull(top):
		l.fail(fmt.Sprintf("%s:%d", file, top.Line), "the file must be a map of option names to values")
	}
}

// notUTF8 is where data is not UTF-8, -1 if all of it is; UTF-16 says so by its first two bytes, and YAML takes it.
func notUTF8(data []byte) int {
	if bytes.HasPrefix(data, []byte("\xFF\xFE")) || bytes.HasPrefix(data, []byte("\xFE\xFF")) {
		return -1
	}
	for at := 0; at < len(data); {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

// syntax reports an error of the YAML library, which says the line in words.
func (l *loader) syntax(file string, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if line, what, ok := strings.Cut(rest, ": "); ok {
			file, text = file+":"+line, what
		}
	}
	l.fail(file, "%s", text)
}

// pairs sets options from a map of names to values.
func (l *loader) pairs(file string, top *yaml.Node) {
	content, err := merged(top, 0)
	if err != nil {
		l.fail(fmt.Sprintf("%s:%d", file, top.Line), "%w", err)
		return
	}
	seen := map[string]int{}
	for i := 0; i < len(content); i += 2 {
		key, value := content[i], resolved(content[i+1])
		place := fmt.Sprintf("%s:%d", file, key.Line)
		if l.entry != "" {
			place += ": " + l.entry
		}
		if key = resolved(key); key.Kind != yaml.ScalarNode {
			l.fail(place, "an option's name must be text")
			continue
		}
		o, name := l.lookup(key.Value), normal(key.Value)
		if o != nil {
			name = o.Name
		}
		if seen[name] > 0 {
			l.fail(place, "%s stands at line %d already", name, seen[name])
			continue
		}
		seen[name] = key.Line
		switch {
		case name == "models" && l.entry == "":
			l.models(file, place, value)
		case slices.Contains(plugins, name):
			l.plugin(file, name, place, value)
		case o == nil && !l.isIdle(place, key.Value, scalar(value)):
			l.unknown(place, key.Value)
		case o == nil:
		case l.entry != "" && !o.ofModel():
			l.fail(place, "%s is the server's, not a model's", o.Name)
		default:
			if !o.heededBy(l.command) {
				l.warn("%s: %s has no effect on pagoda %s", place, o.Name, l.command)
			}
			l.node(o, place, value)
		}
	}
}

// plugin reads one of the maps that are plugins.
func (l *loader) plugin(file, name, place string, n *yaml.Node) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		l.fail(place, "%s: must be a map", name)
		return
	}
	flat := yaml.Node{Kind: yaml.MappingNode, Line: n.Line}
	content, err := merged(n, 0)
	if err != nil {
		l.fail(place, "%s: %w", name, err)
		return
	}
	for i := 0; i < len(content); i += 2 {
		key := *resolved(content[i])
		key.Value = name + "." + key.Value
		flat.Content = append(flat.Content, &key, content[i+1])
	}
	l.pairs(file, &flat)
}

// resolved is what an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// maxMerges bounds maps that are merged into maps.
const maxMerges = 16

// merged is the content of a map: keys and values in turn, with those that a key << merges into it. What stands in the map
// itself goes before these.
func merged(n *yaml.Node, depth int) (content []*yaml.Node, err error) {
	if depth > maxMerges {
		return nil, fmt.Errorf("more than %d maps are merged into one another", maxMerges)
	}
	var further []*yaml.Node
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], resolved(n.Content[i+1])
		if key.Tag != "!!merge" {
			content = append(content, key, n.Content[i+1])
			continue
		}
		maps := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			maps = value.Content
		}
		for _, m := range maps {
			if m = resolved(m); m.Kind != yaml.MappingNode {
				return nil, errors.New("<< must merge maps")
			}
			more, err := merged(m, depth+1)
			if err != nil {
				return nil, err
			}
			further = append(further, more...)
		}
	}
	have := map[string]bool{}
	for i := 0; i < len(content); i += 2 {
		have[normal(content[i].Value)] = true
	}
	for i := 0; i < len(further); i += 2 {
		if name := normal(further[i].Value); !have[name] {
			have[name] = true
			content = append(content, further[i], further[i+1])
		}
	}
	return content, nil
}

// keyValue reads an argument name=value, the value in YAML.
func (l *loader) keyValue(arg string) {
	name, text, _ := strings.Cut(arg, "=")
	place := "argument " + name
	o, path := l.lookupPath(name)
	var doc yaml.Node
	switch {
	case o == nil:
		if !l.isIdle(place, name, &text) {
			l.unknown(place, name)
		}
	case path != "", o.Type() == "list", !o.heededBy(l.command): // a key or a path may hold anything
		l.arg(o, path, place, text)
	case yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) == 0:
		l.set(o, place, text)
	default:
		l.node(o, place, doc.Content[0])
	}
}

// setWithin sets the value at a path within a map, in YAML.
func (l *loader) setWithin(o *Option, path, place, text string) {
	var value any
	if yaml.Unmarshal([]byte(text), &value) != nil {
		value = text
	}
	names := strings.Split(path, ".")
	for _, name := range slices.Backward(names) {
		value = map[string]any{name: value}
	}
	l.finish(o, place, o.merge(value))
}

// node sets an option from a YAML value. null leaves it as it is.
func (l *loader) node(o *Option, place string, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode && o.Type() == "list" {
		var items []string
		for _, item := range n.Content {
			if item = resolved(item); item.Kind != yaml.ScalarNode || strings.Contains(item.Value, ",") {
				l.wrong[o.Name] = true
				l.fail(place, "%s: the entries of a list must be text without commas", o.Name)
				return
			}
			items = append(items, item.Value)
		}
		l.set(o, place, strings.Join(items, ","))
		return
	}
	if n.Kind == yaml.MappingNode && o.Type() == "map" {
		var value any
		err := n.Decode(&value)
		if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
			err = errors.New(strings.Join(wrong.Errors, "; ")) // each with its line
		}
		if err == nil {
			err = o.merge(value)
		}
		l.finish(o, place, err)
		return
	}
	if n.Kind != yaml.ScalarNode {
		l.finish(o, place, fmt.Errorf("must be %s, not a %s", article(o.Type()), kindName(n.Kind)))
		return
	}
	if isNull(n) {
		return
	}
	plain := isPlain(n)
	switch isBool := o.Type() == "bool"; {
	case isBool && (!plain || !isYAMLBool(n.Value)):
		l.finish(o, place, fmt.Errorf("must be true or false, not %q", n.Value))
	case !isBool && plain && isYAMLBool(n.Value):
		l.finish(o, place, fmt.Errorf("must be %s; %s is a boolean in YAML, put it in quotes to mean the text", article(o.Type()), n.Value))
	default:
		l.set(o, place, n.Value)
	}
}

// isNull tells null and nothing from text.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && isPlain(n) && (n.Value == "" || n.Value == "~" || strings.EqualFold(n.Value, "null"))
}

func isPlain(n *yaml.Node) bool {
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

// scalar is the text of a value that is neither a list nor a map, "" of null.
func scalar(n *yaml.Node) *string {
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
