// SPDX-License-Identifier: GPL-2.0-only

//! Page compression (`COMPRESSION='zlib'` or `'lz4'`): the page behind its header is compressed
//! when it is written, and the rest of the page in the file is a hole (`os0file.cc:Compression`).
//!
//! | Offset | Bytes | Field                                |
//! |--------|-------|--------------------------------------|
//! | 26     | 1     | version, 1 or 2                      |
//! | 27     | 1     | algorithm: 1 zlib, 2 lz4             |
//! | 28     | 2     | the type that the page had           |
//! | 30     | 2     | bytes behind the header before       |
//! | 32     | 2     | bytes behind the header now          |

use flate2::{Decompress, FlushDecompress, Status};

use super::bytes::u16_at;
use super::layout::{
    COMPRESSED_SIZE, COMPRESSION_ALGORITHM, COMPRESSION_VERSION, DATA, ORIGINAL_SIZE,
    ORIGINAL_TYPE, TYPE,
};

/// Expands pages. It keeps what its decoders need from one page to the next.
#[derive(Debug)]
pub struct Expander {
    zlib: Decompress,
    page: Vec<u8>,
}

impl Default for Expander {
    fn default() -> Self {
        Self { zlib: Decompress::new(true), page: Vec::new() }
    }
}

impl Expander {
    /// The page as it was before it was compressed. Its checksum is that of this page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn expand(&mut self, page: &[u8]) -> Result<&[u8], String> {
        if page.len() <= DATA {
            return Err(format!("the page has {} bytes", page.len()));
        }
        let version = page[COMPRESSION_VERSION];
        if !matches!(version, 1 | 2) {
            return Err(format!("version {version} of page compression is not known"));
        }
        let room = page.len() - DATA;
        let before = usize::from(u16_at(page, ORIGINAL_SIZE));
        let now = usize::from(u16_at(page, COMPRESSED_SIZE));
        if before != room || now > room {
            return Err(format!(
                "a page of {} bytes cannot have {now} bytes compressed of {before}",
                page.len()
            ));
        }
        self.page.clear();
        self.page.extend_from_slice(&page[..DATA]);
        self.page.resize(page.len(), 0);
        self.page.copy_within(ORIGINAL_TYPE..ORIGINAL_TYPE + 2, TYPE);
        let (from, to) = (&page[DATA..DATA + now], &mut self.page[DATA..]);
        let got = match page[COMPRESSION_ALGORITHM] {
            1 => unzip(&mut self.zlib, from, to)?,
            2 => lz4_flex::block::decompress_into(from, to).map_err(|error| error.to_string())?,
            other => return Err(format!("algorithm {other} of page compression is not known")),
        };
        if got != room {
            return Err(format!("{got} bytes come out instead of {room}"));
        }
        Ok(&self.page)
    }
}

fn unzip(zlib: &mut Decompress, from: &[u8], to: &mut [u8]) -> Result<usize, String> {
    zlib.reset(true);
    let status = zlib.decompress(from, to, FlushDecompress::Finish);
    match status {
        Ok(Status::StreamEnd) if zlib.total_in() != from.len() as u64 => {
            Err(format!("{} of {} compressed bytes are in use", zlib.total_in(), from.len()))
        }
        Ok(Status::StreamEnd) => usize::try_from(zlib.total_out()).map_err(|e| e.to_string()),
        Ok(_) => Err("the compressed bytes do not end".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn compressed(plain: &[u8], algorithm: u8) -> Vec<u8> {
        let body = if algorithm == 1 {
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            zlib.write_all(&plain[DATA..]).unwrap();
            zlib.finish().unwrap()
        } else {
            lz4_flex::block::compress(&plain[DATA..])
        };
        let mut page = plain[..DATA].to_vec();
        page[TYPE..TYPE + 2].copy_from_slice(&14_u16.to_be_bytes());
        page[26] = 1;
        page[27] = algorithm;
        page[28..30].copy_from_slice(&plain[TYPE..TYPE + 2]);
        page[30..32].copy_from_slice(&(plain.len() as u16 - 38).to_be_bytes());
        page[32..34].copy_from_slice(&(body.len() as u16).to_be_bytes());
        page.extend(body);
        page.resize(plain.len(), 0);
        page
    }

    #[test]
    fn a_page_comes_out_as_it_went_in() {
        let plain: Vec<u8> = (0..16_384_u32).map(|i| (i / 100 % 256) as u8).collect();
        let mut expander = Expander::default();
        for algorithm in [1, 2] {
            let page = compressed(&plain, algorithm);
            let out = expander.expand(&page).unwrap();
            assert_eq!(out[TYPE..TYPE + 2], plain[TYPE..TYPE + 2]);
            assert_eq!(out[DATA..], plain[DATA..]);
        }
        let mut page = compressed(&plain, 1);
        page[27] = 3;
        assert!(expander.expand(&page).is_err());
        page[27] = 1;
        page[32] = 0xff;
        assert!(expander.expand(&page).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            algorithm in 1_u8..3,
            len in 0_u16..2000,
        ) {
            let mut page = bytes;
            if page.len() > DATA {
                page[26] = 1;
                page[27] = algorithm;
                let room = page.len() as u16 - 38;
                page[30..32].copy_from_slice(&room.to_be_bytes());
                page[32..34].copy_from_slice(&len.to_be_bytes());
            }
            let _ = Expander::default().expand(&page);
        }
    }
}
