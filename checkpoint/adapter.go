package checkpoint

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// AdapterConfig is adapter_config.json as PEFT writes it for LoRA.
type AdapterConfig struct {
	PeftType       string       `json:"peft_type"`
	BaseModel      string       `json:"base_model_name_or_path"`
	R              int          `json:"r"`
	LoRAAlpha      float64      `json:"lora_alpha"`
	UseRSLoRA      bool         `json:"use_rslora"`
	TargetModules  ModuleFilter `json:"target_modules"`
	ExcludeModules ModuleFilter `json:"exclude_modules"`
	RankPattern    Patterns     `json:"rank_pattern"`
	AlphaPattern   Patterns     `json:"alpha_pattern"`
}

// unsupportedLoRA are keys that change what an adapter computes in a way we do not; each must be absent, null, empty,
// false, or the value given here.
var unsupportedLoRA = []struct{ key, allowed string }{
	{"use_dora", ""}, {"use_qalora", ""}, {"bias", `"none"`}, {"lora_bias", ""}, {"modules_to_save", ""},
	{"fan_in_fan_out", ""}, {"layers_to_transform", ""}, {"layers_pattern", ""}, {"layer_replication", ""},
	{"trainable_token_indices", ""}, {"target_parameters", ""}, {"alora_invocation_tokens", ""}, {"megatron_config", ""},
}

// AdapterConfig reads adapter_config.json. What we do not compute is an error that names the key.
func (c *Checkpoint) AdapterConfig() (*AdapterConfig, error) {
	const name = "adapter_config.json"
	var config AdapterConfig
	raw, err := c.readJSON(name, &config)
	if err == nil {
		err = config.check(raw)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return &config, nil
}

func (a *AdapterConfig) check(raw map[string]jsontext.Value) error {
	if a.PeftType != "LORA" {
		return fmt.Errorf("peft_type %q is not supported, only LORA", a.PeftType)
	}
	var errs []error
	for _, u := range unsupportedLoRA {
		switch value := string(raw[u.key]); value {
		case "", "null", "false", "[]", "{}", u.allowed:
		default:
			errs = append(errs, fmt.Errorf("%s = %.80s is not supported", u.key, value))
		}
	}
	// These ways to start also change the base weights, and the adapter alone does not say how.
	if init := strings.ToLower(string(raw["init_lora_weights"])); strings.Contains(init, "pissa") ||
		strings.Contains(init, "olora") || strings.Contains(init, "corda") || strings.Contains(init, "loftq") {
		errs = append(errs, fmt.Errorf("init_lora_weights = %s is not supported: it changes the base weights", init))
	}
	if a.R < 1 || !(a.LoRAAlpha > 0) || math.IsInf(a.LoRAAlpha, 0) {
		errs = append(errs, fmt.Errorf("r = %d with lora_alpha = %g: both must be positive", a.R, a.LoRAAlpha))
	}
	if !a.TargetModules.given() {
		errs = append(errs, errors.New("target_modules is missing"))
	}
	return errors.Join(errs...)
}

// Rank is the rank of module, which may have its own.
func (a *AdapterConfig) Rank(module string) int {
	return int(a.RankPattern.value(module, float64(a.R)))
}

// Scale is what the product of module's matrices is multiplied by.
func (a *AdapterConfig) Scale(module string) float32 {
	alpha, rank := a.AlphaPattern.value(module, a.LoRAAlpha), float64(a.Rank(module))
	if a.UseRSLoRA {
		return float32(alpha / math.Sqrt(rank))
	}
	return float32(alpha / rank)
}

// Targets says whether module is adapted.
func (a *AdapterConfig) Targets(module string) bool {
	return a.TargetModules.match(module) && !a.ExcludeModules.match(module)
}

// ModuleFilter chooses modules: a list of names, each matching a whole name or its end after a dot, or one regular
// expression for the whole name.
type ModuleFilter struct {
	Names  []string
	Regexp *regexp.Regexp
}

// allLinear is PEFT's word for every linear layer but the head.
const allLinear = "all-linear"

// UnmarshalJSONFrom reads a list, a string or null.
func (f *ModuleFilter) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*f = ModuleFilter{}
	switch d.PeekKind() {
	case '[':
		return json.UnmarshalDecode(d, &f.Names)
	case 'n':
		return d.SkipValue()
	}
	var s string
	if err := json.UnmarshalDecode(d, &s); err != nil {
		return err
	}
	if s == allLinear {
		f.Names = []string{s}
		return nil
	}
	re, err := regexp.Compile(`^(?:` + s + `)$`)
	if err != nil {
		return fmt.Errorf("regular expression %.80q is not supported", s)
	}
	f.Regexp = re
	return nil
}

func (f *ModuleFilter) given() bool { return len(f.Names) > 0 || f.Regexp != nil }

func (f *ModuleFilter) match(module string) bool {
	if f.Regexp != nil {
		return f.Regexp.MatchString(module)
	}
	return slices.ContainsFunc(f.Names, func(name string) bool {
		return name == allLinear || module == name || strings.HasSuffix(module, "."+name)
	})
}

// Patterns give modules their own number. The first that matches counts, so their order in the file is kept.
type Patterns []pattern

type pattern struct {
	re    *regexp.Regexp
	value float64
}

// UnmarshalJSONFrom reads an object of expression → positive number, or null.
func (p *Patterns) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*p = nil
	if d.PeekKind() == 'n' {
		return d.SkipValue()
	}
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return errors.Join(errors.New("not an object"), err)
	}
	for d.PeekKind() == '"' {
		key, err := readString(d)
		if err != nil {
			return err
		}
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + key + `)$`)
		if err != nil {
			return fmt.Errorf("regular expression %.80q is not supported", key)
		}
		var value float64
		if err := json.UnmarshalDecode(d, &value); err != nil {
			return err
		}
		if !(value > 0) || value > math.MaxInt32 {
			return fmt.Errorf("%.80q: %g is not a positive number", key, value)
		}
		*p = append(*p, pattern{re, value})
	}
	_, err := d.ReadToken()
	return err
}

func (p Patterns) value(module string, other float64) float64 {
	for _, entry := range p {
		if entry.re.MatchString(module) {
			return entry.value
		}
	}
	return other
}
