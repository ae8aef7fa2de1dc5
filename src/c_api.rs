// SPDX-License-Identifier: GPL-2.0-only

//! The functions of `include/clone_engine.h`: the clone interface of a handlerton, for engines that
//! have none of their own.
//!
//! Behind them are the engines of one [`Registry`](clone_engine::Registry). C registers databases
//! in it ([`clone_engine_register`]), Rust any [`DynEngine`] ([`register`]). Arguments are
//! checked as far as C allows: NULL, lengths, modes. For the rest the caller has to keep to the
//! header.
//!
//! The functions of the interface are `extern "C-unwind"`, as their types are: what an engine in
//! C++ throws would be undefined behaviour in a frame of `extern "C"`. Our functions never unwind.

use std::ffi::{c_char, c_int, c_uint};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use clone_core::engine::Mode;
use clone_core::error::Error;
use clone_engine::DynEngine;
use clone_rocksdb::{Client, Donor, DonorOptions, Outcome, RocksDb, Standing, Swap};

use crate::server::abi::Function;
use crate::server::handlerton::Handlerton;
use crate::server::text::path;
use crate::server::{abi, symbols};
use arguments::{Begin, Call, engine_of, error_number, give, layout, wrong};
use callbacks::EngineCallbacks;
use caller::{Caller, end_call};
use database::CDatabase;
use engines::ENGINES;
use locators::{LOCATORS, Side};

mod arguments;
mod callbacks;
mod caller;
mod database;
mod engines;
mod locators;
#[cfg(test)]
#[path = "c_api/api_tests.rs"]
mod tests;

/// Adds an engine. False if its type is not one that can be cloned, or there is one already.
pub fn register(db_type: u32, engine: Arc<DynEngine>) -> bool {
    is_db_type(db_type) && ENGINES.register(db_type, engine)
}

/// Takes an engine out; false if there was none. It lives on as long as calls run in it.
pub fn unregister(db_type: u32) -> bool {
    ENGINES.unregister(db_type).is_some()
}

/// The functions for a handlerton.
pub(crate) const fn interface() -> abi::Clone_interface_t {
    abi::Clone_interface_t {
        clone_capability: Some(clone_capability),
        clone_begin: Some(clone_begin),
        clone_copy: Some(clone_copy),
        clone_ack: Some(clone_ack),
        clone_end: Some(clone_end),
        clone_apply_begin: Some(clone_apply_begin),
        clone_apply: Some(clone_apply),
        clone_apply_end: Some(clone_apply_end),
    }
}

/// What a handlerton has that cannot clone.
pub(crate) const fn no_interface() -> abi::Clone_interface_t {
    abi::Clone_interface_t {
        clone_capability: None,
        clone_begin: None,
        clone_copy: None,
        clone_ack: None,
        clone_end: None,
        clone_apply_begin: None,
        clone_apply: None,
        clone_apply_end: None,
    }
}

/// The engine that a server reaches through these functions in `handlerton`, if they are in there.
pub(crate) fn engine_behind(handlerton: Handlerton<'_>) -> Option<Arc<DynEngine>> {
    let ours: Function<abi::clone_begin_fn> = clone_begin;
    let is_ours = handlerton.clone_begin().is_some_and(|theirs| theirs as usize == ours as usize);
    ENGINES.engine(handlerton.db_type().into()).filter(|_| is_ours)
}

/// It is a byte on the wire; the last one stands for nothing.
fn is_db_type(db_type: u32) -> bool {
    (1..255).contains(&db_type) && db_type != abi::DB_TYPE_INNODB as u32
}

/// `HA_CLONE_HYBRID`, `MULTI_TASK` and `RESTART` (`sql/handler.h:Ha_clone_type`), what InnoDB says
/// of itself.
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

/// For [`Engine::begin`]: the engine's own. MySQL's `clone_begin` has no DDL time-out.
const DDL_TIMEOUT: u32 = 0;

