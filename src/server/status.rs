// SPDX-License-Identifier: GPL-2.0-only

//! Status variables of a session, over [`STATUS_VARIABLES`]: a reader that keeps its strings behind
//! handles of two other services.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Arc;

use super::abi::{Function, THD};
use super::registry::{Registry, Service};
use super::releases::STATUS_VARIABLES;
use super::thd::Thd;

/// `include/mysql/components/services/mysql_status_variable_reader.h:mysql_status_variable_string`,
/// slot 0. False is success.
type GetFn = Option<unsafe extern "C" fn(*mut THD, *const c_char, bool, *mut *mut c_void) -> bool>;
/// `include/mysql/components/services/mysql_string.h:mysql_string_factory`, slot 1.
type DestroyFn = Option<unsafe extern "C" fn(*mut c_void)>;
/// `mysql_string.h:mysql_string_converter`, slot 1: to a buffer of so many bytes, in this character
/// set. False is success.
type ConvertFn = Option<unsafe extern "C" fn(*mut c_void, *mut c_char, u64, *const c_char) -> bool>;

/// The methods.
pub(crate) struct StatusReader {
    get: Function<GetFn>,
    destroy: Function<DestroyFn>,
    convert: Function<ConvertFn>,
    _services: [Service; 3],
}

impl StatusReader {
    /// None from servers that lack one of the services.
    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about a list")]
    pub(super) fn acquire(registry: &Arc<Registry>) -> Option<Self> {
        let [status, factory, converter] = STATUS_VARIABLES;
        let status = registry.service(status).ok()?;
        let factory = registry.service(factory).ok()?;
        let converter = registry.service(converter).ok()?;
        // SAFETY: the slots and types of the headers named above, which have been the same since
        // the services exist.
        let (get, destroy, convert) = unsafe {
            (
                status.method::<GetFn>(0).ok()?,
                factory.method::<DestroyFn>(1).ok()?,
                converter.method::<ConvertFn>(1).ok()?,
            )
        };
        Some(Self { get, destroy, convert, _services: [status, factory, converter] })
    }

    /// The value of `name` in the session.
    fn read(&self, thd: Thd<'_>, name: &CStr) -> Option<String> {
        let mut handle = ptr::null_mut();
        // SAFETY: the session of this thread, a terminated name, and a place for the handle.
        let failed = unsafe { (self.get)(thd.as_ptr(), name.as_ptr(), false, &raw mut handle) };
        if handle.is_null() {
            return None;
        }
        let mut text = [0_u8; 256];
        let charset = c"utf8mb4";
        // SAFETY: a handle that the service gave, and a buffer of more bytes than are named, so
        // that a NUL is left at its end.
        let not_converted = failed
            || unsafe {
                (self.convert)(
                    handle,
                    text.as_mut_ptr().cast(),
                    text.len() as u64 - 1,
                    charset.as_ptr(),
                )
            };
        // SAFETY: the handle is given back once and not used any more.
        unsafe { (self.destroy)(handle) };
        if not_converted {
            return None;
        }
        CStr::from_bytes_until_nul(&text).ok()?.to_str().ok().map(str::to_owned)
    }

    /// Whether the connection of `thd`, which must be this thread's, has neither TLS nor
    /// compression: what is written to its socket is what the client reads. False if that cannot
    /// be found out.
    pub(crate) fn is_plain(&self, thd: Thd<'_>) -> bool {
        let cipher = self.read(thd, c"Ssl_cipher");
        let compression = self.read(thd, c"Compression");
        cipher.as_deref() == Some("") && compression.as_deref() == Some("OFF")
    }
}
