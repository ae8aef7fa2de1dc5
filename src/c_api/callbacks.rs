// SPDX-License-Identifier: GPL-2.0-only

//! The caller's callback object, as an engine sees it: the counterpart of `server::callback`.

use std::ffi::{CString, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use clone_core::engine::{BlockInput, BlockOutput, View};
use clone_core::error::{Error, Result};

use super::arguments::{bytes, wrong};
use crate::server::abi;

/// A callback object that a caller has given to `clone_copy` or `clone_apply`, until that returns.
pub(super) struct EngineCallbacks<'call> {
    object: *mut abi::Ha_clone_cbk,
    functions: abi::Ha_clone_cbk_vtable,
    hton: *mut abi::handlerton,
    /// The caller knows [`abi::CLONE_CBK_ESTIMATE`].
    wants_estimate: bool,
    /// What the object points to while a callback runs.
    source_name: CString,
    destination_name: CString,
    /// What the object came with. The engine's own descriptors take its place there.
    descriptor: &'call [u8],
}

impl<'call> EngineCallbacks<'call> {
    /// The object of a call that copies: what it says of a descriptor means nothing yet.
    ///
    /// # Safety
    /// `object` is NULL or a callback object that lives for `'call`, used by this thread alone. As
    /// it is the case for objects of `sql/handler.h:Ha_clone_cbk`, its table of functions has all
    /// of them.
    pub(super) unsafe fn new(
        object: *mut abi::Ha_clone_cbk,
        hton: *mut abi::handlerton,
    ) -> Result<Self> {
        if object.is_null() {
            return Err(wrong("cbk"));
        }
        // SAFETY: by the caller's promise.
        let vptr = unsafe { (*object).vptr };
        // SAFETY: by the caller's promise.
        let Some(functions) = (unsafe { vptr.as_ref() }) else { return Err(wrong("cbk")) };
        // SAFETY: by the caller's promise.
        let flags = unsafe { (*object).m_flag };
        let callbacks = Self {
            object,
            functions: *functions,
            hton,
            wants_estimate: flags & abi::CLONE_CBK_ESTIMATE != 0,
            source_name: CString::default(),
            destination_name: CString::default(),
            descriptor: &[],
        };
        // SAFETY: by the caller's promise.
        unsafe { (*object).m_hton = hton };
        Ok(callbacks)
    }

    /// The object of a call that is given a descriptor.
    ///
    /// # Safety
    /// As [`EngineCallbacks::new`], and the descriptor that the object points to lives for `'call`.
    pub(super) unsafe fn with_descriptor(
        object: *mut abi::Ha_clone_cbk,
        hton: *mut abi::handlerton,
    ) -> Result<Self> {
        // SAFETY: by the caller's promise.
        let callbacks = unsafe { Self::new(object, hton) }?;
        // SAFETY: by the caller's promise; it is not NULL.
        let data = unsafe { (*object).m_data_desc };
        // SAFETY: as above.
        let len = unsafe { (*object).m_desc_len };
        // SAFETY: by the caller's promise.
        let descriptor = unsafe { bytes(data, len) }?.unwrap_or_default();
        Ok(Self { descriptor, ..callbacks })
    }

    /// The size of the applying side's buffer in a local clone, in bytes.
    pub(super) fn client_buffer_size(&self) -> u32 {
        // SAFETY: `new` was promised that the object lives.
        unsafe { (*self.object).m_client_buff_size }
    }

