// SPDX-License-Identifier: GPL-2.0-only

//! Digests by which two copies of a file are compared without sending either.

use clone_protocol::Digest;

/// Makes the digests of one clone.
#[derive(Clone)]
pub struct Digester {
    key: [u8; 32],
}

impl Digester {
    /// With this key. Digests of different keys say nothing about each other.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// With a random key.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut key = [0; 32];
        let mut filled = 0;
        while filled < key.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut key[filled..], flags)?;
        }
        Ok(Self { key })
    }

    /// The key.
    pub fn key(&self) -> [u8; 32] {
        self.key
    }

    /// The digest of these bytes: the first 16 bytes of their keyed BLAKE3 hash.
    pub fn digest(&self, bytes: &[u8]) -> Digest {
        let hash = blake3::keyed_hash(&self.key, bytes);
        let mut digest = Digest::default();
        digest.copy_from_slice(&hash.as_bytes()[..size_of::<Digest>()]);
        digest
    }
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// The test vector of 1 byte of BLAKE3's authors (`test_vectors/test_vectors.json`).
    #[test]
    fn the_hash_is_keyed_blake3() {
        let digester = Digester::new(*b"whats the Elvish word for friend");
        let expected = [
            0x6d, 0x78, 0x78, 0xdf, 0xff, 0x2f, 0x48, 0x56, 0x35, 0xd3, 0x90, 0x13, 0x27, 0x8a,
            0xe1, 0x4f,
        ];
        assert_eq!(digester.digest(&[0]), expected);
    }

    #[test]
    fn other_keys_give_other_digests() {
        let (one, other) = (Digester::random().unwrap(), Digester::random().unwrap());
        assert_ne!(one.key(), other.key());
        assert_ne!(one.digest(&[0; 4096]), other.digest(&[0; 4096]));
        assert_eq!(Digester::new(one.key()).digest(b"page"), one.digest(b"page"));
    }
}
