// SPDX-License-Identifier: GPL-2.0-only

//! An imitation of mysqld, for tests of how the plugin refuses a server that is not as it should
//! be. It has symbols, a registry of services with their tables, and InnoDB's handlerton. Most
//! functions can be found but not called.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;

use super::abi;
use super::load_error::LoadError;
use super::registry::Registry;
use super::services::{self, Services};
use super::symbols::{PluginRef, Symbols, names};

/// To be changed before it is asked.
pub(super) struct FakeServer {
    pub(super) symbols: BTreeMap<&'static CStr, *mut c_void>,
    /// Name and slots.
    pub(super) services: BTreeMap<&'static CStr, Vec<*const c_void>>,
    /// InnoDB's, as words.
    pub(super) handlerton: Box<[usize; 128]>,
}

/// How many slots the services have, at least.
const SLOTS: usize = 48;

/// A function of "mysqld": of the program that the tests are.
unsafe extern "C" fn function() {}

/// Functions that differ in their addresses.
static INNODB: [u8; 8] = [0; 8];

impl FakeServer {
    /// A release server that says it is `version`, with the functions in `exports` besides those
    /// that all have.
    pub(super) fn new(version: &str, clone_interface: usize, exports: &[&'static CStr]) -> Self {
        let function = function as *mut c_void;
        let mut symbols: BTreeMap<_, _> =
            names::required().chain(exports.iter().copied()).map(|name| (name, function)).collect();
        let (foreach, _) = names::with_plugin_ref(PluginRef::Direct);
        symbols.insert(foreach, for_each_plugin as *mut c_void);
        symbols.insert(names::PLUGIN_LOCK_BY_NAME, lock_plugin as *mut c_void);
        let (_, unlock) = names::with_plugin_ref(PluginRef::Direct);
        symbols.insert(unlock, unlock_plugin as *mut c_void);
        // Lives as long as the symbols, which are leaked, too.
        let version = CString::new(version).expect("no NUL").into_raw();
        symbols.insert(names::SERVER_VERSION, version.cast());
        let mut handlerton = Box::new([0; 128]);
        // `db_type` stands behind `state`, 32 bits each.
        handlerton[0] = (abi::DB_TYPE_INNODB as usize) << 32;
        for (index, (name, byte)) in names::INNODB_CLONE.into_iter().zip(&INNODB).enumerate() {
            let address = ptr::from_ref(byte).cast_mut();
            symbols.insert(name, address.cast());
            handlerton[clone_interface / size_of::<usize>() + index] = address.addr();
        }
        let slots = || vec![function.cast_const(); SLOTS];
        let services = [
            c"clone_protocol",
            c"mysql_backup_lock",
            c"log_builtins.mysql_server",
            c"pfs_plugin_table_v1",
            c"pfs_plugin_column_integer_v1",
            c"pfs_plugin_column_bigint_v1",
            c"pfs_plugin_column_timestamp_v2",
            c"pfs_plugin_column_string_v2",
            c"pfs_plugin_column_text_v1",
        ];
        let services = services.into_iter().map(|name| (name, slots())).collect();
        Self { symbols, services, handlerton }
    }

    /// What the plugin finds when it is loaded.
    pub(super) fn load(self) -> Result<Services, LoadError> {
        let (server, symbols) = self.start();
        let symbols = Box::leak(Box::new(symbols?));
        let look_up = |name: &CStr| server.symbols.get(name).copied().unwrap_or(ptr::null_mut());
        // SAFETY: names have functions here that do not do anything, which nobody calls but those
        // that are of their types.
        unsafe { Services::find(symbols, &look_up, registry) }
    }

    /// This server's registry of services.
    pub(super) fn registry(self) -> Result<Arc<Registry>, LoadError> {
        self.start().1?;
        registry()
    }

    /// Makes this the server of this thread.
    fn start(self) -> (&'static Self, Result<Symbols, LoadError>) {
        let server: &'static Self = Box::leak(Box::new(self));
        SERVER.set(Some(server));
        let look_up = |name: &CStr| server.symbols.get(name).copied().unwrap_or(ptr::null_mut());
        // SAFETY: as in `load`.
        (server, unsafe { Symbols::find(&look_up) })
    }
}

thread_local! {
    static SERVER: RefCell<Option<&'static FakeServer>> = const { RefCell::new(None) };
}

fn server() -> &'static FakeServer {
    SERVER.with_borrow(|server| server.expect("a server on this thread"))
}

