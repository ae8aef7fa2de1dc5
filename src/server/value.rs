// SPDX-License-Identifier: GPL-2.0-only

//! The values that SET assigns to a variable.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering;

use super::abi;

/// As [`super::registry::plugin_registry_service`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static thd_alloc_service: AtomicPtr<abi::thd_alloc_service_st> =
    AtomicPtr::new(ptr::without_provenance_mut(abi::PLUGIN_SERVICE_VERSION as usize));

/// The text of a value, as a C string that lives until the statement of `thd` ends; NULL for SQL's
/// NULL, and when there is no memory.
///
/// # Safety
/// mysqld gave both to the check function of a variable, which has not returned.
pub(crate) unsafe fn value_text(
    thd: *mut abi::THD,
    value: *mut abi::st_mysql_value,
) -> *const c_char {
    let mut buffer = [0 as c_char; 80];
    let mut length = buffer.len() as c_int;
    // SAFETY: by the caller's promise.
    let Some(val_str) = (unsafe { (*value).val_str }) else { return ptr::null() };
    // SAFETY: a place of the given length for short texts.
    let text = unsafe { val_str(value, buffer.as_mut_ptr(), &raw mut length) };
    if text.is_null() || text != buffer.as_ptr() {
        // The value's own memory, which is the statement's.
        return text;
    }
    let service = thd_alloc_service.load(Ordering::Acquire);
    if service.addr() == abi::PLUGIN_SERVICE_VERSION as usize {
        return ptr::null();
    }
    // SAFETY: mysqld has put the address of its constant table there.
    let Some(strmake) = (unsafe { (*service).thd_strmake_func }) else { return ptr::null() };
    // SAFETY: the session of this thread, and a text of `length` bytes.
    unsafe { strmake(thd, text, usize::try_from(length).unwrap_or(0)) }
}
