// SPDX-License-Identifier: GPL-2.0-only

//! The functions of `include/clone_engine.h`: the clone interface of a handlerton, for engines that have none of their own.
//!
//! Behind them are the engines of one [`Registry`]. C registers databases in it ([`clone_engine_register`]), Rust any
//! [`StorageEngine`] ([`register`]). Whoever calls is checked as far as C can be: NULL, lengths, modes. What cannot be checked is
//! what the header asks for.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use clone_core::error::{Error, Result};
use clone_core::session::Mode;
use clone_engine::{Registry, StorageEngine};
use clone_protocol::MAX_LOCATOR_LEN;
use clone_rocksdb::{Client, Donor, DonorOptions, Layout, Outcome, RocksDb, Standing, Swap};

use crate::server::{abi, symbols};
use callbacks::EngineCallbacks;
use caller::{Caller, end_call};
use database::CDatabase;
use locators::{LOCATORS, Side};

mod callbacks;
mod caller;
mod database;
mod locators;
#[cfg(test)]
#[path = "engine_api/api_tests.rs"]
mod tests;

static ENGINES: Registry = Registry::new();

/// Adds an engine. False if its type is not one that can be cloned, or there is one already.
pub fn register(db_type: u32, engine: Arc<dyn StorageEngine>) -> bool {
    is_db_type(db_type) && ENGINES.register(db_type, engine)
}

/// Takes an engine out; false if there was none. It lives on as long as calls run in it.
pub fn unregister(db_type: u32) -> bool {
    ENGINES.unregister(db_type).is_some()
}

/// It is a byte on the wire; the last one stands for nothing.
fn is_db_type(db_type: u32) -> bool {
    (1..255).contains(&db_type) && db_type != abi::DB_TYPE_INNODB as u32
}

/// `HA_CLONE_HYBRID`, `MULTI_TASK` and `RESTART` (`sql/handler.h:Ha_clone_type`), what InnoDB says of itself.
const CAPABILITY: u64 = 1 << 3 | 1 << 4 | 1 << 5;

/// `clone_capability`: says what engines of this library can, all of them the same.
///
/// # Safety
/// `flags` is NULL or a place for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_capability(flags: *mut u64) {
    if !flags.is_null() {
        // SAFETY: by the caller's promise.
        unsafe { flags.write(CAPABILITY) };
    }
}

/// `clone_begin`: see [`StorageEngine::begin`].
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_begin(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *mut *const u8,
    loc_len: *mut c_uint,
    task_id: *mut c_uint,
    clone_type: usize,
    mode: c_uint,
) -> c_int {
    end_call(|| {
        if clone_type != abi::HA_CLONE_HYBRID as usize {
            return Err(Error::NotSupported("Clone of a type other than HYBRID"));
        }
        // SAFETY: by the caller's promise.
        let (db_type, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let begin = unsafe { Begin::new(loc, loc_len, task_id, mode) }?;
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        let begun = engine.begin(&caller, begin.locator, begin.mode)?;
        let given = LOCATORS.lend(db_type, Side::Donor, &begun.locator, true);
        // SAFETY: the places that `Begin` was made of.
        unsafe { give(loc, loc_len, task_id, given, begun.task) };
        Ok(())
    })
}

/// `clone_copy`: see [`StorageEngine::copy`].
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_copy(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    task_id: c_uint,
    cbk: *mut abi::Ha_clone_cbk,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let (_, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let locator = unsafe { bytes(loc, loc_len) }?.unwrap_or_default();
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        // SAFETY: by the caller's promise.
        let mut callbacks = unsafe { EngineCallbacks::new(cbk, hton) }?;
        let buffer_size = callbacks.client_buffer_size();
        engine.copy(&caller, locator, task_id, buffer_size, &mut callbacks)
    })
}

