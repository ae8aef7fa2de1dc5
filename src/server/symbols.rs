// SPDX-License-Identifier: GPL-2.0-only

//! mysqld's functions and variables, found with `dlsym` so that tests and tools link without mysqld, and so that a
//! missing one is a message. Names are the mangled ones of GCC and Clang (Itanium C++ ABI).

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::AtomicPtr;

use super::abi;
use super::abi::Function;
use super::abi::Nullable;
use super::load_error::LoadError;
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
    pub(crate) ha_resolve_by_legacy_type: Function<abi::ha_resolve_by_legacy_type_fn>,
    pub(crate) clone_handle_create: Function<abi::clone_handle_create_fn>,
    pub(crate) clone_handle_drop: Function<abi::clone_handle_drop_fn>,
    pub(crate) clone_handle_check_drop: Function<abi::clone_handle_check_drop_fn>,
    /// The addresses of InnoDB's clone functions, in the order of `Clone_interface_t`.
    pub(crate) innodb_clone: [usize; 8],
    pub(crate) psi_memory_service: &'static AtomicPtr<abi::PSI_memory_service>,
    pub(crate) psi_thread_service: &'static AtomicPtr<abi::PSI_thread_service>,
    pub(crate) psi_statement_service: &'static AtomicPtr<abi::PSI_statement_service>,
    /// Debug servers only.
    pub(crate) db_keyword: Option<Function<abi::db_keyword_fn>>,
    server_version: NonNull<c_char>,
}

// SAFETY: the only field that is not already both is the address of a constant of mysqld.
unsafe impl Send for Symbols {}
// SAFETY: as above.
unsafe impl Sync for Symbols {}

/// `sql/sql_plugin_ref.h:plugin_ref`. Which of the two it is shows in the mangled names of the functions that take one.
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
        let symbols = Self::find()?;
        Ok(SYMBOLS.get_or_init(|| symbols))
    }

    /// The version mysqld says it has.
    pub(crate) fn server_version(&self) -> Result<ServerVersion, LoadError> {
        // SAFETY: `sql/mysqld.h:server_version`, a terminated text that mysqld writes before it loads any plugin.
        let text = unsafe { CStr::from_ptr(self.server_version.as_ptr()) }.to_string_lossy();
        text.parse().map_err(|_| LoadError::UnreadableVersion(text.into_owned()))
    }

    #[rustfmt::skip]
    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about a list")]
    fn find() -> Result<Self, LoadError> {
        // The functions whose C++ names contain plugin_ref.
        const FOREACH: &CStr = c"_Z24plugin_foreach_with_maskP3THDPFbS0_P13st_plugin_intPvEijS3_";
        const FOREACH_DEBUG: &CStr = c"_Z24plugin_foreach_with_maskP3THDPFbS0_PP13st_plugin_intPvEijS4_";
        const UNLOCK: &CStr = c"_Z13plugin_unlockP3THDP13st_plugin_int";
        const UNLOCK_DEBUG: &CStr = c"_Z13plugin_unlockP3THDPP13st_plugin_int";
        let (plugin_ref, foreach, unlock) = if exports(FOREACH_DEBUG) {
            (PluginRef::Indirect, FOREACH_DEBUG, UNLOCK_DEBUG)
        } else {
            (PluginRef::Direct, FOREACH, UNLOCK)
        };

        // SAFETY: each name is mangled from, or declared in C as, the type of the field that it goes to.
        unsafe {
            Ok(Self {
                my_error: function::<abi::my_error_fn>(c"_Z8my_erroriiz")?,
                thd_killed: function::<abi::thd_killed_fn>(c"thd_killed")?,
                thd_get_thread_id: function::<abi::thd_get_thread_id_fn>(c"thd_get_thread_id")?,
                thd_get_current_thd: function::<abi::thd_get_current_thd_fn>(c"_Z19thd_get_current_thdv")?,
                plugin_foreach_with_mask: function::<abi::plugin_foreach_with_mask_fn>(foreach)?,
                plugin_lock_by_name: function::<abi::plugin_lock_by_name_fn>(c"_Z19plugin_lock_by_nameP3THDRK17MYSQL_LEX_CSTRINGi")?,
                plugin_unlock: function::<abi::plugin_unlock_fn>(unlock)?,
                plugin_ref,
                ha_resolve_by_legacy_type: function::<abi::ha_resolve_by_legacy_type_fn>(c"_Z25ha_resolve_by_legacy_typeP3THD14legacy_db_type")?,
                clone_handle_create: function::<abi::clone_handle_create_fn>(c"_Z19clone_handle_createPKc")?,
                clone_handle_drop: function::<abi::clone_handle_drop_fn>(c"_Z17clone_handle_dropv")?,
                clone_handle_check_drop: function::<abi::clone_handle_check_drop_fn>(c"_Z23clone_handle_check_dropPv")?,
                innodb_clone: innodb_clone()?,
                psi_memory_service: variable(c"psi_memory_service")?,
                psi_thread_service: variable(c"psi_thread_service")?,
                psi_statement_service: variable(c"psi_statement_service")?,
                db_keyword: function::<abi::db_keyword_fn>(c"_Z12_db_keyword_P10CODE_STATEPKci").ok(),
                server_version: address(c"server_version").map(NonNull::cast)?,
            })
        }
    }
}

