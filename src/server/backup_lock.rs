// SPDX-License-Identifier: GPL-2.0-only

//! The backup lock, which keeps DDL out, but not DML. Several sessions can hold it, LOCK INSTANCE
//! FOR BACKUP among them.

use std::ffi::c_ulong;
use std::sync::Arc;

use super::abi;
use super::load_error::LoadError;
use super::registry::{Registry, Service};
use super::thd::Thd;

/// The service `mysql_backup_lock`.
pub(crate) struct BackupLock {
    service: Service,
}

impl BackupLock {
    pub(super) fn acquire(registry: &Arc<Registry>) -> Result<Self, LoadError> {
        Ok(Self { service: registry.service(c"mysql_backup_lock")? })
    }

    /// Takes the lock for `thd`, waiting at most `timeout` seconds. Returns whether it was taken.
    /// If not, 1205 or 1317 is raised.
    pub(crate) fn lock(&self, thd: Thd<'_>, timeout: u32) -> bool {
        let Some(acquire) = self.table().acquire else { return false };
        let (kind, timeout) = (abi::BACKUP_LOCK_SERVICE_DEFAULT, c_ulong::from(timeout));
        // SAFETY: a living session.
        unsafe { acquire(thd.as_ptr(), kind, timeout) == 0 }
    }

    /// Releases all backup locks of `thd`.
    pub(crate) fn unlock(&self, thd: Thd<'_>) {
        if let Some(release) = self.table().release {
            // SAFETY: a living session.
            unsafe { release(thd.as_ptr()) };
        }
    }

    fn table(&self) -> &abi::s_mysql_backup_lock {
        // SAFETY: include/mysql/components/services/backup_lock_service.h; the same two methods
        // in all versions.
        unsafe { self.service.table() }
    }
}
