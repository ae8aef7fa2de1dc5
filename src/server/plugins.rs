// SPDX-License-Identifier: GPL-2.0-only

//! mysqld's list of plugins (`sql/sql_plugin.cc`).

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use super::abi::{self, MYSQL_LEX_CSTRING};
use super::handlerton::{Handlerton, clone_interface_in};
use super::load_error::LoadError;
use super::raise::ER_INTERNAL_ERROR;
use super::symbols::{PluginRef, Symbols};
use super::text::bytes;
use super::thd::Thd;
use crate::guard::guard_or;

/// Name, and library unless it is built in.
pub(crate) type Plugin = (String, Option<String>);

/// The plugins that are ready, in mysqld's order.
pub(crate) fn active_plugins(symbols: &Symbols) -> Result<Vec<Plugin>, u32> {
    let mut plugins = Vec::new();
    for_each(symbols, abi::MYSQL_ANY_PLUGIN, |plugin| {
        // SAFETY: mysqld keeps the names as long as the plugin is in its list.
        let name = unsafe { text(&plugin.name) };
        // SAFETY: NULL, or the library, which lives as long as the plugin.
        let library = unsafe { plugin.plugin_dl.as_ref() };
        // SAFETY: as the name.
        let library = library.map(|library| unsafe { text(&library.dl) });
        plugins.push((name, library));
    })?;
    Ok(plugins)
}

/// A storage engine, and a reference to its plugin: until this is dropped the engine stays, even
/// if UNINSTALL PLUGIN is run.
pub(crate) struct EnginePlugin {
    symbols: &'static Symbols,
    /// A `plugin_ref`.
    plugin: NonNull<c_void>,
    name: String,
    handlerton: NonNull<abi::handlerton>,
    clone_interface: usize,
}

impl EnginePlugin {
    /// Takes a reference to the engine `name`. `None` if it is not installed, or not any more.
    fn lock(symbols: &'static Symbols, name: String, clone_interface: usize) -> Option<Self> {
        let counted = MYSQL_LEX_CSTRING { str_: name.as_ptr().cast(), length: name.len() };
        // SAFETY: a counted name. Without a session mysqld leaves it to the caller to give the
        // reference back (`sql/sql_plugin.cc:intern_plugin_lock`).
        let plugin = unsafe {
            (symbols.plugin_lock_by_name)(
                ptr::null_mut(),
                &raw const counted,
                abi::MYSQL_STORAGE_ENGINE_PLUGIN,
            )
        };
        let plugin = NonNull::new(plugin)?;
        // SAFETY: a reference of this server's kind, to a plugin that stays until it is given back.
        let data = unsafe { symbols.plugin_ref.resolve(plugin.as_ptr()) }.map(|found| found.data);
        let Some(handlerton) = data.and_then(NonNull::new).map(NonNull::cast) else {
            // SAFETY: the reference that was just taken.
            unsafe { (symbols.plugin_unlock)(ptr::null_mut(), plugin.as_ptr()) };
            return None;
        };
        Some(Self { symbols, plugin, name, handlerton, clone_interface })
    }

    /// The name of the engine's plugin.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The engine.
    pub(crate) fn handlerton(&self) -> Handlerton<'_> {
        // SAFETY: the data of a storage engine's plugin is its handlerton
        // (sql/handler.cc:ha_initialize_handlerton), and the reference keeps it.
        unsafe { Handlerton::new(self.handlerton, self.clone_interface) }
    }
}

impl Drop for EnginePlugin {
    fn drop(&mut self) {
        // SAFETY: the reference that `lock` has taken without a session, given back once.
        unsafe { (self.symbols.plugin_unlock)(ptr::null_mut(), self.plugin.as_ptr()) };
    }
}

