#!/bin/sh
# Builds build/lib/libtokenizers.a from this crate. Needs cargo and a C compiler; no C++.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
cargo build --release --locked --lib --manifest-path ffi/rust/Cargo.toml --target-dir build/cargo
mkdir -p build/lib
cmp -s build/cargo/release/libtokenizers_c.a build/lib/libtokenizers.a ||
	cp build/cargo/release/libtokenizers_c.a build/lib/libtokenizers.a
# The Go module names -lstdc++; nothing here is C++, so an empty archive answers it and neither
# building nor running needs a C++ library.
[ -f build/lib/libstdc++.a ] || ar rcs build/lib/libstdc++.a