/// `clone_ack`: see [`StorageEngine::ack`].
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_ack(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    _task_id: c_uint,
    in_err: c_int,
    cbk: *mut abi::Ha_clone_cbk,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let (_, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let locator = unsafe { bytes(loc, loc_len) }?.unwrap_or_default();
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        let descriptor = match cbk.is_null() {
            true => &[],
            // SAFETY: by the caller's promise.
            false => unsafe { EngineCallbacks::new(cbk, hton) }?.descriptor()?,
        };
        engine.ack(&caller, locator, error_number(in_err), descriptor)
    })
}

/// `clone_end`: see [`StorageEngine::end`].
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_end(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    task_id: c_uint,
    in_err: c_int,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let (db_type, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let locator = unsafe { bytes(loc, loc_len) }?.unwrap_or_default();
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        let outcome = engine.end(&caller, locator, task_id, error_number(in_err));
        LOCATORS.task_ended(db_type, Side::Donor);
        outcome
    })
}

/// `clone_apply_begin`: see [`StorageEngine::apply_begin`].
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_apply_begin(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *mut *const u8,
    loc_len: *mut c_uint,
    task_id: *mut c_uint,
    mode: c_uint,
    data_dir: *const c_char,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let (db_type, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let begin = unsafe { Begin::new(loc, loc_len, task_id, mode) }?;
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        // SAFETY: by the caller's promise.
        let directory = unsafe { path(data_dir) };
        let begun = engine.apply_begin(&caller, begin.locator, begin.mode, directory)?;
        // A restart goes on with the tasks that are there.
        let is_new_task = begin.mode != Mode::Restart;
        let given = LOCATORS.lend(db_type, Side::Recipient, &begun.locator, is_new_task);
        // SAFETY: the places that `Begin` was made of.
        unsafe { give(loc, loc_len, task_id, given, begun.task) };
        Ok(())
    })
}

/// `clone_apply`: see [`StorageEngine::apply`]; with an error, [`StorageEngine::apply_error`].
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_apply(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    task_id: c_uint,
    in_err: c_int,
    cbk: *mut abi::Ha_clone_cbk,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let (_, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let locator = unsafe { bytes(loc, loc_len) }?.unwrap_or_default();
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        if in_err != 0 {
            return engine.apply_error(&caller, locator, task_id, error_number(in_err));
        }
        // SAFETY: by the caller's promise.
        let mut callbacks = unsafe { EngineCallbacks::new(cbk, hton) }?;
        let descriptor = callbacks.descriptor()?;
        engine.apply(&caller, locator, task_id, descriptor, &mut callbacks)
    })
}

/// `clone_apply_end`: see [`StorageEngine::apply_end`].
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_apply_end(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    task_id: c_uint,
    in_err: c_int,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let (db_type, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let locator = unsafe { bytes(loc, loc_len) }?.unwrap_or_default();
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        let outcome = engine.apply_end(&caller, locator, task_id, error_number(in_err));
        LOCATORS.task_ended(db_type, Side::Recipient);
        outcome
    })
}

/// `clone_engine_register`.
///
/// # Safety
/// As `include/clone_engine.h` says; the functions of the database can be called from any thread until the engine is forgotten and
/// its clones have ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_engine_register(engine: *const abi::clone_engine) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let Some(engine) = (unsafe { engine.as_ref() }) else { return Err(wrong("no engine")) };
        if engine.version != abi::CLONE_ENGINE_VERSION as u32 {
            return Err(wrong("version"));
        }
        if !is_db_type(engine.db_type) {
            return Err(wrong("db_type"));
        }
        // SAFETY: by the caller's promise.
        let layout = unsafe { layout(engine.root, engine.prefix, engine.required_file) }?;
        // SAFETY: by the caller's promise.
        let database = unsafe { CDatabase::new(&engine.database) }?;
        let mut options = DonorOptions {
            checkpoint_max_age: Duration::from_secs(engine.checkpoint_max_age.into()),
            checkpoint_max_count: engine.checkpoint_max_count,
            ..DonorOptions::default()
        };
        if symbols::symbols().is_some() {
            // In a server InnoDB comes first, and waits there as long as the user wants.
            options.restart_timeout = Duration::from_secs(1);
        }
        let donor = Donor::new(Arc::new(database), options);
        match register(engine.db_type, Arc::new(RocksDb::new(donor, Client::new(layout)))) {
            true => Ok(()),
            false => Err(wrong("db_type of an engine that is registered already")),
        }
    })
}

