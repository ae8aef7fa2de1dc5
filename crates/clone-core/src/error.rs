// SPDX-License-Identifier: GPL-2.0-only

//! One error for everything that can end a clone.
//!
//! MySQL reports an error by number and arguments. The text comes from MySQL's message catalogue in
//! the session's language. So an [`Error`] carries number and arguments. Raise an error
//! ([`Session::raise`](crate::session::Session::raise)) before the next call that may raise another
//! one: the user sees the first. An error that the server or an engine has raised itself arrives as
//! [`Error::Raised`] and is only passed on.

use std::borrow::Cow;
use std::io;

use clone_protocol::ProtocolError;
use thiserror::Error as ThisError;

/// MySQL's error numbers that the clone logic tells apart (`share/messages_to_clients.txt`).
pub mod number {
    /// A file could not be read.
    pub const ER_ERROR_ON_READ: u32 = 1024;
    /// A file could not be written.
    pub const ER_ERROR_ON_WRITE: u32 = 1026;
    /// A file exists that the clone has to create.
    pub const ER_FILE_EXISTS_ERROR: u32 = 1086;
    /// A packet above `max_allowed_packet`.
    pub const ER_NET_PACKET_TOO_LARGE: u32 = 1153;
    /// Packets out of order; also "the peer broke the dialogue".
    pub const ER_NET_PACKETS_OUT_OF_ORDER: u32 = 1156;
    /// A compressed packet that cannot be unpacked.
    pub const ER_NET_UNCOMPRESS_ERROR: u32 = 1157;
    /// Reading from the network failed.
    pub const ER_NET_READ_ERROR: u32 = 1158;
    /// Reading from the network timed out.
    pub const ER_NET_READ_INTERRUPTED: u32 = 1159;
    /// Writing to the network failed.
    pub const ER_NET_ERROR_ON_WRITE: u32 = 1160;
    /// Writing to the network timed out.
    pub const ER_NET_WRITE_INTERRUPTED: u32 = 1161;
    /// No memory.
    pub const ER_OUTOFMEMORY: u32 = 1037;
    /// A lock was not granted in time.
    pub const ER_LOCK_WAIT_TIMEOUT: u32 = 1205;
    /// Not supported.
    pub const ER_NOT_SUPPORTED_YET: u32 = 1235;
    /// KILL, or a server that shuts down.
    pub const ER_QUERY_INTERRUPTED: u32 = 1317;
    /// A setting of the server prevents the statement.
    pub const ER_OPTION_PREVENTS_STATEMENT: u32 = 1290;
    /// Something that must not happen.
    pub const ER_INTERNAL_ERROR: u32 = 1815;
    /// A second clone at once.
    pub const ER_CLONE_TOO_MANY_CONCURRENT_CLONES: u32 = 3634;
    /// What the donor reported.
    pub const ER_CLONE_DONOR: u32 = 3862;
    /// A peer that breaks the clone protocol.
    pub const ER_CLONE_PROTOCOL: u32 = 3863;
    /// A restart that nobody would make: mysqld has no supervisor.
    pub const ER_RESTART_SERVER_FAILED: u32 = 3707;
    /// Versions that cannot be cloned into each other.
    pub const ER_CLONE_DONOR_VERSION: u32 = 3864;
    /// Operating systems that differ.
    pub const ER_CLONE_OS: u32 = 3865;
    /// Processors that differ.
    pub const ER_CLONE_PLATFORM: u32 = 3866;
    /// A system variable of the clone plugin that forbids the clone.
    pub const ER_CLONE_SYS_CONFIG: u32 = 3869;
    /// The recipient lacks a plugin of the donor.
    pub const ER_CLONE_PLUGIN_MATCH: u32 = 3870;
    /// Encrypted data over a connection without TLS.
    pub const ER_CLONE_ENCRYPTION: u32 = 3872;
    /// The disk has not enough space for the clone.
    pub const ER_CLONE_DISK_SPACE: u32 = 3873;
    /// `max_allowed_packet` too small for a block.
    pub const ER_CLONE_NETWORK_PACKET: u32 = 3957;
    /// A wait for the network that failed (`ER_NET_WAIT_ERROR`).
    pub const ER_NET_WAIT_ERROR: u32 = 13417;
}

use number::*;

/// Whether the number is one of MySQL's client library (`include/errmsg.h:CR_MIN_ERROR`,
/// `CR_MAX_ERROR`), and none of a server.
pub fn is_of_client(number: u32) -> bool {
    (2000..3000).contains(&number)
}

