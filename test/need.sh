#!/bin/sh
# Says in one line each what a build needs and this machine lacks, and how to get it.
missing=0
lack() {
	echo "missing: $1 - $2" >&2
	missing=1
}
GO=${GO:-go} CARGO=${CARGO:-cargo} CC=${CC:-cc}
if ! command -v "$GO" >/dev/null; then
	lack "Go 1.26 or newer" "https://go.dev/dl"
else
	minor=$(GOTOOLCHAIN=local "$GO" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
	[ "${minor:-0}" -ge 26 ] || lack "Go 1.26 or newer (this is $("$GO" env GOVERSION))" "https://go.dev/dl"
fi
command -v "$CC" >/dev/null || lack "a C compiler" "apt-get install gcc libc6-dev"
command -v "$CARGO" >/dev/null || lack "cargo (Rust)" "https://rustup.rs"
exit $missing
