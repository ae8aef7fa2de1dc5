// SPDX-License-Identifier: GPL-2.0-only

//! The backup lock, which keeps DDL (and LOCK INSTANCE FOR BACKUP) out, but not DML.

use std::ffi::c_ulong;
use std::sync::Arc;

use super::abi;
use super::load_error::LoadError;
use super::registry::Registry;
use super::registry::Service;
use super::services::services;
use super::thd::Thd;

/// The service `mysql_backup_lock`.
pub(crate) struct BackupLock {
    service: Service,
}

impl BackupLock {
    pub(super) fn acquire(registry: &Arc<Registry>) -> Result<Self, LoadError> {
        Ok(Self { service: registry.service(c"mysql_backup_lock")? })
    }

    fn table(&self) -> &abi::s_mysql_backup_lock {
        // SAFETY: include/mysql/components/services/backup_lock_service.h; the same two methods in all versions.
        unsafe { self.service.table() }
    }
}

/// Takes the lock for `thd`, waiting at most `timeout` seconds. Whether it was taken; if not, 1205 or 1317 is raised.
pub(crate) fn acquire(thd: Thd, timeout: u32) -> bool {
    let services = services();
    let Some(acquire) = services.backup_lock.table().acquire else { return false };
    // SAFETY: a living session.
    unsafe { acquire(thd.as_ptr(), abi::BACKUP_LOCK_SERVICE_DEFAULT, c_ulong::from(timeout)) == 0 }
}

/// Releases all backup locks of `thd`.
pub(crate) fn release(thd: Thd) {
    let services = services();
    if let Some(release) = services.backup_lock.table().release {
        // SAFETY: a living session.
        unsafe { release(thd.as_ptr()) };
    }
}
