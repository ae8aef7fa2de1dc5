// SPDX-License-Identifier: GPL-2.0-only

//! Pages and redo blocks that a server has encrypted, read with the keyring of the server.
//!
//! A page keeps its header. What is behind the header is encrypted (AES-256-CBC with the first half
//! of the vector) as far as it fills blocks of 16 bytes. Then the last 32 bytes are encrypted (once
//! more), since the bytes are no multiple of 16. The checksum is that of the page before. A block
//! of the redo log is encrypted in the same way behind its header of 12 bytes, its checksum
//! included (`Encryption::encrypt_log_block`).

use std::fmt;

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, KeyInit};
use clone_io::checksum;
use clone_protocol::innodb::PageSize;
use zeroize::Zeroizing;

use super::keyring::{Key, Keyring};
use crate::format::bytes::{u16_at, u32_at};
use crate::format::checksum::seal;
use crate::format::encryption_info::{self, LEN, MAGIC, MASTER_KEY, PAIR, SUM, UUID};
use crate::format::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, COMPRESSED_SIZE, COMPRESSION_VERSION, DATA,
    ENCRYPTED_RTREE, ORIGINAL_TYPE, RTREE, TYPE,
};
use crate::format::redo::{self, BLOCK_HEADER, LogBlock};

/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// `Encryption::DEFAULT_MASTER_KEY`: what a server uses as master key 0 before it has a keyring.
/// The rest of the key is zeros.
const DEFAULT_MASTER_KEY: &[u8; 16] = b"DefaultMasterKey";
/// Version 1 of page compression has its bytes aligned to this before they are encrypted; version 2
/// has them not aligned.
const FILE_BLOCK: usize = 4096;

/// The key of a tablespace or of the redo log, with its vector. It is never printed, and is wiped
/// when it is dropped. Boxes, so that a key that is moved leaves nothing behind.
pub(crate) struct DataKey {
    cipher: Box<Aes256>,
    /// The encryption information with key and vector in clear.
    info: Box<Zeroizing<[u8; LEN]>>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

impl DataKey {
    /// From an encryption information.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn of(info: &[u8], keyring: &Keyring) -> Result<Self, String> {
        let mut clear = Box::new(Zeroizing::new([0; LEN]));
        clear.copy_from_slice(info.get(..LEN).ok_or("the encryption information is too short")?);
        if !clear.starts_with(MAGIC) {
            return Err("it has no key of the form of MySQL 8.0".into());
        }
        let number = u32_at(info, MASTER_KEY.start);
        let uuid = str::from_utf8(&info[UUID]).map_err(|_| "its key names no server's UUID")?;
        let mut default = Key([0; 32]);
        default.0[..DEFAULT_MASTER_KEY.len()].copy_from_slice(DEFAULT_MASTER_KEY);
        let master = match number {
            0 => &default,
            _ => keyring.get(uuid, number).ok_or_else(|| {
                format!("the keyring has no master key {number} of server {uuid}")
            })?,
        };
        let (blocks, _) = Array::slice_as_chunks_mut(&mut clear[PAIR]);
        Aes256::new((&master.0).into()).decrypt_blocks(blocks);
        if checksum(&clear[PAIR]) != u32_at(info, SUM.start) {
            return Err("the master key does not fit: is it the keyring of this server?".into());
        }
        clear[MASTER_KEY].fill(0);
        let mut key = Key([0; 32]);
        key.0.copy_from_slice(&clear[PAIR][..32]);
        Ok(Self { cipher: Box::new(Aes256::new((&key.0).into())), info: clear })
    }

