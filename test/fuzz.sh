#!/bin/sh
# Runs every fuzz target for the time given (go test fuzzes one target of one package at a time).
set -eu
time=${1:-10s}
"${GO:-go}" list -f '{{.Dir}}' ./... | while read -r dir; do
	cat "$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' | while read -r target; do
		echo "fuzz $target ($(basename "$dir"), $time)"
		"${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir" </dev/null || exit 1
	done || exit 1
done
