// SPDX-License-Identifier: GPL-2.0-only

//! mysqld's functions and variables, found with `dlsym` so that tests and tools link without
//! mysqld, and so that a missing one is a message. Names are the mangled ones of GCC and Clang
//! (Itanium C++ ABI).

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::abi;
use super::abi::Function;
use super::abi::Nullable;
use super::load_error::LoadError;
use super::version::Release;
use super::version::ServerVersion;

/// What mysqld exports of that which the plugin uses.
pub(crate) struct Symbols {
    pub(crate) my_error: Function<abi::my_error_fn>,
    pub(crate) thd_killed: Function<abi::thd_killed_fn>,
    pub(crate) thd_get_thread_id: Function<abi::thd_get_thread_id_fn>,
    pub(crate) thd_get_current_thd: Function<abi::thd_get_current_thd_fn>,
    pub(crate) plugin_foreach_with_mask: Function<abi::plugin_foreach_with_mask_fn>,
    pub(crate) plugin_lock_by_name: Function<abi::plugin_lock_by_name_fn>,
    pub(crate) plugin_unlock: Function<abi::plugin_unlock_fn>,
    /// What a `plugin_ref` is in this server.
    pub(crate) plugin_ref: PluginRef,
    pub(crate) clone_handle_create: Function<abi::clone_handle_create_fn>,
    pub(crate) clone_handle_drop: Function<abi::clone_handle_drop_fn>,
    /// Not in 8.0.19, which unloads a plugin that is in use when it no longer is.
    pub(crate) clone_handle_check_drop: Option<Function<abi::clone_handle_check_drop_fn>>,
    /// The addresses of InnoDB's clone functions, in the order of `Clone_interface_t`.
    pub(crate) innodb_clone: [usize; 8],
    pub(crate) psi_memory_service: &'static AtomicPtr<abi::PSI_memory_service>,
    pub(crate) psi_thread_service: &'static AtomicPtr<abi::PSI_thread_service>,
    pub(crate) psi_statement_service: &'static AtomicPtr<abi::PSI_statement_service>,
    is_data_dropped: Option<&'static AtomicBool>,
    get_server_state: Option<Function<abi::get_server_state_fn>>,
    is_mysqld_managed: Option<Function<abi::is_mysqld_managed_fn>>,
    pub(crate) push_warning: Option<Function<abi::push_warning_fn>>,
    /// Debug servers only.
    pub(crate) db_keyword: Option<Function<abi::db_keyword_fn>>,
    server_version: NonNull<c_char>,
}

// SAFETY: the only field that is not already both is the address of a constant of mysqld.
unsafe impl Send for Symbols {}
// SAFETY: as above.
unsafe impl Sync for Symbols {}

/// `sql/sql_plugin_ref.h:plugin_ref`, which has two forms. The mangled names of the functions that
/// take one tell which form a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PluginRef {
    /// `st_plugin_int *`, in release servers.
    Direct,
    /// `st_plugin_int **`, in debug servers.
    Indirect,
}

static SYMBOLS: OnceLock<Symbols> = OnceLock::new();

/// The symbols, if [`Symbols::load`] found them: always inside mysqld, never in a unit test.
pub(crate) fn symbols() -> Option<&'static Symbols> {
    SYMBOLS.get()
}

