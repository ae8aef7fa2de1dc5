// SPDX-License-Identifier: GPL-2.0-only

//! What a clone's data dictionary says of the server that made it.
//!
//! mysqld keeps the properties of the dictionary in a text in `mysql.ibd`
//! (`sql/dd/impl/tables/dd_properties.cc`): `DD_VERSION=90200;...;LCTN=0;...`. `LCTN` is
//! `lower_case_table_names`. mysqld does not start with another value (MY-011087). A stock donor
//! does not send this value.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const KEY: &[u8] = b"LCTN=";

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// `lower_case_table_names` of the dictionary in `mysql_ibd`. None if the file does not tell, for
/// example because it is encrypted.
pub(super) fn lower_case_table_names(mysql_ibd: &Path) -> io::Result<Option<u8>> {
    let mut file = File::open(mysql_ibd)?;
    let mut buffer = vec![0; CHUNK];
    let mut kept = 0;
    let mut found = None;
    loop {
        let read = file.read(&mut buffer[kept..])?;
        let bytes = &buffer[..kept + read];
        for at in 0..bytes.len().saturating_sub(KEY.len() + 1) {
            let Some(rest) = bytes[at..].strip_prefix(KEY) else { continue };
            // The text has old versions in pages that are no longer used. The value never changes.
            if let [value @ b'0'..=b'2', b';', ..] = rest {
                let value = value - b'0';
                match found {
                    Some(other) if other != value => return Ok(None),
                    _ => found = Some(value),
                }
            }
        }
        if read == 0 {
            return Ok(found);
        }
        // The text may go on in the next chunk.
        let end = kept + read;
        kept = end.min(KEY.len() + 1);
        buffer.copy_within(end - kept..end, 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn found(content: &[u8]) -> Option<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mysql.ibd");
        std::fs::write(&path, content).unwrap();
        lower_case_table_names(&path).unwrap()
    }

    #[test]
    fn the_value_is_found_anywhere() {
        for before in [0, 1, 77, CHUNK - 8, CHUNK - 7, CHUNK - 6, CHUNK - 1, CHUNK, 2 * CHUNK + 3] {
            for (value, text) in [(0, "LCTN=0;"), (1, "LCTN=1;"), (2, "LCTN=2;")] {
                let content = [&vec![b'x'; before][..], text.as_bytes(), b"rest"].concat();
                assert_eq!(found(&content), Some(value), "{before} {text}");
                assert_eq!(found(&content[..content.len() - 4]), Some(value), "{before} {text}");
            }
        }
    }

    #[test]
    fn what_is_not_clear_is_not_told() {
        for content in ["", "LCTN=", "LCTN=0", "LCTN=7;", "LCTN=10;", "lctn=0;", "LCTN=0;LCTN=1;"] {
            assert_eq!(found(content.as_bytes()), None, "{content}");
        }
        assert_eq!(found(b"LCTN=1;.....LCTN=1;"), Some(1));
    }
}
