// SPDX-License-Identifier: GPL-2.0-only

//! The service `clone_protocol`: sessions, the parameters that donor and recipient compare, and the
//! methods that [`super::connection`] and [`super::donor`] talk through. Learned from
//! `sql/server_component/clone_protocol_service.cc`.

use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::abi;
use super::abi::Function;
use super::load_error::LoadError;
use super::registry::Registry;
use super::registry::Service;
use super::releases::CloneProtocolSlots;
use super::shim;
use super::text::lossy;
use super::thd::{Thd, has_session};

/// The methods, in the slots that this server has them in.
pub(crate) struct CloneProtocol {
    start_statement: Function<abi::clone_start_statement_fn>,
    finish_statement: Function<abi::clone_finish_statement_fn>,
    get_charsets: shim::Method,
    validate_charsets: shim::Method,
    get_configs: shim::Method,
    validate_configs: shim::Method,
    validate_version: Option<shim::Method>,
    pub(super) connect: Function<abi::clone_connect_fn>,
    pub(super) send_command: Function<abi::clone_send_command_fn>,
    pub(super) get_response: Function<abi::clone_get_response_fn>,
    pub(super) kill: Function<abi::clone_kill_fn>,
    pub(super) disconnect: Function<abi::clone_disconnect_fn>,
    get_error: Function<abi::clone_get_error_fn>,
    pub(super) get_command: Function<abi::clone_get_command_fn>,
    pub(super) send_response: Function<abi::clone_send_response_fn>,
    pub(super) send_error: Function<abi::clone_send_error_fn>,
    _service: Service,
}

impl CloneProtocol {
    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise about a list")]
    pub(super) fn acquire(
        registry: &Arc<Registry>,
        slots: &CloneProtocolSlots,
    ) -> Result<Self, LoadError> {
        let service = registry.service(c"clone_protocol")?;
        // SAFETY: the layout vouches for the slots, and include/server_services.h for their types.
        unsafe {
            Ok(Self {
                start_statement: service
                    .method::<abi::clone_start_statement_fn>(slots.start_statement)?,
                finish_statement: service
                    .method::<abi::clone_finish_statement_fn>(slots.finish_statement)?,
                get_charsets: service.method::<abi::clone_shim_method>(slots.get_charsets)?,
                validate_charsets: service
                    .method::<abi::clone_shim_method>(slots.validate_charsets)?,
                get_configs: service.method::<abi::clone_shim_method>(slots.get_configs)?,
                validate_configs: service
                    .method::<abi::clone_shim_method>(slots.validate_configs)?,
                validate_version: match slots.validate_version {
                    Some(slot) => Some(service.method::<abi::clone_shim_method>(slot)?),
                    None => None,
                },
                connect: service.method::<abi::clone_connect_fn>(slots.connect)?,
                send_command: service.method::<abi::clone_send_command_fn>(slots.send_command)?,
                get_response: service.method::<abi::clone_get_response_fn>(slots.get_response)?,
                kill: service.method::<abi::clone_kill_fn>(slots.kill)?,
                disconnect: service.method::<abi::clone_disconnect_fn>(slots.disconnect)?,
                get_error: service.method::<abi::clone_get_error_fn>(slots.get_error)?,
                get_command: service.method::<abi::clone_get_command_fn>(slots.get_command)?,
                send_response: service
                    .method::<abi::clone_send_response_fn>(slots.send_response)?,
                send_error: service.method::<abi::clone_send_error_fn>(slots.send_error)?,
                _service: service,
            })
        }
    }

    /// Makes the running statement of `thd` appear in performance_schema as the one that was
    /// registered as `statement_key`. 0 changes nothing.
    pub(crate) fn start_statement(&self, thd: Thd<'_>, statement_key: u32) {
        let mut thd = thd.as_ptr();
        // SAFETY: a living session; it stays the same because it is not NULL, and 0 is no thread
        // key.
        unsafe { (self.start_statement)(&raw mut thd, 0, statement_key) };
    }

