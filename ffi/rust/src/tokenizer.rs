//! Length-counted tokenizer calls: texts may hold NUL, offsets are bytes, all ids are checked.

use crate::guard::{guard, slice, text, Bytes};
use crate::load;
use serde_json::json;
use std::ffi::c_void;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::Tokenizer;

/// Ids above this are refused: tables are as long as the largest id.
const MAX_ID: u32 = 1 << 22;

/// What the C handle points to; daulet's functions make and free it.
pub struct Handle {
    pub inner: Tokenizer,
    /// One more than the largest id.
    num_ids: u32,
}

impl Handle {
    pub fn load(json: &[u8]) -> Result<Handle, String> {
        let (inner, num_ids) = load::tokenizer(json)?;
        if num_ids > MAX_ID {
            return Err(format!("token ids above {MAX_ID} are not supported"));
        }
        Ok(Handle { inner, num_ids })
    }

    fn byte_level(&self) -> bool {
        matches!(self.inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
    }

    /// {"num_ids", "byte_level", "model", "added": [{"id", "content", "special", …}]}, added tokens by id. Where decoding
    /// is more than joining bytes also "decoder", as in tokenizer.json, and "tokens", the spelling of each id or null.
    fn info(&self) -> String {
        let mut added: Vec<_> = self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let added: Vec<_> = added
            .iter()
            .map(|(id, t)| {
                json!({"id": id, "content": t.content, "special": t.special, "single_word": t.single_word,
                    "lstrip": t.lstrip, "rstrip": t.rstrip, "normalized": t.normalized})
            })
            .collect();
        let model = match self.inner.get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
            ModelWrapper::Unigram(_) => "Unigram",
        };
        let mut info = json!({"num_ids": self.num_ids, "byte_level": self.byte_level(), "model": model,
            "added": added});
        if !self.byte_level() {
            info["decoder"] = json!(self.inner.get_decoder());
            let tokens = (0..self.num_ids).map(|id| self.inner.id_to_token(id));
            info["tokens"] = json!(tokens.collect::<Vec<_>>());
        }
        info.to_string()
    }

    /// The byte form of each id: `num_ids`+1 little-endian u32 ends (the first is 0), then the bytes.
    fn table(&self) -> Vec<u8> {
        let (mut ends, mut bytes) = (vec![0u32], Vec::new());
        let byte_level = self.byte_level();
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        for id in 0..self.num_ids {
            if let Some(token) = self.inner.id_to_token(id) {
                if byte_level {
                    push_byte_level(&token, &mut bytes);
                } else if added.contains_key(&id) {
                    bytes.extend_from_slice(token.as_bytes());
                } else {
                    push_sentence_piece(&token, &mut bytes);
                }
            }
            ends.push(bytes.len() as u32);
        }
        let mut out: Vec<u8> = ends.iter().flat_map(|e| e.to_le_bytes()).collect();
        out.append(&mut bytes);
        out
    }
}

