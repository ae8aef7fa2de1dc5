// SPDX-License-Identifier: GPL-2.0-only

//! Statics that mysqld knows by their addresses.

use std::cell::UnsafeCell;

/// A static whose address mysqld has. Who reads or writes it must know that nobody else writes
/// then:
///
/// 1. While `dlopen` runs, only the functions in `.init_array` write. No other thread knows an
///    address of this library then.
/// 2. Then only mysqld writes, with `LOCK_plugin` held: before it calls `init` of the plugin, and
///    after `deinit` (`sql/sql_plugin.cc:plugin_add` and `plugin_del`). A session that runs a
///    clone holds a reference to the plugin. mysqld gives no reference before `plugin_add` has
///    ended, and does not call `plugin_del` while there is one.
#[repr(transparent)]
pub(crate) struct Writable<T>(UnsafeCell<T>);

// SAFETY: from a shared reference, safe code gets an address and nothing else. Reading or writing
// there takes an `unsafe` block, which has to show that nobody else writes.
unsafe impl<T> Sync for Writable<T> {}

impl<T> Writable<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(super) const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}