    /// Creates a background session for this thread, which has none. performance_schema shows it
    /// as `thread_key`, or not at all for 0.
    pub(crate) fn start_session(self: &Arc<Self>, thread_key: u32) -> Option<BackgroundSession> {
        debug_assert!(!has_session(), "this thread has a session");
        let mut thd = ptr::null_mut();
        // SAFETY: NULL asks for a new session, whose address the method writes to the variable.
        unsafe { (self.start_statement)(&raw mut thd, thread_key, 0) };
        let thd = NonNull::new(thd)?;
        Some(BackgroundSession { thd, protocol: Arc::clone(self) })
    }

    /// The names of all collations of this server.
    pub(crate) fn collations(&self, thd: Thd<'_>) -> Result<Vec<String>, u32> {
        // SAFETY: the method that the shim names.
        unsafe { shim::get_charsets(self.get_charsets, thd) }
    }

    /// Raises 3867 for each collation that this server does not have.
    pub(crate) fn validate_collations(&self, thd: Thd<'_>, names: &[String]) -> Result<(), u32> {
        // SAFETY: the method that the shim names.
        unsafe { shim::validate_charsets(self.validate_charsets, thd, names) }
    }

    /// The global values of system variables, in the order of `names`. An unknown name raises
    /// 1815.
    pub(crate) fn configs(&self, thd: Thd<'_>, names: &[&str]) -> Result<Vec<String>, u32> {
        // SAFETY: the method that the shim names.
        unsafe { shim::get_configs(self.get_configs, thd, names) }
    }

    /// Compares system variables with the donor's values. Raises 3865 or 3866 and stops for
    /// another operating system or processor, and raises 3868 for every other variable that
    /// differs. Servers for which [`CloneProtocol::validate_version`] returns `None`, and no
    /// others, compare `version` here (3864).
    pub(crate) fn validate_configs(
        &self,
        thd: Thd<'_>,
        configs: &[(String, String)],
    ) -> Result<(), u32> {
        // SAFETY: the method that the shim names.
        unsafe { shim::validate_configs(self.validate_configs, thd, configs) }
    }

    /// Whether a clone from `donor` to `recipient` (both `major.minor.patch[-suffix]`) is
    /// allowed; raises 3864 if not. `None` from servers that have no such method.
    pub(crate) fn validate_version(
        &self,
        recipient: &str,
        donor: &str,
        recipient_lts: bool,
        donor_lts: bool,
    ) -> Option<Result<(), u32>> {
        let method = self.validate_version?;
        // SAFETY: `releases.rs` gives this slot only to servers whose method has four arguments.
        Some(unsafe { shim::validate_version(method, recipient, donor, recipient_lts, donor_lts) })
    }

    /// The error that stands in the diagnostics area of `thd`: the last that was raised and not
    /// cleared.
    pub(crate) fn error(&self, thd: Thd<'_>) -> Option<(u32, String)> {
        let mut number = 0;
        let mut message = ptr::null();
        // SAFETY: a living session, and places for the results.
        unsafe { (self.get_error)(thd.as_ptr(), &raw mut number, &raw mut message) };
        // SAFETY: NULL or a text in the diagnostics area, which nothing changes before it is
        // copied.
        let message = unsafe { lossy(message) };
        (number != 0).then(|| (number, message.into_owned()))
    }
}

/// A session of a thread that the plugin started. It lives on that thread, which drops it before
/// it ends.
pub(crate) struct BackgroundSession {
    thd: NonNull<abi::THD>,
    protocol: Arc<CloneProtocol>,
}

impl BackgroundSession {
    /// The session.
    pub(crate) fn thd(&self) -> Thd<'_> {
        // SAFETY: the session that `start_session` has created on this thread, which an object of
        // this type does not leave. It ends when the object is dropped.
        unsafe { Thd::from_raw(self.thd.as_ptr()) }.expect("not NULL")
    }
}

impl Drop for BackgroundSession {
    fn drop(&mut self) {
        // SAFETY: the session was created by start_statement on this thread. This also ends
        // mysqld's state of the thread (my_thread_end).
        unsafe { (self.protocol.finish_statement)(self.thd.as_ptr()) };
    }
}
