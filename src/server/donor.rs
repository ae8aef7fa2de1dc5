// SPDX-License-Identifier: GPL-2.0-only

//! A donor's side of a connection in clone mode, which is the client connection of its session.

use std::os::fd::BorrowedFd;
use std::ptr;

use super::abi;
use super::raise::check;
use super::services::services;
use super::text::bytes;
use super::thd::Thd;

/// The connection of a session that executes COM_CLONE.
pub(crate) struct DonorConnection<'s> {
    thd: Thd<'s>,
    socket: abi::MYSQL_SOCKET,
    /// Neither TLS nor compression. Found out when first asked.
    is_plain: Option<bool>,
}

impl<'s> DonorConnection<'s> {
    /// The connection of `thd`.
    ///
    /// # Safety
    /// `thd` and `socket` are those that `Mysql_clone::clone_server` was called with, and this is
    /// the only `DonorConnection` of them.
    pub(crate) unsafe fn new(thd: Thd<'s>, socket: abi::MYSQL_SOCKET) -> Self {
        Self { thd, socket, is_plain: None }
    }

    /// The socket, if what is written to it is what the recipient reads. Everything that was sent
    /// has left mysqld's buffers by then, because each packet is flushed
    /// (`clone_protocol_service.cc:mysql_clone_send_response`).
    pub(crate) fn plain_socket(&mut self) -> Option<BorrowedFd<'_>> {
        let thd = self.thd;
        let is_plain = *self.is_plain.get_or_insert_with(|| {
            services().status.as_ref().is_some_and(|status| status.is_plain(thd))
        });
        self.socket().filter(|_| is_plain)
    }

    /// The socket, whatever is on it; not to be read from or written to.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: mysqld closes the socket after `clone_server` has returned.
        (self.socket.fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(self.socket.fd) })
    }

    /// Waits for a command, at least 8 hours: its code and its payload, which lies in the
    /// connection's buffer.
    ///
    /// After one network error all calls return it without raising it again.
    pub(crate) fn next_command(&mut self) -> Result<(u8, &[u8]), u32> {
        let mut code = 0;
        let mut payload = ptr::null_mut();
        let mut length = 0;
        // SAFETY: a living session with a client connection, and places for the results.
        check(unsafe {
            (services().clone_protocol.get_command)(
                self.thd.as_ptr(),
                &raw mut code,
                &raw mut payload,
                &raw mut length,
            )
        })?;
        // SAFETY: on success the payload lies in the connection's buffer until the next call on
        // this connection, which needs the borrow to have ended.
        Ok((code, unsafe { bytes(payload, length) }))
    }

    /// Sends a packet. `secure` raises 3872 when the connection has no TLS.
    pub(crate) fn send_response(&mut self, secure: bool, packet: &[u8]) -> Result<(), u32> {
        // SAFETY: a living session with a client connection; the method only reads the packet
        // (my_net_write).
        check(unsafe {
            (services().clone_protocol.send_response)(
                self.thd.as_ptr(),
                secure,
                packet.as_ptr().cast_mut(),
                packet.len(),
            )
        })
    }

    /// Sends the error of the session as the response `code`, and clears it. A `fatal` error, or
    /// one after a network error, is not sent: the socket is shut down and the error returned.
    pub(crate) fn send_error(&mut self, code: u8, fatal: bool) -> Result<(), u32> {
        // SAFETY: a living session with a client connection.
        check(unsafe { (services().clone_protocol.send_error)(self.thd.as_ptr(), code, fatal) })
    }
}
