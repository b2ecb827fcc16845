#!/bin/sh
# Prints what the tests left out and why; the suites collect it in build/skipped.txt.
if [ -s build/skipped.txt ]; then
	echo "skipped:"
	sort -u build/skipped.txt | sed 's/^/  /'
else
	echo "skipped: nothing"
fi
