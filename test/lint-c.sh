#!/bin/sh
# Compiles each C file named on the command line by itself with all warnings as errors. A file for another processor
# (its name ends as Go's do) needs a compiler for that.
set -eu
mkdir -p build
: >build/skipped-c.txt
here=$(${CC:-cc} -dumpmachine | sed 's/-.*//; s/arm64/aarch64/')
for f in "$@"; do
	cc=${CC:-cc}
	case $f in
	*_amd64.c) for=x86_64 ;;
	*_arm64.c) for=aarch64 ;;
	*) for=$here ;;
	esac
	if [ "$for" != "$here" ]; then
		cc=$for-linux-gnu-gcc
		command -v "$cc" >/dev/null || {
			echo "lint: $f is not looked over, no $cc" | tee -a build/skipped-c.txt
			continue
		}
	fi
	"$cc" -std=gnu11 -O2 -Wall -Wextra -Werror -I"$(dirname "$f")" -c "$f" -o /dev/null
done
