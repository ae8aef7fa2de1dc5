// SPDX-License-Identifier: GPL-2.0-only

//! The cursor of one statement over one table: the callbacks of `PFS_engine_table_proxy`.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint};
use std::ptr;
use std::sync::Arc;

use super::columns::{self, Columns};
use super::table::{Snapshot, Table};
use crate::guard::{guard, guard_or};
use crate::server::abi;

/// `m_ref_length`: the size of a position, which mysqld copies from and to [`Cursor::position`] by
/// itself.
pub(super) const REF_LENGTH: u32 = size_of::<u32>() as u32;

/// A cursor. mysqld uses it on one thread at a time.
struct Cursor {
    /// The current row, counted from 1; 0 before the first.
    position: Cell<u32>,
    rows: RefCell<Option<Box<dyn Snapshot>>>,
    snapshot: fn() -> Box<dyn Snapshot>,
    columns: Arc<Columns>,
}

/// The callbacks of the table `T`.
pub(super) fn callbacks<T: Table>() -> abi::PFS_engine_table_proxy {
    abi::PFS_engine_table_proxy {
        rnd_next: Some(rnd_next),
        rnd_init: Some(rnd_init),
        rnd_pos: Some(rnd_pos),
        index_init: ptr::null_mut(),
        index_read: ptr::null_mut(),
        index_next: ptr::null_mut(),
        read_column_value: Some(read_column_value),
        reset_position: Some(reset_position),
        write_column_value: ptr::null_mut(),
        write_row_values: ptr::null_mut(),
        update_column_value: ptr::null_mut(),
        update_row_values: ptr::null_mut(),
        delete_row_values: ptr::null_mut(),
        open_table: Some(open_table::<T>),
        close_table: Some(close_table),
    }
}

impl Cursor {
    /// # Safety
    /// `handle` is NULL or what `open_table` returned and `close_table` has not had.
    unsafe fn of<'a>(handle: *mut abi::PSI_table_handle) -> Option<&'a Self> {
        // SAFETY: by the caller's promise.
        unsafe { handle.cast::<Self>().as_ref() }
    }

    /// Takes a snapshot for a scan. To read single rows again, as after a sort, the cursor keeps
    /// the one it has.
    fn begin(&self, scan: bool) {
        let mut rows = self.rows.borrow_mut();
        if scan || rows.is_none() {
            *rows = Some((self.snapshot)());
        }
        self.position.set(0);
    }

    fn next(&self) -> c_int {
        self.position.set(self.position.get().saturating_add(1));
        if self.row().is_some() { 0 } else { abi::HA_ERR_END_OF_FILE }
    }

    /// The current row, counted from 0.
    fn row(&self) -> Option<usize> {
        let row = usize::try_from(self.position.get().checked_sub(1)?).ok()?;
        (row < self.rows.borrow().as_ref()?.rows()).then_some(row)
    }
}

unsafe extern "C" fn open_table<T: Table>(
    position: *mut *mut abi::PSI_pos,
) -> *mut abi::PSI_table_handle {
    guard_or(ptr::null_mut(), || {
        let Some(columns) = columns::columns() else { return ptr::null_mut() };
        let cursor = Box::leak(Box::new(Cursor {
            position: Cell::new(0),
            rows: RefCell::new(None),
            snapshot: T::snapshot,
            columns,
        }));
        // SAFETY: a place for the address of the position.
        unsafe { position.write(cursor.position.as_ptr().cast()) };
        ptr::from_mut(cursor).cast()
    })
}

unsafe extern "C" fn close_table(handle: *mut abi::PSI_table_handle) {
    guard_or((), || {
        if !handle.is_null() {
            // SAFETY: what `open_table` leaked; mysqld closes it once.
            drop(unsafe { Box::from_raw(handle.cast::<Cursor>()) });
        }
    });
}

unsafe extern "C" fn rnd_init(handle: *mut abi::PSI_table_handle, scan: bool) -> c_int {
    // SAFETY: mysqld passes an open cursor.
    with(unsafe { Cursor::of(handle) }, |cursor| {
        cursor.begin(scan);
        0
    })
}

unsafe extern "C" fn rnd_next(handle: *mut abi::PSI_table_handle) -> c_int {
    // SAFETY: mysqld passes an open cursor.
    with(unsafe { Cursor::of(handle) }, Cursor::next)
}

/// mysqld has already written the position.
unsafe extern "C" fn rnd_pos(handle: *mut abi::PSI_table_handle) -> c_int {
    // SAFETY: mysqld passes an open cursor.
    with(unsafe { Cursor::of(handle) }, |cursor| match cursor.row() {
        Some(_) => 0,
        None => abi::HA_ERR_RECORD_DELETED,
    })
}

unsafe extern "C" fn reset_position(handle: *mut abi::PSI_table_handle) {
    guard_or((), || {
        // SAFETY: mysqld passes an open cursor.
        if let Some(cursor) = unsafe { Cursor::of(handle) } {
            cursor.position.set(0);
        }
    });
}

unsafe extern "C" fn read_column_value(
    handle: *mut abi::PSI_table_handle,
    field: *mut abi::PSI_field,
    index: c_uint,
) -> c_int {
    // SAFETY: mysqld passes an open cursor.
    with(unsafe { Cursor::of(handle) }, |cursor| {
        let rows = cursor.rows.borrow();
        let (Some(row), Some(rows)) = (cursor.row(), rows.as_ref()) else {
            return abi::HA_ERR_END_OF_FILE;
        };
        // SAFETY: the column that mysqld is reading; that values are of its columns' types is the
        // table's promise.
        unsafe { cursor.columns.store(field, rows.column(row, index as usize)) };
        0
    })
}

/// A cursor is NULL only when `open_table` failed, and then the table is empty.
fn with(cursor: Option<&Cursor>, f: impl FnOnce(&Cursor) -> c_int) -> c_int {
    guard(|| cursor.map_or(abi::HA_ERR_END_OF_FILE, f))
}
