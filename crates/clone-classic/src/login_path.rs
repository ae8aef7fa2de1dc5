// SPDX-License-Identifier: GPL-2.0-only

//! `~/.mylogin.cnf`, which `mysql_config_editor` writes: an option file that cannot be read by
//! accident. The key is in the file, so the file is not safe from anybody who has the file.
//!
//! | Bytes | |
//! |---|---|
//! | 4 | unused |
//! | 20 | the key; byte `i` is mixed (XOR) into byte `i % 16` of the key of AES-128 |
//! | for each line: 4, little-endian | length of what follows, a multiple of 16 |
//! | | the line with its newline, AES-128 in ECB mode, padded as PKCS #7 |

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, KeyInit};
use byteorder::{ByteOrder, LittleEndian};
use zeroize::{Zeroize, Zeroizing};

/// Bytes in front of the key.
const UNUSED: usize = 4;
const KEY: usize = 20;
/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// The longest line, encrypted: MySQL's own limit.
const MAX_LINE: usize = 4096;

/// The text of a login file.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn decrypt(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let damaged = "the login file is damaged: write it anew with mysql_config_editor";
    let (head, mut rest) = file.split_at_checked(UNUSED + KEY).ok_or(damaged)?;
    let cipher = Aes128::new(&(*key(&head[UNUSED..])).into());
    // The text is shorter than the file. A vector that grows would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(file.len()));
    while !rest.is_empty() {
        let (len, behind) = rest.split_at_checked(4).ok_or(damaged)?;
        let len = LittleEndian::read_u32(len) as usize;
        if len == 0 || !len.is_multiple_of(BLOCK) || len > MAX_LINE {
            return Err(damaged);
        }
        let (line, behind) = behind.split_at_checked(len).ok_or(damaged)?;
        for block in line.as_chunks::<BLOCK>().0 {
            let mut block = (*block).into();
            cipher.decrypt_block(&mut block);
            text.extend_from_slice(&block);
            block.as_mut_slice().zeroize();
        }
        let padding = usize::from(text.last().copied().unwrap_or_default());
        if !(1..=BLOCK).contains(&padding) {
            return Err(damaged);
        }
        let end = text.len() - padding;
        text.truncate(end);
        rest = behind;
    }
    Ok(text)
}

/// The key of AES-128.
fn key(stored: &[u8]) -> Zeroizing<[u8; BLOCK]> {
    let mut key = Zeroizing::new([0; BLOCK]);
    stored.iter().enumerate().for_each(|(at, byte)| key[at % BLOCK] ^= byte);
    key
}

/// A login file with `text`.
#[cfg(test)]
pub(crate) fn encrypt(text: &str) -> Vec<u8> {
    use aes::cipher::BlockCipherEncrypt;

    let mut file: Vec<u8> = (0..(UNUSED + KEY) as u8).map(|byte| byte.wrapping_mul(11)).collect();
    let cipher = Aes128::new(&(*key(&file[UNUSED..])).into());
    for line in text.split_inclusive('\n') {
        let padding = BLOCK - line.len() % BLOCK;
        let padded = [line.as_bytes(), &vec![padding as u8; padding]].concat();
        file.extend_from_slice(&(padded.len() as u32).to_le_bytes());
        for block in padded.as_chunks::<BLOCK>().0 {
            let mut block = (*block).into();
            cipher.encrypt_block(&mut block);
            file.extend_from_slice(&block);
        }
    }
    file
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_decrypted() {
        let text = "[client]\nuser = \"root\"\npassword = \"0123456789abcdef\"\n";
        assert_eq!(*decrypt(&encrypt(text)).unwrap(), text.as_bytes());
        assert!(decrypt(&encrypt("")).unwrap().is_empty());
    }

    /// What mysql_config_editor of MySQL 9.7.4 wrote.
    const FILE: &str = "000000000f03041f021b081103180e14100911021f10030810000000ab70d4b57b86d7131e1a5e45\
         16dfe4c22000000087ae6c8447e216c954f7c313a01358bd212c98560a7a3282f426c1489bee2516\
         20000000c7a29b7e28c5314fd0b236db753022e9f43c158f913bfe592ea569bb178ee52f10000000\
         a0e8b08e6323487787c2cdfc85993f4320000000baf892a19612f8fdc1c09dc64a84713ba0eb238e\
         135e51ffd698d1c27953215120000000280bca1740a88a27bd89f1e8ab0140df46de038b77fe0fc7\
         a95a3210727fccc0200000008ab1fbf62f9cc2ad909b9332c81da01a7fa57aaf3439a49856b256c3\
         6f47f06a10000000031aeaebf822fd0b9b2cb4f4f2c3d167";

    #[test]
    fn a_file_of_mysql_config_editor_is_decrypted() {
        let digits: Vec<u8> =
            FILE.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
        let file: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[a, b]| a << 4 | b).collect();
        let text = decrypt(&file).unwrap();
        // The password of `remote` is a"b\c#d 'e.
        let expected = r#"[client]
user = "backup"
password = "plain"
[remote]
user = "clone user"
password = "a\"b\c#d 'e"
host = "db.example"
port = 3307
"#;
        assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
    }

    #[test]
    fn damage_is_an_error() {
        let file = encrypt("[client]\nuser = \"root\"\n");
        for len in 0..file.len() {
            let cut = decrypt(&file[..len]);
            // A file that ends behind a line is whole.
            assert!(cut.is_err() || len == 24 || len == 24 + 4 + 16, "{len}");
        }
        let mut changed = file;
        changed[24] = 15;
        assert!(decrypt(&changed).is_err());
    }
}
