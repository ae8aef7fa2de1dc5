// SPDX-License-Identifier: GPL-2.0-only

//! Storage engines, and where their clone interface is.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::abi::{self, Function};
use super::load_error::LoadError;
use super::symbols::Symbols;

/// A storage engine (`sql/handler.h:handlerton`) that stays installed for `'p`, because somebody
/// holds a reference to its plugin ([`super::plugins::EnginePlugin`]). There is one handlerton per
/// engine, shared by all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handlerton<'p> {
    handlerton: NonNull<abi::handlerton>,
    /// The offset of `clone_interface`.
    clone_interface: usize,
    plugin: PhantomData<&'p abi::handlerton>,
}

// SAFETY: mysqld shares it between all threads, and it is constant while its engine is installed.
unsafe impl Send for Handlerton<'_> {}
// SAFETY: as above.
unsafe impl Sync for Handlerton<'_> {}

impl Handlerton<'_> {
    /// The engine at `handlerton`, which has its clone functions `clone_interface` bytes behind
    /// that address.
    ///
    /// # Safety
    /// An engine that stays installed for the lifetime of the result, and the offset that
    /// [`clone_interface_in`] has found in this server.
    pub(super) unsafe fn new(handlerton: NonNull<abi::handlerton>, clone_interface: usize) -> Self {
        Self { handlerton, clone_interface, plugin: PhantomData }
    }

    /// The same engine, as one that stays installed for `'q`.
    ///
    /// # Safety
    /// Somebody holds a reference to the engine's plugin for `'q`.
    pub(crate) unsafe fn kept<'q>(self) -> Handlerton<'q> {
        let Self { handlerton, clone_interface, .. } = self;
        Handlerton { handlerton, clone_interface, plugin: PhantomData }
    }

    /// `legacy_db_type`, the number that names the engine to the other server. Dynamic engines that
    /// have none of their own get one from 42 on.
    pub(crate) fn db_type(self) -> u8 {
        // SAFETY: a living engine, see `new`.
        let handlerton = unsafe { self.handlerton.as_ref() };
        u8::try_from(handlerton.db_type).unwrap_or(abi::DB_TYPE_UNKNOWN as u8)
    }

    /// The engine's clone functions, as far as it has them.
    pub(super) fn clone_interface(self) -> abi::Clone_interface_t {
        // SAFETY: the interface of a living engine.
        unsafe { self.interface().read() }
    }

    /// The address of the engine's function that begins to copy, as far as it has one.
    pub(crate) fn clone_begin(self) -> Option<Function<abi::clone_begin_fn>> {
        self.clone_interface().clone_begin
    }

    /// Gives a clone interface to an engine that has none, or takes it away again.
    ///
    /// # Safety
    /// No clone runs. The functions stay as long as they are in there.
    pub(crate) unsafe fn set_clone_interface(self, interface: abi::Clone_interface_t) {
        // SAFETY: the engine is alive, handlertons are writable
        // (`sql/handler.cc:ha_initialize_handlerton`), and nobody but the clone plugin reads this
        // part of them: no clone runs.
        unsafe { self.interface().write(interface) };
    }

    fn interface(self) -> NonNull<abi::Clone_interface_t> {
        // SAFETY: the offset at which InnoDB's handlerton has its interface; all handlertons of a
        // server have the same form.
        unsafe { self.handlerton.byte_add(self.clone_interface) }.cast()
    }

    /// The address tells engines apart.
    pub(crate) fn as_ptr(self) -> *mut abi::handlerton {
        self.handlerton.as_ptr()
    }
}

/// Where InnoDB's handlerton has its `clone_interface`: the offset of eight words that are the
/// addresses of InnoDB's eight clone functions. It differs by version and vendor, see
/// [`super::releases::Layout::clone_interface`].
///
/// # Safety
/// `innodb` is InnoDB's handlerton.
pub(super) unsafe fn clone_interface_in(
    innodb: NonNull<abi::handlerton>,
    symbols: &Symbols,
) -> Result<usize, LoadError> {
    /// Every handlerton is longer (976 bytes in 9.7, 872 in 8.0.40), and all known offsets are
    /// below 0x278.
    const SCANNED_WORDS: usize = 0x300 / size_of::<usize>();

    let words = innodb.cast::<[usize; SCANNED_WORDS]>();
    // SAFETY: inside the handlerton, which is aligned for pointers and constant.
    let words = unsafe { words.as_ref() };
    let index = words.windows(8).position(|window| window == symbols.innodb_clone);
    index.map(|index| index * size_of::<usize>()).ok_or(LoadError::NoCloneInterface)
}