    /// The descriptor that is to be applied or was acknowledged.
    pub(super) fn descriptor(&self) -> &'call [u8] {
        self.descriptor
    }

    /// Writes what the engine says into the object.
    fn show(&mut self, view: &View<'_>) -> Result<()> {
        let len = u32::try_from(view.descriptor.len()).map_err(|_| wrong("descriptor"))?;
        self.source_name = name(view.source_name);
        self.destination_name = name(view.destination_name);
        let flags = [
            (view.is_os_buffer_cached, abi::HA_CLONE_FILE_CACHE),
            (view.is_zero_copy, abi::HA_CLONE_ZERO_COPY),
            (view.is_secure, abi::HA_CLONE_SECURE),
            (view.state_change.is_some(), abi::HA_CLONE_STATE_CHANGE),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        // SAFETY: `new` was promised that the object lives and is used here alone.
        let object = unsafe { &mut *self.object };
        object.m_hton = self.hton;
        object.m_data_desc = view.descriptor.as_ptr();
        object.m_desc_len = len;
        object.m_src_name = self.source_name.as_ptr();
        object.m_dest_name = self.destination_name.as_ptr();
        object.m_state_estimate = view.state_change.unwrap_or(0);
        object.m_flag = flags.map(|(_, flag)| flag).sum();
        Ok(())
    }

    /// `buffer_cbk`: data of a donor, or a recipient's change of state, which has none.
    fn call_buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        self.show(view)?;
        let len = u32::try_from(data.len()).map_err(|_| wrong("length of data"))?;
        let buffer_cbk = self.functions.buffer_cbk.ok_or_else(|| wrong("buffer_cbk"))?;
        let data = if data.is_empty() { ptr::null() } else { data.as_ptr() };
        // SAFETY: a function of the object's table with its object; the bytes live while it runs.
        // The function only reads them, though C++ says otherwise.
        outcome(unsafe { buffer_cbk(self.object, data.cast_mut(), len) })
    }
}

impl BlockOutput for EngineCallbacks<'_> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        self.show(view)?;
        let file_cbk = self.functions.file_cbk.ok_or_else(|| wrong("file_cbk"))?;
        // SAFETY: a function of the object's table with its object; the file is open while it runs.
        outcome(unsafe { file_cbk(self.object, raw(file), len) })
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        self.call_buffer(view, data)
    }
}

impl BlockInput for EngineCallbacks<'_> {
    fn change_state(&mut self, view: &View<'_>) -> Result<()> {
        self.call_buffer(view, &[])
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        self.show(view)?;
        let apply_file_cbk =
            self.functions.apply_file_cbk.ok_or_else(|| wrong("apply_file_cbk"))?;
        // SAFETY: as `BlockOutput::file`.
        outcome(unsafe { apply_file_cbk(self.object, raw(file)) })
    }

    fn apply_buffer(&mut self, view: &View<'_>) -> Result<&mut [u8]> {
        self.show(view)?;
        let function = self.functions.apply_buffer_cbk;
        let apply_buffer_cbk = function.ok_or_else(|| wrong("apply_buffer_cbk"))?;
        let (mut data, mut len) = (ptr::null_mut(), 0);
        // SAFETY: as above, with places for the answer.
        outcome(unsafe { apply_buffer_cbk(self.object, &raw mut data, &raw mut len) })?;
        if data.is_null() {
            return if len == 0 { Ok(&mut []) } else { Err(wrong("buffer")) };
        }
        let len = usize::try_from(len).unwrap_or(0);
        // SAFETY: the function gives a buffer that is the engine's until its call returns.
        Ok(unsafe { std::slice::from_raw_parts_mut(data, len) })
    }

    fn add_estimate(&mut self, bytes: u64) {
        let Some(buffer_cbk) = self.functions.buffer_cbk.filter(|_| self.wants_estimate) else {
            return;
        };
        // SAFETY: `new` was promised that the object lives and is used here alone.
        let object = unsafe { &mut *self.object };
        object.m_state_estimate = bytes;
        object.m_flag = abi::CLONE_CBK_ESTIMATE;
        // SAFETY: a function of the object's table with its object, and no data. The result does
        // not matter: the engine only informs.
        unsafe { buffer_cbk(self.object, ptr::null_mut(), 0) };
    }
}

fn raw(file: BorrowedFd<'_>) -> abi::Ha_clone_file {
    let mut raw = abi::Ha_clone_file {
        type_: abi::HA_CLONE_FILE_DESC as u32,
        // SAFETY: the union is of integers and pointers, which may all be 0.
        u: unsafe { std::mem::zeroed() },
    };
    raw.u.file_desc = file.as_raw_fd();
    raw
}

/// An error number of a callback is one that it has raised.
fn outcome(number: c_int) -> Result<()> {
    match u32::try_from(number) {
        Ok(0) => Ok(()),
        Ok(number) => Err(Error::Raised(number)),
        Err(_) => Err(Error::Raised(clone_core::error::number::ER_INTERNAL_ERROR)),
    }
}

/// For messages.
fn name(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}