/// Whether mysqld exports `name`.
pub(crate) fn exports(name: &CStr) -> bool {
    // SAFETY: a search for a terminated name has no conditions.
    !unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.is_null()
}

fn address(name: &'static CStr) -> Result<NonNull<c_void>, LoadError> {
    // SAFETY: as in `exports`.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    NonNull::new(address).ok_or(LoadError::MissingSymbol(name))
}

/// # Safety
/// The symbol is a function of type `T`.
unsafe fn function<T: Nullable>(name: &'static CStr) -> Result<Function<T>, LoadError> {
    // SAFETY: by the caller's promise.
    unsafe { abi::function_at::<T>(address(name)?.as_ptr()) }.ok_or(LoadError::MissingSymbol(name))
}

/// # Safety
/// The symbol is a variable that a `T` can stand for, and mysqld writes it without races that matter.
unsafe fn variable<T>(name: &'static CStr) -> Result<&'static T, LoadError> {
    let address: NonNull<T> = address(name)?.cast();
    // SAFETY: by the caller's promise; mysqld is never unmapped.
    Ok(unsafe { address.as_ref() })
}

fn innodb_clone() -> Result<[usize; 8], LoadError> {
    const NAMES: [&CStr; 8] = [
        c"_Z27innodb_clone_get_capabilityRSt6bitsetILm6EE",
        c"_Z18innodb_clone_beginP10handlertonP3THDRPKhRjS6_13Ha_clone_type13Ha_clone_mode",
        c"_Z17innodb_clone_copyP10handlertonP3THDPKhjjP12Ha_clone_cbk",
        c"_Z16innodb_clone_ackP10handlertonP3THDPKhjjiP12Ha_clone_cbk",
        c"_Z16innodb_clone_endP10handlertonP3THDPKhjji",
        c"_Z24innodb_clone_apply_beginP10handlertonP3THDRPKhRjS6_13Ha_clone_modePKc",
        c"_Z18innodb_clone_applyP10handlertonP3THDPKhjjiP12Ha_clone_cbk",
        c"_Z22innodb_clone_apply_endP10handlertonP3THDPKhjji",
    ];
    let mut addresses = [0; 8];
    for (slot, name) in addresses.iter_mut().zip(NAMES) {
        *slot = address(name)?.as_ptr().addr();
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_mysqld_the_first_missing_symbol_is_named() {
        assert_eq!(Symbols::load().err(), Some(LoadError::MissingSymbol(c"_Z8my_erroriiz")));
        assert!(symbols().is_none());
        assert!(exports(c"dlsym"));
        assert!(!exports(c"no such symbol"));
    }
}
