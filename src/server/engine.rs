// SPDX-License-Identifier: GPL-2.0-only

//! The clone functions of a storage engine.
//!
//! A locator that an engine returns is memory of the engine: it is overwritten when another task
//! begins, and freed with the clone. So locators are copied here. That is right, because an engine
//! reads two things from a locator: which clone it is, and the state at the time when the locator
//! was returned (`storage/innobase/clone/clone0clone.cc:Clone_Handle::get_locator`).

use std::collections::BTreeSet;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::slice;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::abi;
use super::abi::Function;
use super::callback::CallbackView;
use super::callback::Callbacks;
use super::callback::CloneCallback;
use super::handlerton::Handlerton;
use super::raise::{Raise, check, raise};
use super::text::{length, whole};
use super::thd::Thd;

/// An engine that can clone, as long as its plugin is referenced.
#[derive(Clone, Copy)]
pub(crate) struct HandlertonClone<'p> {
    handlerton: Handlerton<'p>,
    clone_begin: Function<abi::clone_begin_fn>,
    clone_copy: Function<abi::clone_copy_fn>,
    clone_ack: Function<abi::clone_apply_fn>,
    clone_end: Function<abi::clone_end_fn>,
    clone_apply_begin: Function<abi::clone_apply_begin_fn>,
    clone_apply: Function<abi::clone_apply_fn>,
    clone_apply_end: Function<abi::clone_end_fn>,
}

/// Why [`HandlertonClone::begin`] or [`HandlertonClone::apply_begin`] is called
/// (`sql/handler.h:Ha_clone_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloneMode {
    /// A new clone.
    Start,
    /// The same clone goes on over a new connection.
    Restart,
    /// One more task of a running clone.
    AddTask,
    /// Recipient only: a locator that says which versions it understands.
    Version,
}

/// Paths that InnoDB has been given. It keeps the address of a clone's directory, not a copy, from
/// [`CloneMode::Start`] until the clone is gone, and reads it on all threads
/// (`clone0clone.cc:Clone_Handle::m_clone_dir`). Only InnoDB knows when the clone is gone. So paths
/// are never freed: one stays for each directory that was ever cloned to.
static DIRECTORIES: Mutex<BTreeSet<CString>> = Mutex::new(BTreeSet::new());

/// The address of `path` among [`DIRECTORIES`].
fn directory(path: &str) -> *const c_char {
    let mut directories = DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner);
    let path = whole(path);
    if let Some(known) = directories.get(&path) {
        return known.as_ptr();
    }
    // Moving a CString into the set does not move its bytes.
    let address = path.as_ptr();
    directories.insert(path);
    address
}

/// What beginning returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    /// The engine's current locator.
    pub(crate) locator: Vec<u8>,
    /// The number of the task that was added; 0 is the master.
    pub(crate) task: u32,
}

impl<'p> HandlertonClone<'p> {
    /// The clone functions of an engine, `None` if it lacks any of them.
    pub(crate) fn of(handlerton: Handlerton<'p>) -> Option<Self> {
        let interface = handlerton.clone_interface();
        Some(Self {
            handlerton,
            clone_begin: interface.clone_begin?,
            clone_copy: interface.clone_copy?,
            clone_ack: interface.clone_ack?,
            clone_end: interface.clone_end?,
            clone_apply_begin: interface.clone_apply_begin?,
            clone_apply: interface.clone_apply?,
            clone_apply_end: interface.clone_apply_end?,
        })
    }

