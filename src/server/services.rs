// SPDX-License-Identifier: GPL-2.0-only

//! The services that mysqld lends to the plugin from `init` to `deinit`.

use std::ffi::CStr;
use std::ffi::c_void;
use std::ptr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering;

use super::abi;
use super::abi::Function;
use super::abi::Nullable;
use super::backup_lock::BackupLock;
use super::error_log::Level;
use super::error_log::Log;
use super::error_log::Trace;
use super::handlerton;
use super::load_error::LoadError;
use super::protocol::CloneProtocol;
use super::releases::Layout;
use super::releases::Probes;
use super::symbols;
use super::symbols::LookUp;
use super::symbols::Symbols;
use super::version::ServerVersion;

/// All that the plugin calls, and what is known of the server that it calls. Dropping it releases the services.
pub(crate) struct Services {
    pub(crate) version: ServerVersion,
    pub(crate) layout: Layout,
    pub(crate) symbols: &'static Symbols,
    pub(crate) clone_protocol: CloneProtocol,
    pub(crate) backup_lock: BackupLock,
    pub(crate) log: Log,
    /// Offset of `clone_interface` in a handlerton, as found in InnoDB's.
    pub(crate) clone_interface: usize,
}

impl Services {
    /// Acquires everything. To be called on a thread of mysqld, when InnoDB is up.
    pub(crate) fn acquire() -> Result<Self, LoadError> {
        Self::find(Symbols::load()?, &symbols::look_up, Registry::acquire)
    }

    /// As [`Services::acquire`]: `look_up` gives the addresses of names, as it did for `symbols`.
    pub(super) fn find(
        symbols: &'static Symbols,
        look_up: LookUp<'_>,
        registry: impl FnOnce() -> Result<Arc<Registry>, LoadError>,
    ) -> Result<Self, LoadError> {
        // The version first: it says what may be called.
        let version = symbols.server_version()?;
        let layout = Layout::for_version(&version, Probes::ask(|name| !look_up(name).is_null()))?;
        let registry = registry()?;
        Ok(Self {
            clone_protocol: CloneProtocol::acquire(&registry, &layout.clone_protocol)?,
            backup_lock: BackupLock::acquire(&registry)?,
            log: Log::acquire(&registry, layout.log_message)?,
            clone_interface: handlerton::find_clone_interface(symbols)?,
            version,
            layout,
            symbols,
        })
    }

    /// What was found out about this server, for those who run one that we have not seen: one line.
    fn facts(&self) -> String {
        let Layout { log_message, clone_protocol, .. } = &self.layout;
        let has = |slot: Option<usize>| slot.map_or("no".to_owned(), |slot| format!("slot {slot}"));
        format!(
            "mysql-clone {} in MySQL {}: clone_interface at {:#x}, log_builtins.message in slot {log_message}, \
             clone_protocol.validate_version in {}, connect in slot {}, plugin records {:?}",
            env!("CARGO_PKG_VERSION"),
            self.version,
            self.clone_interface,
            has(clone_protocol.validate_version),
            clone_protocol.connect,
            self.symbols.plugin_ref,
        )
    }

    /// Says where this server is not as its version should be.
    fn surprise(&self) -> Option<String> {
        let (found, expected) = (self.clone_interface, self.layout.clone_interface?);
        (found != expected).then(|| {
            let version = &self.version;
            format!("Clone interface of {version} found at {found:#x} of a handlerton instead of {expected:#x}")
        })
    }
}

static SERVICES: RwLock<Option<Arc<Services>>> = RwLock::new(None);

/// Makes `services` what [`services`] returns, on all threads. A server that is not quite the one that its version says,
/// such as a vendor's, is mentioned in the error log.
pub(crate) fn install(services: Services) {
    services.log.write(Level::Information, Trace::Client, &services.facts());
    if let Some(text) = services.surprise() {
        services.log.write(Level::Warning, Trace::Client, &text);
    }
    *SERVICES.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(services));
}