/// The storage engines that are ready. `clone_interface` is what [`find_clone_interface`] has
/// found.
pub(super) fn engines(
    symbols: &'static Symbols,
    clone_interface: usize,
) -> Result<Vec<EnginePlugin>, u32> {
    let mut names = Vec::new();
    for_each(symbols, abi::MYSQL_STORAGE_ENGINE_PLUGIN, |plugin| {
        // SAFETY: mysqld keeps the name as long as the plugin is in its list.
        names.push(unsafe { text(&plugin.name) });
    })?;
    // An engine may be gone by now. mysqld holds a lock during the iteration, so that references
    // are taken after it.
    let lock = |name| EnginePlugin::lock(symbols, name, clone_interface);
    Ok(names.into_iter().filter_map(lock).collect())
}

/// Where the handlertons of this server have their `clone_interface`.
pub(super) fn find_clone_interface(symbols: &Symbols) -> Result<usize, LoadError> {
    let mut found = Err(LoadError::NoCloneInterface);
    for_each_handlerton(symbols, |handlerton| {
        if db_type(handlerton) == abi::DB_TYPE_INNODB {
            // SAFETY: mysqld keeps InnoDB as long as this runs.
            found = unsafe { clone_interface_in(handlerton, symbols) };
        }
    })
    .map_err(|_| LoadError::NoCloneInterface)?;
    found
}

/// Whether InnoDB is ready, and with it mysqld's other engines.
pub(crate) fn is_innodb_ready(symbols: &Symbols) -> bool {
    let mut is_ready = false;
    let visited = for_each_handlerton(symbols, |handlerton| {
        is_ready |= db_type(handlerton) == abi::DB_TYPE_INNODB;
    });
    visited.is_ok() && is_ready
}

fn for_each_handlerton(
    symbols: &Symbols,
    mut visit: impl FnMut(NonNull<abi::handlerton>),
) -> Result<(), u32> {
    for_each(symbols, abi::MYSQL_STORAGE_ENGINE_PLUGIN, |plugin| {
        if let Some(handlerton) = NonNull::new(plugin.data) {
            visit(handlerton.cast());
        }
    })
}

/// `legacy_db_type` of an engine that mysqld is showing.
fn db_type(handlerton: NonNull<abi::handlerton>) -> i32 {
    // SAFETY: the data of a ready storage engine is its handlerton
    // (sql/handler.cc:ha_initialize_handlerton), which mysqld keeps while the iteration runs.
    let db_type = unsafe { handlerton.as_ref() }.db_type;
    i32::try_from(db_type).unwrap_or(abi::DB_TYPE_UNKNOWN)
}

/// Whether a plugin of this name, upper and lower case being the same, is installed.
pub(crate) fn is_installed(symbols: &Symbols, thd: Thd<'_>, name: &str) -> bool {
    let name = MYSQL_LEX_CSTRING { str_: name.as_ptr().cast(), length: name.len() };
    // SAFETY: the session of this thread and a counted name.
    let plugin = unsafe {
        (symbols.plugin_lock_by_name)(thd.as_ptr(), &raw const name, abi::MYSQL_ANY_PLUGIN)
    };
    if plugin.is_null() {
        return false;
    }
    // SAFETY: the reference that was just taken for this session.
    unsafe { (symbols.plugin_unlock)(thd.as_ptr(), plugin) };
    true
}

/// Calls `visit` for each ready plugin of a type. A panic of `visit` ends the iteration and is
/// raised.
fn for_each<F: FnMut(&abi::st_plugin_int)>(
    symbols: &Symbols,
    plugin_type: c_int,
    mut visit: F,
) -> Result<(), u32> {
    let mut visitor = Visitor { plugin_ref: symbols.plugin_ref, visit: &mut visit };
    // SAFETY: `call` takes the visitor, which outlives the iteration. The session is only handed to
    // `call`.
    let stopped = unsafe {
        (symbols.plugin_foreach_with_mask)(
            std::ptr::null_mut(),
            Some(call::<F>),
            plugin_type,
            abi::PLUGIN_IS_READY as u32,
            (&raw mut visitor).cast(),
        )
    };
    if stopped { Err(ER_INTERNAL_ERROR) } else { Ok(()) }
}

