package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// readJSON decodes an object into out and, key by key, into the map it returns.
func (c *Checkpoint) readJSON(name string, out any) (map[string]jsontext.Value, error) {
	data, err := c.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var raw map[string]jsontext.Value
	if err = json.Unmarshal(data, &raw); err == nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, plain(err))
	}
	return raw, nil
}

// plain says in a file's terms, instead of in Go's, which value is wrong.
func plain(err error) error {
	e, ok := errors.AsType[*json.SemanticError](err)
	if !ok || e.GoType == nil {
		return err
	}
	where := strings.Join(slices.Collect(e.JSONPointer.Tokens()), ".")
	if where != "" {
		where += ": "
	}
	got, known := kinds[e.JSONKind]
	if !known {
		return fmt.Errorf("%.200s%w", where, cmp.Or(e.Err, err)) // of a method that reads the value
	}
	if len(e.JSONValue) > 0 {
		got = string(e.JSONValue)
	}
	return fmt.Errorf("%.200s%.40s instead of %s", where, got, wanted[e.GoType.Kind()])
}

var kinds = map[jsontext.Kind]string{'[': "a list", '{': "an object", '"': "a string", '0': "a number", 't': "true", 'f': "false", 'n': "null"}

// wanted are what JSON has for Go's types.
var wanted = map[reflect.Kind]string{
	reflect.Bool: "true or false", reflect.Float64: "a number", reflect.Int: "an integer", reflect.Int32: "an integer of 32 bits",
	reflect.Map: "an object", reflect.Slice: "a list", reflect.String: "a string", reflect.Struct: "an object",
}
