// SPDX-License-Identifier: GPL-2.0-only

//! What is checked of a server's certificate.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// Checks a server's certificate.
#[derive(Debug)]
pub(crate) struct CertificateCheck {
    /// The authorities; none: every certificate is accepted.
    pub(crate) authorities: Option<Authorities>,
    /// The certificate must name the host.
    pub(crate) identity: bool,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

/// Who is trusted.
#[derive(Debug)]
pub(crate) struct Authorities {
    /// As trust anchors.
    pub(crate) roots: RootCertStore,
    /// The certificates as such: a server may have one of them.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for CertificateCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        if !authorities.certificates.iter().any(|trusted| trusted == end_entity) {
            if is_version_1(end_entity) {
                let text = "the server's certificate has version 1, which cannot be checked: make \
                            one of version 3 (`openssl x509 -req -extfile ...`)";
                return Err(Error::General(text.into()));
            }
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &authorities.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        if self.identity && !names(end_entity, server_name) {
            let text = format!("the server's certificate does not name '{}'", server_name.to_str());
            return Err(Error::General(text));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // webpki reads version 3 only. Of a certificate that is not checked, the key is enough.
        match public_key(cert).filter(|_| is_version_1(cert)) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms),
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse<'a>(cert: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(cert).ok().map(|(_, cert)| cert)
}

fn is_version_1(cert: &CertificateDer<'_>) -> bool {
    parse(cert).is_some_and(|cert| cert.version == X509Version::V1)
}

fn public_key(cert: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    Some(SubjectPublicKeyInfoDer::from(parse(cert)?.public_key().raw.to_vec()))
}

/// Whether the certificate names the host: in its alternative names, or, if it has none of these,
/// in its common name, as OpenSSL looks at it for MySQL's own clients.
pub(crate) fn names(cert: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let by_webpki =
        ParsedCertificate::try_from(cert).is_ok_and(|cert| verify_server_name(&cert, host).is_ok());
    by_webpki || common_name(cert).is_some_and(|name| matches(&name, &host.to_str()))
}

/// The common name of a certificate without alternative names.
fn common_name(cert: &CertificateDer<'_>) -> Option<String> {
    let cert = parse(cert)?;
    match cert.subject_alternative_name() {
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => return None,
    }
    let name = cert.subject().iter_common_name().last()?.as_str().ok()?;
    Some(name.to_owned())
}

/// Whether `pattern`, of which the first label may be `*`, is the host's name.
fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) if domain.contains('.') => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
        _ => pattern.eq_ignore_ascii_case(host),
    }
}