    /// From page 0 of a tablespace.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn of_page_0(
        page: &[u8],
        page_size: PageSize,
        keyring: &Keyring,
    ) -> Result<Self, String> {
        let info = page.get(encryption_info::in_page_0(page_size)..);
        Self::of(info.unwrap_or_default(), keyring)
    }

    /// The encryption information as a donor sends it: number 0, key and vector in clear.
    pub(crate) fn clear_info(&self) -> &[u8; LEN] {
        &self.info
    }

    /// Puts the key in clear into page 0 of its tablespace, and gives the page its checksum anew.
    /// A page that is too short stays.
    pub(crate) fn put_into_page_0(&self, page: &mut [u8], page_size: PageSize) {
        let at = encryption_info::in_page_0(page_size);
        let Some(page) = page.get_mut(..page_size.physical as usize) else { return };
        let Some(info) = page.get_mut(at..at + LEN) else { return };
        info.copy_from_slice(self.clear_info());
        seal(page, page_size.is_compressed);
    }

    /// Decrypts a page into `plain`.
    pub(crate) fn decrypt_page(&self, page: &[u8], plain: &mut Vec<u8>) {
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
        self.decrypt(plain.get_mut(DATA..end).unwrap_or_default());
    }

    /// Decrypts a block of the redo log in place.
    pub(crate) fn decrypt_log_block(&self, block: &mut [u8]) {
        redo::clear_encrypted_bit(block);
        self.decrypt(block.get_mut(BLOCK_HEADER..).unwrap_or_default());
    }

    fn decrypt(&self, data: &mut [u8]) {
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
        let mut vector = [0; BLOCK];
        vector.copy_from_slice(&self.info[PAIR][32..32 + BLOCK]);
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

/// What a block of the redo log says, which may be encrypted. None if the log has no block at this
/// LSN. Without the key, an encrypted block is known by its header only.
pub(crate) fn parse_log_block(
    key: Option<&DataKey>,
    block: &[u8],
    lsn: u64,
    has_epoch: bool,
) -> Option<LogBlock> {
    let parsed = LogBlock::parse(block, lsn, has_epoch)?;
    let Some(key) = key.filter(|_| parsed.is_encrypted) else { return Some(parsed) };
    let mut plain = [0; redo::BLOCK];
    plain.copy_from_slice(block);
    key.decrypt_log_block(&mut plain);
    let parsed = LogBlock::parse(&plain, lsn, has_epoch)?;
    Some(LogBlock { is_encrypted: true, ..parsed })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use aes::cipher::BlockCipherEncrypt;
    use proptest::prelude::*;

    use super::*;
    use crate::encryption::keyring::tests::{UUID as SERVER, component_file};
    use crate::format::layout::ENCRYPTED;
    use crate::format::redo::{START_LSN, empty_block};

    const SIZE: PageSize = PageSize { physical: 16_384, logical: 16_384, is_compressed: false };

    /// All bytes of the key and of its vector.
    const KEY: u8 = 5;
    const VECTOR: u8 = 6;

    pub(crate) fn keyring() -> Keyring {
        Keyring::parse(component_file().as_bytes()).unwrap()
    }

    /// The encryption information of a key, encrypted with the master key of [`keyring`].
    pub(crate) fn info() -> [u8; LEN] {
        let mut pair = [KEY; 64];
        pair[32..].fill(VECTOR);
        let sum = checksum(&pair);
        let master = Aes256::new(&[1; 32].into());
        for block in pair.chunks_exact_mut(BLOCK) {
            master.encrypt_block(block.try_into().unwrap());
        }
        let mut info = [0; LEN];
        info[..3].copy_from_slice(MAGIC);
        info[MASTER_KEY].copy_from_slice(&1_u32.to_be_bytes());
        info[UUID].copy_from_slice(SERVER.as_bytes());
        info[PAIR].copy_from_slice(&pair);
        info[SUM].copy_from_slice(&sum.to_be_bytes());
        info
    }

    /// Encrypts a page with the key of [`info`], as a server does.
    pub(crate) fn encrypt_page(page: &mut [u8]) {
        page.copy_within(TYPE..TYPE + 2, ORIGINAL_TYPE);
        page[TYPE..TYPE + 2].copy_from_slice(&ENCRYPTED.to_be_bytes());
        encrypt(&mut page[DATA..]);
    }

    /// Encrypts a block of the redo log with the key of [`info`], as a server does.
    pub(crate) fn encrypt_log_block(block: &mut [u8]) {
        block[4] |= 0x80;
        encrypt(&mut block[BLOCK_HEADER..]);
    }

    fn encrypt(data: &mut [u8]) {
        let (main, last) = (data.len() / BLOCK * BLOCK, data.len() - 2 * BLOCK);
        chain(&mut data[..main]);
        chain(&mut data[last..]);
    }

    fn chain(data: &mut [u8]) {
        let cipher = Aes256::new(&[KEY; 32].into());
        let mut before = [VECTOR; BLOCK];
        for block in data.chunks_exact_mut(BLOCK) {
            block.iter_mut().zip(before).for_each(|(byte, other)| *byte ^= other);
            cipher.encrypt_block(block.try_into().unwrap());
            before.copy_from_slice(block);
        }
    }

    #[test]
    fn a_page_comes_out_as_it_went_in() {
        let key = DataKey::of(&info(), &keyring()).unwrap();
        let page: Vec<u8> = (0..16_384_u32).map(|i| (i * 31 % 251) as u8).collect();
        let mut encrypted = page.clone();
        encrypt_page(&mut encrypted);
        let mut plain = Vec::new();
        key.decrypt_page(&encrypted, &mut plain);
        assert_eq!(plain[DATA..], page[DATA..]);
        assert_eq!(plain[TYPE..TYPE + 2], page[TYPE..TYPE + 2]);
    }

    #[test]
    fn a_log_block_comes_out_as_it_went_in() {
        let key = DataKey::of(&info(), &keyring()).unwrap();
        let block = empty_block(START_LSN, true);
        let mut encrypted = block;
        encrypt_log_block(&mut encrypted);
        let parsed = LogBlock { data_len: 12, is_encrypted: true };
        let parse = |block, lsn| parse_log_block(Some(&key), block, lsn, true);
        assert_eq!(parse(&encrypted, START_LSN), Some(parsed));
        assert_eq!(parse(&encrypted, START_LSN + 512), None);
        let mut torn = encrypted;
        torn[300] ^= 1;
        assert_eq!(parse(&torn, START_LSN), None);
        assert_eq!(parse_log_block(None, &torn, START_LSN, true), Some(parsed), "no key");
        key.decrypt_log_block(&mut encrypted);
        assert_eq!(encrypted, block);
    }

    #[test]
    fn a_key_that_does_not_fit_is_an_error() {
        let key = DataKey::of(&info(), &keyring()).unwrap();
        let mut other = info();
        other[PAIR.start] ^= 1;
        assert!(DataKey::of(&other, &keyring()).unwrap_err().contains("does not fit"));
        other[MASTER_KEY.end - 1] = 2;
        let error = DataKey::of(&other, &keyring()).unwrap_err();
        assert!(error.contains("no master key 2"), "{error}");
        assert!(DataKey::of(&[], &keyring()).is_err());
        assert_eq!(format!("{key:?}"), "DataKey");
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let key = DataKey::of(&info(), &keyring()).unwrap();
            key.decrypt_page(&bytes, &mut Vec::new());
            key.decrypt_log_block(&mut bytes.clone());
            key.put_into_page_0(&mut bytes.clone(), SIZE);
            let _ = DataKey::of(&bytes, &keyring());
            let _ = DataKey::of_page_0(&bytes, SIZE, &keyring());
        }
    }
}
