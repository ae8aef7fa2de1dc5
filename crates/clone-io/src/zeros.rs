// SPDX-License-Identifier: GPL-2.0-only

//! Blocks of files that are nothing but zeros.

use std::os::fd::BorrowedFd;

use crate::buffer::AlignedBuffer;
use crate::sparse::is_zero;

/// Bytes to begin with: a block that has something in it mostly has it here.
const BEGIN: usize = 4 << 10;

/// Bytes to go on with, which fit into a near cache.
const PIECE: usize = 64 << 10;

/// Where the `len` bytes from the file's current offset on end, if they are all zeros; the offset stays where it is. Reads no farther than they
/// are.
pub(crate) fn end_of_zeros(
    file: BorrowedFd<'_>,
    len: u64,
    buffer: &mut AlignedBuffer,
) -> Option<u64> {
    let begin = rustix::fs::tell(file).ok()?;
    let mut done = 0;
    while done < len {
        let piece = if done == 0 { BEGIN } else { PIECE };
        let piece = buffer.aligned(piece.min(usize::try_from(len - done).unwrap_or(piece)));
        match rustix::io::pread(file, &mut *piece, begin + done) {
            // Behind the end of the file there is nothing.
            Ok(0) => return None,
            Ok(count) if is_zero(&piece[..count]) => done += count as u64,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    begin.checked_add(len)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom};
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn one_byte_anywhere_is_found() {
        const LEN: u64 = 300_000;
        let mut file = tempfile::tempfile().unwrap();
        let mut buffer = AlignedBuffer::new();
        file.set_len(1000 + LEN).unwrap();
        file.seek(SeekFrom::Start(1000)).unwrap();
        let mut look = |file: &File, len| {
            let end = end_of_zeros(file.as_fd(), len, &mut buffer);
            assert!(end.is_none_or(|end| end == 1000 + len));
            end.is_some()
        };
        assert!(look(&file, LEN));
        assert!(look(&file, 0));
        assert!(!look(&file, LEN + 1), "the file ends before");
        for (at, is_inside) in [
            (999, false),
            (1000, true),
            (1000 + BEGIN as u64, true),
            (200_000, true),
            (999 + LEN, true),
            (1000 + LEN, false),
        ] {
            file.write_all_at(&[1], at).unwrap();
            assert_eq!(look(&file, LEN), !is_inside, "{at}");
            file.write_all_at(&[0], at).unwrap();
        }
        assert_eq!(file.stream_position().unwrap(), 1000);
        let write_only = File::options().write(true).open("/dev/null").unwrap();
        assert!(!look(&write_only, 1));
    }
}