/// Ends what [`install`] began. The services are released when the last that holds them lets go.
pub(crate) fn uninstall() {
    *SERVICES.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The services, `None` before [`install`] and after [`uninstall`].
pub(crate) fn try_services() -> Option<Arc<Services>> {
    SERVICES.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The services.
///
/// # Panics
/// Before [`install`] and after [`uninstall`]. mysqld calls nothing of the plugin but `init` and `deinit` then.
pub(crate) fn services() -> Arc<Services> {
    try_services().expect("mysqld calls the plugin only between init and deinit")
}

/// mysqld replaces the version in this variable by the address of a table when it loads the library
/// (`sql/sql_plugin.cc:plugin_dl_add`), which finds the variable by its name.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static plugin_registry_service: AtomicPtr<abi::plugin_registry_service_st> =
    AtomicPtr::new(ptr::without_provenance_mut(abi::PLUGIN_SERVICE_VERSION as usize));

/// A reference to the registry of component services.
pub(crate) struct Registry {
    table: NonNull<abi::s_mysql_registry>,
    release: Option<unsafe extern "C" fn(*mut abi::s_mysql_registry) -> std::ffi::c_int>,
}

// SAFETY: the registry has its own locks (`components/libminchassis/registry.cc`), and its table is constant.
unsafe impl Send for Registry {}
// SAFETY: as above.
unsafe impl Sync for Registry {}

impl Registry {
    /// Takes a reference through the plugin service.
    pub(crate) fn acquire() -> Result<Arc<Self>, LoadError> {
        Self::from_plugin_service(plugin_registry_service.load(Ordering::Acquire))
    }

    /// Takes a reference through `service`, which mysqld has written where the version of the plugin service was.
    pub(super) fn from_plugin_service(
        service: *mut abi::plugin_registry_service_st,
    ) -> Result<Arc<Self>, LoadError> {
        if service.addr() == abi::PLUGIN_SERVICE_VERSION as usize {
            return Err(LoadError::NotLoadedByServer);
        }
        // SAFETY: mysqld has put the address of its table there, which it never unmaps.
        let service = unsafe { service.as_ref() }.ok_or(LoadError::NotLoadedByServer)?;
        let acquire = service.acquire.ok_or(LoadError::NotLoadedByServer)?;
        // SAFETY: without conditions; include/mysql/service_plugin_registry.h.
        let table = NonNull::new(unsafe { acquire() }).ok_or(LoadError::NotLoadedByServer)?;
        Ok(Arc::new(Self { table, release: service.release }))
    }

    /// Acquires the service `name`.
    pub(crate) fn service(self: &Arc<Self>, name: &'static CStr) -> Result<Service, LoadError> {
        let missing = LoadError::MissingService(name);
        let mut handle: abi::my_h_service = ptr::null_mut();
        let Some(acquire) = self.methods().acquire else { return Err(missing) };
        // SAFETY: a terminated name, and a place for the handle.
        let failed = unsafe { acquire(name.as_ptr(), &raw mut handle) } != 0;
        match NonNull::new(handle) {
            Some(table) if !failed => Ok(Service { name, table, registry: Arc::clone(self) }),
            _ => Err(missing),
        }
    }

    /// Where the program begins that the registry is in.
    fn program(&self) -> Option<usize> {
        self.methods().acquire.and_then(|acquire| symbols::program_of(acquire as *const c_void))
    }

    fn methods(&self) -> &abi::s_mysql_registry {
        // SAFETY: alive and constant until the reference is released in drop.
        unsafe { self.table.as_ref() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the reference that `acquire` took; every service holds the registry, so all are released.
            unsafe { release(self.table.as_ptr()) };
        }
    }
}

/// A reference to a service: a constant table of functions that any thread may call.
pub(crate) struct Service {
    name: &'static CStr,
    table: NonNull<c_void>,
    registry: Arc<Registry>,
}

// SAFETY: the table is constant. What its functions ask of their callers is for those who call them.
unsafe impl Send for Service {}
// SAFETY: as above.
unsafe impl Sync for Service {}

impl Service {
    /// The method in `slot`. It may be called as long as the service is held. A function that is not in the program that the
    /// registry is in, which is mysqld, is not a method of its services.
    ///
    /// # Safety
    /// The service has more than `slot` slots, and this one is a function of type `T`.
    pub(crate) unsafe fn method<T: Nullable>(&self, slot: usize) -> Result<Function<T>, LoadError> {
        let slots: *const *const c_void = self.table.as_ptr().cast_const().cast();
        // SAFETY: inside the table, by the caller's promise.
        let address = unsafe { slots.add(slot) };
        // SAFETY: as above, and tables are aligned arrays of pointers.
        let method = unsafe { *address };
        if !method.is_null() && symbols::program_of(method) != self.registry.program() {
            return Err(LoadError::ForeignSlot { service: self.name, slot });
        }
        // SAFETY: the type is the caller's promise.
        unsafe { abi::function_at::<T>(method) }
            .ok_or(LoadError::EmptySlot { service: self.name, slot })
    }

    /// The table.
    ///
    /// # Safety
    /// The service's table begins as `T` does.
    pub(crate) unsafe fn table<T>(&self) -> &T {
        // SAFETY: alive and constant while the service is held; the type is the caller's promise.
        unsafe { self.table.cast().as_ref() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(release) = self.registry.methods().release {
            // SAFETY: the handle that the registry gave out, released once.
            unsafe { release(self.table.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_mysqld_there_is_no_registry() {
        assert_eq!(plugin_registry_service.load(Ordering::Relaxed).addr(), 0x0100);
        assert_eq!(Registry::acquire().err(), Some(LoadError::NotLoadedByServer));
    }
}
