#!/bin/sh
# build.sh: makes build/cuda/libcuda.a.
set -eu
cd "$(dirname "$0")"
out=../../../build/cuda
mkdir -p "$out"
${CC:-cc} -O2 -fPIC -Wall -Wextra -Werror -c -o "$out/libcuda.o" libcuda.c
rm -f "$out/libcuda.a"
${AR:-ar} rc "$out/libcuda.a" "$out/libcuda.o"
