// SPDX-License-Identifier: GPL-2.0-only

//! Callback objects: what the library calls back through, in the form of the server's C++ class
//! `Ha_clone_cbk`.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::os::fd::BorrowedFd;
use std::ptr::null;
use std::slice;

use clone_engine::Callbacks;
use clone_engine::Error;
use clone_engine::Result;
use clone_engine::View;

use super::abi::CloneFile;
use super::abi::FILE_DESCRIPTOR;
use super::abi::Object;
use super::abi::Vtable;
use super::abi::flag;
use super::length;
use super::outcome;
use super::signed;

/// Runs a call with a callback object.
pub(super) fn with_object(
    descriptor: &[u8],
    buffer_size: u32,
    callbacks: &mut dyn Callbacks,
    call: impl FnOnce(*mut Object) -> c_int,
) -> Result<()> {
    let mut behind = Behind { callbacks, failure: None };
    let mut object = Object {
        vptr: &raw const VTABLE,
        hton: null(),
        locator_index: 0,
        client_buffer_size: buffer_size,
        descriptor: descriptor.as_ptr(),
        descriptor_len: length(descriptor),
        source_name: null(),
        destination_name: null(),
        estimate: 0,
        flags: flag::ESTIMATE,
        flag_values: [1, 2, 4, 8, 16],
        behind: (&raw mut behind).cast(),
    };
    let code = call(&raw mut object);
    outcome(code, behind.failure)
}

/// What `Object::behind` points to.
struct Behind<'a> {
    callbacks: &'a mut dyn Callbacks,
    /// What a callback failed with: the number alone goes through C.
    failure: Option<Error>,
}

static VTABLE: Vtable = Vtable {
    file: file_cbk,
    buffer: buffer_cbk,
    apply_file: apply_file_cbk,
    apply_buffer: apply_buffer_cbk,
    complete_destructor: destroy,
    deleting_destructor: destroy,
};

/// For calls that need an object and call nothing of it.
pub(super) struct Nobody;

impl Callbacks for Nobody {
    fn file(&mut self, _: &View<'_>, _: BorrowedFd<'_>, _: u32) -> Result<()> {
        Err(unexpected())
    }

    fn buffer(&mut self, _: &View<'_>, _: &[u8]) -> Result<()> {
        Err(unexpected())
    }

    fn apply_file(&mut self, _: &View<'_>, _: BorrowedFd<'_>) -> Result<()> {
        Err(unexpected())
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        Err(unexpected())
    }
}

fn unexpected() -> Error {
    Error::Internal("callback from a call that has none".to_owned())
}

/// Calls what is behind the object.
///
/// # Safety
/// An object of [`with_object`], whose call is running on this thread.
unsafe fn enter(
    object: *mut Object,
    call: impl FnOnce(&mut dyn Callbacks, &View<'_>) -> Result<()>,
) -> c_int {
    // SAFETY: by the caller's promise; the library does not touch it while a callback runs.
    let object = unsafe { &mut *object };
    // SAFETY: set by `with_object` to what lives there.
    let behind = unsafe { &mut *object.behind.cast::<Behind<'_>>() };
    let descriptor = match object.descriptor.is_null() {
        true => &[],
        // SAFETY: the library keeps the descriptor while the callback runs.
        false => unsafe {
            slice::from_raw_parts(object.descriptor, object.descriptor_len as usize)
        },
    };
    let view = View {
        descriptor,
        source_name: name(object.source_name),
        destination_name: name(object.destination_name),
        is_os_buffer_cached: object.flags & flag::FILE_CACHE != 0,
        is_zero_copy: object.flags & flag::ZERO_COPY != 0,
        is_secure: object.flags & flag::SECURE != 0,
        state_change: None,
    };
    let outcome = if object.flags & flag::ESTIMATE != 0 {
        behind.callbacks.add_estimate(object.estimate);
        Ok(())
    } else {
        call(behind.callbacks, &view)
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            let code = signed(error.number());
            behind.failure = Some(error);
            code
        }
    }
}

fn name<'a>(name: *const c_char) -> &'a str {
    if name.is_null() {
        return "";
    }
    // SAFETY: a name that the library keeps while the callback runs.
    unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default()
}

/// # Safety
/// The library keeps the file open while the callback runs.
unsafe fn borrowed<'a>(file: CloneFile) -> Result<BorrowedFd<'a>> {
    let descriptor = i32::try_from(file.descriptor & 0xffff_ffff).unwrap_or(-1);
    if file.kind != FILE_DESCRIPTOR || descriptor < 0 {
        return Err(Error::Internal("a file that is none".to_owned()));
    }
    // SAFETY: by the caller's promise.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

unsafe extern "C" fn file_cbk(object: *mut Object, file: CloneFile, len: c_uint) -> c_int {
    let call = |callbacks: &mut dyn Callbacks, view: &View<'_>| {
        // SAFETY: a file that the library keeps open while the callback runs.
        let file = unsafe { borrowed(file) }?;
        callbacks.file(view, file, len)
    };
    // SAFETY: the library calls with the object that it was given.
    unsafe { enter(object, call) }
}

unsafe extern "C" fn buffer_cbk(object: *mut Object, data: *mut u8, len: c_uint) -> c_int {
    let data = match data.is_null() {
        true => &[],
        // SAFETY: bytes that the library keeps while the callback runs.
        false => unsafe { slice::from_raw_parts(data.cast_const(), len as usize) },
    };
    // SAFETY: the library calls with the object that it was given.
    unsafe { enter(object, |callbacks, view| callbacks.buffer(view, data)) }
}

unsafe extern "C" fn apply_file_cbk(object: *mut Object, file: CloneFile) -> c_int {
    let call = |callbacks: &mut dyn Callbacks, view: &View<'_>| {
        // SAFETY: a file that the library keeps open while the callback runs.
        let file = unsafe { borrowed(file) }?;
        callbacks.apply_file(view, file)
    };
    // SAFETY: the library calls with the object that it was given.
    unsafe { enter(object, call) }
}

unsafe extern "C" fn apply_buffer_cbk(
    object: *mut Object,
    data: *mut *mut u8,
    len: *mut c_uint,
) -> c_int {
    let call = |callbacks: &mut dyn Callbacks, view: &View<'_>| {
        let buffer = callbacks.apply_buffer(view)?;
        // SAFETY: a place for the buffer's address.
        unsafe { data.write(buffer.as_mut_ptr()) };
        // SAFETY: a place for its length.
        unsafe { len.write(length(buffer)) };
        Ok(())
    };
    // SAFETY: the library calls with the object that it was given.
    unsafe { enter(object, call) }
}

/// Objects live on the stack of [`with_object`].
unsafe extern "C" fn destroy(_: *mut Object) {}
