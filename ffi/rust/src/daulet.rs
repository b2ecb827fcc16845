//! The C ABI of the Go module daulet/tokenizers v1.27.0 (its `tokenizers.h`), over our tokenizer.

use crate::guard::{guard, slice};
use crate::tokenizer::Handle;
use std::ffi::{c_char, c_void, CStr, CString};
use std::ptr::null_mut;
use tokenizers::{TruncationDirection, TruncationParams};

#[repr(C)]
pub struct EncodeOptions {
    add_special_tokens: bool,
    return_type_ids: bool,
    return_tokens: bool,
    return_special_tokens_mask: bool,
    return_attention_mask: bool,
    return_offsets: bool,
}

#[repr(C)]
pub struct Options {
    encode_special_tokens: bool,
}

/// Arrays of `len` entries (`offsets`: 2·`len`); null where not asked for.
#[repr(C)]
pub struct Buffer {
    ids: *mut u32,
    type_ids: *mut u32,
    special_tokens_mask: *mut u32,
    attention_mask: *mut u32,
    tokens: *mut *mut c_char,
    offsets: *mut usize,
    len: usize,
}

impl Buffer {
    const EMPTY: Buffer = Buffer {
        ids: null_mut(),
        type_ids: null_mut(),
        special_tokens_mask: null_mut(),
        attention_mask: null_mut(),
        tokens: null_mut(),
        offsets: null_mut(),
        len: 0,
    };
}

/// The Go module refers to this name so that a library of another version does not link.
#[no_mangle]
pub extern "C" fn tokenizers_version_1_26_0() {}

#[no_mangle]
pub extern "C" fn tokenizers_version() -> *const c_char {
    c"1.26.0".as_ptr()
}

fn c_string(text: &str) -> *mut c_char {
    // C strings end at the first NUL; the length-counted calls are for text that may hold one.
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).map_or(null_mut(), CString::into_raw)
}

unsafe fn finish(made: Result<Handle, String>, error: *mut *mut c_char) -> *mut c_void {
    match made {
        Ok(handle) => Box::into_raw(Box::new(handle)) as *mut c_void,
        Err(message) => {
            if !error.is_null() {
                *error = c_string(&message);
            }
            null_mut()
        }
    }
}

/// # Safety
/// `config` holds `len` bytes; `options` and `error` are valid or null.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_from_bytes(
    config: *const u8,
    len: u32,
    options: *const Options,
    error: *mut *mut c_char,
) -> *mut c_void {
    let made = guard(|| {
        let mut handle = Handle::load(slice(config, len as usize))?;
        if let Some(options) = options.as_ref() {
            handle
                .inner
                .set_encode_special_tokens(options.encode_special_tokens);
        }
        Ok(handle)
    });
    finish(made, error)
}

/// # Safety
/// As for `tokenizers_from_bytes`.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_from_bytes_with_truncation(
    config: *const u8,
    len: u32,
    max_len: usize,
    direction: u8,
    error: *mut *mut c_char,
) -> *mut c_void {
    let made = guard(|| {
        let mut handle = Handle::load(slice(config, len as usize))?;
        let direction = match direction {
            0 => TruncationDirection::Left,
            1 => TruncationDirection::Right,
            other => return Err(format!("invalid truncation direction {other}")),
        };
        let params = TruncationParams {
            max_length: max_len,
            direction,
            ..Default::default()
        };
        handle
            .inner
            .with_truncation(Some(params))
            .map_err(|e| e.to_string())?;
        Ok(handle)
    });
    finish(made, error)
}

/// # Safety
/// `path` is a C string; `error` is valid or null.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_from_file(
    path: *const c_char,
    error: *mut *mut c_char,
) -> *mut c_void {
    let made = guard(|| {
        let path = CStr::from_ptr(path).to_str().map_err(|e| e.to_string())?;
        Handle::load(&std::fs::read(path).map_err(|e| e.to_string())?)
    });
    finish(made, error)
}

