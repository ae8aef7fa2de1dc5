// SPDX-License-Identifier: GPL-2.0-only

//! A [`Source`] as a table of C functions (`struct clone_database`).

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::OsStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clone_engine::Error;
use clone_engine::Result;
use clone_rocksdb::Connection;
use clone_rocksdb::Database;

use super::abi::AddLog;
use super::abi::DatabaseTable;
use crate::database::Source;

/// The table for a source, which lives as long as the library may call.
pub(super) fn table(
    source: *mut Source,
    directory: &CStr,
    wal_directory: &CStr,
    recycles_logs: bool,
) -> DatabaseTable {
    DatabaseTable {
        directory: directory.as_ptr(),
        wal_directory: wal_directory.as_ptr(),
        recycles_logs: c_int::from(recycles_logs),
        context: source.cast(),
        connect,
        disconnect,
        create_checkpoint,
        remove_checkpoint,
        disable_file_deletions,
        enable_file_deletions,
        cut,
    }
}

/// What a connection is for C.
type BoxedConnection = Box<dyn Connection>;

unsafe extern "C" fn connect(context: *mut c_void, connection: *mut *mut c_void) -> c_int {
    // SAFETY: the context is the source, which lives as long as the engine is registered.
    let source = unsafe { &*context.cast::<Source>() };
    match source.connect() {
        Ok(connected) => {
            let boxed: *mut BoxedConnection = Box::into_raw(Box::new(connected));
            // SAFETY: a place for the connection.
            unsafe { connection.write(boxed.cast()) };
            0
        }
        Err(error) => raised(&error),
    }
}

unsafe extern "C" fn disconnect(connection: *mut c_void) {
    // SAFETY: made by `connect`, and the last that is heard of it.
    drop(unsafe { Box::from_raw(connection.cast::<BoxedConnection>()) });
}

unsafe extern "C" fn create_checkpoint(connection: *mut c_void, path: *const c_char) -> c_int {
    // SAFETY: a path that the library keeps until this returns.
    let path = unsafe { path_of(path) };
    // SAFETY: a connection in use by this thread.
    unsafe { on(connection, |connection| connection.create_checkpoint(path)) }
}

unsafe extern "C" fn remove_checkpoint(connection: *mut c_void, path: *const c_char) -> c_int {
    // SAFETY: as above.
    let path = unsafe { path_of(path) };
    // SAFETY: as above.
    unsafe { on(connection, |connection| connection.remove_checkpoint(path)) }
}

unsafe extern "C" fn disable_file_deletions(connection: *mut c_void) -> c_int {
    // SAFETY: a connection in use by this thread.
    unsafe { on(connection, |connection| connection.disable_file_deletions()) }
}

unsafe extern "C" fn enable_file_deletions(connection: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe { on(connection, |connection| connection.enable_file_deletions()) }
}

unsafe extern "C" fn cut(
    connection: *mut c_void,
    add: AddLog,
    logs: *mut c_void,
    sequence: *mut u64,
) -> c_int {
    let work = |connection: &mut dyn Connection| {
        let cut = connection.cut()?;
        for log in cut.logs {
            let name = CString::new(log.name).unwrap_or_default();
            // SAFETY: the library's function with its argument; it copies the name.
            unsafe { add(logs, name.as_ptr(), log.size) };
        }
        if let Some(number) = cut.sequence {
            // SAFETY: a place for it.
            unsafe { sequence.write(number) };
        }
        Ok(())
    };
    // SAFETY: a connection in use by this thread.
    unsafe { on(connection, work) }
}

/// # Safety
/// A connection of [`connect`], used by this thread alone.
unsafe fn on(
    connection: *mut c_void,
    work: impl FnOnce(&mut dyn Connection) -> Result<()>,
) -> c_int {
    // SAFETY: by the caller's promise.
    let connection = unsafe { &mut *connection.cast::<BoxedConnection>() };
    work(&mut **connection).err().map_or(0, |error| raised(&error))
}

/// # Safety
/// A path that lives as long as the result is used.
unsafe fn path_of<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: by the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// An error on its way through C, which carries its number only.
fn raised(error: &Error) -> c_int {
    log::error!("{error}");
    c_int::try_from(error.number()).unwrap_or(c_int::MAX)
}