/// `clone_engine_unregister`.
#[unsafe(no_mangle)]
pub extern "C" fn clone_engine_unregister(db_type: c_uint) -> c_int {
    end_call(|| match unregister(db_type) {
        true => Ok(()),
        false => Err(wrong("db_type of no engine")),
    })
}

/// `clone_engine_swap`: see [`Swap`].
///
/// # Safety
/// As `include/clone_engine.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_engine_swap(
    root: *const c_char,
    prefix: *const c_char,
    directory: *const c_char,
    wal_directory: *const c_char,
    standing: c_uint,
    outcome: *mut c_uint,
) -> c_int {
    end_call(|| {
        let standing = match c_int::try_from(standing) {
            Ok(abi::CLONE_STANDING_SETTLED) => Standing::Settled,
            Ok(abi::CLONE_STANDING_PENDING) => Standing::Pending,
            Ok(abi::CLONE_STANDING_ROLLED_BACK) => Standing::RolledBack,
            _ => return Err(wrong("standing")),
        };
        // SAFETY: by the caller's promise.
        let layout = unsafe { layout(root, prefix, ptr::null()) }?;
        // SAFETY: by the caller's promise.
        let directory = unsafe { path(directory) }.ok_or_else(|| wrong("directory"))?;
        // SAFETY: by the caller's promise.
        let wal = unsafe { path(wal_directory) };
        let number = match Swap::new(&layout, directory, wal).run(standing)? {
            Outcome::Nothing => abi::CLONE_SWAP_NOTHING,
            Outcome::Swapped => abi::CLONE_SWAP_SWAPPED,
            Outcome::Kept => abi::CLONE_SWAP_KEPT,
            Outcome::Committed => abi::CLONE_SWAP_COMMITTED,
            Outcome::Discarded => abi::CLONE_SWAP_DISCARDED,
            Outcome::RolledBack => abi::CLONE_SWAP_ROLLED_BACK,
        };
        if !outcome.is_null() {
            // SAFETY: by the caller's promise.
            unsafe { outcome.write(number.unsigned_abs()) };
        }
        Ok(())
    })
}

/// `clone_engine_error`.
///
/// # Safety
/// `number` is NULL or a place for the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_engine_error(number: *mut c_uint) -> *const c_char {
    let (last, text) = caller::last_error();
    if !number.is_null() {
        // SAFETY: by the caller's promise.
        unsafe { number.write(last) };
    }
    text
}

/// `clone_engine_set_killed`.
///
/// # Safety
/// The function can be called on any thread that calls an engine, with the session of that call, from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_engine_set_killed(killed: Option<caller::Killed>) {
    caller::set_killed(killed);
}

/// What `clone_begin` and `clone_apply_begin` are given.
struct Begin<'a> {
    locator: Option<&'a [u8]>,
    mode: Mode,
}

