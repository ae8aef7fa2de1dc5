// SPDX-License-Identifier: GPL-2.0-only

//! Text on its way to and from C.

use std::borrow::Cow;
use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::OsStr;
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The beginning of `text` that has at most `bytes` bytes and ends with a whole character, as a C string. mysqld's
/// formats cut at bytes (`%.512s`); NULs become `?`.
pub(super) fn cut(text: &str, bytes: usize) -> CString {
    let end = text.floor_char_boundary(bytes);
    CString::new(text[..end].replace('\0', "?")).unwrap_or_default()
}

/// `text` as a C string; NULs become `?`.
pub(super) fn whole(text: &str) -> CString {
    cut(text, text.len())
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
    fn null_is_empty() {
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { lossy(std::ptr::null()) }, "");
        // SAFETY: a literal.
        assert_eq!(unsafe { lossy(c"caf\xe9".as_ptr()) }, "caf\u{fffd}");
    }
}
