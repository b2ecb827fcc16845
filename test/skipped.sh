#!/bin/sh
# skipped.sh FILE...: prints what was left out and why; tests and lints collect it in the files, one line each.
if cat "$@" 2>/dev/null | grep -q .; then
	echo "skipped:"
	cat "$@" 2>/dev/null | sort -u | sed 's/^/  /'
else
	echo "skipped: nothing"
fi
