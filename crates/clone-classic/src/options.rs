// SPDX-License-Identifier: GPL-2.0-only

//! Where to connect to, as whom, and how.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or an IPv4 or IPv6 address, and a port. All addresses of a name are tried, in
    /// the order in which the resolver gives them.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// The port of the classic protocol.
        port: u16,
    },
    /// A Unix socket.
    Socket(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `--ssl-mode` of MySQL's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Without TLS.
    Disabled,
    /// TLS if the server offers TLS. Over a Unix socket without TLS.
    #[default]
    Preferred,
    /// TLS, with any certificate.
    Required,
    /// TLS, with a certificate that an authority of [`TlsOptions::ca`] signed.
    VerifyCa,
    /// As [`VerifyCa`](Self::VerifyCa), and the certificate must name the host.
    VerifyIdentity,
}

/// How a connection is encrypted.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Whether to encrypt, and what of the server's certificate to check.
    pub mode: SslMode,
    /// PEM file with the certificates of authorities. Needed for [`SslMode::VerifyCa`] and
    /// [`SslMode::VerifyIdentity`], and not read in other modes. A server's own certificate in this
    /// file is trusted as such.
    pub ca: Option<PathBuf>,
    /// PEM file with the client's certificate, for accounts with REQUIRE X509.
    pub cert: Option<PathBuf>,
    /// PEM file with the key of [`cert`](Self::cert), without a passphrase.
    pub key: Option<PathBuf>,
}

/// All that [`Connection::connect`](crate::Connection::connect) needs.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Where the server listens.
    pub address: Address,
    /// The account's user name.
    pub user: String,
    /// The password; may be empty.
    pub password: Zeroizing<String>,
    /// TLS.
    pub tls: TlsOptions,
    /// The level of Zstandard, 1 to 22, at which the server compresses what it sends. None for no
    /// compression. A server that does not offer Zstandard (8.0.17, or one that excludes it in
    /// `protocol_compression_algorithms`) does not compress. A server refuses other levels.
    pub zstd_level: Option<u8>,
    /// The longest wait for the connection to one address, and for the server's first packet.
    pub connect_timeout: Duration,
    /// The longest wait for the server to send or take something. The rest of the handshake may
    /// take this long as a whole.
    pub read_timeout: Duration,
    /// Asked at least every 250 ms while there is a wait. True ends the wait with
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub cancel: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Without the password.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("address", &self.address)
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("zstd_level", &self.zstd_level)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .finish_non_exhaustive()
    }
}
