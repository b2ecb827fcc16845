// Package jinja renders chat templates byte for byte as Python's Jinja2 does under the settings of the
// transformers library: immutable sandbox, trim_blocks, lstrip_blocks, loop controls, {% generation %},
// its tojson, raise_exception and strftime_now.
//
//	source ──lexer──► tokens ──parser──► statements, expressions ──state──► text
//	context, JSON with its key order and exact numbers ────────────┘
//
// Values are Python's: see value.go. A template reads nothing but its context, changes nothing, and
// every step, byte and level of nesting is counted against Limits. What Python has and this package
// has not is an error that says so, never other text.
//
// Inside the package an error in a template is a panic with *Error, which Compile and Render recover:
// expressions nest deeply and every node can fail.
package jinja
