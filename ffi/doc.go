// Package ffi wraps the Rust archive build/lib/libtokenizers.a (crate ffi/rust). daulet/tokenizers loads and owns the
// tokenizer; the calls that it lacks (texts that hold NUL, byte offsets, byte forms, added tokens) go to the same
// handle through our own C functions. llguidance's functions are in the archive too.
//
//	tokenizer.json ──► Tokenizer: Encode, Decode, TokenBytes, Added …
//
// Every call is safe for concurrent use; no call crashes on hostile input.
package ffi
