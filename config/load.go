package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pagoda/spelling"
)

// Result is what Load made of its sources.
type Result struct {
	Config
	Warnings    []string  // things that were read and have no effect, for the log
	Help        bool      // --help was given
	PrintConfig bool      // --print-config was given
	Models      []*Result // what the file's list of models says, each with all else from the rest; empty: Config is the model

	sources map[string]string // by option name: where its value comes from
}

// Check returns what packages that heed options find wrong with their values, joined: each error begins with an option's name
// and ": ".
type Check func(*Config) error

// Load reads the options of a command: the file that args begin with, environ, and the rest of args. The error names
// every problem, those that checks find too, one a line.
func Load(command string, args, environ []string, checks ...Check) (*Result, error) {
	l := newLoader(command, Defaults())
	l.checks = checks
	l.extra = slices.ContainsFunc(environ, func(kv string) bool {
		v, ok := strings.CutPrefix(kv, "ALLOW_EXTRA_ARGS=")
		allow, _ := parseBool(v)
		return ok && allow
	})
	if len(args) > 0 && isConfigFile(args[0]) {
		l.file(args[0])
		args = args[1:]
	}
	l.environ(environ)
	l.args(args)
	for _, read := range l.entries {
		read()
	}
	if l.res.Help {
		return l.res, nil
	}
	l.validate()
	l.warnOfURL()
	l.warnOfBackend()
	l.warnOfName()
	if len(l.idle) > 0 {
		l.warn("without effect on pagoda %s: %s", command, strings.Join(l.idle, ", "))
	}
	return l.res, errors.Join(l.errs...)
}

// validate reports values that cannot be, with the places they come from. Of options that are in error already nothing
// further is said. A list of models makes the top level the server's: what belongs to models is for their entries to say.
func (l *loader) validate() {
	problems := l.res.Config.Validate()
	for _, check := range l.checks {
		problems = appendProblems(problems, check(&l.res.Config))
	}
	for _, p := range problems {
		if slices.ContainsFunc(p.Options, func(name string) bool { return l.wrong[name] }) {
			continue
		}
		server := !slices.ContainsFunc(p.Options, func(name string) bool { return l.lookup(name).ofModel() })
		if isEntry := l.entry != ""; isEntry && server || len(l.entries) > 0 && !server {
			continue
		}
		var places []string
		for _, name := range p.Options {
			if place := l.res.Source(name); place != "default" && !slices.Contains(places, place) {
				places = append(places, place)
			}
		}
		place := strings.Join(places, ", ")
		if l.entry != "" && !strings.Contains(place, l.entry) {
			place = l.entryPlace
		}
		switch {
		case place == "":
			l.errs = append(l.errs, p)
		case strings.HasSuffix(normal(place), p.Options[0]): // which names it already
			l.fail(place, "%w", p.Err)
		default:
			l.fail(place, "%w", p)
		}
	}
}

// appendProblems adds those that a Check found.
func appendProblems(problems []*Problem, err error) []*Problem {
	if err == nil {
		return problems
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			problems = appendProblems(problems, one)
		}
		return problems
	}
	option, text, _ := strings.Cut(err.Error(), ": ")
	return append(problems, &Problem{[]string{option}, errors.New(text)})
}

// warnOfURL names what was set for an engine that another server's URL takes the place of.
func (l *loader) warnOfURL() {
	if l.res.URL == "" || l.command == "serve" {
		return
	}
	for _, o := range l.opts {
		if place := l.res.Source(o.Name); place != "default" && o.Backends != "" && o.Name != "model_name_or_path" {
			l.warn("%s: %s has no effect with url", place, o.Name)
		}
	}
}

// warnOfName tells that LlamaFactory's name of a model is that of the model with its adapters, and here that of the model alone.
func (l *loader) warnOfName() {
	if l.res.Source("served_model_name") != "API_MODEL_NAME" || len(l.entries) > 0 {
		return
	}
	adapters, err := l.res.Adapters()
	if err != nil || len(adapters) == 0 {
		return // an error is reported
	}
	var names []string
	for _, a := range adapters {
		names = append(names, a.Name)
	}
	l.warn("API_MODEL_NAME: %q answers without adapters, where LlamaFactory merges them; by their own names they answer here: %s",
		l.res.ServedModelName, strings.Join(names, ", "))
}