impl Symbols {
    /// Looks all of them up, once; or names the first that is missing.
    pub(crate) fn load() -> Result<&'static Self, LoadError> {
        if let Some(symbols) = SYMBOLS.get() {
            return Ok(symbols);
        }
        // SAFETY: what `dlsym` finds under these names is mysqld's.
        let symbols = unsafe { Self::find(&look_up) }?;
        Ok(SYMBOLS.get_or_init(|| symbols))
    }

    /// Tells Group Replication that this server's data is gone, as InnoDB does when it drops data
    /// for a clone. Group Replication then does not fall back to incremental recovery. mysqld has
    /// this flag (`sql/clone_handler.h:s_is_data_dropped`) since 8.0.20.
    pub(crate) fn note_data_dropped(&self) {
        if let Some(flag) = self.is_data_dropped {
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a supervisor starts mysqld again when it asks for that. None for a server that does
    /// not tell.
    pub(crate) fn has_supervisor(&self) -> Option<bool> {
        // SAFETY: the function reads the environment and the parent's id.
        self.is_mysqld_managed.map(|is_managed| unsafe { is_managed() })
    }

    /// Whether mysqld is starting. False for a server that does not tell.
    pub(crate) fn is_booting(&self) -> bool {
        // SAFETY: the function reads a variable.
        self.get_server_state.is_some_and(|state| unsafe { state() } == abi::SERVER_BOOTING)
    }

    /// The version mysqld says it has.
    pub(crate) fn server_version(&self) -> Result<ServerVersion, LoadError> {
        // SAFETY: `sql/mysqld.h:server_version`, a terminated text that mysqld writes before it
        // loads any plugin.
        let text = unsafe { CStr::from_ptr(self.server_version.as_ptr()) }.to_string_lossy();
        text.parse().map_err(|_| LoadError::UnreadableVersion(text.into_owned()))
    }

    /// As [`Symbols::load`]; `look_up` gives the address of a name, NULL where there is none.
    ///
    /// # Safety
    /// What `look_up` gives for a name is NULL, or what mysqld has under that name. It is never
    /// unmapped.
    #[rustfmt::skip]
    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about a list")]
    pub(super) unsafe fn find(look_up: LookUp<'_>) -> Result<Self, LoadError> {
        let plugin_ref = match look_up(names::FOREACH_DEBUG).is_null() {
            true => PluginRef::Direct,
            false => PluginRef::Indirect,
        };
        let (foreach, unlock) = names::with_plugin_ref(plugin_ref);
        // SAFETY: by the caller's promise. Each name is mangled from, or declared in C as, the type
        // of the field that it goes to.
        unsafe {
            Ok(Self {
                my_error: function::<abi::my_error_fn>(look_up, names::MY_ERROR)?,
                thd_killed: function::<abi::thd_killed_fn>(look_up, names::THD_KILLED)?,
                thd_get_thread_id: function::<abi::thd_get_thread_id_fn>(look_up, names::THD_GET_THREAD_ID)?,
                thd_get_current_thd: function::<abi::thd_get_current_thd_fn>(look_up, names::THD_GET_CURRENT_THD)?,
                plugin_foreach_with_mask: function::<abi::plugin_foreach_with_mask_fn>(look_up, foreach)?,
                plugin_lock_by_name: function::<abi::plugin_lock_by_name_fn>(look_up, names::PLUGIN_LOCK_BY_NAME)?,
                plugin_unlock: function::<abi::plugin_unlock_fn>(look_up, unlock)?,
                plugin_ref,
                clone_handle_create: function::<abi::clone_handle_create_fn>(look_up, names::CLONE_HANDLE_CREATE)?,
                clone_handle_drop: function::<abi::clone_handle_drop_fn>(look_up, names::CLONE_HANDLE_DROP)?,
                clone_handle_check_drop: function::<abi::clone_handle_check_drop_fn>(look_up, names::CLONE_HANDLE_CHECK_DROP).ok(),
                innodb_clone: innodb_clone(look_up)?,
                psi_memory_service: variable(look_up, names::PSI_MEMORY_SERVICE)?,
                psi_thread_service: variable(look_up, names::PSI_THREAD_SERVICE)?,
                psi_statement_service: variable(look_up, names::PSI_STATEMENT_SERVICE)?,
                is_data_dropped: variable(look_up, names::IS_DATA_DROPPED).ok(),
                get_server_state: function::<abi::get_server_state_fn>(look_up, names::GET_SERVER_STATE).ok(),
                is_mysqld_managed: function::<abi::is_mysqld_managed_fn>(look_up, names::IS_MYSQLD_MANAGED).ok(),
                push_warning: function::<abi::push_warning_fn>(look_up, names::PUSH_WARNING).ok(),
                db_keyword: function::<abi::db_keyword_fn>(look_up, names::DB_KEYWORD).ok(),
                server_version: address(look_up, names::SERVER_VERSION)?.cast(),
            })
        }
    }
}

/// Gives the address of a name, NULL where there is none.
pub(super) type LookUp<'a> = &'a dyn Fn(&CStr) -> *mut c_void;

/// Looks `name` up in mysqld.
pub(crate) fn look_up(name: &CStr) -> *mut c_void {
    // SAFETY: a search for a terminated name has no conditions.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// The addresses of the program or library that `address` is in. `dladdr` would tell, too, but it
/// goes through all functions of mysqld to name the one, which takes 4 ms.
pub(super) fn program_of(address: *const c_void) -> Option<Range<usize>> {
    let mut search = Search { address: address.addr(), program: None };
    // SAFETY: `visit` gets the search, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.program
}

struct Search {
    address: usize,
    program: Option<Range<usize>>,
}

/// Looks at one program or library; 1 ends the search.
unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: the loader's, valid during the call.
    let info = unsafe { &*info };
    // SAFETY: `program_of` gives it, and nobody else has it.
    let search = unsafe { &mut *search.cast::<Search>() };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: that many headers are there.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let base = info.dlpi_addr as usize;
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let segment = |header: &libc::Elf64_Phdr| {
        let begin = base.wrapping_add(header.p_vaddr as usize);
        begin..begin.wrapping_add(header.p_memsz as usize)
    };
    let segments = loaded.map(segment);
    if !segments.clone().any(|segment| segment.contains(&search.address)) {
        return 0;
    }
    // The loader reserves the addresses between the segments, too.
    let begin = segments.clone().map(|segment| segment.start).min();
    let end = segments.map(|segment| segment.end).max();
    search.program = begin.zip(end).map(|(begin, end)| begin..end);
    1
}

/// The version of the server that this library was loaded into, before anything else is known of
/// it. `None` outside mysqld.
pub(crate) fn release() -> Option<Release> {
    Some(version_text()?.to_str().ok()?.parse::<ServerVersion>().ok()?.release)
}

/// The version of the server as text. `None` outside mysqld.
pub(crate) fn version_text() -> Option<&'static CStr> {
    // SAFETY: what `dlsym` finds is mysqld's.
    unsafe { version_in(&look_up) }
}

