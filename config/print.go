package config

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// Source says where the value of an option comes from: "default", "serve.yaml:3", "API_PORT", "--port".
func (r *Result) Source(name string) string {
	if s, ok := r.sources[name]; ok {
		return s
	}
	return "default"
}

// Args are the flags that give command the values that were set here, as far as it heeds them. Secrets are left out:
// other users of the machine can read a process's arguments.
func (r *Result) Args(command string) []string {
	var args []string
	for _, o := range r.Config.options() {
		if r.Source(o.Name) != "default" && o.heededBy(command) && !o.Secret {
			args = append(args, "--"+o.Name+"="+o.Text())
		}
	}
	return args
}

// Print writes each option with its value and source, and of each entry of models what is not the default. Secrets are masked.
func (r *Result) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	r.print(tw, func(o *Option) bool { return len(r.Models) == 0 || !slices.Contains(ownOptions, o.Name) })
	for i, m := range r.Models {
		fmt.Fprintf(tw, "\nmodels[%d]\n", i)
		m.print(tw, func(o *Option) bool { return o.ofModel() && m.Source(o.Name) != "default" })
	}
	return tw.Flush()
}

// print writes the options that show chooses.
func (r *Result) print(w io.Writer, show func(*Option) bool) {
	for _, o := range r.Config.options() {
		if !show(o) {
			continue
		}
		text := o.Text()
		if o.Secret && text != "" {
			text = "********"
		}
		if text == "" || strings.ContainsFunc(text, unicode.IsControl) {
			text = strconv.Quote(text)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", o.Name, text, r.Source(o.Name))
	}
}

// PrintFlags writes the options that command heeds; if it is "", all, and then the keys of LlamaFactory's files that have no effect.
func PrintFlags(w io.Writer, command string) error {
	group := ""
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, o := range Options() {
		if command != "" && !o.heededBy(command) {
			continue
		}
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(tw, "\n%s\n", group)
		}
		fmt.Fprintf(tw, "  --%s\t%s\t%s\n", o.Name, o.Type(), o.describe(command == "" && o.Commands != all))
	}
	if command == "" {
		printIdle(tw)
	}
	return tw.Flush()
}

// printIdle writes what is known and has no effect, with the reasons, and those about training without.
func printIdle(w io.Writer) {
	fmt.Fprintf(w, "\nWithout effect, told once in the log\n")
	for _, n := range noted {
		fmt.Fprintf(w, "  --%s\t%s\t%s\n", n.name, n.kind, n.why)
	}
	for _, name := range slices.Sorted(maps.Keys(environmentNotes)) {
		fmt.Fprintf(w, "  %s\tvariable\t%s\n", name, environmentNotes[name])
	}
	fmt.Fprintf(w, "\nLikewise, about training, data and evaluation")
	const width = 120
	column := width
	for _, name := range slices.Sorted(maps.Keys(withoutEffect)) {
		if column += 1 + len(name); column > width {
			fmt.Fprint(w, "\n ")
			column = 2 + len(name)
		}
		fmt.Fprint(w, " ", name)
	}
	fmt.Fprintln(w)
}

// describe is the help text with what else one may want to know, the commands too if told.
func (o *Option) describe(commands bool) string {
	var notes []string
	if commands {
		notes = append(notes, "for "+o.Commands)
	}
	if o.Default != "" {
		notes = append(notes, "default "+o.Default)
	}
	if len(o.Env) > 0 {
		notes = append(notes, "also "+strings.Join(o.Env, ", "))
	}
	if len(o.Aliases) > 0 {
		notes = append(notes, "alias "+strings.Join(o.Aliases, ", "))
	}
	if o.Backends != "" && o.Backends != "all" {
		notes = append(notes, o.Backends+" backend")
	}
	if len(notes) == 0 {
		return o.Help
	}
	return o.Help + " (" + strings.Join(notes, "; ") + ")"
}

// Markdown writes the table for the README.
func Markdown(w io.Writer) {
	group := ""
	for _, o := range Options() {
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(w, "\n**%s**\n\n| option | value | default | environment | heeded by | what it does |\n", group)
			fmt.Fprintln(w, "|---|---|---|---|---|---|")
		}
		names := "`" + strings.Join(append([]string{o.Name}, o.Aliases...), "` `") + "`"
		def := ""
		if o.Default != "" {
			def = "`" + o.Default + "`"
		}
		env := "`" + strings.Join(append([]string{"PAGODA_" + strings.ToUpper(o.Name)}, o.Env...), "` `") + "`"
		heeded := o.Commands
		if o.Backends != "" {
			heeded += "; backend " + o.Backends
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", names, o.Type(), def, env, heeded, o.Help)
	}
}
