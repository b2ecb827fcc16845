package checkpoint

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/spelling"
)

// Override gives config.json other values, by key; null takes a key away.
func (c *Checkpoint) Override(keys map[string]jsontext.Value) { c.overrides = keys }

// override is config.json with the overrides.
func (c *Checkpoint) override(data []byte) ([]byte, error) {
	if len(c.overrides) == 0 {
		return data, nil
	}
	var keys map[string]jsontext.Value
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	for key, value := range c.overrides {
		if value.Kind() == 'n' {
			delete(keys, key)
		} else {
			keys[key] = value
		}
	}
	return json.Marshal(keys)
}

// IdleOverrides returns the overrides that change nothing: other values than the file's, without which describe, which reads the
// checkpoint, says the same. One that is neither a key of the file nor of Config or further structs is an error.
func (c *Checkpoint) IdleOverrides(describe func() any, structs ...any) (idle []string, err error) {
	if len(c.overrides) == 0 {
		return nil, nil
	}
	data, err := c.readFile("config.json")
	if err != nil {
		return nil, err
	}
	var file map[string]jsontext.Value
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	known := slices.Concat(slices.Collect(maps.Keys(file)), jsonNames(Config{}))
	for _, s := range structs {
		known = append(known, jsonNames(s)...)
	}
	slices.Sort(known)
	all := c.overrides
	defer func() { c.overrides = all }()
	whole := describe()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if bytes.Equal(all[key], file[key]) {
			continue
		}
		c.overrides = maps.Clone(all)
		delete(c.overrides, key)
		switch isIdle := reflect.DeepEqual(whole, describe()); {
		case !isIdle:
		case slices.Contains(known, key):
			idle = append(idle, key)
		default:
			if near := spelling.Nearest(key, known); near != "" {
				return nil, fmt.Errorf("no model has a key %q; did you mean %q?", key, near)
			}
			return nil, fmt.Errorf("no model has a key %q", key)
		}
	}
	return idle, nil
}

// jsonNames are those of a struct's fields.
func jsonNames(s any) (names []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeOf(s)) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}
