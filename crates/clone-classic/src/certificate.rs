// SPDX-License-Identifier: GPL-2.0-only

//! What is checked of a server's certificate.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};

/// The attribute commonName of a name (X.520).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// The extension subjectAltName (RFC 5280, 4.2.1.6).
const ALTERNATIVE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

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

fn is_version_1(cert: &CertificateDer<'_>) -> bool {
    Certificate::from_der(cert).is_ok_and(|cert| cert.tbs_certificate().version() == Version::V1)
}

fn public_key(cert: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let cert = Certificate::from_der(cert).ok()?;
    let key = cert.tbs_certificate().subject_public_key_info().to_der().ok()?;
    Some(SubjectPublicKeyInfoDer::from(key))
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
    let cert = Certificate::from_der(cert).ok()?;
    let cert = cert.tbs_certificate();
    let extensions = cert.extensions().map(|all| all.as_slice()).unwrap_or_default();
    if extensions.iter().any(|extension| extension.extn_id == ALTERNATIVE_NAME) {
        return None;
    }
    let names = cert.subject().iter();
    let name = names.filter(|attribute| attribute.oid == COMMON_NAME).last()?;
    // PrintableString, UTF8String, IA5String: all are UTF-8.
    String::from_utf8(name.value.value().to_vec()).ok()
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
