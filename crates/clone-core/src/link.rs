// SPDX-License-Identifier: GPL-2.0-only

//! Connections in COM_CLONE, as donor and recipient see them.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use clone_protocol::CommandCode;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::facts::Rows;

/// A recipient's connection to a donor, in COM_CLONE.
pub trait Link<S>: Send {
    /// Sends a command. `is_data` is false on the auxiliary connection.
    fn send(&mut self, session: &S, is_data: bool, code: CommandCode, payload: &[u8])
    -> Result<()>;

    /// Waits for the next packet, as long as `patience` allows.
    fn receive(&mut self, session: &S, is_data: bool, patience: &Patience) -> Result<Packet<'_>>;

    /// How long the donor was silent, if the connection ended for that.
    fn silence(&self) -> Option<Duration> {
        None
    }

    /// Whether the donor is on this machine.
    fn is_within_host(&self) -> bool {
        false
    }

    /// Whether the connection has TLS. None if that is not known.
    fn has_tls(&self) -> Option<bool> {
        None
    }

    /// Runs an SQL statement at the donor, over this connection, which has left clone mode. At most
    /// [`MAX_ENTRIES`](crate::facts::MAX_ENTRIES) rows are kept.
    ///
    /// # Errors
    /// [`Error::Donor`] with the number of the donor, or of the client library
    /// ([`is_of_client`](crate::error::is_of_client)). It has not been raised.
    fn query(&mut self, session: &S, statement: &str) -> Result<Rows> {
        let _ = (session, statement);
        Err(Error::NotSupported("SQL statements at the donor".into()))
    }

    /// Asks the donor, over this connection, to kill the connection `other`.
    fn kill(&mut self, other: &mut Self) -> Result<()>;

    /// Ends the connection. With `abort`, the dialogue is broken, and the connection is closed at
    /// once. With `clear_error`, the errors of `session` are cleared. An auxiliary connection has a
    /// `session` only for that.
    fn disconnect(self, session: Option<&S>, abort: bool, clear_error: bool);
}

/// How long a recipient waits for its donor.
#[derive(Clone)]
pub struct Patience {
    /// The donor is silent if nothing comes for so long.
    pub limit: Duration,
    /// What the server allows for each read counts instead, if that is more (`net_read_timeout`, 30
    /// seconds at least): the donor is not known to be one of this project.
    pub allows_as_server: bool,
    /// Whether the donor lives although it has been silent for `limit`. Asked until it says no. May
    /// be called by another thread.
    pub lives: Option<Lives>,
}

/// See [`Patience::lives`].
pub type Lives = Arc<dyn Fn() -> bool + Send + Sync>;

/// Says how long a peer has been silent, if that is longer than it may be.
pub type Silence = Box<dyn Fn() -> Option<Duration> + Send>;

/// A packet from a donor.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The payload. The caller may overwrite it until the next call. If the bytes behind the code
    /// are aligned for direct I/O, a file can be written from them without a copy.
    pub data: &'a mut [u8],
    /// Bytes that crossed the network for the packet.
    pub network_len: u64,
}

/// A donor's connection to a recipient, in COM_CLONE.
pub trait DonorLink {
    /// Ends the connection as soon as `silence` says that the recipient has been silent for too
    /// long. Another thread asks, again and again. Without this method nothing ends the connection.
    fn watch(&mut self, silence: Silence) {
        drop(silence);
    }

    /// Waits for the next command; its payload replaces the content of `payload`.
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<u8>;

    /// Sends one packet; with `secure` only over an encrypted connection (error 3872 otherwise).
    /// The packet may be overwritten.
    fn send(&mut self, secure: bool, packet: &mut [u8]) -> Result<()>;

    /// Sends two packets, one after the other. Some connections send both in one call.
    fn send_both(&mut self, first: &mut [u8], second: &mut [u8]) -> Result<()> {
        self.send(false, first)?;
        self.send(false, second)
    }

    /// Whether bytes cross the network as they are sent: without TLS and without the classic
    /// protocol's compression.
    fn is_plain(&mut self) -> bool;

    /// Sends the packet `descriptor`, and then a packet with `len` bytes of `file`, from the file's
    /// current offset on. The bytes do not pass through the server's own functions. With
    /// `is_block`, the second packet is a raw [`Block`](clone_protocol::Block), otherwise DATA.
    /// Returns for how long the connection took nothing. Returns none if this connection or this
    /// file does not allow that. Then nothing was read or sent.
    ///
    /// # Errors
    /// The file's, or the connection's, which is closed in both cases.
    fn send_file(
        &mut self,
        descriptor: &[u8],
        file: BorrowedFd<'_>,
        len: u32,
        is_block: bool,
    ) -> Result<Option<Duration>, TransferError> {
        let _ = (descriptor, file, len, is_block);
        Ok(None)
    }

    /// Sends the error of the diagnostics area, and clears that area. With `fatal`, closes the
    /// connection instead and returns the error.
    fn send_error(&mut self, fatal: bool) -> Result<()>;
}

/// What went wrong between a file and a connection.
#[derive(Debug)]
pub enum TransferError {
    /// The connection's error, raised.
    Link(Error),
    /// The file could not be read.
    File(io::Error),
}

/// What a recipient's connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Acknowledgements, and the question to a donor before a clone.
    Auxiliary,
    /// Commands and data. KILL wakes a thread that waits for this connection.
    Data,
    /// As [`Data`](Self::Data), for the master of a clone that replaces the server's own data. An
    /// engine may ask the server whether KILL has closed this connection, while the engine drops
    /// that data.
    DataOfReplacement,
}

/// Where a server clones from, as CLONE INSTANCE names it.
#[derive(Debug)]
pub struct Donor {
    /// Host name or address, as the statement gave it (lower case).
    pub host: String,
    /// Port of the classic protocol.
    pub port: u16,
    /// Account with BACKUP_ADMIN.
    pub user: String,
    /// Wiped when dropped.
    pub password: Zeroizing<String>,
    /// `mysql_ssl_mode`: 1 disabled, 2 preferred, 3 required.
    pub ssl_mode: i32,
}
