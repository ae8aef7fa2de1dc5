// SPDX-License-Identifier: GPL-2.0-only

//! Connections to the donor, as clone-core sees them.

use std::time::Duration;

use clone_classic::{ConnectOptions, Connection};
use clone_core::error::{Error, NetworkError, Result};
use clone_core::link::{Link, Packet, Patience};
use clone_protocol::CommandCode;

use super::session::PullSession;

/// How long the donor may be silent, unless more is allowed: `net_read_timeout` of a server.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection in COM_CLONE.
pub(crate) struct PullLink {
    connection: Connection,
    /// The error after which the connection is of no more use.
    broken: Option<Error>,
}

impl PullLink {
    /// Connects and switches to COM_CLONE.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub(super) fn connect(options: &ConnectOptions) -> Result<Self> {
        let connected = Connection::connect(options).and_then(|mut connection| {
            connection.start_clone()?;
            Ok(connection)
        });
        let connection = connected.map_err(|error| Error::Connect(error.to_string()))?;
        Ok(Self { connection, broken: None })
    }

    /// Whether the donor's server compresses what it sends.
    pub(super) fn is_compressed(&self) -> bool {
        self.connection.is_compressed()
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.broken = Some(error.clone());
        error
    }
}

impl Link<PullSession> for PullLink {
    fn send(&mut self, _: &PullSession, _: bool, code: CommandCode, payload: &[u8]) -> Result<()> {
        self.check()?;
        let sent = self.connection.send(code as u8, payload);
        sent.map_err(|error| self.fail(write_error(&error)))
    }

    fn receive(&mut self, _: &PullSession, _: bool, patience: &Patience) -> Result<Packet<'_>> {
        self.check()?;
        match self.connection.receive(patience.limit.max(READ_TIMEOUT)) {
            Ok(received) => Ok(Packet { data: received.data, network_len: received.network_len }),
            Err(error) => {
                let error = read_error(&error);
                self.broken = Some(error.clone());
                Err(error)
            }
        }
    }

    fn is_within_host(&self) -> bool {
        self.connection.is_within_host()
    }

    fn kill(&mut self, other: &mut Self) -> Result<()> {
        let killed = self.connection.end_clone().and_then(|()| {
            self.connection.query(&format!("KILL CONNECTION {}", other.connection.id()))
        });
        killed.map(drop).map_err(|error| write_error(&error))
    }

    fn disconnect(mut self, session: Option<&PullSession>, abort: bool, clear_error: bool) {
        if !abort && self.broken.is_none() && self.connection.end_clone().is_ok() {
            self.connection.close();
        }
        if let Some(session) = session.filter(|_| clear_error) {
            session.clear();
        }
    }
}

fn read_error(error: &clone_classic::Error) -> Error {
    match error {
        clone_classic::Error::BadPacket { .. } => {
            log::warn!("the donor sent a bad packet: {error}")
        }
        _ => log::info!("reading from the donor: {error}"),
    }
    match error {
        clone_classic::Error::OutOfMemory(bytes) => Error::OutOfMemory(*bytes),
        clone_classic::Error::BadPacket { number: 2020, .. } => NetworkError::PacketTooLarge.into(),
        clone_classic::Error::BadPacket { number: 1157, .. } => NetworkError::Read.into(),
        clone_classic::Error::BadPacket { .. } => NetworkError::PacketsOutOfOrder.into(),
        _ if error.is_timeout() => NetworkError::ReadTimeout.into(),
        _ => NetworkError::Read.into(),
    }
}

fn write_error(error: &clone_classic::Error) -> Error {
    log::info!("writing to the donor: {error}");
    match error {
        _ if error.is_timeout() => NetworkError::WriteTimeout.into(),
        _ => NetworkError::Write.into(),
    }
}