impl Begin<'_> {
    /// # Safety
    /// Places are NULL or places; the locator lives through the call.
    unsafe fn new(
        loc: *mut *const u8,
        loc_len: *mut c_uint,
        task_id: *mut c_uint,
        mode: c_uint,
    ) -> Result<Self> {
        let mode = match c_int::try_from(mode) {
            Ok(abi::HA_CLONE_MODE_START) => Mode::Start,
            Ok(abi::HA_CLONE_MODE_RESTART) => Mode::Restart,
            Ok(abi::HA_CLONE_MODE_ADD_TASK) => Mode::AddTask,
            Ok(abi::HA_CLONE_MODE_VERSION) => Mode::Version,
            _ => return Err(wrong("mode")),
        };
        if task_id.is_null() {
            return Err(wrong("task_id"));
        }
        // SAFETY: by the caller's promise.
        let Some(loc) = (unsafe { loc.as_ref() }) else { return Err(wrong("loc")) };
        // SAFETY: by the caller's promise.
        let Some(loc_len) = (unsafe { loc_len.as_ref() }) else { return Err(wrong("loc_len")) };
        // SAFETY: by the caller's promise.
        Ok(Self { locator: unsafe { bytes(*loc, *loc_len) }?, mode })
    }
}

/// Tells the caller what has begun.
///
/// # Safety
/// None of the places is NULL.
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about three places")]
unsafe fn give(
    loc: *mut *const u8,
    loc_len: *mut c_uint,
    task_id: *mut c_uint,
    locator: &'static [u8],
    task: u32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        loc.write(locator.as_ptr());
        loc_len.write(c_uint::try_from(locator.len()).unwrap_or(c_uint::MAX));
        task_id.write(task);
    }
}

/// # Safety
/// `hton` is NULL or a handlerton.
unsafe fn engine_of(hton: *mut abi::handlerton) -> Result<(u32, Arc<dyn StorageEngine>)> {
    // SAFETY: by the caller's promise.
    let Some(hton) = (unsafe { hton.as_ref() }) else { return Err(wrong("hton")) };
    let engine = ENGINES.engine(hton.db_type);
    Ok((hton.db_type, engine.ok_or_else(|| wrong("db_type of no engine"))?))
}

/// None for NULL.
///
/// # Safety
/// `data` is NULL or points to `len` bytes that outlive the result.
unsafe fn bytes<'a>(data: *const u8, len: c_uint) -> Result<Option<&'a [u8]>> {
    if data.is_null() {
        return Ok(None);
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MAX_LOCATOR_LEN {
        return Err(wrong("length"));
    }
    // SAFETY: by the caller's promise.
    Ok(Some(unsafe { std::slice::from_raw_parts(data, len) }))
}

/// None for NULL.
///
/// # Safety
/// `text` is NULL or a C string that outlives the result.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    Some(unsafe { CStr::from_ptr(text) })
}

/// As [`text`].
///
/// # Safety
/// As [`text`].
unsafe fn path<'a>(path: *const c_char) -> Option<&'a Path> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: by the caller's promise.
    let path = unsafe { text(path) }?;
    Some(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())))
}

/// # Safety
/// As [`text`], all of them.
unsafe fn layout(
    root: *const c_char,
    prefix: *const c_char,
    required: *const c_char,
) -> Result<Layout> {
    // SAFETY: by the caller's promise.
    let root = unsafe { path(root) }.ok_or_else(|| wrong("root"))?;
    // SAFETY: by the caller's promise.
    let prefix = unsafe { text(prefix) }.and_then(|prefix| prefix.to_str().ok());
    let is_hidden_name =
        |prefix: &&str| prefix.len() > 1 && prefix.starts_with('.') && !prefix.contains('/');
    let prefix = prefix.filter(is_hidden_name).ok_or_else(|| wrong("prefix"))?;
    // SAFETY: by the caller's promise.
    let required = unsafe { text(required) };
    let required = required.map(|name| name.to_str().map(str::to_owned));
    let required = required.transpose().map_err(|_| wrong("required_file"))?;
    Ok(Layout::other(root, prefix, required))
}

/// An argument of a function of the header that cannot be right.
fn wrong(what: &str) -> Error {
    Error::Internal(format!("Clone engine: wrong {what}"))
}

/// A negative number is an error all the same.
fn error_number(in_err: c_int) -> u32 {
    u32::try_from(in_err).unwrap_or(clone_core::error::number::ER_INTERNAL_ERROR)
}