    /// The engine that these functions belong to.
    pub(crate) fn handlerton(&self) -> Handlerton<'p> {
        self.handlerton
    }

    /// Donor: begins a clone, or a task of one. `locator` is the recipient's version locator for a
    /// remote clone, `None` for a local one, the running clone's for the other modes.
    pub(crate) fn begin(
        &self,
        thd: Thd<'_>,
        locator: Option<&[u8]>,
        mode: CloneMode,
    ) -> Result<Begun, u32> {
        let mut locator = Locator::of(locator);
        let mut task = 0;
        // SAFETY: a living engine and session; the engine replaces pointer and length by its own.
        check(unsafe {
            (self.clone_begin)(
                self.handlerton.as_ptr(),
                thd.as_ptr(),
                &raw mut locator.data,
                &raw mut locator.length,
                &raw mut task,
                abi::HA_CLONE_HYBRID as usize,
                mode.number(),
            )
        })?;
        // SAFETY: on success a locator of the engine.
        Ok(Begun { locator: unsafe { locator.to_vec() }, task })
    }

    /// Donor: copies until the clone is complete, through `callback`'s `file` and `buffer`.
    pub(crate) fn copy(
        &self,
        thd: Thd<'_>,
        locator: &[u8],
        task: u32,
        callback: &mut CloneCallback<'_>,
    ) -> Result<(), u32> {
        let locator = Locator::of(Some(locator));
        let callback = callback.for_engine(self.handlerton.as_ptr());
        // SAFETY: a living engine and session, a locator, and a callback object that lives until
        // the call returns.
        check(unsafe {
            (self.clone_copy)(
                self.handlerton.as_ptr(),
                thd.as_ptr(),
                locator.data,
                locator.length,
                task,
                callback,
            )
        })
    }

    /// Donor: hands over what the recipient acknowledges, or its error, after which all tasks of
    /// the clone end with it.
    pub(crate) fn ack(
        &self,
        thd: Thd<'_>,
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<(), u32> {
        let locator = Locator::of(Some(locator));
        let mut nothing = NoCallbacks;
        let mut callback = CloneCallback::new(&mut nothing).descriptor(descriptor);
        let callback = callback.for_engine(self.handlerton.as_ptr());
        // SAFETY: as in `copy`. The engine stores to the callback object even when it only takes
        // the error.
        check(unsafe {
            (self.clone_ack)(
                self.handlerton.as_ptr(),
                thd.as_ptr(),
                locator.data,
                locator.length,
                0,
                error_code(error),
                callback,
            )
        })
    }

    /// Donor: ends a task with its error or 0. For a master that lost its network this waits for
    /// the recipient to come back, for as many minutes as
    /// `clone_donor_timeout_after_network_failure` says.
    pub(crate) fn end(
        &self,
        thd: Thd<'_>,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<(), u32> {
        let locator = Locator::of(Some(locator));
        // SAFETY: a living engine and session, and a locator.
        check(unsafe {
            (self.clone_end)(
                self.handlerton.as_ptr(),
                thd.as_ptr(),
                locator.data,
                locator.length,
                task,
                error_code(error),
            )
        })
    }

    /// Recipient: begins to apply, or one more task of it. `locator` is the donor's, `None` for
    /// [`CloneMode::Version`]. Without `data_dir` the running server's data is to be replaced, and
    /// [`CloneMode::Start`] drops it.
    pub(crate) fn apply_begin(
        &self,
        thd: Thd<'_>,
        locator: Option<&[u8]>,
        mode: CloneMode,
        data_dir: Option<&str>,
    ) -> Result<Begun, u32> {
        let mut locator = Locator::of(locator);
        let mut task = 0;
        // SAFETY: as in `begin`; NULL or a path that stays.
        check(unsafe {
            (self.clone_apply_begin)(
                self.handlerton.as_ptr(),
                thd.as_ptr(),
                &raw mut locator.data,
                &raw mut locator.length,
                &raw mut task,
                mode.number(),
                data_dir.map_or(ptr::null(), directory),
            )
        })?;
        // SAFETY: on success a locator of the engine, or the one that was passed.
        Ok(Begun { locator: unsafe { locator.to_vec() }, task })
    }

    /// Recipient: applies the descriptor of `callback`, whose `apply_file` or `apply_buffer` gives
    /// the data, and whose `buffer` is called for acknowledgements and state changes.
    pub(crate) fn apply(
        &self,
        thd: Thd<'_>,
        locator: &[u8],
        task: u32,
        callback: &mut CloneCallback<'_>,
    ) -> Result<(), u32> {
        let callback = callback.for_engine(self.handlerton.as_ptr());
        self.call_apply(thd, locator, task, 0, callback)
    }

    /// Recipient: makes all tasks end with `error`, which is not 0.
    pub(crate) fn apply_error(
        &self,
        thd: Thd<'_>,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<(), u32> {
        self.call_apply(thd, locator, task, error, ptr::null_mut())
    }

    fn call_apply(
        &self,
        thd: Thd<'_>,
        locator: &[u8],
        task: u32,
        error: u32,
        callback: *mut abi::Ha_clone_cbk,
    ) -> Result<(), u32> {
        let locator = Locator::of(Some(locator));
        // SAFETY: as in `copy`; with an error the engine takes NULL.
        check(unsafe {
            (self.clone_apply)(
                self.handlerton.as_ptr(),
                thd.as_ptr(),
                locator.data,
                locator.length,
                task,
                error_code(error),
                callback,
            )
        })
    }

    /// Recipient: ends a task with its error or 0. An error of the master in a clone that replaces
    /// the server's data rolls the files back.
    pub(crate) fn apply_end(
        &self,
        thd: Thd<'_>,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<(), u32> {
        let locator = Locator::of(Some(locator));
        // SAFETY: as in `end`.
        check(unsafe {
            (self.clone_apply_end)(
                self.handlerton.as_ptr(),
                thd.as_ptr(),
                locator.data,
                locator.length,
                task,
                error_code(error),
            )
        })
    }
}

