// SPDX-License-Identifier: GPL-2.0-only

//! The object through which an engine hands out data, or asks for it
//! (`sql/handler.h:Ha_clone_cbk`).
//!
//! A callback object is used by one call of an engine on one thread. In a local clone the `file` or
//! `buffer` callback of the copying engine calls the applying engine, which calls back in turn. The
//! stock plugin passes the *same* object on and keeps a flag that says which half is speaking. Here
//! each call of an engine gets an object of its own, with the descriptor that is to be applied:
//! then no two `&mut` to one [`Callbacks`] exist, a view does not change under its reader, and its
//! flags are about one file, not the sum of two. The copying engine does not miss the changes of
//! the object: it sets all fields before each callback and reads none of them after it
//! (`storage/innobase/clone/clone0copy.cc`).

use std::borrow::Cow;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr;

use super::abi;
use super::raise::Raise;
use super::raise::raise;
use super::text::{bytes, length, lossy};
use crate::guard::caught;

/// What an engine calls, on the thread that called the engine. An error is a MySQL error number
/// that is already raised.
pub(crate) trait Callbacks {
    /// The next `len` bytes of a file, from its current position. Afterwards it is `len` further.
    fn file(&mut self, view: &CallbackView<'_>, file: BorrowedFd<'_>, len: u32) -> Result<(), u32>;

    /// Bytes, or none: then the descriptor is the message, or the state has changed.
    fn buffer(&mut self, view: &CallbackView<'_>, data: &[u8]) -> Result<(), u32>;

    /// Wants the data that the descriptor describes to be written to a file, from its current
    /// position.
    fn apply_file(&mut self, view: &CallbackView<'_>, file: BorrowedFd<'_>) -> Result<(), u32>;

    /// Wants the data that the descriptor describes. It has to stay until the engine returns from
    /// apply, and the engine may write to it: it wraps encryption keys in place
    /// (`clone0apply.cc:modify_and_write`).
    fn apply_buffer(&mut self, view: &CallbackView<'_>) -> Result<&mut [u8], u32>;

    /// `bytes` more are to be expected. Only engines that were
    /// [asked](CloneCallback::ask_for_estimate) call this.
    fn add_estimate(&mut self, bytes: u64) {
        let _ = bytes;
    }
}

/// A callback object: what the engine knows of it, then what only this module knows.
#[repr(C)]
pub(crate) struct CloneCallback<'a> {
    raw: abi::Ha_clone_cbk,
    callbacks: &'a mut (dyn Callbacks + 'a),
    /// The number that a panic was raised as. The callbacks may be in any state then and are not
    /// called again.
    panicked: Option<u32>,
    /// Of the bytes that `raw` points to.
    _descriptor: PhantomData<&'a [u8]>,
}

impl<'a> CloneCallback<'a> {
    /// An object that calls `callbacks`: locator 0, no descriptor, no flags.
    pub(crate) fn new(callbacks: &'a mut (dyn Callbacks + 'a)) -> Self {
        Self {
            raw: abi::Ha_clone_cbk {
                vptr: &raw const VTABLE.functions,
                m_hton: ptr::null_mut(),
                m_loc_idx: 0,
                m_client_buff_size: 0,
                m_data_desc: ptr::null(),
                m_desc_len: 0,
                m_src_name: ptr::null(),
                m_dest_name: ptr::null(),
                m_state_estimate: 0,
                m_flag: 0,
                ha_clone_ack: abi::HA_CLONE_ACK,
                ha_clone_file_cache: abi::HA_CLONE_FILE_CACHE,
                ha_clone_zero_copy: abi::HA_CLONE_ZERO_COPY,
                ha_clone_secure: abi::HA_CLONE_SECURE,
                ha_clone_state_change: abi::HA_CLONE_STATE_CHANGE,
            },
            callbacks,
            panicked: None,
            _descriptor: PhantomData,
        }
    }

    /// Sets which of the clone's locators, and so which of its engines, the call is about.
    pub(crate) fn locator_index(mut self, index: u32) -> Self {
        self.raw.m_loc_idx = index;
        self
    }

    /// Sets the size of the copy buffer of a local clone with `O_DIRECT`, in bytes. InnoDB's blocks
    /// have this size then.
    pub(crate) fn client_buffer_size(mut self, bytes: u32) -> Self {
        self.raw.m_client_buff_size = bytes;
        self
    }

    /// Sets the descriptor that is to be applied or acknowledged.
    pub(crate) fn descriptor(mut self, descriptor: &'a [u8]) -> Self {
        self.raw.m_data_desc = descriptor.as_ptr();
        self.raw.m_desc_len = length(descriptor);
        self
    }

    /// Asks an engine of this library to say how much is to be expected (`include/clone_engine.h`).
    /// Others do not know the flag.
    pub(crate) fn ask_for_estimate(mut self) -> Self {
        self.raw.m_flag |= abi::CLONE_CBK_ESTIMATE;
        self
    }

    /// The pointer to give to `engine`.
    pub(super) fn for_engine(&mut self, engine: *mut abi::handlerton) -> *mut abi::Ha_clone_cbk {
        self.raw.m_hton = engine;
        // Of the whole object: the functions of the table need what lies behind the engine's part.
        ptr::from_mut(self).cast()
    }
}

