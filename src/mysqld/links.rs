// SPDX-License-Identifier: GPL-2.0-only

//! Connections in COM_CLONE, over mysqld's `clone_protocol` service; and past it, where that saves copies ([`super::direct`]).

use std::os::fd::BorrowedFd;

use clone_core::error::{Error, Result};
use clone_core::session::{DonorLink, Link, Packet, TransferError};
use clone_protocol::{CommandCode, ResponseCode};

use super::MysqldSession;
use super::direct::{DirectReader, DirectWriter};
use crate::server::connection::Connection;
use crate::server::donor::DonorConnection;

/// A recipient's connection to its donor.
pub(crate) struct RecipientLink {
    connection: Connection,
    /// While the answer to EXECUTE comes in, and the connection is plain.
    direct: Option<DirectReader>,
}

impl RecipientLink {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, direct: None }
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
        if let Some(error) = self.direct.take().and_then(|direct| direct.error()) {
            return Err(error);
        }
        self.connection
            .send_command(session.thd, is_data, code as u8, payload)
            .map_err(Error::Raised)?;
        // The answer to the command before has been read to its end, and nothing comes unasked: so both the library's buffer
        // and the network are empty up to what follows now.
        let is_plain = code == CommandCode::Execute && self.connection.plain_socket().is_some();
        self.direct = is_plain.then(|| DirectReader::new(session));
        Ok(())
    }

    fn receive(
        &mut self,
        session: &MysqldSession,
        is_data: bool,
        timeout_seconds: u32,
    ) -> Result<Packet<'_>> {
        if self.direct.as_ref().is_some_and(DirectReader::is_over) {
            self.direct = None;
        }
        if let (Some(direct), Some(socket)) = (&mut self.direct, self.connection.plain_socket()) {
            return direct.receive(session, socket);
        }
        let packet = self
            .connection
            .receive(session.thd, is_data, timeout_seconds)
            .map_err(Error::Raised)?;
        Ok(Packet { data: packet.data, network_len: packet.network_len as u64 })
    }

    fn is_within_host(&self) -> bool {
        self.connection.socket().is_some_and(clone_io::is_within_host)
    }

    fn kill(&mut self, other: &mut Self) -> Result<()> {
        self.connection.kill(&other.connection).map_err(Error::Raised)
    }

    fn disconnect(self, _: Option<&MysqldSession>, abort: bool, clear_error: bool) {
        self.connection.disconnect(abort, clear_error);
    }
}

/// A donor's connection to its recipient: the one of its own session.
pub(crate) struct DonorLinkOf<'s> {
    session: &'s MysqldSession,
    connection: DonorConnection,
    direct: DirectWriter,
}

impl<'s> DonorLinkOf<'s> {
    pub(crate) fn new(session: &'s MysqldSession, connection: DonorConnection) -> Self {
        Self { session, connection, direct: DirectWriter::default() }
    }
}

impl DonorLink for DonorLinkOf<'_> {
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        self.direct.check()?;
        let (code, bytes) = self.connection.next_command().map_err(Error::Raised)?;
        payload.clear();
        payload.extend_from_slice(bytes);
        Ok(code)
    }

    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()> {
        self.direct.check()?;
        self.connection.send_response(secure, packet).map_err(Error::Raised)
    }

    fn send_both(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<()> {
        if let Some(socket) = self.connection.plain_socket()
            && self.direct.send_both(self.session, socket, first, second)?
        {
            return Ok(());
        }
        self.send(false, first)?;
        self.send(false, second)
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
        match self.connection.plain_socket() {
            Some(socket) => {
                self.direct.send_file(self.session, socket, descriptor, file, len, is_block)
            }
            None => Ok(false),
        }
    }

    fn send_error(&mut self, fatal: bool) -> Result<()> {
        let fatal = fatal || self.direct.check().is_err();
        self.connection.send_error(ResponseCode::Error as u8, fatal).map_err(Error::Raised)
    }
}
