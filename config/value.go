package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Type names the kind of value in lists.
func (o *Option) Type() string {
	switch o.target.(type) {
	case *bool, **bool:
		return "bool"
	case *int, **int:
		return "int"
	case *int64:
		return "size"
	case *float64, **float64:
		return "number"
	case *time.Duration:
		return "duration"
	case *[]string:
		return "list"
	case *map[string]any:
		return "map"
	}
	if len(o.Choices) > 0 {
		return strings.Join(o.Choices, ", ")
	}
	return "text"
}

// setText sets the value from the text of a flag, an environment variable or a YAML scalar.
func (o *Option) setText(s string) (err error) {
	switch p := o.target.(type) {
	case *string:
		*p = s
	case **string:
		*p = &s
	case *bool:
		*p, err = readBool(s)
	case **bool:
		*p, err = given(readBool(s))
	case *int:
		*p, err = readInt(s)
	case **int:
		*p, err = given(readInt(s))
	case *int64:
		*p, err = ParseSize(s)
	case *float64:
		*p, err = readNumber(s)
	case **float64:
		*p, err = given(readNumber(s))
	case *time.Duration:
		*p, err = parseDuration(s)
	case *[]string:
		*p = splitList(s)
	case *map[string]any:
		var value any
		if strings.TrimSpace(s) == "" {
			*p = nil
		} else if yaml.Unmarshal([]byte(s), &value) != nil {
			err = notMap(s)
		} else {
			err = o.merge(value)
		}
	default:
		panic(fmt.Sprintf("config: option %s has no type", o.Name)) // a mistake in the table
	}
	return err
}

// given is a value that was given, for options that may have none.
func given[T any](v T, err error) (*T, error) { return &v, err }

func readBool(s string) (bool, error) {
	b, ok := parseBool(s)
	if !ok {
		return false, fmt.Errorf("%q is not true or false", s)
	}
	return b, nil
}

func readInt(s string) (int, error) {
	n, err := strconv.ParseInt(s, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return int(n), nil
}

func readNumber(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return f, nil
}

// check holds the value to the option's choices and limits.
func (o *Option) check() error {
	switch p := o.target.(type) {
	case *string:
		if len(o.Choices) > 0 && !slices.Contains(o.Choices, *p) {
			return fmt.Errorf("%q is none of %s", *p, strings.Join(o.Choices, ", "))
		}
	case *int:
		return o.checkRange(float64(*p))
	case **int:
		if *p != nil {
			return o.checkRange(float64(**p))
		}
	case **float64:
		if *p != nil {
			return o.checkRange(**p)
		}
	case *int64:
		return o.checkRange(float64(*p))
	case *float64:
		return o.checkRange(*p)
	case *time.Duration:
		return o.checkRange(p.Seconds())
	}
	return nil
}

func (o *Option) checkRange(v float64) error {
	max := o.Max
	if max == 0 {
		max = math.Inf(1)
	}
	if !(v >= o.Min && v <= max) {
		if o.Max == 0 {
			return fmt.Errorf("%s is below %s", o.Text(), formatNumber(o.Min))
		}
		return fmt.Errorf("%s is not from %s to %s", o.Text(), formatNumber(o.Min), formatNumber(o.Max))
	}
	return nil
}

func formatNumber(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// Text is the value as one would write it.
func (o *Option) Text() string {
	switch p := o.target.(type) {
	case *string:
		return *p
	case **string:
		if *p != nil {
			return **p
		}
	case *bool:
		return strconv.FormatBool(*p)
	case **bool:
		if *p != nil {
			return strconv.FormatBool(**p)
		}
	case *int:
		return strconv.Itoa(*p)
	case **int:
		if *p != nil {
			return strconv.Itoa(**p)
		}
	case **float64:
		if *p != nil {
			return formatNumber(**p)
		}
	case *int64:
		return formatSize(*p)
	case *float64:
		return formatNumber(*p)
	case *time.Duration:
		return p.String()
	case *[]string:
		return strings.Join(*p, ",")
	case *map[string]any:
		if *p == nil {
			return ""
		}
		text, err := json.Marshal(*p)
		if err != nil {
			panic("config: " + err.Error()) // it came from YAML or JSON
		}
		return string(text)
	}
	return ""
}

// merge puts a value of JSON or YAML, which must be a map, over the map that a map option has.
func (o *Option) merge(value any) error {
	over, ok := value.(map[string]any)
	if !ok {
		return notMap(value)
	}
	if _, err := json.Marshal(over); err != nil {
		return fmt.Errorf("%v has names that are no text", value)
	}
	p := o.target.(*map[string]any)
	*p = mergeMaps(*p, over)
	return nil
}

func notMap(value any) error {
	return fmt.Errorf("%q is not a map such as {\"max_num_seqs\": 64}", fmt.Sprint(value))
}

// mergeMaps is base with over's values in place of its own; maps within both are merged. Neither is changed.
func mergeMaps(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for name, v := range over {
		under, isMap := out[name].(map[string]any)
		if m, ok := v.(map[string]any); ok && isMap {
			v = mergeMaps(under, m)
		}
		out[name] = v
	}
	return out
}

// parseBool knows the words of YAML 1.1 and those that LlamaFactory's flags take.
func parseBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "true", "t", "yes", "y", "on", "1":
		return true, true
	case "false", "f", "no", "n", "off", "0":
		return false, true
	}
	return false, false
}

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"b", 1},
}

// ParseSize reads a number of bytes: 1073741824, 1GiB, 1.5GB.
func ParseSize(s string) (int64, error) {
	num, unit := strings.ToLower(strings.TrimSpace(s)), 1.0
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(num, u.suffix); ok {
			num, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(num, "_", ""), 64)
	if err != nil || !(f >= 0 && f*unit < 1<<62) {
		return 0, fmt.Errorf("%q is not a size such as 1048576, 512MiB or 4GB", s)
	}
	return int64(f * unit), nil
}

func formatSize(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// parseDuration reads 30s, 1m30s, or a bare number of seconds.
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f <= 1e9 {
		return time.Duration(f * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time such as 30, 30s or 5m", s)
	}
	return d, nil
}

// splitList splits at commas, trims, and leaves empty entries out.
func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
