// SPDX-License-Identifier: GPL-2.0-only

//! mysqld's structures and function types, as `include/` describes them.

#[rustfmt::skip]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated")]
#[allow(dead_code, reason = "holds all of include/, of which each version of mysqld needs a part")]
#[allow(missing_docs, non_camel_case_types, reason = "the names are mysqld's")]
#[allow(unreachable_pub, reason = "bindgen knows one visibility for items")]
mod bindings;

pub(crate) use bindings::*;

use std::ffi::c_void;

/// The function inside one of bindgen's nullable function pointers: `Function<my_error_fn>` is a
/// `unsafe extern "C" fn(c_int, c_int, ...)`.
pub(crate) type Function<T> = <T as Nullable>::Function;

/// See [`Function`].
pub(crate) trait Nullable {
    type Function: Copy;
}

impl<F: Copy> Nullable for Option<F> {
    type Function = F;
}

/// The function at an address, `None` for NULL.
///
/// # Safety
/// `T` is one of the nullable function pointers of this module, and what lies at `address` is a
/// function of that type.
pub(crate) unsafe fn function_at<T: Nullable>(address: *const c_void) -> Option<Function<T>> {
    const { assert!(size_of::<Function<T>>() == size_of::<*const c_void>()) };
    if address.is_null() {
        return None;
    }
    // SAFETY: both are pointers of the same size, and the caller vouches for the type.
    Some(unsafe { std::mem::transmute_copy::<*const c_void, Function<T>>(&address) })
}
