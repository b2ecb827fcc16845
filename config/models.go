package config

import (
	"fmt"
	"maps"

	"go.yaml.in/yaml/v3"
)

// models notes a list of models, to be read when all options are known that its entries share.
func (l *loader) models(file, place string, list *yaml.Node) {
	if l.command != "serve" {
		l.warn("%s: models has no effect on pagoda %s", place, l.command)
		return
	}
	if list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		l.fail(place, "models: must be a list of maps of option names to values")
		return
	}
	l.entries = append(l.entries, l.checkOwn)
	for i, entry := range list.Content {
		l.entries = append(l.entries, func() { l.model(file, fmt.Sprintf("models[%d]", i), resolved(entry)) })
	}
}

// ownOptions are what an entry does not have from the top level.
var ownOptions = []string{"model_name_or_path", "served_model_name", "adapter_name_or_path", "upstream_url", "upstream_url_file", "tokenizer"}

// model reads one entry. It has what the top level says, but for ownOptions.
func (l *loader) model(file, name string, entry *yaml.Node) {
	own := newLoader(l.command, l.res.Config)
	own.checks, own.extra, own.entry, own.entryPlace = l.checks, l.extra, name, fmt.Sprintf("%s:%d: %s", file, entry.Line, name)
	if entry.Kind != yaml.MappingNode {
		l.fail(own.entryPlace, "must be a map of option names to values")
		return
	}
	own.res.sources = maps.Clone(l.res.sources)
	c := &own.res.Config
	c.ModelNameOrPath, c.ServedModelName, c.AdapterNameOrPath, c.UpstreamURL, c.UpstreamURLFile, c.Tokenizer = "", "", nil, nil, "", ""
	for _, o := range ownOptions {
		delete(own.res.sources, o)
	}
	own.pairs(file, entry)
	own.validate()
	own.warnOfBackend()
	own.name(l.names)
	l.errs = append(l.errs, own.errs...)
	for _, text := range own.idle {
		l.noteIdle(text)
	}
	l.res.Warnings = append(l.res.Warnings, own.res.Warnings...)
	l.res.Models = append(l.res.Models, own.res)
}

// name checks the names by which requests choose the entry's model and adapters, as far as they are given; names are those of
// the entries before.
func (l *loader) name(names map[string]string) {
	c := &l.res.Config
	if c.Attached() && c.ServedModelName == "" && c.ModelNameOrPath == "" {
		l.fail(l.entryPlace, "served_model_name: is required with upstream_url: beside other models its name must be known before its server is up")
	}
	take := func(option, name, hint string) {
		if other := names[name]; other != "" {
			l.fail(l.res.Source(option), "%s: %s has the name %q already%s", option, other, name, hint)
		}
		names[name] = l.entry
	}
	if c.ServedModelName != "" {
		take("served_model_name", c.ServedModelName, "")
	} else if name := c.Name(); name != "" {
		take("model_name_or_path", name, "; served_model_name gives another")
	}
	adapters, err := c.Adapters()
	if err != nil {
		return // which is reported
	}
	for _, a := range adapters {
		take("adapter_name_or_path", a.Name, "")
	}
}

// checkOwn reports what the top level says and no entry has from it.
func (l *loader) checkOwn() {
	for _, name := range ownOptions {
		switch place := l.res.Source(name); {
		case place == "default":
		case name == "served_model_name": // API_MODEL_NAME may well be set for everything
			l.warn("%s: served_model_name has no effect beside models: each entry says its own", place)
		default:
			l.fail(place, "%s: is for an entry of models to say", name)
		}
	}
}
