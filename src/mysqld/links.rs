// SPDX-License-Identifier: GPL-2.0-only

//! Connections in COM_CLONE, over mysqld's `clone_protocol` service.

use clone_core::error::{Error, Result};
use clone_core::session::{DonorLink, Link, Packet};
use clone_protocol::{CommandCode, ResponseCode};

use super::MysqldSession;
use crate::server::connection::Connection;
use crate::server::donor::DonorConnection;

/// A recipient's connection to its donor.
pub(crate) struct RecipientLink(Connection);

impl RecipientLink {
    pub(super) fn new(connection: Connection) -> Self {
        Self(connection)
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
        self.0.send_command(session.thd, is_data, code as u8, payload).map_err(Error::Raised)
    }

    fn receive(
        &mut self,
        session: &MysqldSession,
        is_data: bool,
        timeout_seconds: u32,
    ) -> Result<Packet<'_>> {
        let packet =
            self.0.receive(session.thd, is_data, timeout_seconds).map_err(Error::Raised)?;
        Ok(Packet { data: packet.data, network_len: packet.network_len as u64 })
    }

    fn kill(&mut self, other: &mut Self) -> Result<()> {
        self.0.kill(&other.0).map_err(Error::Raised)
    }

    fn disconnect(self, _: Option<&MysqldSession>, abort: bool, clear_error: bool) {
        self.0.disconnect(abort, clear_error);
    }
}

/// A donor's connection to its recipient: the one of its own session.
pub(crate) struct DonorLinkOf(pub(crate) DonorConnection);

impl DonorLink for DonorLinkOf {
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        let (code, bytes) = self.0.next_command().map_err(Error::Raised)?;
        payload.clear();
        payload.extend_from_slice(bytes);
        Ok(code)
    }

    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()> {
        self.0.send_response(secure, packet).map_err(Error::Raised)
    }

    fn send_error(&mut self, fatal: bool) -> Result<()> {
        self.0.send_error(ResponseCode::Error as u8, fatal).map_err(Error::Raised)
    }
}
