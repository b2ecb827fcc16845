#!/bin/sh
# rustfmt and clippy over our crate, each only where it is installed; and what the archive must export.
set -eu
crate=ffi/rust/Cargo.toml CARGO=${CARGO:-cargo}
mkdir -p build
: >build/skipped-rust.txt
skip() { echo "lint: $1" | tee -a build/skipped-rust.txt; }
if "$CARGO" fmt --version >/dev/null 2>&1; then
	"$CARGO" fmt --manifest-path "$crate" --check
else
	skip "rustfmt is not installed (rustup component add rustfmt)"
fi
if "$CARGO" clippy --version >/dev/null 2>&1; then
	"$CARGO" clippy -q --release --locked --manifest-path "$crate" --target-dir build/cargo -- -D warnings
else
	skip "clippy is not installed (rustup component add clippy)"
fi
for name in tokenizers_from_bytes pagoda_tok_encode llg_new_matcher llg_matcher_compute_mask llg_matcher_rollback; do
	nm build/lib/libtokenizers.a 2>/dev/null | grep -q " T $name\$" || {
		echo "build/lib/libtokenizers.a lacks $name" >&2
		exit 1
	}
done