/// The version of the server that `look_up` looks into.
///
/// # Safety
/// As [`Symbols::find`].
pub(super) unsafe fn version_in(look_up: LookUp<'_>) -> Option<&'static CStr> {
    let text: NonNull<c_char> = address(look_up, names::SERVER_VERSION).ok()?.cast();
    // SAFETY: as in `Symbols::server_version`.
    Some(unsafe { CStr::from_ptr(text.as_ptr()) })
}

fn address(look_up: LookUp<'_>, name: &'static CStr) -> Result<NonNull<c_void>, LoadError> {
    NonNull::new(look_up(name)).ok_or(LoadError::MissingSymbol(name))
}

/// # Safety
/// The symbol is a function of type `T`.
unsafe fn function<T: Nullable>(
    look_up: LookUp<'_>,
    name: &'static CStr,
) -> Result<Function<T>, LoadError> {
    let address = address(look_up, name)?;
    // SAFETY: by the caller's promise.
    unsafe { abi::function_at::<T>(address.as_ptr()) }.ok_or(LoadError::MissingSymbol(name))
}

/// # Safety
/// The symbol is a variable that a `T` can stand for, and mysqld writes it without races that
/// matter.
unsafe fn variable<T>(look_up: LookUp<'_>, name: &'static CStr) -> Result<&'static T, LoadError> {
    let address: NonNull<T> = address(look_up, name)?.cast();
    // SAFETY: by the caller's promise; mysqld is never unmapped.
    Ok(unsafe { address.as_ref() })
}

fn innodb_clone(look_up: LookUp<'_>) -> Result<[usize; 8], LoadError> {
    let mut addresses = [0; 8];
    for (slot, name) in addresses.iter_mut().zip(names::INNODB_CLONE) {
        *slot = address(look_up, name)?.as_ptr().addr();
    }
    Ok(addresses)
}

/// mysqld's names, mangled where they are C++.
pub(crate) mod names {
    use std::ffi::CStr;

    use super::PluginRef;

    pub(crate) const MY_ERROR: &CStr = c"_Z8my_erroriiz";
    pub(crate) const THD_KILLED: &CStr = c"thd_killed";
    pub(crate) const THD_GET_THREAD_ID: &CStr = c"thd_get_thread_id";
    pub(crate) const THD_GET_CURRENT_THD: &CStr = c"_Z19thd_get_current_thdv";
    pub(crate) const PLUGIN_LOCK_BY_NAME: &CStr =
        c"_Z19plugin_lock_by_nameP3THDRK17MYSQL_LEX_CSTRINGi";
    pub(crate) const CLONE_HANDLE_CREATE: &CStr = c"_Z19clone_handle_createPKc";
    pub(crate) const CLONE_HANDLE_DROP: &CStr = c"_Z17clone_handle_dropv";
    pub(crate) const CLONE_HANDLE_CHECK_DROP: &CStr = c"_Z23clone_handle_check_dropPv";
    pub(crate) const PSI_MEMORY_SERVICE: &CStr = c"psi_memory_service";
    pub(crate) const PSI_THREAD_SERVICE: &CStr = c"psi_thread_service";
    pub(crate) const PSI_STATEMENT_SERVICE: &CStr = c"psi_statement_service";
    pub(crate) const IS_DATA_DROPPED: &CStr = c"_ZN13Clone_handler17s_is_data_droppedE";
    pub(crate) const GET_SERVER_STATE: &CStr = c"_Z16get_server_statev";
    pub(crate) const IS_MYSQLD_MANAGED: &CStr = c"_Z17is_mysqld_managedv";
    pub(crate) const PUSH_WARNING: &CStr =
        c"_Z12push_warningP3THDN13Sql_condition19enum_severity_levelEjPKc";
    pub(crate) const DB_KEYWORD: &CStr = c"_Z12_db_keyword_P10CODE_STATEPKci";
    pub(crate) const SERVER_VERSION: &CStr = c"server_version";

