// SPDX-License-Identifier: GPL-2.0-only

//! `shim.cc` in Rust's types: the methods of `clone_protocol` that take `std::string` or
//! `std::vector`.

use std::ffi::c_int;
use std::ffi::c_void;

use super::abi;
use super::abi::Function;
use super::raise::{Raise, check, raise};
use super::text::bytes;
use super::thd::Thd;
use crate::guard::guard_or;

/// A method whose C++ type only the shim knows.
pub(super) type Method = Function<abi::clone_shim_method>;

/// # Safety
/// `method` is `mysql_clone_get_charsets`.
pub(super) unsafe fn get_charsets(method: Method, thd: Thd<'_>) -> Result<Vec<String>, u32> {
    let mut names = Vec::new();
    // SAFETY: the method by the caller's promise; `collect` takes the vector, which outlives the
    // call.
    let code = unsafe {
        abi::clone_shim_get_charsets(
            Some(method),
            thd.as_ptr(),
            Some(collect),
            (&raw mut names).cast(),
        )
    };
    finish(code).map(|()| names)
}

/// # Safety
/// `method` is `mysql_clone_validate_charsets`.
pub(super) unsafe fn validate_charsets(
    method: Method,
    thd: Thd<'_>,
    names: &[String],
) -> Result<(), u32> {
    let names: Vec<_> = names.iter().map(|name| text(name)).collect();
    // SAFETY: the method by the caller's promise; a slice and its length.
    finish(unsafe {
        abi::clone_shim_validate_charsets(Some(method), thd.as_ptr(), names.as_ptr(), names.len())
    })
}

/// # Safety
/// `method` is `mysql_clone_get_configs`.
pub(super) unsafe fn get_configs(
    method: Method,
    thd: Thd<'_>,
    names: &[&str],
) -> Result<Vec<String>, u32> {
    let names: Vec<_> = names.iter().map(|name| text(name)).collect();
    let mut values = Vec::new();
    let context = (&raw mut values).cast();
    // SAFETY: the method by the caller's promise; a slice and its length; `collect` takes the
    // vector.
    let code = unsafe {
        abi::clone_shim_get_configs(
            Some(method),
            thd.as_ptr(),
            names.as_ptr(),
            names.len(),
            Some(collect),
            context,
        )
    };
    finish(code).map(|()| values)
}

/// # Safety
/// `method` is `mysql_clone_validate_configs`.
pub(super) unsafe fn validate_configs(
    method: Method,
    thd: Thd<'_>,
    configs: &[(String, String)],
) -> Result<(), u32> {
    let configs: Vec<_> = configs
        .iter()
        .map(|(name, value)| abi::clone_shim_pair { name: text(name), value: text(value) })
        .collect();
    // SAFETY: the method by the caller's promise; a slice and its length.
    finish(unsafe {
        abi::clone_shim_validate_configs(
            Some(method),
            thd.as_ptr(),
            configs.as_ptr(),
            configs.len(),
        )
    })
}

/// # Safety
/// `method` is `mysql_clone_validate_version` with four arguments.
pub(super) unsafe fn validate_version(
    method: Method,
    recipient: &str,
    donor: &str,
    recipient_lts: bool,
    donor_lts: bool,
) -> Result<(), u32> {
    let (recipient, donor) = (text(recipient), text(donor));
    // SAFETY: the method by the caller's promise.
    finish(unsafe {
        abi::clone_shim_validate_version(Some(method), recipient, donor, recipient_lts, donor_lts)
    })
}

fn text(text: &str) -> abi::clone_shim_text {
    abi::clone_shim_text { data: text.as_ptr().cast(), length: text.len() }
}

/// Adds a result to the `Vec<String>` at `context`.
unsafe extern "C" fn collect(context: *mut c_void, text: abi::clone_shim_text) {
    guard_or((), || {
        // SAFETY: the callers above pass a vector that nothing else uses meanwhile.
        let results = unsafe { &mut *context.cast::<Vec<String>>() };
        // SAFETY: the bytes of a std::string, which may be empty but has a buffer.
        let bytes = unsafe { bytes(text.data.cast(), text.length) };
        results.push(String::from_utf8_lossy(bytes).into_owned());
    });
}

fn finish(code: c_int) -> Result<(), u32> {
    if code == abi::CLONE_SHIM_NO_MEMORY {
        return Err(raise(Raise::OutOfMemory { bytes: 0 }));
    }
    check(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_copied() {
        let mut results: Vec<String> = Vec::new();
        let context = (&raw mut results).cast();
        // SAFETY: as the shim calls it.
        unsafe { collect(context, text("utf8mb4_bin")) };
        // SAFETY: as the shim calls it.
        unsafe { collect(context, text("")) };
        assert_eq!(results, ["utf8mb4_bin", ""]);
    }

    #[test]
    fn exceptions_are_errors() {
        assert_eq!(finish(abi::CLONE_SHIM_NO_MEMORY), Err(1037));
        assert_eq!(finish(0), Ok(()));
        assert_eq!(finish(3868), Err(3868));
    }
}
