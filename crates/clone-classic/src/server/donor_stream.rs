// SPDX-License-Identifier: GPL-2.0-only

//! A session in clone mode, as clone-core's donor sees it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clone_core::error::{Error, NetworkError, Result};
use clone_core::link::DonorLink;
use clone_protocol::Response;

use super::session::Session;
use crate::error::Error as ClassicError;

/// How long a donor waits for the next command of its recipient: the recipient may be dropping its
/// data (docs/protocol.md, section 16).
const IDLE: Duration = Duration::from_secs(8 * 60 * 60);

/// The longest message of an error in clone mode, bytes.
const MAX_MESSAGE: usize = 511;

/// The errors of a donor's session, in the place of mysqld's diagnostics area. The session's
/// `raise` calls [`raise`](Self::raise), and the [`DonorStream`] tells the recipient.
#[derive(Debug, Default)]
pub struct Diagnostics {
    first: Mutex<Option<(i32, String)>>,
}

impl Diagnostics {
    /// Keeps an error, unless one is kept already. [`Error::Raised`] has been raised before.
    pub fn raise(&self, error: &Error) {
        if matches!(error, Error::Raised(_)) {
            return;
        }
        let number = i32::try_from(error.number()).unwrap_or(i32::MAX);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| (number, error.to_string()));
    }

    /// The error that is kept, which is forgotten then.
    pub fn take(&self) -> Option<(i32, String)> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A session in clone mode.
#[derive(Debug)]
pub struct DonorStream<'a> {
    session: &'a mut Session,
    diagnostics: &'a Diagnostics,
    /// The error after which the connection is of no more use.
    broken: Option<Error>,
}

impl<'a> DonorStream<'a> {
    /// A session whose client has been told that clone mode begins
    /// ([`Session::accept_clone`]).
    pub fn new(session: &'a mut Session, diagnostics: &'a Diagnostics) -> Self {
        Self { session, diagnostics, broken: None }
    }

    /// Whether the connection failed.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: &ClassicError, is_write: bool) -> Error {
        let network = |read, write| Error::Network(if is_write { write } else { read });
        let error = match error {
            ClassicError::Cancelled => Error::Interrupted,
            ClassicError::OutOfMemory(bytes) => Error::OutOfMemory(*bytes),
            ClassicError::BadPacket { number: 2020, .. } => NetworkError::PacketTooLarge.into(),
            ClassicError::BadPacket { .. } => NetworkError::PacketsOutOfOrder.into(),
            error if error.is_timeout() => {
                network(NetworkError::ReadTimeout, NetworkError::WriteTimeout)
            }
            _ => network(NetworkError::Read, NetworkError::Write),
        };
        self.diagnostics.raise(&error);
        // After KILL the recipient can still be told. It is in the middle of nothing then.
        if error != Error::Interrupted || is_write {
            self.broken = Some(error.clone());
        }
        error
    }
}

impl DonorLink for DonorStream<'_> {
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        self.check()?;
        self.session.receive(payload, IDLE).map_err(|error| self.fail(&error, false))
    }

    /// Every connection is encrypted, so `secure` asks for nothing more.
    fn send(&mut self, _secure: bool, packet: &mut [u8]) -> Result<()> {
        self.check()?;
        self.session.send(&[packet]).map_err(|error| self.fail(&error, true))
    }

    fn send_both(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<()> {
        self.check()?;
        self.session.send_both(first, second).map_err(|error| self.fail(&error, true))
    }

    fn is_plain(&mut self) -> bool {
        false
    }

    fn send_error(&mut self, fatal: bool) -> Result<()> {
        let (number, message) =
            self.diagnostics.take().unwrap_or_else(|| (1815, "Internal error".into()));
        if fatal || self.broken.is_some() {
            self.session.shut_down();
            let error = Error::Raised(u32::try_from(number).unwrap_or_default());
            self.broken.get_or_insert_with(|| error.clone());
            return Err(error);
        }
        let mut packet = Vec::new();
        let message = &message.as_bytes()[..message.floor_char_boundary(MAX_MESSAGE)];
        Response::Error { number, message }.encode(&mut packet);
        self.send(false, &mut packet)
    }
}
