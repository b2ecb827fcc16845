#!/bin/sh
# rustfmt and clippy over our crate, each only where it is installed.
set -eu
crate=ffi/rust/Cargo.toml
if "$CARGO" fmt --version >/dev/null 2>&1; then
	"$CARGO" fmt --manifest-path "$crate" --check
else
	echo "lint: rustfmt skipped: not installed (rustup component add rustfmt)"
fi
if "$CARGO" clippy --version >/dev/null 2>&1; then
	"$CARGO" clippy -q --release --locked --manifest-path "$crate" --target-dir build/cargo -- -D warnings
else
	echo "lint: clippy skipped: not installed (rustup component add clippy)"
fi
