// Package jinja renders chat templates byte for byte as Python's Jinja2 3.1 does under the settings of the
// transformers library: immutable sandbox, trim_blocks, lstrip_blocks, loop controls, {% generation %},
// its tojson, raise_exception and strftime_now.
//
//	source ──lexer──► tokens ──parser──► statements, expressions ──state──► text
//	context, JSON with its key order and exact numbers ────────────┘
//
// Values are Python's: see value.go. A template reads nothing but its context and the clock, and changes nothing.
// Every step, every byte built or read and every level of nesting is counted against Limits, so that any template
// ends within seconds and some hundred MB, with an error whose Limit method names the limit.
//
// Supported are all statements but those that load other templates; all operators, slices, tests, macros, call
// blocks, namespaces, recursive loops; the methods of str, and those of dict, list and tuple that change nothing;
// % and str.format; text marked by |safe and |escape; dict, namespace, range, cycler, joiner.
//
// What Python has and this package has not is an error of kind NotSupported or TemplateSyntaxError, never other text:
//
//	statements   include, import, from, extends; autoescape true; do and trans, which transformers has not either
//	filters      pprint, random, urlize, wordwrap
//	str          casefold, encode, format_map, maketrans, translate
//	formats      nested fields, # with a float, separators in a width filled with zeros; % and format of safe text
//	printing     generators (add |list), methods and functions
//	numbers      complex numbers, fractional powers but the square root, integers above 16,384 bits
//	others       lipsum, self, subscripts with commas, \N{name}, strftime_now's directives that C's locale has not
//
// Known to differ: a slice of a literal number or None is a TypeError here, undefined there; a literal negative number
// to a power is what it says here, there the power comes first; half a surrogate pair is U+FFFD; messages of errors
// other than those of raise_exception (their kinds are Python's).
//
// Inside the package an error in a template is a panic with *Error, which Compile and Render recover:
// expressions nest deeply and every node can fail.
package jinja
