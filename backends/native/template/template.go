package template

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Template is one named template.
type Template struct {
	Name string
	turns

	DefaultSystem string   // of a conversation without a system message
	Stop          []string // words that end an answer
	ReplaceEOS    bool     // the first of Stop is what {eos} stands for
	EfficientEOS  bool     // with another tool format a turn of calls has no {eos}
	Tools         string   // the tool format; "" is "default"

	Reasoning bool      // thoughts of earlier turns are left out; an empty thought begins an answer without thinking
	Think     [2]string // what stands around a thought; empty is "<think>\n" and "\n</think>\n\n"
	CloseOnly bool      // the empty thought is its end alone

	SystemInUser bool // the system's text is part of the first user's turn
	TrimTools    bool // the tools' text loses its leading line breaks if there is no system's
}

// UnknownError names a template or tool format that there is not.
type UnknownError struct {
	What, Name string
	Near       []string // names like it
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no %s named %q; the nearest are %s", e.What, e.Name, strings.Join(e.Near, ", "))
}

// Find returns the template of a name, or an *UnknownError.
func Find(name string) (*Template, error) {
	i, ok := slices.BinarySearchFunc(table, name, func(t Template, name string) int { return cmp.Compare(t.Name, name) })
	if !ok {
		return nil, &UnknownError{"template", name, nearest(name, Names())}
	}
	return &table[i], nil
}

// Names lists all templates in order.
func Names() []string {
	names := make([]string, len(table))
	for i, t := range table {
		names[i] = t.Name
	}
	return names
}

// nearest are the three names that share most with name.
func nearest(name string, names []string) []string {
	near := slices.Clone(names)
	score := func(other string) (shared int) {
		for i := range min(len(name), len(other)) {
			if name[i] != other[i] {
				break
			}
			shared = i + 1
		}
		return 2*shared - max(len(name)-len(other), len(other)-len(name))
	}
	slices.SortStableFunc(near, func(a, b string) int { return cmp.Compare(score(b), score(a)) })
	return near[:min(3, len(near))]
}

// Thought returns what stands around a thought.
func (t *Template) Thought() (open, end string) {
	if t.Think == [2]string{} {
		return "<think>\n", "\n</think>\n\n"
	}
	return t.Think[0], t.Think[1]
}

// slots returns the slots with their defaults.
func (t *Template) slots() turns {
	s := t.turns
	s.System, s.User, s.Assistant = cmp.Or(s.System, "@"), cmp.Or(s.User, "@"), cmp.Or(s.Assistant, "@{eos}")
	s.Function, s.Observation = cmp.Or(s.Function, s.Assistant), cmp.Or(s.Observation, s.User)
	return s
}