/// Why a clone, or a step of it, failed. The text is for logs. Users see the text of MySQL's
/// message catalogue.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The recipient could not connect to the donor (3862). The text has the form of MySQL's
    /// catalogue, since Group Replication's users look for it in the log.
    #[error("Clone Donor Error: {0}.")]
    Connect(String),
    /// The donor reported this error (3862). Group Replication parses the text
    /// "`<number> : <message>`" (`sql/clone_handler.cc:get_donor_error`), so its form is fixed.
    #[error("{number} : {message}")]
    Donor {
        /// The donor's error number.
        number: i32,
        /// The donor's text, in utf8mb4.
        message: String,
    },
    /// The disk has not enough space for the clone (3873); both in bytes.
    #[error("the clone needs {needed} bytes on the disk, {free} are free")]
    DiskSpace {
        /// What the donor estimates.
        needed: u64,
        /// What is free.
        free: u64,
    },
    /// Donor and recipient are of versions that cannot be cloned into each other (3864).
    #[error("donor version {donor} does not match recipient version {recipient}")]
    DonorVersion {
        /// The donor's `version`.
        donor: String,
        /// The recipient's `version`.
        recipient: String,
    },
    /// `clone_dry_run` is on, and all checks have passed (1290).
    #[error("clone_dry_run=ON: all checks have passed, and nothing was cloned")]
    DryRun,
    /// The donor's data are encrypted, and the connection has no TLS (3872).
    #[error("Clone needs SSL connection for encrypted table")]
    EncryptionNeedsTls,
    /// A file could not be read or written (1024, 1026).
    #[error("{} '{name}': {}", if *.write { "write" } else { "read" }, os_error(*.errno))]
    File {
        /// True for a write.
        write: bool,
        /// Name as the engine gave it.
        name: String,
        /// The operating system's `errno`.
        errno: i32,
    },
    /// A file exists that the clone has to create (1086).
    #[error("file '{0}' already exists")]
    FileExists(String),
    /// Something that must not happen (1815).
    #[error("{0}")]
    Internal(String),
    /// KILL or shutdown (1317).
    #[error("interrupted")]
    Interrupted,
    /// The connection to the peer failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// `max_allowed_packet` is too small (3957); both in bytes.
    #[error("max_allowed_packet is {actual}, a clone needs {required}")]
    NetworkPacket {
        /// What a clone needs.
        required: u32,
        /// What the server has.
        actual: u64,
    },
    /// Nobody will start this server again after the clone (3707). The text is what mysqld will log
    /// then.
    #[error(
        "mysqld is not managed by a supervisor process, so after the clone this line will come: \
         Clone shutting down server as RESTART failed. Please start server to complete clone \
         operation"
    )]
    NoSupervisor,
    /// Not supported here (1235).
    #[error("not supported: {0}")]
    NotSupported(Cow<'static, str>),
    /// No memory (1037).
    #[error("no memory for {0} bytes")]
    OutOfMemory(usize),
    /// The recipient lacks a plugin of the donor (3870).
    #[error("plugin {0} of the donor is missing")]
    PluginMissing(String),
    /// The peer broke the clone protocol (3863).
    #[error("{0}")]
    Protocol(String),
    /// The server or an engine has already put this error into the session's diagnostics area.
    #[error("error {0}")]
    Raised(u32),
    /// A system variable of the plugin forbids it (3869).
    #[error("{0}")]
    SystemConfig(String),
    /// One clone at a time (3634).
    #[error("another clone is running")]
    TooManyClones,
}

/// How the connection to the peer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum NetworkError {
    /// A packet could not be read (1158). A block whose checksum differs counts as this.
    #[error("reading from the network failed")]
    Read,
    /// The peer was silent for too long (1159).
    #[error("reading from the network timed out")]
    ReadTimeout,
    /// A packet could not be written (1160).
    #[error("writing to the network failed")]
    Write,
    /// The peer did not read for too long (1161).
    #[error("writing to the network timed out")]
    WriteTimeout,
    /// A packet above `max_allowed_packet` (1153).
    #[error("packet is larger than max_allowed_packet")]
    PacketTooLarge,
    /// The peer did not keep to the dialogue (1156).
    #[error("packets out of order")]
    PacketsOutOfOrder,
}

impl NetworkError {
    /// MySQL's number of this error.
    pub fn number(self) -> u32 {
        match self {
            NetworkError::Read => ER_NET_READ_ERROR,
            NetworkError::ReadTimeout => ER_NET_READ_INTERRUPTED,
            NetworkError::Write => ER_NET_ERROR_ON_WRITE,
            NetworkError::WriteTimeout => ER_NET_WRITE_INTERRUPTED,
            NetworkError::PacketTooLarge => ER_NET_PACKET_TOO_LARGE,
            NetworkError::PacketsOutOfOrder => ER_NET_PACKETS_OUT_OF_ORDER,
        }
    }

    /// The error of a failed read.
    pub fn of_read(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => NetworkError::ReadTimeout,
            _ => NetworkError::Read,
        }
    }

    /// The error of a failed write.
    pub fn of_write(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => NetworkError::WriteTimeout,
            _ => NetworkError::Write,
        }
    }
}

fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// MySQL's number of this error.
    pub fn number(&self) -> u32 {
        match self {
            Error::Connect(_) | Error::Donor { .. } => ER_CLONE_DONOR,
            Error::DiskSpace { .. } => ER_CLONE_DISK_SPACE,
            Error::DonorVersion { .. } => ER_CLONE_DONOR_VERSION,
            Error::DryRun => ER_OPTION_PREVENTS_STATEMENT,
            Error::EncryptionNeedsTls => ER_CLONE_ENCRYPTION,
            Error::File { write: true, .. } => ER_ERROR_ON_WRITE,
            Error::File { write: false, .. } => ER_ERROR_ON_READ,
            Error::FileExists(_) => ER_FILE_EXISTS_ERROR,
            Error::Internal(_) => ER_INTERNAL_ERROR,
            Error::Interrupted => ER_QUERY_INTERRUPTED,
            Error::Network(error) => error.number(),
            Error::NetworkPacket { .. } => ER_CLONE_NETWORK_PACKET,
            Error::NoSupervisor => ER_RESTART_SERVER_FAILED,
            Error::NotSupported(_) => ER_NOT_SUPPORTED_YET,
            Error::OutOfMemory(_) => ER_OUTOFMEMORY,
            Error::PluginMissing(_) => ER_CLONE_PLUGIN_MATCH,
            Error::Protocol(_) => ER_CLONE_PROTOCOL,
            Error::Raised(number) => *number,
            Error::SystemConfig(_) => ER_CLONE_SYS_CONFIG,
            Error::TooManyClones => ER_CLONE_TOO_MANY_CONCURRENT_CLONES,
        }
    }

    /// Returns true if the connection broke or timed out. A new connection may help.
    pub fn is_network(&self) -> bool {
        matches!(
            self.number(),
            ER_NET_ERROR_ON_WRITE
                | ER_NET_READ_ERROR
                | ER_NET_WRITE_INTERRUPTED
                | ER_NET_READ_INTERRUPTED
                | ER_NET_WAIT_ERROR
        )
    }

    /// Returns true if the connection cannot be used any more: it is broken, or out of step with
    /// the peer.
    pub fn ends_connection(&self) -> bool {
        self.is_network()
            || matches!(
                self.number(),
                ER_NET_PACKETS_OUT_OF_ORDER
                    | ER_NET_UNCOMPRESS_ERROR
                    | ER_NET_PACKET_TOO_LARGE
                    | ER_CLONE_PROTOCOL
            )
    }

    /// The number in the text of an [`Error::Connect`]: "Connect failed: 1040 : Too many
    /// connections", or "1040 : Too many connections". None for other errors, and if the text has
    /// no number.
    pub fn connect_number(&self) -> Option<u32> {
        let Error::Connect(text) = self else { return None };
        let text = text.strip_prefix("Connect failed: ").unwrap_or(text);
        text.split_once(" : ")?.0.parse().ok()
    }

    /// A failed read or write of the file that the engine calls `name`.
    pub fn file(write: bool, name: &str, error: &io::Error) -> Error {
        Error::File { write, name: name.to_owned(), errno: error.raw_os_error().unwrap_or(0) }
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Error {
        Error::Protocol(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_broken_connections_are_worth_connecting_again() {
        for number in [1158, 1159, 1160, 1161, 13417] {
            assert!(Error::Raised(number).is_network(), "{number}");
            assert!(Error::Raised(number).ends_connection(), "{number}");
        }
        for network in [NetworkError::Read, NetworkError::WriteTimeout] {
            assert!(Error::from(network).is_network(), "{network}");
        }
        let out_of_order = Error::Network(NetworkError::PacketsOutOfOrder);
        for error in [out_of_order, Error::Protocol(String::new()), Error::Raised(1153)] {
            assert!(!error.is_network(), "{error}");
            assert!(error.ends_connection(), "{error}");
        }
        for error in [Error::Interrupted, Error::TooManyClones, Error::Raised(1026)] {
            assert!(!error.ends_connection(), "{error}");
        }
    }

    #[test]
    fn the_number_of_a_connection_that_failed() {
        let number = |text: &str| Error::Connect(text.to_owned()).connect_number();
        assert_eq!(number("Connect failed: 1040 : Too many connections"), Some(1040));
        assert_eq!(number("3032 : The server is currently in offline mode"), Some(3032));
        assert_eq!(number("Connect failed"), None);
        assert_eq!(number("Connect failed: No file descriptors: limit 1024"), None);
        assert_eq!(Error::Internal("Connect failed: 1040 : x".to_owned()).connect_number(), None);
    }

    #[test]
    fn numbers_of_the_client_library_end_before_newer_numbers_of_the_server() {
        let numbers = [1040, 1999, 2000, 2013, 2999, 3000, 3024, 3032];
        let of_client: Vec<_> = numbers.into_iter().filter(|one| is_of_client(*one)).collect();
        assert_eq!(of_client, [2000, 2013, 2999]);
    }

    #[test]
    fn a_donors_error_keeps_the_form_that_group_replication_parses() {
        let error = Error::Donor { number: 1227, message: "Access denied".into() };
        assert_eq!(error.to_string(), "1227 : Access denied");
    }
}
