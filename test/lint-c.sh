#!/bin/sh
# Compiles each C file named on the command line by itself with all warnings as errors.
set -eu
for f in "$@"; do
	"${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror -I"$(dirname "$f")" -c "$f" -o /dev/null
done