/// What the engine says along with a callback.
pub(crate) struct CallbackView<'a> {
    raw: &'a abi::Ha_clone_cbk,
}

impl CallbackView<'_> {
    /// The engine's description of the data, opaque to all but the other server's engine.
    pub(crate) fn descriptor(&self) -> &[u8] {
        // SAFETY: the engine keeps the bytes while the callback runs.
        unsafe { bytes(self.raw.m_data_desc, self.raw.m_desc_len as usize) }
    }

    /// The file that is read, for messages; empty if there is none.
    pub(crate) fn source_name(&self) -> Cow<'_, str> {
        // SAFETY: NULL or a text that the engine keeps while the callback runs.
        unsafe { lossy(self.raw.m_src_name) }
    }

    /// The file that is written, for messages; empty if there is none.
    pub(crate) fn dest_name(&self) -> Cow<'_, str> {
        // SAFETY: as for the source.
        unsafe { lossy(self.raw.m_dest_name) }
    }

    /// Whether the file goes through the page cache. Otherwise it is open with `O_DIRECT`, and
    /// addresses, lengths and positions have to be aligned.
    pub(crate) fn is_os_buffer_cached(&self) -> bool {
        self.has(abi::HA_CLONE_FILE_CACHE)
    }

    /// Whether the engine suggests to copy inside the kernel.
    pub(crate) fn is_zero_copy(&self) -> bool {
        self.has(abi::HA_CLONE_ZERO_COPY)
    }

    /// Whether the descriptor holds keys, and must only go through TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.has(abi::HA_CLONE_SECURE)
    }

    /// When the applying engine enters another state: the bytes that it expects to copy in it.
    pub(crate) fn state_change(&self) -> Option<u64> {
        self.has(abi::HA_CLONE_STATE_CHANGE).then_some(self.raw.m_state_estimate)
    }

    fn has(&self, flag: i32) -> bool {
        self.raw.m_flag & flag != 0
    }
}

/// The table of virtual functions, with what the C++ ABI puts before it.
#[repr(C)]
struct Vtable {
    offset_to_top: isize,
    type_info: usize,
    functions: abi::Ha_clone_cbk_vtable,
}

static VTABLE: Vtable = Vtable {
    offset_to_top: 0,
    // No type information: nobody asks for it (dynamic_cast, typeid, throw).
    type_info: 0,
    functions: abi::Ha_clone_cbk_vtable {
        file_cbk: Some(file_cbk),
        buffer_cbk: Some(buffer_cbk),
        apply_file_cbk: Some(apply_file_cbk),
        apply_buffer_cbk: Some(apply_buffer_cbk),
        complete_destructor: Some(destroy),
        deleting_destructor: Some(destroy),
    },
};

unsafe extern "C" fn file_cbk(
    this: *mut abi::Ha_clone_cbk,
    file: abi::Ha_clone_file,
    len: c_uint,
) -> c_int {
    let call = |callbacks: &mut dyn Callbacks, view: &CallbackView<'_>| {
        // SAFETY: the engine's file, which it keeps open while the callback runs.
        let file = unsafe { descriptor_of(&file) }?;
        callbacks.file(view, file, len)
    };
    // SAFETY: an engine calls this, with the object that it was given.
    unsafe { enter(this, call) }
}

