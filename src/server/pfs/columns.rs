// SPDX-License-Identifier: GPL-2.0-only

//! The services that store a value into a column.

use std::ffi::{c_char, c_uint};
use std::sync::{Arc, PoisonError, RwLock};

use super::table::Value;
use crate::server::abi;
use crate::server::load_error::LoadError;
use crate::server::registry::{Registry, Service};
use crate::server::releases::{STRING_COLUMNS, StringColumns, TEXT_COLUMN};

/// What the cursors of all tables fill columns with. The callbacks get no other context than the
/// cursor.
static COLUMNS: RwLock<Option<Arc<Columns>>> = RwLock::new(None);

pub(super) fn set_columns(columns: Option<Arc<Columns>>) {
    *COLUMNS.write().unwrap_or_else(PoisonError::into_inner) = columns;
}

/// The columns, as long as performance_schema has tables.
pub(super) fn columns() -> Option<Arc<Columns>> {
    COLUMNS.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Stores bytes.
type SetBytes = unsafe extern "C" fn(*mut abi::PSI_field, *const c_char, c_uint);

/// One setter for each type of column.
pub(in crate::server) struct Columns {
    integer: unsafe extern "C" fn(*mut abi::PSI_field, abi::PSI_ulong),
    bigint: unsafe extern "C" fn(*mut abi::PSI_field, abi::PSI_ulonglong),
    char: SetBytes,
    varchar: SetBytes,
    /// Stores a terminated text. The setter with a length makes NULL of an empty one.
    empty_varchar: Option<unsafe extern "C" fn(*mut abi::PSI_field, *const c_char)>,
    timestamp: unsafe extern "C" fn(*mut abi::PSI_field, u64),
    text: Option<SetBytes>,
    _services: Vec<Service>,
}

impl Columns {
    pub(in crate::server) fn acquire(registry: &Arc<Registry>) -> Result<Self, LoadError> {
        let integer = registry.service(c"pfs_plugin_column_integer_v1")?;
        let bigint = registry.service(c"pfs_plugin_column_bigint_v1")?;
        let timestamp = registry.service(c"pfs_plugin_column_timestamp_v2")?;
        let Strings { service: string, char, varchar, empty_varchar } = strings(registry)?;
        let text = registry.service(TEXT_COLUMN).ok();
        let slot = |service, slot| LoadError::EmptySlot { service, slot };
        Ok(Self {
            // SAFETY: the table of this name.
            integer: unsafe { integer.table::<abi::s_mysql_pfs_plugin_column_integer_v1>() }
                .set_unsigned
                .ok_or(slot(c"pfs_plugin_column_integer_v1", 1))?,
            // SAFETY: the table of this name.
            bigint: unsafe { bigint.table::<abi::s_mysql_pfs_plugin_column_bigint_v1>() }
                .set_unsigned
                .ok_or(slot(c"pfs_plugin_column_bigint_v1", 1))?,
            char,
            varchar,
            empty_varchar,
            // SAFETY: the table of this name.
            timestamp: unsafe { timestamp.table::<abi::s_mysql_pfs_plugin_column_timestamp_v2>() }
                .set2
                .ok_or(slot(c"pfs_plugin_column_timestamp_v2", 1))?,
            text: text.as_ref().and_then(|service| {
                // SAFETY: the table of this name.
                unsafe { service.table::<abi::s_mysql_pfs_plugin_column_text_v1>() }.set
            }),
            _services: [integer, bigint, timestamp, string].into_iter().chain(text).collect(),
        })
    }

    /// Whether a `longtext` can be filled.
    pub(in crate::server) fn has_text(&self) -> bool {
        self.text.is_some()
    }

    /// Stores `value`.
    ///
    /// # Safety
    /// `field` is the column of the row that mysqld is reading, and of the value's type.
    pub(super) unsafe fn store(&self, field: *mut abi::PSI_field, value: Value<'_>) {
        let bytes = |set: SetBytes, text: &str| {
            let length = c_uint::try_from(text.len()).unwrap_or(c_uint::MAX);
            // SAFETY: the field by the caller's promise; bytes and their length, which are copied.
            unsafe { set(field, text.as_ptr().cast(), length) };
        };
        match value {
            // Every type of field takes NULL this way
            // (storage/perfschema/pfs_plugin_table.cc:set_field_uinteger_v1).
            // SAFETY: the field by the caller's promise.
            Value::Null => unsafe {
                (self.integer)(field, abi::PSI_ulong { val: 0, is_null: true })
            },
            Value::UnsignedInt(value) => {
                let value = abi::PSI_ulong { val: u64::from(value), is_null: false };
                // SAFETY: the field by the caller's promise.
                unsafe { (self.integer)(field, value) };
            }
            Value::UnsignedBigInt(val) => {
                // SAFETY: the field by the caller's promise.
                unsafe { (self.bigint)(field, abi::PSI_ulonglong { val, is_null: false }) };
            }
            Value::Char(text) => bytes(self.char, text),
            Value::Varchar("") if let Some(set) = self.empty_varchar => {
                // SAFETY: the field by the caller's promise; a terminated text.
                unsafe { set(field, c"".as_ptr()) };
            }
            Value::Varchar(text) => bytes(self.varchar, text),
            // SAFETY: the field by the caller's promise.
            Value::TimestampMicros(micros) => unsafe { (self.timestamp)(field, micros) },
            Value::Text(text) => match self.text {
                Some(set) => bytes(set, text),
                // SAFETY: the field by the caller's promise, a varchar then.
                None => unsafe { self.store(field, Value::Varchar(text)) },
            },
        }
    }
}

/// Setters for CHAR and VARCHAR.
struct Strings {
    service: Service,
    char: SetBytes,
    varchar: SetBytes,
    empty_varchar: Option<unsafe extern "C" fn(*mut abi::PSI_field, *const c_char)>,
}

/// Acquires the newest service that this server has.
fn strings(registry: &Arc<Registry>) -> Result<Strings, LoadError> {
    let mut missing = LoadError::NotLoadedByServer;
    for (name, form) in STRING_COLUMNS {
        let service = match registry.service(name) {
            Ok(service) => service,
            Err(error) => {
                missing = error;
                continue;
            }
        };
        let (char, varchar, empty_varchar) = match form {
            StringColumns::V2 => {
                // SAFETY: the table of this name.
                let table = unsafe { service.table::<abi::s_mysql_pfs_plugin_column_string_v2>() };
                (table.set_char_utf8mb4, table.set_varchar_utf8mb4_len, table.set_varchar_utf8mb4)
            }
            StringColumns::V1 => {
                // SAFETY: the table of this name.
                let table = unsafe { service.table::<abi::s_mysql_pfs_plugin_column_string_v1>() };
                (table.set_char_utf8, table.set_varchar_utf8mb4_len, table.set_varchar_utf8mb4)
            }
        };
        return match (char, varchar) {
            (Some(char), Some(varchar)) => Ok(Strings { service, char, varchar, empty_varchar }),
            _ => Err(LoadError::EmptySlot { service: name, slot: 0 }),
        };
    }
    Err(missing)
}
