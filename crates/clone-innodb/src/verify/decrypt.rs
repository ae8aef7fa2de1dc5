// SPDX-License-Identifier: GPL-2.0-only

//! Encrypted pages (`os0enc.cc:Encryption`).
//!
//! A tablespace has a key and a vector of its own. They stand in page 0, encrypted with the master
//! key (`format::encryption_info`).
//!
//! A page keeps its header. What is behind the header is encrypted (AES-256-CBC with the first half
//! of the vector) as far as it fills blocks of 16 bytes. Then the last 32 bytes are encrypted (once
//! more), since the bytes are no multiple of 16. The checksum is that of the page before.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, KeyInit};
use clone_io::checksum;
use clone_protocol::innodb::PageSize;

use super::keyring::{Key, Keyring};
use crate::format::bytes::{u16_at, u32_at};
use crate::format::encryption_info::{self, LEN, MAGIC, MASTER_KEY, PAIR, SUM, UUID};
use crate::format::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, COMPRESSED_SIZE, COMPRESSION_VERSION, DATA,
    ENCRYPTED_RTREE, ORIGINAL_TYPE, RTREE, TYPE,
};

const BLOCK: usize = 16;
/// `Encryption::DEFAULT_MASTER_KEY`: what a server uses as master key 0 before it has a keyring.
/// The rest of the key is zeros.
const DEFAULT_MASTER_KEY: &[u8; 16] = b"DefaultMasterKey";
/// Version 1 of page compression has its bytes aligned to this before they are encrypted; version 2
/// has them not aligned.
const FILE_BLOCK: usize = 4096;

/// The key of a tablespace.
pub(crate) struct SpaceKey {
    cipher: Aes256,
    vector: [u8; BLOCK],
}

impl std::fmt::Debug for SpaceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpaceKey")
    }
}

impl SpaceKey {
    /// From page 0.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn of(page: &[u8], page_size: PageSize, keyring: &Keyring) -> Result<Self, String> {
        let at = encryption_info::in_page_0(page_size);
        let info = page.get(at..at + LEN).ok_or("page 0 is too short")?;
        if !info.starts_with(MAGIC) {
            return Err("page 0 has no key of the form of MySQL 8.0".into());
        }
        let number = u32_at(info, MASTER_KEY.start);
        let uuid = str::from_utf8(&info[UUID]).map_err(|_| "page 0 has no UUID of a server")?;
        let mut default = Key([0; 32]);
        default.0[..DEFAULT_MASTER_KEY.len()].copy_from_slice(DEFAULT_MASTER_KEY);
        let master = match number {
            0 => &default,
            _ => keyring.get(uuid, number).ok_or_else(|| {
                format!("the keyring has no master key {number} of server {uuid}")
            })?,
        };
        let mut pair = zeroize::Zeroizing::new([0; 64]);
        pair.copy_from_slice(&info[PAIR]);
        let (blocks, _) = Array::slice_as_chunks_mut(pair.as_mut_slice());
        cipher(master).decrypt_blocks(blocks);
        if checksum(pair.as_slice()) != u32_at(info, SUM.start) {
            return Err("the master key does not fit: is it the keyring of this server?".into());
        }
        let mut key = Key([0; 32]);
        key.0.copy_from_slice(&pair[..32]);
        let mut vector = [0; BLOCK];
        vector.copy_from_slice(&pair[32..48]);
        Ok(Self { cipher: cipher(&key), vector })
    }

    /// Decrypts a page into `plain`.
    pub(crate) fn decrypt(&self, page: &[u8], plain: &mut Vec<u8>) {
        plain.clear();
        plain.extend_from_slice(page);
        let kind = u16_at(page, TYPE);
        let end = if kind == COMPRESSED_AND_ENCRYPTED {
            let len = DATA + usize::from(u16_at(page, COMPRESSED_SIZE));
            let aligned = if page.get(COMPRESSION_VERSION) == Some(&1) { FILE_BLOCK } else { 1 };
            len.next_multiple_of(aligned).min(page.len())
        } else {
            page.len()
        };
        let restored = match kind {
            COMPRESSED_AND_ENCRYPTED => COMPRESSED,
            ENCRYPTED_RTREE => RTREE,
            _ => u16_at(page, ORIGINAL_TYPE),
        };
        if let Some(field) = plain.get_mut(TYPE..TYPE + 2) {
            field.copy_from_slice(&restored.to_be_bytes());
        }
        let Some(data) = plain.get_mut(DATA..end) else { return };
        let main = data.len() / BLOCK * BLOCK;
        if main != data.len()
            && let Some(last) = data.len().checked_sub(2 * BLOCK)
        {
            self.chain(&mut data[last..]);
        }
        self.chain(&mut data[..main]);
    }

    /// CBC over whole blocks, several at once: each block needs only the encrypted one before.
    fn chain(&self, data: &mut [u8]) {
        const AT_ONCE: usize = 64 * BLOCK;
        let mut vector = self.vector;
        let mut encrypted = [0; AT_ONCE];
        for part in data.chunks_mut(AT_ONCE) {
            let before = &mut encrypted[..part.len()];
            before.copy_from_slice(part);
            let (blocks, _) = Array::slice_as_chunks_mut(part);
            self.cipher.decrypt_blocks(blocks);
            let chained = vector.iter().chain(before.iter());
            part.iter_mut().zip(chained).for_each(|(byte, other)| *byte ^= other);
            if let Some(last) = before.last_chunk() {
                vector = *last;
            }
        }
    }
}