/// Undoes the byte-to-letter mapping of byte-level BPE, as the decoder does: a token with any letter
/// outside the mapping is taken as it is.
fn push_byte_level(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(b) => out.push(b),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// The byte that byte-level BPE writes as `c`: printable Latin-1 letters stand for themselves, the
/// other 68 bytes in order for U+0100 and up.
fn byte_of(c: char) -> Option<u8> {
    let c = c as u32;
    match c {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(c as u8),
        0x100..=0x120 => Some((c - 0x100) as u8), // 0x00..=0x20
        0x121..=0x142 => Some((c - 0x121 + 0x7f) as u8), // 0x7f..=0xa0
        0x143 => Some(0xad),
        _ => None,
    }
}

/// `<0x0A>` is a byte, `▁` a space.
fn push_sentence_piece(token: &str, out: &mut Vec<u8>) {
    let hex = token
        .strip_prefix("<0x")
        .and_then(|t| t.strip_suffix('>'))
        .filter(|t| t.len() == 2);
    match hex.and_then(|t| u8::from_str_radix(t, 16).ok()) {
        Some(b) => out.push(b),
        None => out.extend_from_slice(token.replace('▁', " ").as_bytes()),
    }
}

/// Token ids and, when asked for, the byte range of each in the text. Freed by `pagoda_ids_free`.
#[repr(C)]
pub struct Ids {
    ids: *mut u32,
    offsets: *mut u32,
    len: usize,
}

unsafe fn give<T>(made: Result<T, String>, out: *mut T, error: *mut Bytes) -> bool {
    match made {
        Ok(value) => {
            out.write(value);
            true
        }
        Err(message) => {
            error.write(Bytes::new(message.into_bytes()));
            false
        }
    }
}

fn leak(data: Vec<u32>) -> *mut u32 {
    Box::into_raw(data.into_boxed_slice()) as *mut u32
}

/// # Safety
/// `tok` is a live tokenizer; `ptr` holds `len` bytes; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tok_encode(
    tok: *const c_void,
    ptr: *const u8,
    len: usize,
    add_special: bool,
    with_offsets: bool,
    out: *mut Ids,
    error: *mut Bytes,
) -> bool {
    let made = guard(|| {
        let handle = &*(tok as *const Handle);
        let input = text(ptr, len)?;
        if len > u32::MAX as usize {
            return Err("text is longer than 4 GiB".into());
        }
        let encoding = if with_offsets {
            handle.inner.encode(input, add_special)
        } else {
            handle.inner.encode_fast(input, add_special)
        }
        .map_err(|e| e.to_string())?;
        let offsets = if with_offsets {
            leak(
                encoding
                    .get_offsets()
                    .iter()
                    .flat_map(|&(a, b)| [a as u32, b as u32])
                    .collect(),
            )
        } else {
            std::ptr::null_mut()
        };
        Ok(Ids {
            ids: leak(encoding.get_ids().to_vec()),
            offsets,
            len: encoding.len(),
        })
    });
    give(made, out, error)
}

/// # Safety
/// `ids` came from `pagoda_tok_encode` and is freed once.
#[no_mangle]
pub unsafe extern "C" fn pagoda_ids_free(ids: Ids) {
    for (ptr, len) in [(ids.ids, ids.len), (ids.offsets, ids.len * 2)] {
        if !ptr.is_null() {
            drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(ptr, len)));
        }
    }
}

/// # Safety
/// `tok` is a live tokenizer; `ids` holds `len` entries; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tok_decode(
    tok: *const c_void,
    ids: *const u32,
    len: usize,
    skip_special: bool,
    out: *mut Bytes,
    error: *mut Bytes,
) -> bool {
    let made = guard(|| {
        let handle = &*(tok as *const Handle);
        let decoded = handle
            .inner
            .decode(slice(ids, len), skip_special)
            .map_err(|e| e.to_string())?;
        Ok(Bytes::new(decoded.into_bytes()))
    });
    give(made, out, error)
}

/// The id of the token spelled `ptr[..len]` (as in the vocabulary), or -1.
///
/// # Safety
/// `tok` is a live tokenizer; `ptr` holds `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tok_id(tok: *const c_void, ptr: *const u8, len: usize) -> i64 {
    let made = guard(|| {
        let handle = &*(tok as *const Handle);
        Ok(handle.inner.token_to_id(text(ptr, len)?))
    });
    made.ok().flatten().map_or(-1, i64::from)
}

/// JSON facts about the tokenizer: see `Handle::info`.
///
/// # Safety
/// `tok` is a live tokenizer; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tok_info(
    tok: *const c_void,
    out: *mut Bytes,
    error: *mut Bytes,
) -> bool {
    let made = guard(|| Ok(Bytes::new((*(tok as *const Handle)).info().into_bytes())));
    give(made, out, error)
}

/// The byte forms of all ids: see `Handle::table`.
///
/// # Safety
/// `tok` is a live tokenizer; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tok_table(
    tok: *const c_void,
    out: *mut Bytes,
    error: *mut Bytes,
) -> bool {
    let made = guard(|| Ok(Bytes::new((*(tok as *const Handle)).table())));
    give(made, out, error)
}
