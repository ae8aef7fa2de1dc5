// SPDX-License-Identifier: GPL-2.0-only

//! The C functions of `include/clone_engine.h`, called as a server calls them. They come from the
//! package `mysql-clone`, whose library exports them; here they are linked in.
//!
//! [`register`] gives the library a database as a table of C functions, [`Exported`] is the engine
//! that it makes of it, seen from the calling side: handlerton, locators by pointer, and callback
//! objects in the form of the server's C++ class `Ha_clone_cbk`.

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_int;
use std::ffi::c_uchar;
use std::ffi::c_uint;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null;
use std::ptr::null_mut;
use std::slice;
use std::sync::Arc;

use clone_engine::Begun;
use clone_engine::BlockInput;
use clone_engine::BlockOutput;
use clone_engine::Cancel;
use clone_engine::DynEngine;
use clone_engine::Error;
use clone_engine::Mode;
use clone_engine::Result;
use clone_engine::TaskId;
use clone_rocksdb::Database;
use mysql_clone::c_api;

use crate::database::Source;
use abi::HYBRID;
use abi::Handlerton;
use abi::VERSION;
use abi::clone_ack;
use abi::clone_apply;
use abi::clone_apply_begin;
use abi::clone_apply_end;
use abi::clone_begin;
use abi::clone_copy;
use abi::clone_end;
use abi::clone_engine_error;
use abi::clone_engine_register;
use abi::clone_engine_unregister;
use object::Side;
use object::with_object;

mod abi;
mod database;
mod object;

/// When checkpoints are renewed: `rocksdb_clone_checkpoint_max_age` in seconds, and `_max_count`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Renewal {
    /// 0: never.
    pub max_age: u32,
    /// 0: no limit.
    pub max_count: u32,
}

/// An engine that is registered with the library; forgotten when this is dropped.
#[derive(Debug)]
pub struct Exported {
    hton: Box<Handlerton>,
    /// What C has as the context, or NULL for an engine in Rust.
    source: *mut Source,
}

// SAFETY: handlerton and source are only read.
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

/// Registers the database of `source` as engine `db_type`. Clones that are to replace a server's
/// data are put below `root`.
///
/// # Errors
/// The library's.
pub fn register(db_type: u32, source: Source, root: &Path, renewal: Renewal) -> Result<Exported> {
    let (root, directory) = (c_path(root), c_path(source.directory()));
    let wal_directory = c_path(source.wal_directory());
    let recycles_logs = source.recycles_logs();
    let source = Box::into_raw(Box::new(source));
    let engine = abi::Engine {
        version: VERSION,
        db_type,
        root: root.as_ptr(),
        prefix: c".rocksdb".as_ptr(),
        required_file: c"CURRENT".as_ptr(),
        checkpoint_max_age: renewal.max_age,
        checkpoint_max_count: renewal.max_count,
        database: database::table(source, &directory, &wal_directory, recycles_logs),
    };
    // SAFETY: a structure in the form of the header; all that it points to lives until the call is
    // back, and the context until the engine is forgotten.
    let registered = outcome(unsafe { clone_engine_register(&raw const engine) }, None);
    if let Err(error) = registered {
        // SAFETY: made above, and nobody else knows of it.
        drop(unsafe { Box::from_raw(source) });
        return Err(error);
    }
    Ok(Exported { hton: Box::new(Handlerton { state: 0, db_type }), source })
}

/// Registers an engine of Rust as `db_type`. `None` if there is one.
pub fn register_engine(db_type: u32, engine: Arc<DynEngine>) -> Option<Exported> {
    let hton = Box::new(Handlerton { state: 0, db_type });
    c_api::register(db_type, engine).then_some(Exported { hton, source: null_mut() })
}

impl Drop for Exported {
    fn drop(&mut self) {
        // SAFETY: a number.
        let _ = unsafe { clone_engine_unregister(self.hton.db_type) };
        if !self.source.is_null() {
            // SAFETY: made by `register`. No new clone can begin, and the connections of those that
            // run have sources of their own.
            drop(unsafe { Box::from_raw(self.source) });
        }
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path of a test has no zero byte")
}

/// The outcome of a call. An error of a callback is its own, not what C has made of it.
fn outcome(code: c_int, failure: Option<Error>) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    if let Some(failure) = failure
        && i64::from(failure.number()) == i64::from(code)
    {
        return Err(failure);
    }
    let number = u32::try_from(code).unwrap_or(u32::MAX);
    let mut last = 0;
    // SAFETY: a place for the number.
    let text = unsafe { clone_engine_error(&raw mut last) };
    if Error::Raised(number).is_network() || last != number {
        return Err(Error::Raised(number));
    }
    // SAFETY: the text of this thread's last error.
    let message = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    Err(Error::Donor { number: code, message })
}