/// Tiktoken files are not read here: they are converted to tokenizer.json before loading.
///
/// # Safety
/// `error` is valid or null.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_from_tiktoken(
    _model_file: *const c_char,
    _config_file: *const c_char,
    _pattern: *const c_char,
    error: *mut *mut c_char,
) -> *mut c_void {
    finish(
        Err("tiktoken files are not supported, convert them to tokenizer.json".into()),
        error,
    )
}

fn leak<T>(data: Vec<T>) -> *mut T {
    Box::into_raw(data.into_boxed_slice()) as *mut T
}

unsafe fn reclaim<T>(ptr: *mut T, len: usize) {
    if !ptr.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(ptr, len)));
    }
}

/// # Safety
/// `ptr` is a live tokenizer, `message` a C string, `options` valid.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_encode(
    ptr: *mut c_void,
    message: *const c_char,
    options: *const EncodeOptions,
) -> Buffer {
    let made = guard(|| {
        let handle = &*(ptr as *const Handle);
        let options = &*options;
        let text = CStr::from_ptr(message)
            .to_str()
            .map_err(|e| e.to_string())?;
        let encoding = handle
            .inner
            .encode(text, options.add_special_tokens)
            .map_err(|e| e.to_string())?;
        let mut out = Buffer {
            len: encoding.len(),
            ids: leak(encoding.get_ids().to_vec()),
            ..Buffer::EMPTY
        };
        if options.return_type_ids {
            out.type_ids = leak(encoding.get_type_ids().to_vec());
        }
        if options.return_special_tokens_mask {
            out.special_tokens_mask = leak(encoding.get_special_tokens_mask().to_vec());
        }
        if options.return_attention_mask {
            out.attention_mask = leak(encoding.get_attention_mask().to_vec());
        }
        if options.return_tokens {
            out.tokens = leak(encoding.get_tokens().iter().map(|t| c_string(t)).collect());
        }
        if options.return_offsets {
            out.offsets = leak(
                encoding
                    .get_offsets()
                    .iter()
                    .flat_map(|&(a, b)| [a, b])
                    .collect(),
            );
        }
        Ok(out)
    });
    made.unwrap_or(Buffer::EMPTY)
}

/// # Safety
/// `ptr` is a live tokenizer; `ids` holds `len` entries.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_decode(
    ptr: *mut c_void,
    ids: *const u32,
    len: u32,
    skip_special_tokens: bool,
) -> *mut c_char {
    let made = guard(|| {
        let handle = &*(ptr as *const Handle);
        handle
            .inner
            .decode(slice(ids, len as usize), skip_special_tokens)
            .map_err(|e| e.to_string())
    });
    made.map_or(null_mut(), |text| c_string(&text))
}

/// # Safety
/// `ptr` is a live tokenizer.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_vocab_size(ptr: *mut c_void) -> u32 {
    let handle = &*(ptr as *const Handle);
    handle.inner.get_vocab_size(true) as u32
}

/// # Safety
/// `ptr` is a tokenizer freed once, or null.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_free_tokenizer(ptr: *mut c_void) {
    if !ptr.is_null() {
        drop(Box::from_raw(ptr as *mut Handle));
    }
}

/// # Safety
/// `buffer` came from `tokenizers_encode` and is freed once.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_free_buffer(buffer: Buffer) {
    for ids in [
        buffer.ids,
        buffer.type_ids,
        buffer.special_tokens_mask,
        buffer.attention_mask,
    ] {
        reclaim(ids, buffer.len);
    }
    reclaim(buffer.offsets, buffer.len * 2);
    if !buffer.tokens.is_null() {
        for i in 0..buffer.len {
            tokenizers_free_string(*buffer.tokens.add(i));
        }
        reclaim(buffer.tokens, buffer.len);
    }
}

/// # Safety
/// `string` came from this library and is freed once, or is null.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_free_string(string: *mut c_char) {
    if !string.is_null() {
        drop(CString::from_raw(string));
    }
}
