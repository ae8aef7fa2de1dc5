// SPDX-License-Identifier: GPL-2.0-only

//! Tables of the plugin in performance_schema.
//!
//! A table is a type that implements [`Table`]. Each statement that opens it gets a cursor of its
//! own, which takes a snapshot when a scan begins; the stock plugin has one cursor for all, so that
//! concurrent statements disturb each other.

mod columns;
mod cursor;
mod table;

use std::ffi::{c_int, c_uint};
use std::ptr;
use std::sync::Arc;

use super::abi;
use super::load_error::LoadError;
use super::pin::pin;
use super::registry::{Registry, Service};
use super::thd::has_session;

pub(super) use columns::Columns;
use columns::set_columns;
pub(crate) use table::{Snapshot, Table, Value};

/// Tables that performance_schema has. Dropping this removes them, waiting for those who read them;
/// it needs a session on the thread, which `deinit` has.
pub(crate) struct RegisteredTables {
    service: Service,
    /// mysqld keeps the addresses of the names in these as long as it has the tables.
    shares: Vec<abi::PFS_engine_table_share_proxy>,
}

// SAFETY: what the shares point to is static: functions of this library and names.
unsafe impl Send for RegisteredTables {}

/// The tables that are to be added together.
pub(crate) struct Tables {
    registry: Arc<Registry>,
    columns: Arc<Columns>,
    shares: Vec<abi::PFS_engine_table_share_proxy>,
}

impl Tables {
    /// No tables yet. Acquires performance_schema's services.
    pub(crate) fn new() -> Result<Self, LoadError> {
        let registry = Registry::acquire()?;
        let columns = Arc::new(Columns::acquire(&registry)?);
        Ok(Self { registry, columns, shares: Vec::new() })
    }

    /// Adds the table `T`.
    pub(crate) fn with<T: Table>(mut self) -> Self {
        self.shares.push(share::<T>(self.columns.has_text()));
        self
    }

    /// Hands the tables over, which creates them in the data dictionary. This needs a session on
    /// the thread.
    pub(crate) fn register(mut self) -> Result<RegisteredTables, LoadError> {
        if !has_session() {
            return Err(LoadError::PfsTables(1));
        }
        let service = self.registry.service(c"pfs_plugin_table_v1")?;
        set_columns(Some(Arc::clone(&self.columns)));
        match call(&service, &mut self.shares, table(&service).add_tables) {
            0 => Ok(RegisteredTables { service, shares: self.shares }),
            code => {
                set_columns(None);
                Err(LoadError::PfsTables(code))
            }
        }
    }
}

impl Drop for RegisteredTables {
    fn drop(&mut self) {
        let code = call(&self.service, &mut self.shares, table(&self.service).delete_tables);
        if code == 0 {
            set_columns(None);
        } else {
            // performance_schema still has pointers to the callbacks and to the names.
            pin();
            std::mem::forget(std::mem::take(&mut self.shares));
        }
    }
}

fn table(service: &Service) -> &abi::s_mysql_pfs_plugin_table_v1 {
    // SAFETY: pfs_plugin_table_v1 is the only service this module calls it with; its beginning
    // never changed.
    unsafe { service.table() }
}

type TablesMethod =
    Option<unsafe extern "C" fn(*mut *mut abi::PFS_engine_table_share_proxy, c_uint) -> c_int>;

fn call(
    _held: &Service,
    shares: &mut [abi::PFS_engine_table_share_proxy],
    method: TablesMethod,
) -> c_int {
    let Some(method) = method else { return 1 };
    let mut pointers: Vec<*mut abi::PFS_engine_table_share_proxy> =
        shares.iter_mut().map(ptr::from_mut).collect();
    let count = u32::try_from(pointers.len()).unwrap_or(0);
    // SAFETY: an array of so many pointers to shares, which outlive the tables.
    unsafe { method(pointers.as_mut_ptr(), count) }
}

fn share<T: Table>(has_text: bool) -> abi::PFS_engine_table_share_proxy {
    unsafe extern "C" fn row_count<T: Table>() -> u64 {
        T::ROWS
    }
    abi::PFS_engine_table_share_proxy {
        m_proxy_engine_table: cursor::callbacks::<T>(),
        m_table_name: T::NAME.as_ptr(),
        m_table_name_length: u32::try_from(T::NAME.count_bytes()).unwrap_or(0),
        m_table_definition: T::columns(has_text).as_ptr(),
        m_ref_length: cursor::REF_LENGTH,
        m_acl: abi::PFS_READONLY.unsigned_abs(),
        delete_all_rows: None,
        get_row_count: Some(row_count::<T>),
    }
}
