//! Tokenizer and grammars behind one C ABI.
//!
//! The archive is named `libtokenizers.a` so that the Go module daulet/tokenizers links against it:
//! `daulet` exports that module's C functions, `tokenizer` the length-counted calls it lacks, and
//! llguidance's own C functions come along for the grammar engine. One archive, because two Rust
//! static libraries in one program define the same runtime symbols.
//!
//! No function lets a panic cross into C: each body runs inside `guard`.

pub mod daulet;
mod guard;
mod load;
pub mod tokenizer;

// Takes llguidance's `llg_*` functions into the archive.
pub use llguidance::ffi as grammar;