// warnOfBackend names what was set for other backends than the chosen one.
func (l *loader) warnOfBackend() {
	if len(l.entries) > 0 {
		return // each entry does so
	}
	chosen := l.res.InferBackend
	if !l.res.Proxied() {
		chosen = "native" // by another word
	}
	var idle, theirs []string
	for _, o := range l.opts {
		switch {
		case l.res.Source(o.Name) == "default":
		case o.Backends != "" && o.Backends != "all" && !slices.Contains(splitList(o.Backends), chosen):
			idle = append(idle, o.Name)
		case l.res.Attached() && (ofStarted(o.Name) || ofPrompts(o.Name) && !l.res.Renders()):
			theirs = append(theirs, o.Name)
		}
	}
	if l.res.URL != "" {
		return // which is told
	}
	where := ""
	if l.entry != "" {
		where = l.entry + ": "
	}
	if len(idle) > 0 {
		l.warn("%swithout effect with infer_backend %s: %s", where, l.res.InferBackend, strings.Join(idle, ", "))
	}
	if len(theirs) > 0 {
		l.warn("%swithout effect in front of a running server: %s", where, strings.Join(theirs, ", "))
	}
	if l.res.Proxied() && !l.res.Attached() && l.res.Source("upstream_api_key") != "default" {
		l.warn("%swithout effect with a server that is started, which gets a random key: upstream_api_key", where)
	}
}

// ofStarted says whether an option is for a server that is started; a running one was told its own.
func ofStarted(name string) bool {
	for _, prefix := range []string{"vllm_", "sglang_", "kt_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"infer_dtype", "trust_remote_code", "cpu_infer", "chunk_size", "upstream_command", "upstream_start_timeout"}, name)
}

// ofPrompts says whether an option counts in front of a running server only where prompts are made here, from the model's own
// files, and answers are read from tokens.
func ofPrompts(name string) bool {
	return slices.Contains([]string{"generation_config", "tool_call_parser", "reasoning_parser", "max_model_len", "hub", "model_revision",
		"cache_dir", "hub_offline", "hf_hub_token", "ms_hub_token", "om_hub_token"}, name)
}

func isConfigFile(arg string) bool {
	for _, suffix := range []string{".yaml", ".yml", ".json"} {
		if strings.HasSuffix(arg, suffix) && !strings.HasPrefix(arg, "-") && !strings.Contains(arg, "=") {
			return true
		}
	}
	return false
}

// loader gathers values and problems. A value's place ("serve.yaml:3", "API_PORT", "--port") goes with both.
type loader struct {
	command string
	res     *Result
	opts    []*Option
	errs    []error
	lists   map[string]bool   // list options that this level has set: a second --api_key adds to the first
	wrong   map[string]bool   // options whose values are in error
	idle    []string          // keys that are known and have no effect, with the reason where there is one
	extra   bool              // unknown keys are idle too (ALLOW_EXTRA_ARGS)
	entries []func()          // read what the file says of models, once all else is known
	names   map[string]string // which of them has a name
	checks  []Check

	entry, entryPlace string // "models[1]", "a.yaml:7: models[1]": of which entry these are the options
}

func newLoader(command string, c Config) *loader {
	l := &loader{command: command, res: &Result{Config: c, sources: map[string]string{}}, wrong: map[string]bool{}, names: map[string]string{}}
	l.opts = l.res.Config.options()
	return l
}

func (l *loader) fail(place, format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf("%s: %w", place, fmt.Errorf(format, args...)))
}

func (l *loader) warn(format string, args ...any) {
	l.res.Warnings = append(l.res.Warnings, fmt.Sprintf(format, args...))
}

// normal is the one spelling of a name.
func normal(name string) string { return strings.ToLower(strings.ReplaceAll(name, "-", "_")) }

func (l *loader) lookup(name string) *Option {
	name = normal(name)
	for _, o := range l.opts {
		if o.Name == name || slices.Contains(o.Aliases, name) {
			return o
		}
	}
	return nil
}

// lookupPath is lookup for names that may lead into a map: vllm_config.max_num_seqs is that option with the path
// max_num_seqs.
func (l *loader) lookupPath(name string) (o *Option, path string) {
	if o = l.lookup(name); o != nil {
		return o, ""
	}
	first, path, isPath := strings.Cut(name, ".")
	if o = l.lookup(first); !isPath || o == nil || o.Type() != "map" || slices.Contains(strings.Split(path, "."), "") {
		return nil, ""
	}
	return o, path
}

