// SPDX-License-Identifier: GPL-2.0-only

//! A server's certificate.

use std::fmt::Write;
use std::path::Path;

use graviola::hashing::{Hash, Sha256};
use graviola::signing::ecdsa::{P256, SigningKey};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyIdMethod};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::Error;
use crate::tls::{certificates, private_key, provider};

/// Bytes of a point of P-256, uncompressed.
const POINT: usize = 65;
/// More than any encoding of a key or a signature of P-256 needs, bytes.
const ENCODED: usize = 256;

/// A certificate with its key.
pub struct Certificate {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// Reads PEM files: the server's certificate and those that signed it, and the key.
    ///
    /// # Errors
    /// [`Error::Tls`], with the file's name.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, Error> {
        Ok(Self { chain: certificates(certificate)?, key: private_key(key)? })
    }

    /// Makes a key (ECDSA, P-256) and a certificate that the key itself signs, for these host names
    /// and addresses. A recipient that is to check the certificate needs the certificate itself
    /// ([`pem`](Self::pem)) as `clone_ssl_ca` or `--ssl-ca`.
    ///
    /// # Errors
    /// [`Error::Tls`]: a name that is none, no random numbers.
    pub fn generate(names: &[String]) -> Result<Self, Error> {
        // graviola panics on a processor that it does not know.
        provider()?;
        let failed = |what: &dyn std::fmt::Display| {
            Error::Tls(format!("a certificate cannot be made: {what}"))
        };
        let unkeyed = |error: graviola::Error| failed(&format!("{error:?}"));
        let key = EcdsaKey::generate().map_err(unkeyed)?;
        let mut params = CertificateParams::new(names).map_err(|error| failed(&error))?;
        params.distinguished_name.push(DnType::CommonName, "mysql-clone");
        // Without key usages: the certificate signs itself, so OpenSSL 1.1.1 would want keyCertSign
        // among them.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let identifier = Sha256::hash(&key.point);
        params.key_identifier_method = KeyIdMethod::PreSpecified(identifier.as_ref()[..20].into());
        let mut serial = [0; 16];
        graviola::random::fill(&mut serial).map_err(unkeyed)?;
        // A serial number is positive and has no zero in front.
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(serial.to_vec().into());
        let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
        let mut der = [0; ENCODED];
        let der = key.key.to_pkcs8_der(&mut der).map_err(unkeyed)?.to_vec();
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        })
    }

    /// The SHA-256 fingerprint of the server's certificate, as `openssl x509 -fingerprint -sha256`
    /// prints it: `AB:CD:...`.
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        let first = self.chain.first().map_or(&[][..], |first| first);
        for (index, byte) in Sha256::hash(first).as_ref().iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            // Writing to a string does not fail.
            let _ = write!(text, "{colon}{byte:02X}");
        }
        text
    }

    /// The server's certificate in PEM, without the key.
    pub fn pem(&self) -> String {
        let first = self.chain.first().map_or(&[][..], |first| first);
        pem::encode_config(
            &pem::Pem::new("CERTIFICATE", first),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }
}

/// Without the key.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// A key of graviola, as rcgen sees it.
struct EcdsaKey {
    key: SigningKey<P256>,
    /// The public key.
    point: [u8; POINT],
}

impl EcdsaKey {
    fn generate() -> Result<Self, graviola::Error> {
        let key = SigningKey::generate()?;
        let mut info = [0; ENCODED];
        let info = key.to_spki_der(&mut info)?;
        // The point stands at the end of a SubjectPublicKeyInfo.
        let point = info.last_chunk().copied().ok_or(graviola::Error::WrongLength)?;
        Ok(Self { key, point })
    }
}

impl rcgen::PublicKeyData for EcdsaKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for EcdsaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let mut signature = [0; ENCODED];
        self.key
            .sign_asn1::<Sha256>(&[message], &mut signature)
            .map(<[u8]>::to_vec)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
