// SPDX-License-Identifier: GPL-2.0-only

//! Text on its way to and from C.

use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::slice;

/// The beginning of `text` that has at most `bytes` bytes and ends with a whole character, as a C
/// string. mysqld's formats cut at bytes (`%.512s`); NULs become `?`.
pub(super) fn cut(text: &str, bytes: usize) -> CString {
    CString::from_vec_with_nul(terminated(&text[..text.floor_char_boundary(bytes)]))
        .unwrap_or_default()
}

/// `text` with `?` for each NUL, and a NUL at the end. It is put together in the memory that it
/// stays in: of a password no copy is left behind.
fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend(text.bytes().map(|byte| if byte == 0 { b'?' } else { byte }));
    bytes.push(0);
    bytes
}

/// The length as engines take it. Of bytes that are too many for it they see the beginning.
pub(super) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// `text` as a C string; NULs become `?`.
pub(super) fn whole(text: &str) -> CString {
    cut(text, text.len())
}

/// The `len` bytes at `data`; none for NULL, with which not even an empty slice may begin.
///
/// # Safety
/// `data` is NULL, or points to `len` bytes that stay as they are for `'a`.
pub(super) unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: by the caller's promise.
    unsafe { slice::from_raw_parts(data, len) }
}

/// As [`bytes`], to be written to.
///
/// # Safety
/// `data` is NULL, or points to `len` bytes that nobody else uses for `'a`.
pub(super) unsafe fn bytes_mut<'a>(data: *mut u8, len: usize) -> &'a mut [u8] {
    if data.is_null() {
        return &mut [];
    }
    // SAFETY: by the caller's promise.
    unsafe { slice::from_raw_parts_mut(data, len) }
}

/// The text at `text`, `None` for NULL.
///
/// # Safety
/// `text` is NULL or terminated, and stays as it is for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    Some(unsafe { CStr::from_ptr(text) })
}

/// As [`text`], with what is not UTF-8 replaced; empty for NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn lossy<'a>(text: *const c_char) -> Cow<'a, str> {
    // SAFETY: by the caller's promise.
    unsafe { self::text(text) }.map_or(Cow::Borrowed(""), CStr::to_string_lossy)
}

/// As [`text`], of which all bytes count.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn path<'a>(path: *const c_char) -> Option<&'a Path> {
    // SAFETY: by the caller's promise.
    unsafe { text(path) }.map(|path| Path::new(OsStr::from_bytes(path.to_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters() {
        assert_eq!(cut("abcdef", 3).as_c_str(), c"abc");
        assert_eq!(cut("abc", 512).as_c_str(), c"abc");
        assert_eq!(cut("aé", 2).as_c_str(), c"a");
        assert_eq!(cut("aé", 3).as_bytes(), "aé".as_bytes());
    }

    #[test]
    fn nul_does_not_end_a_text() {
        assert_eq!(whole("a\0b").as_c_str(), c"a?b");
    }

    #[test]
    fn null_has_no_bytes() {
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { bytes(std::ptr::null(), 0) }, b"");
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { bytes_mut(std::ptr::null_mut(), 3) }, b"");
        // SAFETY: a literal.
        assert_eq!(unsafe { bytes(b"abc".as_ptr(), 2) }, b"ab");
    }

    /// Memory that a growing vector, or a shrinking one, gives back would keep a password.
    #[test]
    fn a_text_is_built_in_memory_of_its_size() {
        for text in ["", "secret", "a\0b", &"x".repeat(10_000)] {
            let bytes = terminated(text);
            assert_eq!((bytes.capacity(), bytes.len()), (text.len() + 1, text.len() + 1));
            let place = bytes.as_ptr();
            let text = CString::from_vec_with_nul(bytes).expect("one NUL");
            assert_eq!(text.as_ptr().cast(), place);
        }
    }

    #[test]
    fn null_is_empty() {
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { lossy(std::ptr::null()) }, "");
        // SAFETY: a literal.
        assert_eq!(unsafe { lossy(c"caf\xe9".as_ptr()) }, "caf\u{fffd}");
    }
}
