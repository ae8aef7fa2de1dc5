// SPDX-License-Identifier: GPL-2.0-only

//! mysqld's list of plugins (`sql/sql_plugin.cc`).

use std::ffi::c_int;
use std::ffi::c_void;

use super::abi;
use super::abi::MYSQL_LEX_CSTRING;
use super::handlerton::Handlerton;
use super::raise::ER_INTERNAL_ERROR;
use super::services::services;
use super::symbols::PluginRef;
use super::symbols::Symbols;
use super::symbols::symbols;
use super::thd::Thd;
use crate::guard::guard_or;

/// Name, and library unless it is built in.
pub(crate) type Plugin = (String, Option<String>);

/// The plugins that are ready, in mysqld's order.
pub(crate) fn active_plugins() -> Result<Vec<Plugin>, u32> {
    let mut plugins = Vec::new();
    for_each(services().symbols, abi::MYSQL_ANY_PLUGIN, |plugin| {
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

/// The storage engines that are ready.
pub(crate) fn engines() -> Result<Vec<Handlerton>, u32> {
    handlertons(services().symbols)
}

/// As [`engines`], before the services are installed.
pub(crate) fn handlertons(symbols: &Symbols) -> Result<Vec<Handlerton>, u32> {
    Ok(named(symbols)?.into_iter().map(|(_, engine)| engine).collect())
}

/// The storage engines that are ready, with the names of their plugins.
pub(crate) fn named_engines() -> Result<Vec<(String, Handlerton)>, u32> {
    named(services().symbols)
}

fn named(symbols: &Symbols) -> Result<Vec<(String, Handlerton)>, u32> {
    let mut engines = Vec::new();
    for_each(symbols, abi::MYSQL_STORAGE_ENGINE_PLUGIN, |plugin| {
        // SAFETY: the data of a ready storage engine is its handlerton (sql/handler.cc:ha_initialize_handlerton).
        if let Some(engine) = unsafe { Handlerton::from_raw(plugin.data.cast()) } {
            // SAFETY: mysqld keeps the name as long as the plugin is in its list.
            engines.push((unsafe { text(&plugin.name) }, engine));
        }
    })?;
    Ok(engines)
}

/// Whether a plugin of this name, upper and lower case being the same, is installed.
pub(crate) fn is_installed(thd: Thd, name: &str) -> bool {
    let Some(symbols) = symbols() else { return false };
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

/// Calls `visit` for each ready plugin of a type. A panic of `visit` ends the iteration and is raised.
fn for_each<F: FnMut(&abi::st_plugin_int)>(
    symbols: &Symbols,
    plugin_type: c_int,
    mut visit: F,
) -> Result<(), u32> {
    let mut visitor = Visitor { plugin_ref: symbols.plugin_ref, visit: &mut visit };
    // SAFETY: `call` takes the visitor, which outlives the iteration. The session is only handed to `call`.
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
    /// `plugin` is NULL or a `plugin_ref` of this kind, to a plugin that lives as long as the result is used.
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
    if text.str_.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(text.str_.cast::<u8>(), text.length) };
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
