// SPDX-License-Identifier: GPL-2.0-only

//! Storage engines, and where their clone interface is.

use std::ptr::NonNull;

use super::abi;
use super::abi::Function;
use super::engine::Engine;
use super::load_error::LoadError;
use super::plugins;
use super::services::services;
use super::symbols::Symbols;
use super::symbols::symbols;
use super::thd::Thd;

/// A storage engine (`sql/handler.h:handlerton`). There is one per engine, shared by all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handlerton(NonNull<abi::handlerton>);

// SAFETY: mysqld shares it between all threads, and it is constant while its engine is installed.
unsafe impl Send for Handlerton {}
// SAFETY: as above.
unsafe impl Sync for Handlerton {}

impl Handlerton {
    /// The engine at `handlerton`, `None` for NULL.
    ///
    /// # Safety
    /// `handlerton` is NULL or an engine that stays installed as long as the result and its copies are used.
    pub(super) unsafe fn from_raw(handlerton: *mut abi::handlerton) -> Option<Self> {
        NonNull::new(handlerton).map(Self)
    }

    /// The engine that the number `db_type` in a descriptor or locator names, if it is installed and can clone. Its
    /// plugin is locked until the statement of `thd` ends.
    pub(crate) fn by_type(thd: Thd, db_type: u8) -> Option<Self> {
        let db_type = u32::from(db_type);
        // DB_TYPE_DEFAULT is whatever engine the session defaults to.
        if db_type >= abi::DB_TYPE_DEFAULT as u32 {
            return None;
        }
        // SAFETY: the session of this thread, and a number inside the array that the function indexes.
        let handlerton = unsafe { (symbols()?.ha_resolve_by_legacy_type)(thd.as_ptr(), db_type) };
        // SAFETY: locked, see above.
        unsafe { Self::from_raw(handlerton) }.filter(|handlerton| handlerton.engine().is_some())
    }

    /// `legacy_db_type`, the number that names the engine to the other server. Dynamic engines that have none of their
    /// own get one from 42 on.
    pub(crate) fn db_type(self) -> u8 {
        // SAFETY: a living engine, see `from_raw`.
        let handlerton = unsafe { self.0.as_ref() };
        u8::try_from(handlerton.db_type).unwrap_or(abi::DB_TYPE_UNKNOWN as u8)
    }

    /// The engine's clone functions, `None` if it lacks any of them.
    pub(crate) fn engine(self) -> Option<Engine> {
        // SAFETY: the interface of a living engine.
        Engine::new(self, unsafe { self.interface().as_ref() })
    }

    /// The address of the engine's function that begins to copy, as far as it has one.
    pub(crate) fn clone_begin(self) -> Option<Function<abi::clone_begin_fn>> {
        // SAFETY: the interface of a living engine.
        unsafe { self.interface().as_ref() }.clone_begin
    }

    /// Gives a clone interface to an engine that has none, or takes it away again.
    ///
    /// # Safety
    /// No clone runs. The functions stay as long as they are in there.
    pub(crate) unsafe fn set_clone_interface(self, interface: abi::Clone_interface_t) {
        // SAFETY: the engine is alive, handlertons are writable (`sql/handler.cc:ha_initialize_handlerton`), and nobody but the clone
        // plugin reads this part of them: no clone runs.
        unsafe { self.interface().write(interface) };
    }

    fn interface(self) -> NonNull<abi::Clone_interface_t> {
        // SAFETY: the offset at which InnoDB's handlerton has its interface; all handlertons of a server have the same form.
        unsafe { self.0.byte_add(services().clone_interface) }.cast()
    }

    pub(super) fn as_ptr(self) -> *mut abi::handlerton {
        self.0.as_ptr()
    }
}

/// Where InnoDB's handlerton has its `clone_interface`: the offset of eight words that are the addresses of InnoDB's
/// eight clone functions. It differs by version and vendor, see [`super::releases::Layout::clone_interface`].
pub(super) fn find_clone_interface(symbols: &Symbols) -> Result<usize, LoadError> {
    /// Every handlerton is longer (976 bytes in 9.7, 872 in 8.0.40), and all known offsets are below 0x278.
    const SCANNED_WORDS: usize = 0x300 / size_of::<usize>();

    let engines = plugins::handlertons(symbols).map_err(|_| LoadError::NoCloneInterface)?;
    let innodb = engines.iter().find(|engine| i32::from(engine.db_type()) == abi::DB_TYPE_INNODB);
    let innodb = innodb.ok_or(LoadError::NoCloneInterface)?;
    let words = innodb.0.cast::<[usize; SCANNED_WORDS]>();
    // SAFETY: inside the handlerton, which is aligned for pointers and constant.
    let words = unsafe { words.as_ref() };
    let index = words.windows(8).position(|window| window == symbols.innodb_clone);
    index.map(|index| index * size_of::<usize>()).ok_or(LoadError::NoCloneInterface)
}
