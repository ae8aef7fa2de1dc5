// SPDX-License-Identifier: GPL-2.0-only

//! A database that C describes.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use clone_core::error::{Error, Result};
use clone_rocksdb::{Connection, Cut, Database, WalFile};

use super::arguments::wrong;
use crate::guard::guard_or;
use crate::server::abi;
use crate::server::abi::Function;
use crate::server::text::{path, text};

type Connect = unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int;
type OnConnection = unsafe extern "C" fn(*mut c_void) -> c_int;
type OnDirectory = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;
type ReadLogs =
    unsafe extern "C" fn(*mut c_void, abi::clone_add_log_fn, *mut c_void, *mut u64) -> c_int;

/// A `struct clone_database`, checked and copied.
pub(super) struct CDatabase {
    directory: PathBuf,
    wal_directory: PathBuf,
    recycles_logs: bool,
    context: *mut c_void,
    connect: Connect,
    functions: Functions,
}

#[derive(Clone, Copy)]
struct Functions {
    disconnect: unsafe extern "C" fn(*mut c_void),
    create_checkpoint: OnDirectory,
    remove_checkpoint: OnDirectory,
    disable_file_deletions: OnConnection,
    enable_file_deletions: OnConnection,
    cut: ReadLogs,
}

// SAFETY: the header says that the functions may be called from any thread; the context is only
// theirs.
unsafe impl Send for CDatabase {}
// SAFETY: as above.
unsafe impl Sync for CDatabase {}

impl CDatabase {
    /// # Safety
    /// The structure is as `include/clone_engine.h` says; its functions may be called as long as
    /// the result lives.
    pub(super) unsafe fn new(database: &abi::clone_database) -> Result<Self> {
        // SAFETY: by the caller's promise.
        let directory = unsafe { path(database.directory) }.ok_or_else(|| wrong("directory"))?;
        // SAFETY: by the caller's promise.
        let wal_directory = unsafe { path(database.wal_directory) }.unwrap_or(directory);
        Ok(Self {
            directory: directory.to_owned(),
            wal_directory: wal_directory.to_owned(),
            recycles_logs: database.recycles_logs != 0,
            context: database.context,
            connect: database.connect.ok_or_else(|| wrong("connect"))?,
            functions: Functions {
                disconnect: database.disconnect.ok_or_else(|| wrong("disconnect"))?,
                create_checkpoint: database
                    .create_checkpoint
                    .ok_or_else(|| wrong("create_checkpoint"))?,
                remove_checkpoint: database
                    .remove_checkpoint
                    .ok_or_else(|| wrong("remove_checkpoint"))?,
                disable_file_deletions: database
                    .disable_file_deletions
                    .ok_or_else(|| wrong("disable_file_deletions"))?,
                enable_file_deletions: database
                    .enable_file_deletions
                    .ok_or_else(|| wrong("enable_file_deletions"))?,
                cut: database.cut.ok_or_else(|| wrong("cut"))?,
            },
        })
    }
}

impl Database for CDatabase {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn wal_directory(&self) -> &Path {
        &self.wal_directory
    }

    fn recycles_logs(&self) -> bool {
        self.recycles_logs
    }

    fn connect(&self) -> Result<Box<dyn Connection>> {
        let mut connection = ptr::null_mut();
        // SAFETY: the function with the context that was registered with it, and a place for the
        // answer.
        outcome(unsafe { (self.connect)(self.context, &raw mut connection) })?;
        Ok(Box::new(CConnection { connection, functions: self.functions }))
    }
}

/// What `connect` gave.
struct CConnection {
    connection: *mut c_void,
    functions: Functions,
}

// SAFETY: the header says that a connection is used by threads in turn.
unsafe impl Send for CConnection {}

impl CConnection {
    fn on_directory(&self, function: OnDirectory, directory: &Path) -> Result<()> {
        let directory = CString::new(directory.as_os_str().as_bytes());
        let directory = directory.map_err(|_| wrong("directory"))?;
        // SAFETY: a function of this connection, and a path.
        outcome(unsafe { function(self.connection, directory.as_ptr()) })
    }
}

impl Connection for CConnection {
    fn create_checkpoint(&mut self, directory: &Path) -> Result<()> {
        self.on_directory(self.functions.create_checkpoint, directory)
    }

    fn remove_checkpoint(&mut self, directory: &Path) -> Result<()> {
        self.on_directory(self.functions.remove_checkpoint, directory)
    }

    fn disable_file_deletions(&mut self) -> Result<()> {
        // SAFETY: a function of this connection.
        outcome(unsafe { (self.functions.disable_file_deletions)(self.connection) })
    }

    fn enable_file_deletions(&mut self) -> Result<()> {
        // SAFETY: a function of this connection.
        outcome(unsafe { (self.functions.enable_file_deletions)(self.connection) })
    }

    fn cut(&mut self) -> Result<Cut> {
        let mut logs = Logs { files: Vec::new(), is_wrong: false };
        let mut sequence = NO_SEQUENCE;
        let add: Function<abi::clone_add_log_fn> = add_log;
        // SAFETY: a function of this connection; what it hands to `add_log` lives through the call.
        outcome(unsafe {
            (self.functions.cut)(
                self.connection,
                Some(add),
                (&raw mut logs).cast(),
                &raw mut sequence,
            )
        })?;
        if logs.is_wrong {
            return Err(wrong("name of a log"));
        }
        Ok(Cut { logs: logs.files, sequence: (sequence != NO_SEQUENCE).then_some(sequence) })
    }
}

impl Drop for CConnection {
    fn drop(&mut self) {
        // SAFETY: a function of this connection, which is not used afterwards.
        unsafe { (self.functions.disconnect)(self.connection) };
    }
}

/// What `cut` finds where it may put a number and need not.
const NO_SEQUENCE: u64 = u64::MAX;

/// What [`add_log`] fills.
struct Logs {
    files: Vec<WalFile>,
    is_wrong: bool,
}

/// # Safety
/// `logs` is what [`CConnection::cut`] handed out and not returned from; `name` is NULL or a C
/// string.
unsafe extern "C" fn add_log(logs: *mut c_void, name: *const c_char, size: u64) {
    guard_or((), || {
        // SAFETY: by the caller's promise.
        let Some(logs) = (unsafe { logs.cast::<Logs>().as_mut() }) else { return };
        // SAFETY: by the caller's promise.
        match unsafe { text(name) }.and_then(|name| name.to_str().ok()) {
            Some(name) => logs.files.push(WalFile { name: name.to_owned(), size }),
            None => logs.is_wrong = true,
        }
    });
}

/// An error number of the engine is one that it has raised.
fn outcome(number: c_int) -> Result<()> {
    match u32::try_from(number) {
        Ok(0) => Ok(()),
        Ok(number) => Err(Error::Raised(number)),
        Err(_) => Err(Error::Raised(clone_core::error::number::ER_INTERNAL_ERROR)),
    }
}