fn cipher(key: &Key) -> Aes256 {
    Aes256::new(&Array::from(key.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use aes::cipher::BlockCipherEncrypt;
    use proptest::prelude::*;

    use super::*;
    use crate::verify::keyring::tests::{UUID, component_file};

    const SIZE: PageSize = PageSize { physical: 16_384, logical: 16_384, is_compressed: false };

    fn encrypt(cipher: &Aes256, data: &mut [u8], vector: [u8; 16]) {
        let mut before = vector;
        for block in data.chunks_exact_mut(16) {
            block.iter_mut().zip(before).for_each(|(byte, other)| *byte ^= other);
            cipher.encrypt_block(block.try_into().unwrap());
            before.copy_from_slice(block);
        }
    }

    /// Page 0 with the key of 32 times 5, and a vector of 6.
    fn page_0() -> Vec<u8> {
        let mut pair = [5; 64];
        pair[32..].fill(6);
        let sum = checksum(&pair);
        let master = cipher(&Key([1; 32]));
        for block in pair.chunks_exact_mut(16) {
            master.encrypt_block(block.try_into().unwrap());
        }
        let mut page = vec![0; 16_384];
        let info = &mut page[10_390..];
        info[..3].copy_from_slice(b"lCC");
        info[6] = 1;
        info[7..43].copy_from_slice(UUID.as_bytes());
        info[43..107].copy_from_slice(&pair);
        info[107..111].copy_from_slice(&sum.to_be_bytes());
        page
    }

    #[test]
    fn a_page_comes_out_as_it_went_in() {
        let keyring = Keyring::parse(component_file().as_bytes()).unwrap();
        let key = SpaceKey::of(&page_0(), SIZE, &keyring).unwrap();
        let page: Vec<u8> = (0..16_384_u32).map(|i| (i * 31 % 251) as u8).collect();
        let mut encrypted = page.clone();
        encrypted.copy_within(TYPE..TYPE + 2, ORIGINAL_TYPE);
        encrypted[TYPE..TYPE + 2].copy_from_slice(&15_u16.to_be_bytes());
        let data = &mut encrypted[DATA..];
        let (main, last) = (data.len() / 16 * 16, data.len() - 32);
        encrypt(&cipher(&Key([5; 32])), &mut data[..main], [6; 16]);
        encrypt(&cipher(&Key([5; 32])), &mut data[last..], [6; 16]);
        let mut plain = Vec::new();
        key.decrypt(&encrypted, &mut plain);
        assert_eq!(plain[DATA..], page[DATA..]);
        assert_eq!(plain[TYPE..TYPE + 2], page[TYPE..TYPE + 2]);
        let mut other = page_0();
        other[10_390 + 50] ^= 1;
        assert!(SpaceKey::of(&other, SIZE, &keyring).is_err());
        assert!(SpaceKey::of(&[], SIZE, &keyring).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let keyring = Keyring::parse(component_file().as_bytes()).unwrap();
            let key = SpaceKey::of(&page_0(), SIZE, &keyring).unwrap();
            key.decrypt(&bytes, &mut Vec::new());
            let _ = SpaceKey::of(&bytes, SIZE, &keyring);
        }
    }
}
