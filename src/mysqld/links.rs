// SPDX-License-Identifier: GPL-2.0-only

//! Connections in COM_CLONE, over mysqld's `clone_protocol` service. On a plain connection the
//! answer to EXECUTE goes past mysqld ([`PacketReader`], [`PacketWriter`]), which saves copies.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use clone_core::engine::Cancel;
use clone_core::error::{Error, NetworkError, Result};
use clone_core::facts::Rows;
use clone_core::link::{DonorLink, Link, LinkKind, Packet, TransferError};
use clone_core::log_target::SERVER;
use clone_core::session::{Session, Variables};
use clone_io::{CopyError, PacketError, PacketReader, PacketWriter};
use clone_protocol::{CommandCode, ResponseCode};

use super::debug_hooks;
use super::interrupter::{GRACE, Watch};
use super::session::MysqldSession;
use crate::server::connection::Connection;
use crate::server::donor::DonorConnection;

/// A recipient's connection to its donor.
pub(crate) struct RecipientLink {
    /// Lets KILL wake the session that waits for this connection. None for
    /// [`LinkKind::DataOfReplacement`], which mysqld's KILL shuts down.
    watch: Option<Watch>,
    connection: Connection,
    /// `net_read_timeout` in seconds.
    read_timeout: u32,
    /// While the answer to EXECUTE comes in over a plain connection.
    reader: Option<PacketReader>,
    /// The error after which the connection is of no more use.
    broken: Option<Error>,
}

impl RecipientLink {
    /// # Errors
    /// There are too many threads or open files.
    pub(super) fn new(
        connection: Connection,
        session: &MysqldSession,
        kind: LinkKind,
    ) -> Result<Self> {
        // Over the auxiliary connection the donor is told of KILL.
        let delay = match kind {
            LinkKind::Data => Some(Duration::ZERO),
            LinkKind::Auxiliary => Some(GRACE),
            LinkKind::DataOfReplacement => None,
        };
        let watch = match (delay, connection.socket()) {
            (Some(delay), Some(socket)) => {
                let watch = session.host().interrupter.watch(socket, session.triggers(delay));
                Some(watch.map_err(|error| Error::Connect(format!("Connect failed: {error}")))?)
            }
            _ => None,
        };
        let read_timeout = timeout(session, "net_read_timeout", 30).as_secs();
        let read_timeout = u32::try_from(read_timeout).unwrap_or(u32::MAX);
        Ok(Self { watch, connection, read_timeout, reader: None, broken: None })
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}

impl Link<MysqldSession> for RecipientLink {
    fn send(
        &mut self,
        session: &MysqldSession,
        is_data: bool,
        code: CommandCode,
        payload: &[u8],
    ) -> Result<()> {
        self.check()?;
        self.reader = None;
        let changed = debug_hooks::changed_payload(code, payload);
        let payload = changed.as_deref().unwrap_or(payload);
        self.connection
            .send_command(session.thd(), is_data, code as u8, payload)
            .map_err(Error::Raised)?;
        // The answer to the previous command has been read to its end, and no packet comes unasked.
        // So the client library's buffer and the network are empty up to the answer that follows.
        let is_plain = code == CommandCode::Execute && self.connection.plain_socket().is_some();
        self.reader = is_plain.then(|| {
            let limit = variable(session, "max_allowed_packet", 64 << 20);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            PacketReader::new(Duration::from_secs(self.read_timeout.into()), limit)
        });
        Ok(())
    }

    fn receive(
        &mut self,
        session: &MysqldSession,
        is_data: bool,
        timeout_seconds: u32,
    ) -> Result<Packet<'_>> {
        self.check()?;
        if let (Some(reader), Some(socket)) = (&mut self.reader, self.connection.plain_socket()) {
            if session.is_killed() {
                return Err(Error::Interrupted);
            }
            return match reader.receive(socket) {
                Ok(packet) => Ok(Packet { data: packet.data, network_len: packet.network_len }),
                Err(error) => {
                    let error = read_error(&error);
                    session.raise(&error);
                    self.broken = Some(Error::Raised(error.number()));
                    Err(error)
                }
            };
        }
        let timeout = if timeout_seconds == 0 { self.read_timeout } else { timeout_seconds };
        let packet =
            self.connection.receive(session.thd(), is_data, timeout).map_err(Error::Raised)?;
        Ok(Packet { data: packet.data, network_len: packet.network_len as u64 })
    }

    fn is_within_host(&self) -> bool {
        self.connection.socket().is_some_and(clone_io::is_within_host)
    }

    fn has_tls(&self) -> Option<bool> {
        self.connection.has_tls()
    }

    fn query(&mut self, _: &MysqldSession, statement: &str) -> Result<Rows> {
        self.connection.query(statement).map_err(|error| Error::Donor {
            number: i32::try_from(error.number).unwrap_or(i32::MAX),
            message: error.text,
        })
    }

