// SPDX-License-Identifier: GPL-2.0-only

//! How to be a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use zeroize::Zeroizing;

use super::certificate::Certificate;
use crate::error::Error;
use crate::socket::Cancel;
use crate::tls::provider;

/// The one account.
#[derive(Clone)]
pub struct Account {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

impl Account {
    /// An account. None if the user or the password is empty or has a NUL: who clones may read
    /// everything.
    pub fn new(user: &str, password: Zeroizing<String>) -> Option<Self> {
        let is_fine = |text: &str| !text.is_empty() && !text.contains('\0');
        (is_fine(user) && is_fine(&password)).then(|| Self { user: user.to_owned(), password })
    }
}

/// How to be a server. Cheap to clone.
#[derive(Clone)]
pub struct ServerOptions {
    /// As `SELECT VERSION()` would show it, for example `9.7.4`. Recipients look at it.
    pub version: String,
    /// Who may log in.
    pub account: Account,
    /// The longest time from a connection to the end of the login.
    pub handshake_timeout: Duration,
    /// The longest wait for a peer that should take something.
    pub write_timeout: Duration,
    /// Asked at least every 250 ms while there is a wait. True ends the wait with
    /// [`Error::Cancelled`].
    pub cancel: Cancel,
    pub(super) config: Arc<ServerConfig>,
}

impl ServerOptions {
    /// Options with a time-out of 10 s for the handshake and of 60 s for writing.
    ///
    /// # Errors
    /// [`Error::Tls`] if the key does not belong to the certificate, or if the processor cannot do
    /// what TLS needs.
    pub fn new(version: &str, account: Account, certificate: Certificate) -> Result<Self, Error> {
        let refused = |error: rustls::Error| Error::Tls(error.to_string());
        let config = ServerConfig::builder_with_provider(provider()?)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_no_client_auth()
            .with_single_cert(certificate.chain, certificate.key)
            .map_err(refused)?;
        Ok(Self {
            version: version.to_owned(),
            account,
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            cancel: Arc::new(|| false),
            config: Arc::new(config),
        })
    }
}

/// Without the password.
impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("version", &self.version)
            .field("user", &self.account.user)
            .finish_non_exhaustive()
    }
}
