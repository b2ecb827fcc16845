#!/bin/sh
# Says in one line each what a build needs and this machine lacks, and how to get it.
GO=${GO:-go} CARGO=${CARGO:-cargo} CC=${CC:-cc}
missing=0
lack() {
	echo "missing: $1 - $2" >&2
	missing=1
}
has() { command -v "$1" >/dev/null 2>&1; }
# at_least X.Y VERSION, both of major 1
at_least() { [ "$(minor "$2")" -ge "$(minor "$1")" ]; }
minor() {
	minor=${1#1.}
	minor=${minor%%[!0-9]*}
	echo "${minor:-0}"
}

want=$(sed -n 's/^go \([0-9.]*\)/\1/p' go.mod)
how="https://go.dev/dl"
if ! has "$GO"; then
	lack "Go $want or newer" "$how"
else
	# Asked in this folder, Go fetches the version that go.mod wants where it may.
	is=$("$GO" env GOVERSION 2>/dev/null || GOTOOLCHAIN=local "$GO" version | sed 's/go version \([^ ]*\).*/\1/')
	at_least "$want" "${is#go}" || lack "Go $want or newer (this is $is)" "$how"
fi

how="apt-get install gcc libc6-dev, or what your system calls them"
if ! has "$CC"; then
	lack "a C compiler ($CC)" "$how"
elif ! out=$(echo '#include <stdlib.h>
int main(void) { return 0; }' | "$CC" -x c -o /dev/null - 2>&1); then
	lack "a C compiler that works ($CC: $(echo "$out" | head -n 1))" "$how"
fi

want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' ffi/rust/Cargo.toml)
how="https://rustup.rs (rustup update stable, where you have rustup)"
if ! has "$CARGO"; then
	lack "cargo (Rust) $want or newer" "$how"
else
	is=$("$CARGO" --version 2>/dev/null | sed 's/cargo \([^ ]*\).*/\1/')
	at_least "$want" "$is" || lack "cargo (Rust) $want or newer (this is ${is:-one that does not run})" "$how"
fi
exit $missing