    fn kill(&mut self, other: &mut Self) -> Result<()> {
        self.connection.kill(&other.connection).map_err(Error::Raised)
    }

    fn disconnect(self, session: Option<&MysqldSession>, abort: bool, clear_error: bool) {
        // The socket must not be shut down while the donor is asked to leave clone mode, nor later.
        drop(self.watch);
        let clears = session.filter(|_| clear_error).map(MysqldSession::thd);
        self.connection.disconnect(abort, clears);
    }
}

/// A donor's connection to its recipient: the one of its own session.
pub(crate) struct DonorLinkOf<'s> {
    /// Lets KILL wake the session if the recipient is silent. The session first has a moment to
    /// tell the recipient of KILL.
    _watch: Option<Watch>,
    session: &'s MysqldSession,
    connection: DonorConnection<'s>,
    writer: Option<PacketWriter>,
    /// The error after which the connection is of no more use.
    broken: Option<Error>,
}

impl<'s> DonorLinkOf<'s> {
    pub(crate) fn new(session: &'s MysqldSession, connection: DonorConnection<'s>) -> Self {
        let watch = connection
            .socket()
            .map(|socket| session.host().interrupter.watch(socket, session.triggers(GRACE)));
        let watch = watch.and_then(|watch| {
            let log = |error: &io::Error| log::warn!(target: SERVER, "KILL cannot wake: {error}");
            watch.inspect_err(log).ok()
        });
        Self { _watch: watch, session, connection, writer: None, broken: None }
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// The writer and the socket of a plain connection that has not failed.
    fn plain(&mut self) -> Result<Option<(&mut PacketWriter, BorrowedFd<'_>)>> {
        self.check()?;
        let Self { session, connection, writer, .. } = self;
        let Some(socket) = connection.plain_socket() else { return Ok(None) };
        let writer = writer
            .get_or_insert_with(|| PacketWriter::new(timeout(session, "net_write_timeout", 60)));
        Ok(Some((writer, socket)))
    }

    /// The connection has failed, perhaps in the middle of a packet.
    fn fail(&mut self, error: NetworkError) -> Error {
        let error = Error::Network(error);
        self.session.raise(&error);
        self.broken = Some(Error::Raised(error.number()));
        error
    }
}

impl DonorLink for DonorLinkOf<'_> {
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        self.check()?;
        let (code, bytes) = self.connection.next_command().map_err(Error::Raised)?;
        payload.clear();
        payload.extend_from_slice(bytes);
        Ok(code)
    }

    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()> {
        self.check()?;
        self.connection.send_response(secure, packet).map_err(Error::Raised)
    }

    fn send_both(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<()> {
        let sent = match self.plain()? {
            Some((writer, socket)) => writer.send_pair(socket, first, second),
            None => Ok(false),
        };
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.send(false, first)?;
                self.send(false, second)
            }
            Err(error) => Err(self.fail(NetworkError::of_write(&error))),
        }
    }

    fn is_plain(&mut self) -> bool {
        self.connection.plain_socket().is_some()
    }

    fn send_file(
        &mut self,
        descriptor: &[u8],
        file: BorrowedFd<'_>,
        len: u32,
        is_block: bool,
    ) -> Result<bool, TransferError> {
        let sent = match self.plain().map_err(TransferError::Link)? {
            Some((writer, socket)) => writer.send_file(socket, descriptor, file, len, is_block),
            None => Ok(false),
        };
        sent.map_err(|error| match error {
            CopyError::Write(error) => {
                TransferError::Link(self.fail(NetworkError::of_write(&error)))
            }
            CopyError::Read(error) => {
                // The recipient waits for the rest of the packet: the connection is closed.
                self.broken = Some(NetworkError::Write.into());
                TransferError::File(error)
            }
        })
    }

    fn send_error(&mut self, fatal: bool) -> Result<()> {
        let fatal = fatal || self.broken.is_some();
        self.connection.send_error(ResponseCode::Error as u8, fatal).map_err(Error::Raised)
    }
}

fn read_error(error: &PacketError) -> Error {
    Error::Network(match error {
        PacketError::Io(error) => NetworkError::of_read(error),
        PacketError::TooLarge => NetworkError::PacketTooLarge,
        PacketError::OutOfOrder => NetworkError::PacketsOutOfOrder,
    })
}

/// The variable, but at least so many seconds: as `clone_protocol_service.cc:set_read_timeout` and
/// `set_write_timeout` have it.
fn timeout(session: &MysqldSession, name: &str, least: u64) -> Duration {
    Duration::from_secs(variable(session, name, least).max(least))
}

fn variable(session: &MysqldSession, name: &str, default: u64) -> u64 {
    let value = session.variables(&[name]).ok().and_then(|mut values| values.pop());
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}
