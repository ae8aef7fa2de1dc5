// SPDX-License-Identifier: GPL-2.0-only

//! The registry of component services, and references to what it has.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::abi::{self, Function, Nullable};
use super::load_error::LoadError;
use super::symbols;

/// mysqld replaces the version in this variable by the address of a table when it loads the library
/// (`sql/sql_plugin.cc:plugin_dl_add`), which finds the variable by its name.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static plugin_registry_service: AtomicPtr<abi::plugin_registry_service_st> =
    AtomicPtr::new(ptr::without_provenance_mut(abi::PLUGIN_SERVICE_VERSION as usize));

/// A reference to the registry of component services.
pub(crate) struct Registry {
    table: NonNull<abi::s_mysql_registry>,
    release: Option<unsafe extern "C" fn(*mut abi::s_mysql_registry) -> c_int>,
    /// The addresses of the program that the registry is in: mysqld's.
    program: Range<usize>,
}

// SAFETY: the registry has its own locks (`components/libminchassis/registry.cc`), and its table is
// constant.
unsafe impl Send for Registry {}
// SAFETY: as above.
unsafe impl Sync for Registry {}

impl Registry {
    /// Takes a reference through the plugin service.
    pub(crate) fn acquire() -> Result<Arc<Self>, LoadError> {
        Self::from_plugin_service(plugin_registry_service.load(Ordering::Acquire))
    }

    /// Takes a reference through `service`, which mysqld has written where the version of the
    /// plugin service was.
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
        let program = symbols::program_of(acquire as *const c_void).unwrap_or_default();
        Ok(Arc::new(Self { table, release: service.release, program }))
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

    fn methods(&self) -> &abi::s_mysql_registry {
        // SAFETY: alive and constant until the reference is released in drop.
        unsafe { self.table.as_ref() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the reference that `acquire` took; every service holds the registry, so all
            // are released.
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

// SAFETY: the table is constant. Each call of one of its functions has a SAFETY comment of its own.
unsafe impl Send for Service {}
// SAFETY: as above.
unsafe impl Sync for Service {}

impl Service {
    /// The method in `slot`. It may be called as long as the service is held. A method must be a
    /// function of mysqld, the program that has the registry. Any other address is refused.
    ///
    /// # Safety
    /// The service has more than `slot` slots, and this one is a function of type `T`.
    pub(crate) unsafe fn method<T: Nullable>(&self, slot: usize) -> Result<Function<T>, LoadError> {
        let slots: *const *const c_void = self.table.as_ptr().cast_const().cast();
        // SAFETY: inside the table, by the caller's promise.
        let address = unsafe { slots.add(slot) };
        // SAFETY: as above, and tables are aligned arrays of pointers.
        let method = unsafe { *address };
        if !method.is_null() && !self.registry.program.contains(&method.addr()) {
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
