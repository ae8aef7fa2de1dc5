// SPDX-License-Identifier: GPL-2.0-only

//! What `include/clone_engine.h` and `include/server_handler.h` declare, as much as is used.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uchar;
use std::ffi::c_uint;
use std::ffi::c_void;
use std::mem::offset_of;

/// `Ha_clone_type`: files, then what has changed.
pub(super) const HYBRID: usize = 3;
/// Bits of `Ha_clone_cbk::m_flag`.
pub(super) mod flag {
    pub(in crate::exported) const FILE_CACHE: i32 = 0x02;
    pub(in crate::exported) const ZERO_COPY: i32 = 0x04;
    pub(in crate::exported) const SECURE: i32 = 0x08;
    pub(in crate::exported) const STATE_CHANGE: i32 = 0x10;
    pub(in crate::exported) const ESTIMATE: i32 = 0x20;
}
/// `Ha_clone_file::type` of a file descriptor.
pub(super) const FILE_DESCRIPTOR: c_uint = 1;
/// `CLONE_ENGINE_VERSION`.
pub(super) const VERSION: c_uint = 1;

/// `struct handlerton`, as much as is read of it.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Handlerton {
    pub(super) state: c_uint,
    pub(super) db_type: c_uint,
}

/// `struct Ha_clone_file`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct CloneFile {
    pub(super) kind: c_uint,
    pub(super) descriptor: usize,
}

/// `struct Ha_clone_cbk_vtable`.
#[repr(C)]
pub(super) struct Vtable {
    pub(super) file: unsafe extern "C" fn(*mut Object, CloneFile, c_uint) -> c_int,
    pub(super) buffer: unsafe extern "C" fn(*mut Object, *mut u8, c_uint) -> c_int,
    pub(super) apply_file: unsafe extern "C" fn(*mut Object, CloneFile) -> c_int,
    pub(super) apply_buffer: unsafe extern "C" fn(*mut Object, *mut *mut u8, *mut c_uint) -> c_int,
    pub(super) complete_destructor: unsafe extern "C" fn(*mut Object),
    pub(super) deleting_destructor: unsafe extern "C" fn(*mut Object),
}

/// `struct Ha_clone_cbk`, and behind it what only this module knows.
#[repr(C)]
pub(super) struct Object {
    pub(super) vptr: *const Vtable,
    pub(super) hton: *const Handlerton,
    pub(super) locator_index: c_uint,
    pub(super) client_buffer_size: c_uint,
    pub(super) descriptor: *const u8,
    pub(super) descriptor_len: c_uint,
    pub(super) source_name: *const c_char,
    pub(super) destination_name: *const c_char,
    pub(super) estimate: u64,
    pub(super) flags: c_int,
    /// The values of the flags, which C++ code reads from the object.
    pub(super) flag_values: [c_int; 5],
    pub(super) behind: *mut c_void,
}

const _: () = {
    assert!(offset_of!(Object, descriptor) == 24);
    assert!(offset_of!(Object, estimate) == 56);
    assert!(offset_of!(Object, flag_values) == 68);
    assert!(offset_of!(Object, behind) == 88);
};

/// `struct clone_database`.
#[repr(C)]
pub(super) struct DatabaseTable {
    pub(super) directory: *const c_char,
    pub(super) wal_directory: *const c_char,
    pub(super) recycles_logs: c_int,
    pub(super) context: *mut c_void,
    pub(super) connect: unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
    pub(super) disconnect: unsafe extern "C" fn(*mut c_void),
    pub(super) create_checkpoint: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    pub(super) remove_checkpoint: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    pub(super) disable_file_deletions: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(super) enable_file_deletions: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(super) cut: unsafe extern "C" fn(*mut c_void, AddLog, *mut c_void, *mut u64) -> c_int,
}

/// `clone_add_log_fn`.
pub(super) type AddLog = unsafe extern "C" fn(*mut c_void, *const c_char, u64);

/// `struct clone_engine`.
#[repr(C)]
pub(super) struct Engine {
    pub(super) version: c_uint,
    pub(super) db_type: c_uint,
    pub(super) root: *const c_char,
    pub(super) prefix: *const c_char,
    pub(super) required_file: *const c_char,
    pub(super) checkpoint_max_age: c_uint,
    pub(super) checkpoint_max_count: c_uint,
    pub(super) database: DatabaseTable,
}

unsafe extern "C" {
    pub(super) fn clone_begin(
        hton: *mut Handlerton,
        thd: *mut c_void,
        locator: *mut *const c_uchar,
        locator_len: *mut c_uint,
        task: *mut c_uint,
        kind: usize,
        mode: c_uint,
    ) -> c_int;
    pub(super) fn clone_copy(
        hton: *mut Handlerton,
        thd: *mut c_void,
        locator: *const c_uchar,
        locator_len: c_uint,
        task: c_uint,
        callback: *mut Object,
    ) -> c_int;
    pub(super) fn clone_ack(
        hton: *mut Handlerton,
        thd: *mut c_void,
        locator: *const c_uchar,
        locator_len: c_uint,
        task: c_uint,
        error: c_int,
        callback: *mut Object,
    ) -> c_int;
    pub(super) fn clone_end(
        hton: *mut Handlerton,
        thd: *mut c_void,
        locator: *const c_uchar,
        locator_len: c_uint,
        task: c_uint,
        error: c_int,
    ) -> c_int;
    pub(super) fn clone_apply_begin(
        hton: *mut Handlerton,
        thd: *mut c_void,
        locator: *mut *const c_uchar,
        locator_len: *mut c_uint,
        task: *mut c_uint,
        mode: c_uint,
        directory: *const c_char,
    ) -> c_int;
    pub(super) fn clone_apply(
        hton: *mut Handlerton,
        thd: *mut c_void,
        locator: *const c_uchar,
        locator_len: c_uint,
        task: c_uint,
        error: c_int,
        callback: *mut Object,
    ) -> c_int;
    pub(super) fn clone_apply_end(
        hton: *mut Handlerton,
        thd: *mut c_void,
        locator: *const c_uchar,
        locator_len: c_uint,
        task: c_uint,
        error: c_int,
    ) -> c_int;
    pub(super) fn clone_engine_register(engine: *const Engine) -> c_int;
    pub(super) fn clone_engine_unregister(db_type: c_uint) -> c_int;
    pub(super) fn clone_engine_error(number: *mut c_uint) -> *const c_char;
}
