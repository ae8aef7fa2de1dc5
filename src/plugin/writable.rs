// SPDX-License-Identifier: GPL-2.0-only

//! Statics that mysqld writes to.

use std::cell::UnsafeCell;

use crate::server::abi;

/// What mysqld is given in a [`Writable`].
///
/// # Safety
/// Plain data, which any thread may read and write: its pointers are only followed by mysqld, to
/// statics of this library.
pub(super) unsafe trait ForMysqld {}

// SAFETY: see the structure in include/server_plugin.h.
unsafe impl ForMysqld for abi::st_mysql_plugin {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::Mysql_clone {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::st_mysql_daemon {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::sysvar_bool {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::sysvar_str {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::sysvar_uint {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::sysvar_enum {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::thdvar_bool {}
// SAFETY: as above.
unsafe impl ForMysqld for abi::TYPELIB {}
// SAFETY: the address of one of the variables above.
unsafe impl ForMysqld for *mut abi::SYS_VAR {}
// SAFETY: as its elements.
unsafe impl<T: ForMysqld, const N: usize> ForMysqld for [T; N] {}

/// A static that mysqld writes to.
#[repr(transparent)]
pub(crate) struct Writable<T>(UnsafeCell<T>);

// SAFETY: only mysqld writes to it, with its plugin lock held. This side only takes the address.
unsafe impl<T: ForMysqld> Sync for Writable<T> {}

impl<T> Writable<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(super) const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}