impl Exported {
    fn hton(&self) -> *mut Handlerton {
        // The functions only read it.
        (&raw const *self.hton).cast_mut()
    }
}

fn length(bytes: &[u8]) -> c_uint {
    c_uint::try_from(bytes.len()).unwrap_or(c_uint::MAX)
}

/// A locator that is handed in, and where the answer is put.
struct Place {
    locator: *const c_uchar,
    len: c_uint,
    task: c_uint,
}

impl Place {
    fn of(locator: Option<&[u8]>) -> Self {
        let locator = locator.unwrap_or_default();
        let pointer = if locator.is_empty() { null() } else { locator.as_ptr() };
        Self { locator: pointer, len: length(locator), task: 0 }
    }

    fn begun(&self) -> Begun {
        let locator = match self.locator.is_null() {
            true => Vec::new(),
            // SAFETY: a locator of the library, which it keeps until the last task has ended.
            false => unsafe { slice::from_raw_parts(self.locator, self.len as usize) }.to_vec(),
        };
        Begun { locator, task: self.task }
    }
}

fn mode_number(mode: Mode) -> c_uint {
    mode as c_uint
}

fn signed(error: u32) -> c_int {
    c_int::try_from(error).unwrap_or(c_int::MAX)
}

/// C is called without a session, so KILL does not reach the engine.
impl<'s> clone_engine::Engine<dyn Cancel + 's> for Exported {
    /// C has no `ddl_timeout`.
    fn begin(
        &self,
        _: &(dyn Cancel + 's),
        locator: Option<&[u8]>,
        mode: Mode,
        _ddl_timeout: u32,
    ) -> Result<Begun> {
        let mut place = Place::of(locator);
        // SAFETY: places that live until the call is back.
        let code = unsafe {
            clone_begin(
                self.hton(),
                null_mut(),
                &raw mut place.locator,
                &raw mut place.len,
                &raw mut place.task,
                HYBRID,
                mode_number(mode),
            )
        };
        outcome(code, None)?;
        Ok(place.begun())
    }

    fn copy(
        &self,
        _: &(dyn Cancel + 's),
        task: TaskId<'_>,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        with_object(&[], buffer_size, Side::Donor(output), |object| {
            let (pointer, len) = (task.locator.as_ptr(), length(task.locator));
            // SAFETY: a locator and an object that live until the call is back.
            unsafe { clone_copy(self.hton(), null_mut(), pointer, len, task.number, object) }
        })
    }

    fn ack(
        &self,
        _: &(dyn Cancel + 's),
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        with_object(descriptor, 0, Side::None, |object| {
            let (pointer, len, error) = (locator.as_ptr(), length(locator), signed(error));
            // SAFETY: as above. The task of an acknowledgement is always the main one.
            unsafe { clone_ack(self.hton(), null_mut(), pointer, len, 0, error, object) }
        })
    }

    fn end(&self, _: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        let (pointer, len, error) = (task.locator.as_ptr(), length(task.locator), signed(error));
        // SAFETY: a locator that lives until the call is back.
        let code = unsafe { clone_end(self.hton(), null_mut(), pointer, len, task.number, error) };
        outcome(code, None)
    }

    fn apply_begin(
        &self,
        _: &(dyn Cancel + 's),
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        let directory = directory.map(c_path);
        let mut place = Place::of(locator);
        // SAFETY: places and a path that live until the call is back.
        let code = unsafe {
            clone_apply_begin(
                self.hton(),
                null_mut(),
                &raw mut place.locator,
                &raw mut place.len,
                &raw mut place.task,
                mode_number(mode),
                directory.as_ref().map_or(null(), |directory| directory.as_ptr()),
            )
        };
        outcome(code, None)?;
        Ok(place.begun())
    }

    fn apply(
        &self,
        _: &(dyn Cancel + 's),
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        with_object(descriptor, 0, Side::Recipient(input), |object| {
            let (pointer, len) = (task.locator.as_ptr(), length(task.locator));
            // SAFETY: a locator and an object that live until the call is back.
            unsafe { clone_apply(self.hton(), null_mut(), pointer, len, task.number, 0, object) }
        })
    }

    fn apply_error(&self, _: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        with_object(&[], 0, Side::None, |object| {
            let (pointer, len) = (task.locator.as_ptr(), length(task.locator));
            let (number, error) = (task.number, signed(error));
            // SAFETY: as above.
            unsafe { clone_apply(self.hton(), null_mut(), pointer, len, number, error, object) }
        })
    }

    fn apply_end(&self, _: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        let (pointer, len) = (task.locator.as_ptr(), length(task.locator));
        let (number, error) = (task.number, signed(error));
        // SAFETY: a locator that lives until the call is back.
        let code = unsafe { clone_apply_end(self.hton(), null_mut(), pointer, len, number, error) };
        outcome(code, None)
    }
}
