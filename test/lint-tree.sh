#!/bin/sh
# Looks over all tracked files: no path of one machine's home, no promise left open, no file that is made, no shell script with a
# wrong syntax.
set -eu
mkdir -p build
: >build/skipped-tree.txt
git ls-files --error-unmatch Makefile >/dev/null 2>&1 || {
	echo "lint: the tree is not looked over, this is no git checkout" | tee build/skipped-tree.txt
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
found=$(git ls-files --cached --ignored --exclude-standard)
[ -z "$found" ] || complain "files that .gitignore names" "$found"
for f in $(git ls-files -- '*.sh' .ci/run); do
	sh -n "$f" || bad=1
done
exit $bad
