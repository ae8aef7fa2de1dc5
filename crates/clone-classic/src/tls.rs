// SPDX-License-Identifier: GPL-2.0-only

//! TLS by rustls, with the cryptography of graviola.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::certificate::{Authorities, CertificateCheck};
use crate::error::Error;
use crate::options::{SslMode, TlsOptions};
use crate::socket::Socket;
use crate::stream::TlsStream;

/// Features of a processor that graviola needs.
#[cfg(target_arch = "x86_64")]
const NEEDED: &str = "AES, PCLMULQDQ, BMI1, BMI2, ADX, AVX and AVX2";
#[cfg(target_arch = "aarch64")]
const NEEDED: &str = "AES, PMULL, SHA2 and NEON";

/// The cryptography.
///
/// # Errors
/// If the processor lacks what graviola needs.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, Error> {
    // graviola would panic.
    if !graviola::util::is_cpu_supported() {
        return Err(Error::Tls(format!(
            "this processor lacks a feature that TLS needs here: {NEEDED}. Without TLS \
             (--ssl-mode=DISABLED) it is not needed"
        )));
    }
    Ok(Arc::new(rustls_graviola::default_provider()))
}

/// What a client needs for TLS: read from its files once, before anything is sent.
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Reads the files.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, Error> {
        let provider = provider()?;
        let checks_chain = matches!(options.mode, SslMode::VerifyCa | SslMode::VerifyIdentity);
        let check = CertificateCheck {
            authorities: checks_chain.then(|| authorities(options)).transpose()?,
            identity: options.mode == SslMode::VerifyIdentity,
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(check));
        let mut config = match (&options.cert, &options.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| at(cert, &error))?,
            _ => {
                let text = "a client's certificate needs its key, and a key its certificate";
                return Err(Error::Tls(text.into()));
            }
        };
        // As MySQL's clients by default.
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config) })
    }

    /// Makes the TLS handshake. `host` is what the certificate must name.
    pub(crate) fn start(&self, socket: Socket, host: &str) -> Result<TlsStream, Error> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Tls(format!("'{host}' is no name that a certificate can have")))?;
        let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(refused)?;
        TlsStream::start(socket, connection.into(), &[])
    }
}

fn refused(error: rustls::Error) -> Error {
    Error::Tls(error.to_string())
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Tls(format!("{}: {error}", path.display()))
}

/// The authorities of the file `ca`.
fn authorities(options: &TlsOptions) -> Result<Authorities, Error> {
    let path = options.ca.as_ref().ok_or_else(|| {
        let text = "CA certificate is required if ssl-mode is VERIFY_CA or VERIFY_IDENTITY";
        Error::Tls(text.into())
    })?;
    let certificates = certificates(path)?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err(at(path, &"no certificate of this file can be read"));
    }
    Ok(Authorities { roots, certificates })
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| at(path, &error))?;
    if certificates.is_empty() {
        return Err(at(path, &"no certificate in PEM is in this file"));
    }
    Ok(certificates)
}

/// The first private key of a PEM file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        at(path, &format!("{error}. A private key in PEM without a passphrase is needed"))
    })
}
