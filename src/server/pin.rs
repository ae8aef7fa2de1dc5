// SPDX-License-Identifier: GPL-2.0-only

//! Keeping the library in memory.

use std::ffi::CStr;
use std::ffi::c_void;
use std::mem::MaybeUninit;

/// Keeps this library in memory after UNINSTALL PLUGIN, for the case that mysqld has kept pointers
/// into it. Returns whether that worked.
pub(crate) fn pin() -> bool {
    let here = pin as fn() -> bool as *const c_void;
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: an address and a place for the answer.
    if unsafe { libc::dladdr(here, info.as_mut_ptr()) } == 0 {
        return false;
    }
    // SAFETY: filled in.
    let info = unsafe { info.assume_init() };
    // SAFETY: the terminated name of a loaded object.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let mode = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: the object is loaded, so nothing is run.
    !unsafe { libc::dlopen(name.as_ptr(), mode) }.is_null()
}