impl CloneMode {
    fn number(self) -> u32 {
        let number = match self {
            CloneMode::Start => abi::HA_CLONE_MODE_START,
            CloneMode::Restart => abi::HA_CLONE_MODE_RESTART,
            CloneMode::AddTask => abi::HA_CLONE_MODE_ADD_TASK,
            CloneMode::Version => abi::HA_CLONE_MODE_VERSION,
        };
        number.unsigned_abs()
    }
}

/// A locator on its way to or from an engine.
struct Locator {
    data: *const u8,
    length: u32,
}

impl Locator {
    fn of(locator: Option<&[u8]>) -> Self {
        match locator {
            Some(bytes) => Self { data: bytes.as_ptr(), length: length(bytes) },
            None => Self { data: ptr::null(), length: 0 },
        }
    }

    /// # Safety
    /// Pointer and length are those of living bytes, or NULL.
    unsafe fn to_vec(&self) -> Vec<u8> {
        let length = usize::try_from(self.length).unwrap_or(0);
        if self.data.is_null() {
            return Vec::new();
        }
        // SAFETY: by the caller's promise.
        unsafe { slice::from_raw_parts(self.data, length) }.to_vec()
    }
}

fn error_code(error: u32) -> c_int {
    c_int::try_from(error).unwrap_or(c_int::MAX)
}

/// For an acknowledgement the engine only reads the descriptor.
struct NoCallbacks;

impl Callbacks for NoCallbacks {
    fn file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>, _: u32) -> Result<(), u32> {
        Err(unexpected())
    }

    fn buffer(&mut self, _: &CallbackView<'_>, _: &[u8]) -> Result<(), u32> {
        Err(unexpected())
    }

    fn apply_file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>) -> Result<(), u32> {
        Err(unexpected())
    }

    fn apply_buffer(&mut self, _: &CallbackView<'_>) -> Result<&mut [u8], u32> {
        Err(unexpected())
    }
}

fn unexpected() -> u32 {
    raise(Raise::InternalError("Callback from a clone acknowledgement"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_address() {
        let first = directory("/clone/a");
        for other in 0..100 {
            directory(&format!("/clone/{other}"));
        }
        assert_eq!(directory("/clone/a"), first);
        assert_ne!(directory("/clone/b"), first);
        // SAFETY: it stays.
        assert_eq!(unsafe { std::ffi::CStr::from_ptr(first) }, c"/clone/a");
    }

    #[test]
    fn locators_are_copied() {
        let bytes = vec![1, 2, 3];
        let locator = Locator::of(Some(&bytes));
        // SAFETY: living bytes.
        assert_eq!(unsafe { locator.to_vec() }, bytes);
        // SAFETY: NULL.
        assert_eq!(unsafe { Locator::of(None).to_vec() }, Vec::<u8>::new());
    }
}
