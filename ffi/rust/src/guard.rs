//! What every exported function needs: panics turned into errors, and bytes handed to C.

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

/// Bytes owned by this library; `pagoda_bytes_free` gives them back. A null `ptr` means none.
#[repr(C)]
pub struct Bytes {
    pub ptr: *mut u8,
    pub len: usize,
}

impl Bytes {
    pub const NONE: Bytes = Bytes {
        ptr: std::ptr::null_mut(),
        len: 0,
    };

    pub fn new(data: Vec<u8>) -> Bytes {
        let data = data.into_boxed_slice();
        let len = data.len();
        Bytes {
            ptr: Box::into_raw(data) as *mut u8,
            len,
        }
    }
}

/// # Safety
/// `b` came from this library and is freed once.
#[no_mangle]
pub unsafe extern "C" fn pagoda_bytes_free(b: Bytes) {
    if !b.ptr.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(
            b.ptr, b.len,
        )));
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; a panic becomes an error with its message and prints nothing.
pub fn guard<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let old = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.with(Cell::get) {
                old(info)
            }
        }));
    });
    let was = GUARDED.with(|g| g.replace(true));
    let result = catch_unwind(AssertUnwindSafe(f));
    GUARDED.with(|g| g.set(was));
    result.unwrap_or_else(|cause| {
        let text = cause
            .downcast_ref::<&str>()
            .map(|s| s.to_string())
            .or_else(|| cause.downcast_ref::<String>().cloned());
        Err(format!("internal error: {}", text.unwrap_or_default()))
    })
}

/// # Safety
/// `ptr` holds `len` readable bytes (it may be null when `len` is 0) for the length of the call.
pub unsafe fn text<'a>(ptr: *const u8, len: usize) -> Result<&'a str, String> {
    std::str::from_utf8(slice(ptr, len)).map_err(|_| "text is not valid UTF-8".to_string())
}

/// # Safety
/// As for `text`.
pub unsafe fn slice<'a, T>(ptr: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(ptr, len)
    }
}