// idleKey is the kind of a key that is known and has no effect, and why; "" if there is no such key.
func idleKey(name string) (kind, why string) {
	name = normal(name)
	for _, n := range noted {
		if n.name == name {
			return n.kind, n.why
		}
	}
	if plugin, _, isPath := strings.Cut(name, "."); isPath && slices.Contains(plugins, plugin) {
		return "any", ""
	}
	return withoutEffect[name], ""
}

// isIdle notes a key that is known and has no effect. text is its value if it is a single one.
func (l *loader) isIdle(place, name string, text *string) bool {
	kind, why := idleKey(name)
	if kind == "" {
		return false
	}
	if text != nil {
		if err := checkKind(kind, *text); err != nil {
			l.fail(place, "%s: %w", normal(name), err)
			return true
		}
	} else if kind != "any" && kind != "text" {
		l.fail(place, "%s: must be %s, not a list or a map", normal(name), article(kind))
		return true
	}
	if why != "" {
		why = " (" + why + ")"
	}
	l.noteIdle(normal(name) + why)
	return true
}

func (l *loader) noteIdle(text string) {
	if !slices.Contains(l.idle, text) {
		l.idle = append(l.idle, text)
	}
}

// checkKind reports a value of another kind; "" is null, which is one of each.
func checkKind(kind, text string) (err error) {
	if text == "" {
		return nil
	}
	switch kind {
	case "bool":
		_, err = readBool(text)
	case "int":
		_, err = readInt(text)
	case "number":
		_, err = readNumber(text)
	}
	return err
}

// unknown reports a name that no option has.
func (l *loader) unknown(place, name string) {
	if l.extra {
		l.noteIdle(name + " (unknown, but ALLOW_EXTRA_ARGS is set)")
		return
	}
	if now := renamed[normal(name)]; now != "" {
		l.fail(place, "unknown option %q; it is called %s now", name, now)
		return
	}
	if near := l.nearest(normal(name)); near != "" {
		l.fail(place, "unknown option %q; did you mean %q?", name, near)
		return
	}
	l.fail(place, "unknown option %q; pagoda flags lists all", name)
}

// nearest returns the known name that name may have meant, "" if all are far away.
func (l *loader) nearest(name string) string {
	var known []string
	for _, o := range l.opts {
		known = append(append(known, o.Name), o.Aliases...)
	}
	for _, n := range noted {
		known = append(known, n.name)
	}
	return spelling.Nearest(name, append(known, slices.Sorted(maps.Keys(withoutEffect))...))
}

// set gives o a value in the words of a flag or variable.
func (l *loader) set(o *Option, place, text string) {
	old := ""
	if list, ok := o.target.(*[]string); ok && l.lists[o.Name] {
		old = strings.Join(*list, ",") + ","
	}
	l.finish(o, place, o.setText(old+text))
}

// finish checks the new value and notes its source.
func (l *loader) finish(o *Option, place string, err error) {
	if err == nil {
		err = o.check()
	}
	if err != nil && o.Secret {
		err = errors.New("bad value")
	}
	if err != nil {
		if !strings.HasSuffix(normal(place), o.Name) { // which names it already
			err = fmt.Errorf("%s: %w", o.Name, err)
		}
		l.fail(place, "%w", err)
		l.wrong[o.Name] = true
	}
	if l.lists == nil {
		l.lists = map[string]bool{}
	}
	l.lists[o.Name] = true
	l.res.sources[o.Name] = place
}

