// SPDX-License-Identifier: GPL-2.0-only

//! What is checked of a server's certificate.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// Tag of an object identifier in DER.
const OBJECT_IDENTIFIER: u8 = 6;

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
        if authorities.certificates.iter().any(|trusted| trusted == end_entity) {
            // The server's own certificate is trusted as such.
        } else if is_version_1(end_entity) {
            authorities.check_version_1(end_entity, now, self.algorithms)?;
        } else {
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
        // rustls has no way to check a signature of TLS 1.2 with a key alone.
        if is_version_1(cert) {
            let text = "the server's certificate has version 1, which needs TLS 1.3";
            return Err(Error::General(text.into()));
        }
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

impl Authorities {
    /// Checks a certificate of version 1, which webpki does not read. `openssl x509 -req` made such
    /// certificates by default for a long time, also by the recipe in MySQL's manual. One of the
    /// authorities must have signed it directly.
    fn check_version_1(
        &self,
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let cert = parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < cert.validity().not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > cert.validity().not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        let is_signed = self.certificates.iter().filter_map(parse).any(|authority| {
            authority.subject().as_raw() == cert.issuer().as_raw()
                && may_sign(&authority, now)
                && is_signed_by(&cert, &authority, algorithms)
        });
        if is_signed { Ok(()) } else { Err(CertificateError::UnknownIssuer.into()) }
    }
}

/// Whether an authority may sign certificates now. One of version 1 cannot say that it must not.
fn may_sign(authority: &X509Certificate<'_>, now: i64) -> bool {
    let validity = authority.validity();
    let is_valid =
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
    let is_authority = authority.version == X509Version::V1 || authority.is_ca();
    is_valid && is_authority
}

fn is_signed_by(
    cert: &X509Certificate<'_>,
    authority: &X509Certificate<'_>,
    algorithms: WebPkiSupportedAlgorithms,
) -> bool {
    let key = SubjectPublicKeyInfoDer::from(authority.public_key().raw);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return false };
    let algorithm = cert.signature_algorithm.algorithm.as_bytes();
    let identifier = [&[OBJECT_IDENTIFIER, algorithm.len() as u8], algorithm].concat();
    let signature = &cert.signature_value.data;
    algorithms
        .all
        .iter()
        .filter(|known| known.signature_alg_id().starts_with(&identifier))
        .any(|&known| key.verify_signature(known, cert.tbs_certificate.as_ref(), signature).is_ok())
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