fn registry() -> Result<Arc<Registry>, LoadError> {
    unsafe extern "C" fn acquire_registry() -> *mut abi::s_mysql_registry {
        Box::leak(Box::new(abi::s_mysql_registry {
            acquire: Some(acquire),
            acquire_related: None,
            release: Some(release),
        }))
    }
    unsafe extern "C" fn acquire(name: *const c_char, handle: *mut abi::my_h_service) -> c_int {
        // SAFETY: the registry is asked with C strings.
        let name = unsafe { CStr::from_ptr(name) };
        let Some(slots) = server().services.get(name) else { return 1 };
        // SAFETY: the place for the handle.
        unsafe { *handle = slots.as_ptr().cast_mut().cast() };
        0
    }
    unsafe extern "C" fn release(_: abi::my_h_service) -> c_int {
        0
    }
    unsafe extern "C" fn release_registry(_: *mut abi::s_mysql_registry) -> c_int {
        0
    }
    let service = abi::plugin_registry_service_st {
        acquire: Some(acquire_registry),
        release: Some(release_registry),
    };
    Registry::from_plugin_service(Box::leak(Box::new(service)))
}

/// `plugin_foreach_with_mask`, of a server with one plugin.
unsafe extern "C" fn for_each_plugin(
    _: *mut abi::THD,
    visit: abi::plugin_foreach_func,
    _: c_int,
    _: u32,
    argument: *mut c_void,
) -> bool {
    let mut plugin = abi::st_plugin_int {
        name: abi::MYSQL_LEX_CSTRING { str_: c"InnoDB".as_ptr(), length: 6 },
        plugin: ptr::null_mut(),
        plugin_dl: ptr::null_mut(),
        state: 8,
        ref_count: 1,
        data: ptr::from_ref(&*server().handlerton).cast_mut().cast(),
    };
    // SAFETY: as mysqld calls it.
    visit.is_some_and(|visit| unsafe { visit(ptr::null_mut(), (&raw mut plugin).cast(), argument) })
}

thread_local! {
    /// References to InnoDB's plugin that were not given back.
    static REFERENCES: Cell<i32> = const { Cell::new(0) };
    /// What a reference to it points to.
    static INNODB_PLUGIN: Cell<*mut abi::st_plugin_int> = const { Cell::new(ptr::null_mut()) };
}

/// `plugin_lock_by_name`, of a server with one plugin.
unsafe extern "C" fn lock_plugin(
    thd: *mut abi::THD,
    name: *const abi::MYSQL_LEX_CSTRING,
    _: c_int,
) -> *mut c_void {
    assert!(thd.is_null(), "with a session the reference would end with its statement");
    // SAFETY: a counted name.
    let name = unsafe { &*name };
    // SAFETY: as above.
    let name = unsafe { slice::from_raw_parts(name.str_.cast::<u8>(), name.length) };
    let plugin = INNODB_PLUGIN.get();
    if name != b"InnoDB" || plugin.is_null() {
        return ptr::null_mut();
    }
    REFERENCES.set(REFERENCES.get() + 1);
    plugin.cast()
}

/// `plugin_unlock`.
unsafe extern "C" fn unlock_plugin(thd: *mut abi::THD, plugin: *mut c_void) {
    assert!(thd.is_null() && plugin == INNODB_PLUGIN.get().cast());
    REFERENCES.set(REFERENCES.get() - 1);
}

mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::server::error_log::LogBuiltins;
    use crate::server::pfs::Columns;
    use crate::server::releases::Probes;

    fn mysql_8_0_36() -> FakeServer {
        FakeServer::new("8.0.36", 0x260, &[Probes::LOG_LINE_GET_OUTPUT_BUFFER])
    }

    fn mysql_9_7_4() -> FakeServer {
        let exports = [
            Probes::LOG_LINE_GET_OUTPUT_BUFFER,
            Probes::LOG_LINE_SET_FLAG,
            Probes::ARE_VERSIONS_CLONE_COMPATIBLE,
        ];
        FakeServer::new("9.7.4-2", 0x278, &exports)
    }

    fn refusal(server: FakeServer) -> String {
        server.load().err().expect("refused").to_string()
    }

    /// Not mysqld's: a function of libc.
    fn foreign() -> *const c_void {
        libc::getpid as *const c_void
    }

    #[test]
    fn servers_as_they_should_be_are_taken() {
        let services = mysql_8_0_36().load().expect("8.0.36");
        assert_eq!(services.clone_interface, 0x260);
        let services = mysql_9_7_4().load().expect("9.7.4");
        assert_eq!(services.clone_interface, 0x278);
        // The place is found, not assumed: a vendor's may be another.
        let services = FakeServer::new("8.0.36", 0x2a8, &[Probes::LOG_LINE_GET_OUTPUT_BUFFER])
            .load()
            .expect("a vendor's 8.0.36");
        assert_eq!(services.clone_interface, 0x2a8);
    }

    /// An engine that UNINSTALL PLUGIN takes away while a clone uses it would be a dangling
    /// handlerton.
    #[test]
    fn an_engine_is_referenced_as_long_as_it_is_used() {
        let services = mysql_8_0_36().load().expect("8.0.36");
        let mut handlerton = server().handlerton.clone();
        let innodb = |data: *mut c_void| abi::st_plugin_int {
            name: abi::MYSQL_LEX_CSTRING { str_: c"InnoDB".as_ptr(), length: 6 },
            plugin: ptr::null_mut(),
            plugin_dl: ptr::null_mut(),
            state: 8,
            ref_count: 1,
            data,
        };
        // It was uninstalled after the iteration.
        assert_eq!(services.engines().expect("engines").len(), 0);
        let mut plugin = innodb(handlerton.as_mut_ptr().cast());
        INNODB_PLUGIN.set(&raw mut plugin);
        let engines = services.engines().expect("engines");
        assert_eq!((engines.len(), REFERENCES.get()), (1, 1));
        assert_eq!(engines[0].name(), "InnoDB");
        assert_eq!(engines[0].handlerton().db_type(), 12);
        let again = services.engines().expect("engines");
        assert_eq!(REFERENCES.get(), 2);
        drop(engines);
        assert_eq!(REFERENCES.get(), 1);
        drop(again);
        assert_eq!(REFERENCES.get(), 0);
        // A plugin without an engine in it is let go at once.
        let mut empty = innodb(ptr::null_mut());
        INNODB_PLUGIN.set(&raw mut empty);
        assert_eq!(services.engines().expect("engines").len(), 0);
        assert_eq!(REFERENCES.get(), 0);
        INNODB_PLUGIN.set(ptr::null_mut());
    }

    /// What reached `log_builtins.message`: item types, numbers, and the text.
    static LINES: Mutex<Vec<(Vec<i64>, String)>> = Mutex::new(Vec::new());

    /// Held by a test that looks at [`LINES`].
    static LINES_IN_USE: Mutex<()> = Mutex::new(());

    /// `message` as [`crate::server::error_log`] calls it with a number. On x86-64 the arguments of
    /// a variadic call lie where those of another call lie.
    #[allow(clippy::too_many_arguments, reason = "mysqld's")]
    unsafe extern "C" fn message(
        log_type: c_int,
        prio_item: c_int,
        prio: i64,
        number_item: c_int,
        number: i64,
        subsystem_item: c_int,
        _: *const c_char,
        component_item: c_int,
        _: *const c_char,
        text_item: c_int,
        text: *const c_char,
    ) -> c_int {
        let items = [log_type, prio_item, number_item, subsystem_item, component_item, text_item];
        let mut numbers = items.map(i64::from).to_vec();
        numbers.extend([prio, number]);
        // SAFETY: a terminated text.
        let text = unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8").to_owned();
        LINES.lock().expect("no panic").push((numbers, text));
        0
    }

    #[test]
    fn the_error_log_is_written_as_long_as_the_plugin_is_loaded() {
        let _alone = LINES_IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = || std::mem::take(&mut *LINES.lock().expect("no panic"));
        let mut server = mysql_8_0_36();
        server.services.get_mut(c"log_builtins.mysql_server").expect("a service")[27] =
            message as *const c_void;
        log::error!(target: "clone::client", "too early");
        for _ in 0..2 {
            let services = FakeServer { services: server.services.clone(), ..mysql_8_0_36() };
            services::install(services.load().expect("8.0.36"));
            let [(items, text)] = &lines()[..] else { panic!("one line about the server") };
            assert_eq!(items[..], [1, 0x10000, 2, 0x200, 0x400, 0x40000, 3, 13272]);
            assert!(text.starts_with("Plugin Clone reported: 'Client: mysql-clone "), "{text}");
            log::warn!(target: "clone::server", "damaged");
            log::debug!(target: "clone::server", "not written");
            let [(items, text)] = &lines()[..] else { panic!("one line") };
            assert_eq!(items[6..], [2, 13273]);
            assert_eq!(text, "Plugin Clone reported: 'Server: damaged.'");
            services::uninstall();
            log::error!(target: "clone::client", "too late");
            assert_eq!(lines(), []);
        }
    }

    #[test]
    fn another_version_is_refused() {
        let mut server = mysql_9_7_4();
        let version = CString::new("9.8.0").expect("no NUL").into_raw();
        server.symbols.insert(names::SERVER_VERSION, version.cast());
        assert_eq!(
            refusal(server),
            "server version 9.8.0 is not supported (8.0.17 to 8.4, and 9.0 to 9.7 are)"
        );
    }

    #[test]
    fn each_missing_symbol_is_refused() {
        for name in names::required() {
            let mut server = mysql_8_0_36();
            server.symbols.remove(name);
            let expected = format!("this mysqld does not export {}", name.to_string_lossy());
            assert_eq!(refusal(server), expected);
        }
    }

    #[test]
    fn symbols_of_another_version_are_refused() {
        for (mut server, service) in [
            (mysql_8_0_36(), "log_builtins"),
            (mysql_9_7_4(), "log_builtins"),
            (mysql_9_7_4(), "clone_protocol"),
        ] {
            let name = match service {
                "log_builtins" => Probes::LOG_LINE_GET_OUTPUT_BUFFER,
                _ => Probes::ARE_VERSIONS_CLONE_COMPATIBLE,
            };
            server.symbols.remove(name);
            assert!(refusal(server).contains(&format!("its service {service} in this version")));
        }
        let mut server = mysql_8_0_36();
        server.symbols.insert(Probes::ARE_VERSIONS_CLONE_COMPATIBLE, function as *mut c_void);
        assert!(refusal(server).contains("its service clone_protocol in this version"));
    }

    #[test]
    fn each_missing_service_is_refused() {
        for name in [c"clone_protocol", c"mysql_backup_lock", c"log_builtins.mysql_server"] {
            let mut server = mysql_8_0_36();
            server.services.remove(name);
            let expected = format!("this mysqld has no service {}", name.to_string_lossy());
            assert_eq!(refusal(server), expected);
        }
    }

    #[test]
    fn each_wrong_slot_is_refused() {
        let newest = |name, count| (0..count).map(move |slot| (name, slot));
        let protocol = newest(c"clone_protocol", 16);
        for (name, slot) in protocol.chain([(c"log_builtins.mysql_server", 28)]) {
            let service = name.to_string_lossy();
            let mut server = mysql_9_7_4();
            server.services.get_mut(name).expect("a service")[slot] = ptr::null();
            assert_eq!(refusal(server), format!("slot {slot} of the service {service} is empty"));
            let mut server = mysql_9_7_4();
            server.services.get_mut(name).expect("a service")[slot] = foreign();
            assert_eq!(
                refusal(server),
                format!("slot {slot} of the service {service} is not a function of mysqld")
            );
        }
        // What stands behind the last slot of an older server does not matter.
        let mut server = mysql_8_0_36();
        server.services.get_mut(c"clone_protocol").expect("a service")[15] = foreign();
        assert!(server.load().is_ok());
    }

    #[test]
    fn each_wrong_function_of_innodb_is_refused() {
        for index in 0..8 {
            for wrong in [0, foreign().addr()] {
                let mut server = mysql_8_0_36();
                server.handlerton[0x260 / 8 + index] = wrong;
                let expected = "the clone interface was not found in InnoDB's handlerton";
                assert_eq!(refusal(server), expected, "function {index}");
            }
        }
        let mut server = mysql_8_0_36();
        server.handlerton.swap(0x260 / 8 + 2, 0x260 / 8 + 3);
        assert!(refusal(server).contains("was not found"));
    }

    #[test]
    fn a_server_without_innodb_is_refused() {
        let mut server = mysql_8_0_36();
        server.handlerton[0] = 0;
        let error = server.load().err().expect("refused");
        assert_eq!(error, LoadError::NoInnodb);
        assert!(error.to_string().contains("early-plugin-load") && !error.is_about_server());
    }

    /// Lines of load errors, for all servers whose version is known.
    #[test]
    fn load_errors_are_written_as_lines_of_the_plugin() {
        fn server(mut server: FakeServer, slot: usize) -> FakeServer {
            let slots = server.services.get_mut(c"log_builtins.mysql_server").expect("a service");
            slots[slot] = message as *const c_void;
            server
        }
        let _alone = LINES_IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = FakeServer::new("9.8.0", 0x278, &[Probes::LOG_LINE_GET_OUTPUT_BUFFER]);
        for (server, is_known) in [
            (server(mysql_8_0_36(), 27), true),
            (server(mysql_9_7_4(), 28), true),
            (server(unknown, 28), false),
        ] {
            let server = server.start().0;
            let look_up = |name: &CStr| server.symbols.get(name).copied().unwrap_or_default();
            // SAFETY: as in `FakeServer::load`.
            let service = unsafe { LogBuiltins::find(&look_up, registry) };
            assert_eq!(service.is_some(), is_known);
            let Some(service) = service else { continue };
            let text = "no reason ".repeat(60);
            service.write_load_line(log::Level::Error, &text);
            let lines = std::mem::take(&mut *LINES.lock().expect("no panic"));
            let [(items, line)] = &lines[..] else { panic!("one line") };
            assert_eq!(items[..], [1, 0x10000, 2, 0x200, 0x400, 0x40000, 1, 13272]);
            assert_eq!(*line, format!("Plugin Clone reported: 'Client: {text}.'"));
        }
    }

    #[test]
    fn a_server_without_log_services_gets_plain_lines() {
        let mut server = mysql_8_0_36();
        server.services.remove(c"log_builtins.mysql_server");
        let server = server.start().0;
        let look_up = |name: &CStr| server.symbols.get(name).copied().unwrap_or_default();
        // SAFETY: as in `FakeServer::load`.
        assert!(unsafe { LogBuiltins::find(&look_up, registry) }.is_none());
    }

    /// A debug server has other forms of both functions; one of each kind is no server.
    #[test]
    fn half_a_debug_server_is_refused() {
        let mut server = mysql_8_0_36();
        server.symbols.insert(names::FOREACH_DEBUG, for_each_plugin as *mut c_void);
        let (_, unlock) = names::with_plugin_ref(PluginRef::Indirect);
        assert!(refusal(server).ends_with(unlock.to_str().expect("ASCII")));
    }

    #[test]
    fn missing_column_services_are_refused() {
        let columns = |server: FakeServer| Columns::acquire(&server.registry()?);
        for name in [
            c"pfs_plugin_column_integer_v1",
            c"pfs_plugin_column_bigint_v1",
            c"pfs_plugin_column_timestamp_v2",
        ] {
            let mut server = mysql_8_0_36();
            server.services.remove(name);
            assert_eq!(columns(server).err(), Some(LoadError::MissingService(name)));
            let mut server = mysql_8_0_36();
            server.services.get_mut(name).expect("a service").fill(ptr::null());
            let slot = LoadError::EmptySlot { service: name, slot: 1 };
            assert_eq!(columns(server).err(), Some(slot));
        }
        // The older service of strings will do; without text there are shorter GTID sets.
        let mut server = mysql_8_0_36();
        server.services.remove(c"pfs_plugin_column_string_v2");
        let oldest = LoadError::MissingService(c"pfs_plugin_column_string_v1");
        assert_eq!(columns(server).err(), Some(oldest));
        let mut server = mysql_8_0_36();
        let slots = server.services.remove(c"pfs_plugin_column_string_v2").expect("a service");
        server.services.insert(c"pfs_plugin_column_string_v1", slots);
        server.services.remove(c"pfs_plugin_column_text_v1");
        assert!(columns(server).is_ok_and(|columns| !columns.has_text()));
        assert!(columns(mysql_8_0_36()).is_ok_and(|columns| columns.has_text()));
    }
}
