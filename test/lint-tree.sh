#!/bin/sh
# Looks over all tracked files: no path of one machine's home, no promise left open, no file that should not be here.
set -eu
git rev-parse --git-dir >/dev/null 2>&1 || {
	echo "lint: tree check skipped: not a git checkout"
	exit 0
}
bad=0
complain() {
	echo "$1:" >&2
	echo "$2" >&2
	bad=1
}
# The patterns are written so that they do not match themselves.
found=$(git grep -nIE '(/home/[a-z]+/|/Users/[A-Za-z]+/|/roo[t]/)' -- . || true)
[ -z "$found" ] || complain "paths of one machine" "$found"
found=$(git grep -nIE '\b(TOD[O]|FIXM[E])\b' -- '*.go' '*.c' '*.h' '*.rs' '*.sh' '*.py' '*.js' '*.md' || true)
[ -z "$found" ] || complain "promises" "$found"
found=$(git grep -nI ' $' -- '*.go' '*.c' '*.h' '*.rs' '*.sh' '*.py' '*.js' Makefile Dockerfile || true)
[ -z "$found" ] || complain "spaces at the end of a line" "$found"
exit $bad