struct Visitor<'a, F> {
    plugin_ref: PluginRef,
    visit: &'a mut F,
}

/// A `plugin_foreach_func`; true stops.
unsafe extern "C" fn call<F: FnMut(&abi::st_plugin_int)>(
    _thd: *mut abi::THD,
    plugin: *mut c_void,
    visitor: *mut c_void,
) -> bool {
    guard_or(true, || {
        // SAFETY: `for_each` passes its visitor, which nothing else uses meanwhile.
        let visitor = unsafe { &mut *visitor.cast::<Visitor<'_, F>>() };
        // SAFETY: mysqld passes a reference of its kind to a plugin in its list.
        if let Some(plugin) = unsafe { visitor.plugin_ref.resolve(plugin) } {
            (visitor.visit)(plugin);
        }
        false
    })
}

impl PluginRef {
    /// # Safety
    /// `plugin` is NULL or a `plugin_ref` of this kind, to a plugin that lives as long as the
    /// result is used.
    unsafe fn resolve<'a>(self, plugin: *mut c_void) -> Option<&'a abi::st_plugin_int> {
        let plugin = match self {
            PluginRef::Direct => plugin.cast(),
            PluginRef::Indirect => {
                let plugin: *mut *mut abi::st_plugin_int = plugin.cast();
                // SAFETY: by the caller's promise.
                unsafe { plugin.as_ref() }.copied()?
            }
        };
        // SAFETY: by the caller's promise.
        unsafe { plugin.as_ref() }
    }
}

/// # Safety
/// `text` is NULL or points to its length of bytes.
unsafe fn text(text: &MYSQL_LEX_CSTRING) -> String {
    // SAFETY: by the caller's promise.
    let bytes = unsafe { bytes(text.str_.cast(), text.length) };
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> abi::st_plugin_int {
        abi::st_plugin_int {
            name: MYSQL_LEX_CSTRING { str_: c"InnoDB".as_ptr(), length: 6 },
            plugin: std::ptr::null_mut(),
            plugin_dl: std::ptr::null_mut(),
            state: 8,
            ref_count: 0,
            data: std::ptr::null_mut(),
        }
    }

    #[test]
    fn references_of_release_and_debug_servers() {
        let mut plugin = plugin();
        let mut direct = &raw mut plugin;
        let indirect = &raw mut direct;
        // SAFETY: a reference of its kind.
        let resolved = unsafe { PluginRef::Direct.resolve(direct.cast()) }.expect("a plugin");
        // SAFETY: a literal.
        assert_eq!(unsafe { text(&resolved.name) }, "InnoDB");
        // SAFETY: a reference of its kind.
        assert!(unsafe { PluginRef::Indirect.resolve(indirect.cast()) }.is_some());
        // SAFETY: NULL.
        assert!(unsafe { PluginRef::Indirect.resolve(std::ptr::null_mut()) }.is_none());
    }

    #[test]
    fn a_panic_stops_the_iteration() {
        fn run(mut visit: impl FnMut(&abi::st_plugin_int)) -> bool {
            fn call_of<F: FnMut(&abi::st_plugin_int)>(_: &F) -> abi::plugin_foreach_func {
                Some(call::<F>)
            }
            let call = call_of(&visit).expect("a function");
            let mut visitor = Visitor { plugin_ref: PluginRef::Direct, visit: &mut visit };
            let mut plugin = plugin();
            // SAFETY: as mysqld calls it.
            unsafe {
                call(std::ptr::null_mut(), (&raw mut plugin).cast(), (&raw mut visitor).cast())
            }
        }
        let mut seen = 0;
        assert!(!run(|_| seen += 1));
        assert_eq!(seen, 1);
        assert!(run(|_| panic!("as a test")));
    }
}