unsafe extern "C" fn buffer_cbk(this: *mut abi::Ha_clone_cbk, data: *mut u8, len: c_uint) -> c_int {
    let call = |callbacks: &mut dyn Callbacks, view: &CallbackView<'_>| {
        // SAFETY: NULL, or bytes of the engine that it leaves alone while the callback runs.
        let data = unsafe { bytes(data, len as usize) };
        if view.has(abi::CLONE_CBK_ESTIMATE) {
            callbacks.add_estimate(view.raw.m_state_estimate);
            return Ok(());
        }
        callbacks.buffer(view, data)
    };
    // SAFETY: an engine calls this, with the object that it was given.
    unsafe { enter(this, call) }
}

unsafe extern "C" fn apply_file_cbk(
    this: *mut abi::Ha_clone_cbk,
    file: abi::Ha_clone_file,
) -> c_int {
    let call = |callbacks: &mut dyn Callbacks, view: &CallbackView<'_>| {
        // SAFETY: the engine's file, which it keeps open while the callback runs.
        let file = unsafe { descriptor_of(&file) }?;
        callbacks.apply_file(view, file)
    };
    // SAFETY: an engine calls this, with the object that it was given.
    unsafe { enter(this, call) }
}

unsafe extern "C" fn apply_buffer_cbk(
    this: *mut abi::Ha_clone_cbk,
    data: *mut *mut u8,
    len: *mut c_uint,
) -> c_int {
    let call = |callbacks: &mut dyn Callbacks, view: &CallbackView<'_>| {
        let buffer = callbacks.apply_buffer(view)?;
        let Ok(length) = u32::try_from(buffer.len()) else {
            return Err(raise(Raise::InternalError("Clone data is longer than 4 GiB")));
        };
        // SAFETY: a place for the result. The buffer lives until the engine returns, as the trait
        // demands.
        unsafe { data.write(buffer.as_mut_ptr()) };
        // SAFETY: a place for the result.
        unsafe { len.write(length) };
        Ok(())
    };
    // SAFETY: an engine calls this, with the object that it was given.
    unsafe { enter(this, call) }
}

/// Engines do not own the object.
unsafe extern "C" fn destroy(_this: *mut abi::Ha_clone_cbk) {}

/// Calls back, and turns the result into what an engine expects: 0 or an error number.
///
/// # Safety
/// `this` is the pointer that [`CloneCallback::for_engine`] gave to an engine which has not
/// returned, and no other callback of this object runs.
unsafe fn enter(
    this: *mut abi::Ha_clone_cbk,
    call: impl FnOnce(&mut dyn Callbacks, &CallbackView<'_>) -> Result<(), u32>,
) -> c_int {
    // SAFETY: by the caller's promise; the engine's part is the beginning of the object.
    let object = unsafe { &mut *this.cast::<CloneCallback<'_>>() };
    let result = match object.panicked {
        Some(number) => Err(number),
        None => {
            let view = CallbackView { raw: &object.raw };
            let callbacks = &mut *object.callbacks;
            caught(|| call(callbacks, &view)).unwrap_or_else(|number| {
                object.panicked = Some(number);
                Err(number)
            })
        }
    };
    match result {
        Ok(()) => 0,
        // An error is not 0, whatever its number.
        Err(number) => c_int::try_from(number.max(1)).unwrap_or(c_int::MAX),
    }
}

/// The file descriptor of a callback's file.
///
/// # Safety
/// The engine keeps the file open as long as the result is used.
unsafe fn descriptor_of(file: &abi::Ha_clone_file) -> Result<BorrowedFd<'_>, u32> {
    if file.type_ != abi::HA_CLONE_FILE_DESC as u32 {
        return Err(raise(Raise::InternalError("Clone callback without a file descriptor")));
    }
    // SAFETY: the type says which member it is.
    let descriptor = unsafe { file.u.file_desc };
    if descriptor < 0 {
        return Err(raise(Raise::InternalError("Clone callback without an open file")));
    }
    // SAFETY: by the caller's promise.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

#[cfg(test)]
#[path = "callback_tests.rs"]
mod tests;
