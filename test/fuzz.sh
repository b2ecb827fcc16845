#!/bin/sh
# fuzz.sh [TIME]: runs every fuzz target for TIME (go test fuzzes one target of one package at a time).
set -eu
time=${1:-10s} GO=${GO:-go}
dirs=$("$GO" list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' ./...)
ran=0 failed=""
for dir in $dirs; do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go); do
		ran=$((ran + 1))
		name="${dir#"$PWD"/} $target"
		echo "fuzz $name ($time)"
		"$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir" || failed="$failed  $name
"
	done
done
if [ -n "$failed" ]; then
	printf 'fuzz: these failed; the inputs are in testdata/fuzz of their packages:\n%s' "$failed" >&2
	exit 1
fi
echo "fuzz: $ran targets, nothing found"
