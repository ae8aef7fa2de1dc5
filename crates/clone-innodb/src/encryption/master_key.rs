// SPDX-License-Identifier: GPL-2.0-only

//! The master key of a new data directory (`clone0snapshot.cc:encrypt_key_in_header`).
//!
//! # The file of `component_keyring_file`
//!
//! JSON, the same in all releases that have the component (8.0.24 and later):
//!
//! ```json
//! {"version": "1.0",
//!  "elements": [{"user": "", "data_id": "INNODBKey-UUID-1", "data_type": "AES",
//!                "data": "64 hexadecimal digits", "extension": []}]}
//! ```

use std::fmt;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use clone_io::checksum;
use clone_protocol::innodb::{EncryptionKey, PageSize};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::keyring::{Key, Keyring, PREFIX};
use crate::format::checksum::seal;
use crate::format::encryption_info::{self, LEN, MAGIC, MASTER_KEY, PAIR, SUM, UUID};
use crate::format::redo::{self, BLOCK, at};

/// The number of a new master key. The UUID is new, so that no other key has this name.
const NUMBER: u32 = 1;

/// What a keyring file is named before it is whole.
const UNFINISHED: &str = ".mysql-clone-new";

/// A master key. It is never printed, and is wiped when it is dropped.
///
/// Two master keys are equal if their names are.
pub struct MasterKey {
    uuid: String,
    key: Key,
    is_used: AtomicBool,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("uuid", &self.uuid).finish_non_exhaustive()
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl Eq for MasterKey {}

/// Why a place that should hold a key in clear does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoKey;

impl MasterKey {
    /// Makes a new key with a name of its own.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut key = Key([0; 32]);
        let mut name = [0; 16];
        random(&mut key.0)?;
        random(&mut name)?;
        Ok(Self { uuid: uuid(name), key, is_used: AtomicBool::new(false) })
    }

    /// The UUID in the key's name, `INNODBKey-UUID-1`. It is in the place of a server's UUID.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Whether a key of a tablespace or of a redo log was encrypted with this key.
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Reads a key from a keyring file. None if there is no such file, if the file is no keyring,
    /// or if the key of that name is not in it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: &Path, uuid: &str) -> io::Result<Option<Self>> {
        let keyring = match Keyring::read(path) {
            Err(error) if is_no_keyring(&error) => return Ok(None),
            keyring => keyring?,
        };
        let key = keyring.get(uuid, NUMBER).cloned();
        let new = |key| Self { uuid: uuid.to_owned(), key, is_used: AtomicBool::new(false) };
        Ok(key.map(new))
    }

    /// Writes the key to a new keyring file: mode 0600, whole or not at all, on disk.
    ///
    /// # Errors
    /// The file exists ([`io::ErrorKind::AlreadyExists`]), or cannot be written.
    pub fn write_new(&self, path: &Path) -> io::Result<()> {
        let unfinished = unfinished(path);
        let written = self.write_to(&unfinished).and_then(|()| fs::hard_link(&unfinished, path));
        let removed = remove(&unfinished);
        written?;
        removed?;
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Removes what [`write_new`](Self::write_new) has left in a process that was killed, and the
    /// keyring file if the key of this name is in it.
    ///
    /// # Errors
    /// A file cannot be read or removed.
    pub fn remove_from(path: &Path, uuid: &str) -> io::Result<()> {
        remove(&unfinished(path))?;
        if Self::read(path, uuid)?.is_some() { remove(path) } else { Ok(()) }
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.keyring_file().as_bytes())?;
        file.sync_all()
    }

    fn keyring_file(&self) -> Zeroizing<String> {
        // No growing: that would leave parts of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(1 << 10));
        text.push_str(r#"{"version":"1.0","elements":[{"user":"","data_id":""#);
        let _ = write!(text, "{PREFIX}{}-{NUMBER}", self.uuid);
        text.push_str(r#"","data_type":"AES","data":""#);
        for byte in &self.key.0 {
            let _ = write!(text, "{byte:02X}");
        }
        text.push_str(r#"","extension":[]}]}"#);
        text
    }

    /// Encrypts key and vector in an encryption information where both stand in clear.
    pub(crate) fn wrap(&self, info: &mut [u8]) -> Result<(), NoKey> {
        let clear = clear_pair(info).ok_or(NoKey)?;
        let pair = Zeroizing::new(*clear);
        self.fill(info, &pair);
        Ok(())
    }

    /// The encryption information of a key.
    pub(crate) fn info(&self, key: &EncryptionKey) -> [u8; LEN] {
        let mut pair = Zeroizing::new([0; 64]);
        pair[..32].copy_from_slice(key.key());
        pair[32..].copy_from_slice(key.iv());
        let mut info = [0; LEN];
        self.fill(&mut info, &pair);
        info
    }

    /// `Encryption::fill_encryption_info`. `info` is long enough.
    fn fill(&self, info: &mut [u8], pair: &[u8; 64]) {
        self.is_used.store(true, Ordering::Relaxed);
        info[..3].copy_from_slice(MAGIC);
        info[MASTER_KEY].copy_from_slice(&NUMBER.to_be_bytes());
        info[UUID].copy_from_slice(self.uuid.as_bytes());
        info[SUM].copy_from_slice(&checksum(pair).to_be_bytes());
        let wrapped = &mut info[PAIR];
        wrapped.copy_from_slice(pair);
        let (blocks, _) = Array::slice_as_chunks_mut(wrapped);
        Aes256::new((&self.key.0).into()).encrypt_blocks(blocks);
    }

    /// Encrypts the key in page 0 of a tablespace, and gives the page its checksum anew.
    pub(crate) fn wrap_page(&self, page: &mut [u8], size: PageSize) -> Result<(), NoKey> {
        let at = encryption_info::in_page_0(size);
        let page = page.get_mut(..size.physical as usize).ok_or(NoKey)?;
        self.wrap(page.get_mut(at..at + LEN).ok_or(NoKey)?)?;
        seal(page, size.is_compressed);
        Ok(())
    }

    /// Encrypts the key in a redo header. InnoDB gives that block no checksum; if it has one, it
    /// keeps one.
    pub(crate) fn wrap_redo_header(&self, header: &mut [u8]) -> Result<(), NoKey> {
        let block = header.get_mut(at::KEY_BLOCK..at::KEY_BLOCK + BLOCK).ok_or(NoKey)?;
        let has_sum = redo::is_sealed(block);
        self.wrap(&mut block[at::KEY - at::KEY_BLOCK..][..LEN])?;
        if has_sum {
            redo::seal(block);
        }
        Ok(())
    }
}

/// Key and vector, if they stand in clear there: then their checksum is right.
fn clear_pair(info: &[u8]) -> Option<&[u8; 64]> {
    let pair: &[u8; 64] = info.get(PAIR)?.try_into().ok()?;
    let sum = info.get(SUM)?;
    (info.starts_with(MAGIC) && sum == checksum(pair).to_be_bytes()).then_some(pair)
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(())
}

/// Text of a random UUID (version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn is_no_keyring(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