/// `clone_begin`: see [`Engine::begin`](clone_core::engine::Engine::begin).
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clone_begin(
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
            return Err(Error::NotSupported("Clone of a type other than HYBRID".into()));
        }
        // SAFETY: by the caller's promise.
        let (db_type, engine) = unsafe { engine_of(hton) }?;
        // SAFETY: by the caller's promise.
        let begin = unsafe { Begin::new(loc, loc_len, task_id, mode) }?;
        // SAFETY: by the caller's promise.
        let caller = unsafe { Caller::new(thd) };
        let begun = engine.begin(&caller, begin.locator, begin.mode, DDL_TIMEOUT)?;
        let given = LOCATORS.lend(db_type, Side::Donor, &begun.locator, true);
        // SAFETY: the places that `Begin` was made of.
        unsafe { give(loc, loc_len, task_id, given, begun.task) };
        Ok(())
    })
}

/// `clone_copy`: see [`Engine::copy`](clone_core::engine::Engine::copy).
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clone_copy(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    task_id: c_uint,
    cbk: *mut abi::Ha_clone_cbk,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let call = unsafe { Call::new(hton, thd, loc, loc_len) }?;
        // SAFETY: by the caller's promise.
        let mut callbacks = unsafe { EngineCallbacks::new(cbk, hton) }?;
        let buffer_size = callbacks.client_buffer_size();
        call.engine.copy(&call.caller, call.task(task_id), buffer_size, &mut callbacks)
    })
}

/// `clone_ack`: see [`Engine::ack`](clone_core::engine::Engine::ack).
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clone_ack(
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
        let call = unsafe { Call::new(hton, thd, loc, loc_len) }?;
        let descriptor = match cbk.is_null() {
            true => &[],
            // SAFETY: by the caller's promise.
            false => unsafe { EngineCallbacks::with_descriptor(cbk, hton) }?.descriptor(),
        };
        call.engine.ack(&call.caller, call.locator, error_number(in_err), descriptor)
    })
}

/// `clone_end`: see [`Engine::end`](clone_core::engine::Engine::end).
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clone_end(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    task_id: c_uint,
    in_err: c_int,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let call = unsafe { Call::new(hton, thd, loc, loc_len) }?;
        let error = error_number(in_err);
        let outcome = call.engine.end(&call.caller, call.task(task_id), error);
        LOCATORS.task_ended(call.db_type, Side::Donor);
        outcome
    })
}

/// `clone_apply_begin`: see [`Engine::apply_begin`](clone_core::engine::Engine::apply_begin).
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clone_apply_begin(
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

/// `clone_apply`: see [`Engine::apply`](clone_core::engine::Engine::apply); with an error,
/// [`Engine::apply_error`](clone_core::engine::Engine::apply_error).
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clone_apply(
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
        let call = unsafe { Call::new(hton, thd, loc, loc_len) }?;
        if in_err != 0 {
            let error = error_number(in_err);
            return call.engine.apply_error(&call.caller, call.task(task_id), error);
        }
        // SAFETY: by the caller's promise.
        let mut callbacks = unsafe { EngineCallbacks::with_descriptor(cbk, hton) }?;
        let descriptor = callbacks.descriptor();
        call.engine.apply(&call.caller, call.task(task_id), descriptor, &mut callbacks)
    })
}

/// `clone_apply_end`: see [`Engine::apply_end`](clone_core::engine::Engine::apply_end).
///
/// # Safety
/// As `include/clone_engine.h` says: pointers are NULL or point to what they are called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clone_apply_end(
    hton: *mut abi::handlerton,
    thd: *mut abi::THD,
    loc: *const u8,
    loc_len: c_uint,
    task_id: c_uint,
    in_err: c_int,
) -> c_int {
    end_call(|| {
        // SAFETY: by the caller's promise.
        let call = unsafe { Call::new(hton, thd, loc, loc_len) }?;
        let error = error_number(in_err);
        let outcome = call.engine.apply_end(&call.caller, call.task(task_id), error);
        LOCATORS.task_ended(call.db_type, Side::Recipient);
        outcome
    })
}

/// `clone_engine_register`.
///
/// # Safety
/// As `include/clone_engine.h` says; the functions of the database can be called from any thread
/// until the engine is forgotten and its clones have ended.
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
/// The function can be called on any thread that calls an engine, with the session of that call,
/// from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone_engine_set_killed(killed: Option<caller::Killed>) {
    caller::set_killed(killed);
}
