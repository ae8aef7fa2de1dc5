// SPDX-License-Identifier: GPL-2.0-only

//! What can go wrong on a connection.

use std::io;

use thiserror::Error;

/// Why a connection, or a request on it, failed.
///
/// The texts are those that MySQL's own clients show, with the numbers of their client library.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with an error. The connection can be used further, unless the error came
    /// while connecting.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The connection could not be made, or is broken.
    #[error("ERROR {number} (HY000): {text}")]
    Network {
        /// 2002, 2003, 2005, 2006, 2013.
        number: u16,
        /// The text.
        text: String,
        /// [`io::ErrorKind::TimedOut`] after a wait that was too long,
        /// [`io::ErrorKind::UnexpectedEof`] when the server closed the connection, or another one.
        kind: io::ErrorKind,
    },
    /// TLS: a certificate that is refused, a file that cannot be read, no common version.
    #[error("ERROR 2026 (HY000): SSL connection error: {0}")]
    Tls(String),
    /// The server asks for an authentication that this client does not have, or that would send
    /// the password in the clear.
    #[error("ERROR {number} (HY000): Authentication plugin '{plugin}' {text}")]
    Authentication {
        /// 2059 for a plugin that is unknown, 2061 otherwise.
        number: u16,
        /// The plugin, as the server named it.
        plugin: String,
        /// What is wrong, and what to do.
        text: String,
    },
    /// Bytes that no MySQL server sends. The connection cannot be used any more.
    #[error("ERROR {number} (HY000): {text}")]
    BadPacket {
        /// 1156, 1157, 2007, 2012, 2014, 2020, 2027.
        number: u16,
        /// The text.
        text: String,
    },
    /// The caller's `cancel` said so.
    #[error("the operation was cancelled")]
    Cancelled,
    /// There is no memory for a packet.
    #[error("out of memory for a packet of {0} bytes")]
    OutOfMemory(usize),
}

impl Error {
    /// The number of a server's or the client library's error. 0 for [`Cancelled`](Self::Cancelled)
    /// and [`OutOfMemory`](Self::OutOfMemory).
    pub fn number(&self) -> u16 {
        match self {
            Self::Server(error) => error.number,
            Self::Network { number, .. }
            | Self::Authentication { number, .. }
            | Self::BadPacket { number, .. } => *number,
            Self::Tls(_) => 2026,
            Self::Cancelled | Self::OutOfMemory(_) => 0,
        }
    }

    /// Whether the connection ended, or was never made, by the network's fault. A recipient may
    /// connect again.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Network { .. })
    }

    /// Whether the server was silent for longer than allowed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Network { kind: io::ErrorKind::TimedOut, .. })
    }

    /// The connection broke: "Lost connection to MySQL server".
    pub(crate) fn lost(when: &str, cause: &io::Error) -> Self {
        let reason = match cause.kind() {
            io::ErrorKind::TimedOut => "the server was silent for too long".into(),
            io::ErrorKind::UnexpectedEof => "the server closed the connection".into(),
            _ => cause.to_string(),
        };
        let text = format!("Lost connection to MySQL server {when}: {reason}");
        Self::Network { number: 2013, text, kind: cause.kind() }
    }

    /// The same error, if it is a broken connection, as one that came while connecting.
    pub(crate) fn while_connecting(self, step: &str) -> Self {
        match self {
            Self::Network { number: 2013, text, kind } => {
                let text = text.replacen("during query", &format!("at '{step}'"), 1);
                Self::Network { number: 2013, text, kind }
            }
            other => other,
        }
    }

    /// The same error, if it is a broken connection, as the server's end sees it.
    pub(crate) fn of_client(self) -> Self {
        match self {
            Self::Network { number: 2013, text, kind } => {
                let text = match kind {
                    io::ErrorKind::TimedOut => "the client was silent for too long",
                    io::ErrorKind::UnexpectedEof => "the client closed the connection",
                    _ => text.rsplit_once(": ").map_or(&*text, |(_, reason)| reason),
                };
                let text = format!("Lost connection to the client: {text}");
                Self::Network { number: 2013, text, kind }
            }
            other => other,
        }
    }

    /// "MySQL server has gone away": the connection failed before.
    pub(crate) fn gone() -> Self {
        let text = "MySQL server has gone away".into();
        Self::Network { number: 2006, text, kind: io::ErrorKind::NotConnected }
    }

    pub(crate) fn malformed(what: &str) -> Self {
        Self::BadPacket { number: 2027, text: format!("Malformed packet: {what}") }
    }

    pub(crate) fn out_of_order() -> Self {
        Self::BadPacket { number: 1156, text: "Got packets out of order".into() }
    }

    pub(crate) fn not_unpacked() -> Self {
        let text = "Couldn't uncompress communication packet".into();
        Self::BadPacket { number: 1157, text }
    }

    pub(crate) fn too_large(max: usize) -> Self {
        let text = format!("Got packet bigger than 'max_allowed_packet' bytes ({max})");
        Self::BadPacket { number: 2020, text }
    }

    pub(crate) fn handshake(what: &str) -> Self {
        Self::BadPacket { number: 2012, text: format!("Error in server handshake: {what}") }
    }
}

/// An error that a server sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("ERROR {number} ({state}): {text}")]
pub struct ServerError {
    /// MySQL's number, for example 1045.
    pub number: u16,
    /// The SQLSTATE: five characters.
    pub state: String,
    /// The text, in utf8mb4.
    pub text: String,
}