// environ reads PAGODA_<NAME> and the well-known names; the former wins. Empty is unset.
func (l *loader) environ(environ []string) {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && v != "" {
			env[k] = v
		}
	}
	for _, o := range l.opts {
		own := "PAGODA_" + strings.ToUpper(o.Name)
		for _, name := range append([]string{own}, o.Env...) {
			v, ok := env[name]
			if !ok {
				continue
			}
			if name == "PAGODA_PORT" && strings.Contains(v, "://") {
				// Kubernetes sets this in every pod beside a Service named pagoda.
				l.warn("PAGODA_PORT=%s looks like a Kubernetes service link and is not heeded", v)
				continue
			}
			l.lists = nil
			if name == "LLAMAFACTORY_VERBOSITY" {
				v = verbosity(v)
			}
			l.set(o, name, v)
			break
		}
		delete(env, own)
	}
	for name, hub := range map[string]string{"USE_MODELSCOPE_HUB": "modelscope", "USE_OPENMIND_HUB": "modelers"} {
		if use, _ := parseBool(env[name]); use && l.res.sources["hub"] == "" {
			l.set(l.lookup("hub"), name, hub)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(environmentNotes)) {
		if _, ok := env[name]; ok {
			l.idle = append(l.idle, name+" ("+environmentNotes[name]+")")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if rest, ok := strings.CutPrefix(name, "PAGODA_"); ok && !isServiceLink(rest) {
			l.warn("environment variable %s names no option and has no effect", name)
		}
	}
}

// verbosity is the log_level of one of Python's levels.
func verbosity(level string) string {
	switch level = strings.ToLower(level); level {
	case "warning":
		return "warn"
	case "critical", "fatal":
		return "error"
	}
	return level
}

// isServiceLink recognises the other variables that Kubernetes sets beside a Service named pagoda.
func isServiceLink(rest string) bool {
	return strings.HasPrefix(rest, "SERVICE_") || strings.HasPrefix(rest, "PORT_")
}

// args reads key=value and flags in order; the last one wins.
func (l *loader) args(args []string) {
	l.lists = nil
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "-h" || arg == "--help":
			l.res.Help = true
		case normal(arg) == "__print_config":
			l.res.PrintConfig = true
		case strings.HasPrefix(arg, "--") && len(arg) > 2:
			args = l.flag(arg[2:], args)
		case strings.HasPrefix(arg, "-"):
			l.fail(arg, "flags begin with --")
		case strings.Contains(arg, "="):
			l.keyValue(arg)
		case isConfigFile(arg):
			l.fail(arg, "the configuration file comes first, and only one is read")
		default:
			l.fail(arg, "neither key=value nor a --flag nor a .yaml or .json file")
		}
	}
}

// flag reads --name value, --name=value, for booleans --name and --no_name, for lists --name value value. It returns the
// arguments left.
func (l *loader) flag(arg string, rest []string) []string {
	name, value, hasValue := strings.Cut(arg, "=")
	place := "--" + name
	o, path := l.lookupPath(name)
	kind, _ := idleKey(name)
	switch {
	case o != nil:
		kind = o.Type()
	case !hasValue && kind == "":
		if plain, ok := strings.CutPrefix(normal(name), "no_"); ok && l.isBool(plain) {
			o, name, kind, value, hasValue = l.lookup(plain), plain, "bool", "false", true
		}
	}
	switch {
	case hasValue:
	case kind == "bool":
		value = "true"
		if len(rest) > 0 {
			if _, ok := parseBool(rest[0]); ok {
				value, rest = rest[0], rest[1:]
			}
		}
	case len(rest) == 0 || strings.HasPrefix(rest[0], "--"):
		if o != nil {
			l.fail(place, "needs a value (%s)", o.Type())
			return rest
		}
	default:
		value, rest = rest[0], rest[1:] // of an unknown flag it seems so
		if o == nil || kind == "list" {
			for len(rest) > 0 && l.isFurther(o, rest[0]) {
				value, rest = value+","+rest[0], rest[1:]
			}
		}
	}
	switch {
	case o != nil:
		l.arg(o, path, place, value)
	case !l.isIdle(place, name, &value):
		l.unknown(place, name)
	}
	return rest
}

// isBool says whether a name is that of a boolean, also of one without effect.
func (l *loader) isBool(name string) bool {
	if o := l.lookup(name); o != nil {
		return o.Type() == "bool"
	}
	kind, _ := idleKey(name)
	return kind == "bool"
}

// isFurther says whether arg is one more value of the list option o, nil if that is none of ours: --lora_modules a=/x b=/y
// and --report_to wandb tensorboard. With a known name before it, = makes it an argument of its own.
func (l *loader) isFurther(o *Option, arg string) bool {
	if strings.HasPrefix(arg, "-") || isConfigFile(arg) {
		return false
	}
	name, _, isPair := strings.Cut(arg, "=")
	if !isPair {
		return true
	}
	known, _ := l.lookupPath(name)
	kind, _ := idleKey(name)
	return o != nil && o.Name == "adapter_name_or_path" && known == nil && kind == ""
}

// arg sets an option from the command line, which the command must heed.
func (l *loader) arg(o *Option, path, place, value string) {
	switch {
	case !o.heededBy(l.command):
		l.fail(place, "pagoda %s does not heed %s (it is for: %s)", l.command, o.Name, o.Commands)
	case path != "":
		l.setWithin(o, path, place, value)
	default:
		l.set(o, place, value)
	}
}
