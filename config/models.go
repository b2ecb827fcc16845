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
	for i, entry := range list.Content {
		l.entries = append(l.entries, func() { l.model(file, fmt.Sprintf("models[%d]", i), entry) })
	}
}

// model reads one entry. It has what the top level says, but for the model, its name and its adapters.
func (l *loader) model(file, name string, entry *yaml.Node) {
	if entry.Kind != yaml.MappingNode {
		l.fail(fmt.Sprintf("%s:%d: %s", file, entry.Line, name), "must be a map of option names to values")
		return
	}
	own := &loader{command: l.command, extra: l.extra, entry: name, res: &Result{Config: l.res.Config, sources: maps.Clone(l.res.sources)}}
	c := &own.res.Config
	c.ModelNameOrPath, c.ServedModelName, c.AdapterNameOrPath, c.UpstreamURL = "", "", nil, nil
	own.opts = c.options()
	own.pairs(file, entry)
	if len(own.errs) == 0 {
		if err := c.Validate(); err != nil {
			own.fail(fmt.Sprintf("%s:%d: %s", file, entry.Line, name), "%w", err)
		}
	}
	own.warnOfBackend()
	l.errs = append(l.errs, own.errs...)
	l.idle = append(l.idle, own.idle...)
	l.res.Warnings = append(l.res.Warnings, own.res.Warnings...)
	l.res.Models = append(l.res.Models, *c)
}
