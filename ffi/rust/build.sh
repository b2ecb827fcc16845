#!/bin/sh
# Builds build/lib/libtokenizers.a from this crate. Needs cargo and a C compiler; no C++.
set -eu
cd "$(dirname "$0")/../.."
made=build/cargo/release/libtokenizers_c.a lib=build/lib/libtokenizers.a
quiet=--quiet
[ ! -t 2 ] || quiet= # at a terminal cargo shows how far it is
"${CARGO:-cargo}" build $quiet --release --locked --lib --manifest-path ffi/rust/Cargo.toml --target-dir build/cargo
mkdir -p build/lib
# The Go module names -lstdc++; nothing here is C++, so an empty archive answers it and neither
# building nor running needs a C++ library.
[ -f build/lib/libstdc++.a ] || ar rcs build/lib/libstdc++.a
if cmp -s "$made" "$lib"; then
	touch "$lib"
	exit
fi
# Go does not see that the archive is another one: what was linked or tested with the old one is dropped.
rm -f bin/pagoda
"${GO:-go}" clean -testcache
cp "$made" "$lib.new"
mv "$lib.new" "$lib"
