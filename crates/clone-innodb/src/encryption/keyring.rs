// SPDX-License-Identifier: GPL-2.0-only

//! The master keys of InnoDB in the file of a keyring.
//!
//! The file of `component_keyring_file` is JSON: `elements` with `data_id` and `data` in hex. That
//! of the plugin `keyring_file` (to 8.0) begins with `Keyring file version:2.0`; then come keys up
//! to the letters `EOF`, their numbers of eight bytes with the lowest byte first:
//!
//! | Bytes | Field                                            |
//! |-------|--------------------------------------------------|
//! | 8     | bytes of this key with all fields, padded to 8   |
//! | 8     | bytes of the name, the type, the user, the key   |
//! | ..    | name, type, user, and the key, which is obscured |

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A file of a keyring is not longer, in bytes.
const MAX_FILE: usize = 16 << 20;

const PLUGIN: &[u8] = b"Keyring file version:2.0";

/// What the plugin obscures keys with.
const OBSCURE: &[u8] = b"*305=Ljt0*!@$Hnm(*-9-w;:";

/// `Encryption::MASTER_KEY_PREFIX`.
pub(crate) const PREFIX: &str = "INNODBKey-";

/// A key of 256 bits. It is never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key(pub(crate) [u8; 32]);

/// InnoDB's master keys by their names, `INNODBKey-UUID-NUMBER`. Boxes, so that a key that is moved
/// leaves nothing behind.
#[derive(Default)]
pub struct Keyring(HashMap<String, Box<Key>>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring of {} keys", self.0.len())
    }
}

#[derive(Deserialize)]
struct Component {
    elements: Vec<Element>,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Element {
    data_id: String,
    data: String,
}

impl Keyring {
    /// Reads a file of either form.
    ///
    /// # Errors
    /// The file cannot be read. [`io::ErrorKind::InvalidData`]: it is no keyring, or has no key of
    /// InnoDB.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len().min(MAX_FILE as u64 + 1);
        // No growing: that would leave parts of a key behind.
        let capacity = usize::try_from(len).unwrap_or(MAX_FILE) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        file.take(len).read_to_end(&mut bytes)?;
        Self::parse(&bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Parses a file of either form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_FILE {
            return Err(format!("a keyring of {} bytes is too long", bytes.len()));
        }
        let keys = if let Some(keys) = bytes.strip_prefix(PLUGIN) {
            plugin(keys).ok_or("a key is cut off")?
        } else {
            component(bytes)?
        };
        if keys.is_empty() {
            return Err(format!("it has no key whose name begins with {PREFIX}"));
        }
        Ok(Self(keys))
    }

    pub(crate) fn get(&self, uuid: &str, number: u32) -> Option<&Key> {
        self.0.get(&format!("{PREFIX}{uuid}-{number}")).map(Box::as_ref)
    }
}

fn component(bytes: &[u8]) -> Result<HashMap<String, Box<Key>>, String> {
    // The error would show what it found, which may be a key.
    let file: Component = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is neither form of a keyring (line {})", error.line()))?;
    let named = file.elements.iter().filter(|element| element.data_id.starts_with(PREFIX));
    named
        .map(|element| {
            let key = unhex(&element.data).ok_or("a key is not 64 hexadecimal digits")?;
            Ok((element.data_id.clone(), Box::new(key)))
        })
        .collect()
}

fn unhex(digits: &str) -> Option<Key> {
    let digits = digits.as_bytes();
    let mut key = Key([0; 32]);
    if digits.len() != 64 {
        return None;
    }
    for (to, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *to = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(key)
}

fn plugin(mut bytes: &[u8]) -> Option<HashMap<String, Box<Key>>> {
    let mut keys = HashMap::new();
    while !bytes.starts_with(b"EOF") {
        let number = |at: usize| {
            let field = bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?;
            usize::try_from(u64::from_le_bytes(field)).ok().filter(|number| *number < MAX_FILE)
        };
        let (all, name, kind, user, len) =
            (number(0)?, number(1)?, number(2)?, number(3)?, number(4)?);
        let fields = bytes.get(40..all)?;
        let text = fields.get(..name)?;
        let data = fields.get(name + kind + user..)?.get(..len)?;
        let plain: Zeroizing<Vec<u8>> = Zeroizing::new(
            data.iter().zip(OBSCURE.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(),
        );
        if let (Ok(name), Ok(key)) = (str::from_utf8(text), plain.as_slice().try_into())
            && name.starts_with(PREFIX)
        {
            keys.insert(name.to_owned(), Box::new(Key(key)));
        }
        bytes = bytes.get(all..)?;
    }
    Some(keys)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const UUID: &str = "12345678-1234-1234-1234-123456789012";

    pub(crate) fn component_file() -> String {
        let data = "01".repeat(32);
        format!(
            r#"{{"version":"1.0","elements":[{{"user":"","data_id":"INNODBKey-{UUID}-1",
            "data_type":"AES","data":"{data}","extension":[]}}]}}"#
        )
    }

    #[test]
    fn both_forms_are_read() {
        let keyring = Keyring::parse(component_file().as_bytes()).unwrap();
        assert_eq!(keyring.get(UUID, 1).unwrap().0, [1; 32]);
        assert!(keyring.get(UUID, 2).is_none());
        assert_eq!(format!("{keyring:?}"), "Keyring of 1 keys");

        let name = format!("INNODBKey-{UUID}-7");
        let mut file = PLUGIN.to_vec();
        for number in [128, name.len() as u64, 3, 0, 32] {
            file.extend(number.to_le_bytes());
        }
        file.extend(name.as_bytes());
        file.extend(b"AES");
        file.extend(OBSCURE.iter().cycle().take(32).map(|mask| mask ^ 9));
        file.resize(PLUGIN.len() + 128, 0);
        file.extend(b"EOF");
        assert_eq!(Keyring::parse(&file).unwrap().get(UUID, 7).unwrap().0, [9; 32]);
        file.truncate(90);
        assert!(Keyring::parse(&file).is_err());
        assert!(Keyring::parse(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..300), is_plugin: bool) {
            let mut file = if is_plugin { PLUGIN.to_vec() } else { Vec::new() };
            file.extend(bytes);
            let _ = Keyring::parse(&file);
        }
    }
}
