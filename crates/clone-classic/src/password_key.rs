// SPDX-License-Identifier: GPL-2.0-only

//! The server's RSA key, with which a password crosses a connection without TLS.

use mysql_common::crypto::rsa::{GetRandom, Pkcs1OaepPadding, PublicKey};
use num_bigint::BigUint;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as KnownKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::error::Error;

/// The longest key in PEM that is looked at, bytes. A key of 16384 bits has about 2900.
const MAX_PEM: usize = 8 << 10;

/// Keys that are accepted, bits.
const KEY_BITS: std::ops::RangeInclusive<u64> = 1024..=16384;

/// The largest public exponent, bits. Nearly all keys have 65537.
const MAX_EXPONENT_BITS: u64 = 64;

/// Bytes that OAEP with SHA-1 needs beside the message.
const OAEP: usize = 2 * 20 + 2;

/// Encrypts a password that is mixed with the nonce already, with the key `pem` of the server.
pub(crate) fn encrypt(mixed: &Zeroizing<Vec<u8>>, pem: &[u8]) -> Result<Vec<u8>, Error> {
    let key = parse(pem).ok_or_else(|| Error::malformed("the server's RSA key"))?;
    if mixed.len() + OAEP > (key.modulus().bits() / 8) as usize {
        return Err(Error::malformed("the server's RSA key is too short for this password"));
    }
    key.encrypt_block(mixed, Pkcs1OaepPadding::new(GetRandom))
        .map_err(|_| Error::malformed("the password cannot be encrypted with the server's key"))
}

/// Parses a key: `BEGIN PUBLIC KEY`, as mysqld writes it.
fn parse(pem: &[u8]) -> Option<PublicKey> {
    if pem.len() > MAX_PEM {
        return None;
    }
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    of_der(&der)
}

/// Parses a SubjectPublicKeyInfo.
pub(crate) fn of_der(der: &[u8]) -> Option<PublicKey> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let Ok(KnownKey::RSA(key)) = info.parsed() else { return None };
    let modulus = BigUint::from_bytes_be(key.modulus);
    let exponent = BigUint::from_bytes_be(key.exponent);
    let is_fine = KEY_BITS.contains(&modulus.bits())
        && modulus.bit(0)
        && exponent.bits() <= MAX_EXPONENT_BITS
        && exponent.bit(0);
    is_fine.then(|| PublicKey::new(modulus, exponent))
}