    const FOREACH: &CStr = c"_Z24plugin_foreach_with_maskP3THDPFbS0_P13st_plugin_intPvEijS3_";
    pub(crate) const FOREACH_DEBUG: &CStr =
        c"_Z24plugin_foreach_with_maskP3THDPFbS0_PP13st_plugin_intPvEijS4_";
    const UNLOCK: &CStr = c"_Z13plugin_unlockP3THDP13st_plugin_int";
    const UNLOCK_DEBUG: &CStr = c"_Z13plugin_unlockP3THDPP13st_plugin_int";

    /// `plugin_foreach_with_mask` and `plugin_unlock`, whose names contain plugin_ref.
    pub(crate) const fn with_plugin_ref(plugin_ref: PluginRef) -> (&'static CStr, &'static CStr) {
        match plugin_ref {
            PluginRef::Direct => (FOREACH, UNLOCK),
            PluginRef::Indirect => (FOREACH_DEBUG, UNLOCK_DEBUG),
        }
    }

    /// In the order of `Clone_interface_t`.
    pub(crate) const INNODB_CLONE: [&CStr; 8] = [
        c"_Z27innodb_clone_get_capabilityRSt6bitsetILm6EE",
        c"_Z18innodb_clone_beginP10handlertonP3THDRPKhRjS6_13Ha_clone_type13Ha_clone_mode",
        c"_Z17innodb_clone_copyP10handlertonP3THDPKhjjP12Ha_clone_cbk",
        c"_Z16innodb_clone_ackP10handlertonP3THDPKhjjiP12Ha_clone_cbk",
        c"_Z16innodb_clone_endP10handlertonP3THDPKhjji",
        c"_Z24innodb_clone_apply_beginP10handlertonP3THDRPKhRjS6_13Ha_clone_modePKc",
        c"_Z18innodb_clone_applyP10handlertonP3THDPKhjjiP12Ha_clone_cbk",
        c"_Z22innodb_clone_apply_endP10handlertonP3THDPKhjji",
    ];

    /// Without these the plugin does not load into a release server.
    pub(crate) fn required() -> impl Iterator<Item = &'static CStr> {
        let (foreach, unlock) = with_plugin_ref(PluginRef::Direct);
        [
            MY_ERROR,
            THD_KILLED,
            THD_GET_THREAD_ID,
            THD_GET_CURRENT_THD,
            foreach,
            PLUGIN_LOCK_BY_NAME,
            unlock,
            CLONE_HANDLE_CREATE,
            CLONE_HANDLE_DROP,
            PSI_MEMORY_SERVICE,
            PSI_THREAD_SERVICE,
            PSI_STATEMENT_SERVICE,
            SERVER_VERSION,
        ]
        .into_iter()
        .chain(INNODB_CLONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_mysqld_the_first_missing_symbol_is_named() {
        assert_eq!(Symbols::load().err(), Some(LoadError::MissingSymbol(c"_Z8my_erroriiz")));
        assert!(symbols().is_none());
        assert!(!look_up(c"dlsym").is_null());
        assert!(look_up(c"no such symbol").is_null());
        assert_eq!(release(), None);
    }

    #[test]
    fn programs_are_told_apart() {
        let own = program_of(programs_are_told_apart as fn() as *const c_void);
        let libc = program_of(look_up(c"dlsym"));
        assert!(own.is_some() && libc.is_some() && own != libc, "{own:x?}, {libc:x?}");
        assert_eq!(program_of(look_up(c"malloc")), libc);
        // As the loader says.
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: any address may be asked for; the answer has its place.
        assert_ne!(unsafe { libc::dladdr(look_up(c"dlsym"), found.as_mut_ptr()) }, 0);
        // SAFETY: null pointers, or filled in.
        let begin = unsafe { found.assume_init() }.dli_fbase.addr();
        assert_eq!(libc.map(|libc| libc.start), Some(begin));
        let heap = Box::new(0);
        assert_eq!(program_of((&raw const *heap).cast()), None);
        assert_eq!(program_of(std::ptr::null()), None);
    }
}
