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

use clone_engine::BlockInput;
use clone_engine::BlockOutput;
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
    side: Side<'_>,
    call: impl FnOnce(*mut Object) -> c_int,
) -> Result<()> {
    let mut behind = Behind { side, failure: None };
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

/// Whose callbacks are behind an object. In C one object has the callbacks of both sides.
pub(super) enum Side<'a> {
    Donor(&'a mut dyn BlockOutput),
    Recipient(&'a mut dyn BlockInput),
    /// The call needs an object and calls nothing of it.
    None,
}

/// What `Object::behind` points to.
struct Behind<'a> {
    side: Side<'a>,
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

fn unexpected() -> Error {
    Error::Internal("callback from a call that does not have this one".to_owned())
}

/// Calls what is behind the object.
///
/// # Safety
/// An object of [`with_object`], whose call is running on this thread.
unsafe fn enter(
    object: *mut Object,
    call: impl FnOnce(&mut Side<'_>, &View<'_>) -> Result<()>,
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
        state_change: (object.flags & flag::STATE_CHANGE != 0).then_some(object.estimate),
    };
    let outcome = if object.flags & flag::ESTIMATE != 0 {
        match &mut behind.side {
            Side::Recipient(input) => {
                input.add_estimate(object.estimate);
                Ok(())
            }
            Side::Donor(_) | Side::None => Err(unexpected()),
        }
    } else {
        call(&mut behind.side, &view)
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
    let call = |side: &mut Side<'_>, view: &View<'_>| {
        let Side::Donor(output) = side else { return Err(unexpected()) };
        // SAFETY: a file that the library keeps open while the callback runs.
        let file = unsafe { borrowed(file) }?;
        output.file(view, file, len)
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
    let call = |side: &mut Side<'_>, view: &View<'_>| match side {
        Side::Donor(output) => output.buffer(view, data),
        Side::Recipient(input) if data.is_empty() => input.change_state(view),
        Side::Recipient(_) | Side::None => Err(unexpected()),
    };
    // SAFETY: the library calls with the object that it was given.
    unsafe { enter(object, call) }
}

unsafe extern "C" fn apply_file_cbk(object: *mut Object, file: CloneFile) -> c_int {
    let call = |side: &mut Side<'_>, view: &View<'_>| {
        let Side::Recipient(input) = side else { return Err(unexpected()) };
        // SAFETY: a file that the library keeps open while the callback runs.
        let file = unsafe { borrowed(file) }?;
        input.apply_file(view, file)
    };
    // SAFETY: the library calls with the object that it was given.
    unsafe { enter(object, call) }
}

unsafe extern "C" fn apply_buffer_cbk(
    object: *mut Object,
    data: *mut *mut u8,
    len: *mut c_uint,
) -> c_int {
    let call = |side: &mut Side<'_>, view: &View<'_>| {
        let Side::Recipient(input) = side else { return Err(unexpected()) };
        let buffer = input.apply_buffer(view)?;
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
