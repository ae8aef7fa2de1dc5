// SPDX-License-Identifier: GPL-2.0-only

//! The way in which one block gets into the recipient's file. `docs/design.md` shows the same
//! table.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::OnceLock;

/// How one block gets into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// The kernel copies from file to file. It shares blocks where the file system can.
    Kernel,
    /// From file to file through aligned memory.
    Buffered,
    /// The block's space is allocated, and only its islands are written: runs of pages with data.
    Islands,
    /// The block is unpacked into aligned memory and written whole.
    Unpack,
    /// The bytes are written from where they are.
    Write,
    /// The bytes are copied to aligned memory and written from there.
    WriteAligned,
}

/// Where a block is before it gets into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In an open file.
    File {
        /// The file is read past the operating system's cache.
        is_direct: bool,
        /// The destination can share the file's blocks.
        shares: bool,
        /// The engines allow a copy inside the kernel.
        allows_kernel: bool,
    },
    /// In memory, without its zeros.
    Sparse,
    /// In memory.
    Memory {
        /// Aligned for direct I/O.
        is_aligned: bool,
    },
}

/// What is known of the file that the block goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TargetFile {
    /// The file is written past the operating system's cache.
    pub(crate) is_direct: bool,
    /// The block lies at or behind the end of the file.
    pub(crate) extends: bool,
}

impl TargetFile {
    /// Looks at the file, whose current offset is where the block goes.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Self {
        Self { is_direct: clone_io::is_direct(file), extends: clone_io::extends(file) }
    }

    /// The way of a block from `origin` into this file.
    ///
    /// Direct I/O in large pieces is faster than a copy by the kernel, which moves 64 KiB at a time
    /// past the cache. Sharing blocks is faster than both.
    pub(crate) fn sink(self, origin: Origin) -> Sink {
        match origin {
            Origin::File { shares: true, .. } => Sink::Kernel,
            Origin::File { is_direct: false, allows_kernel: true, .. } if !self.is_direct => {
                Sink::Kernel
            }
            Origin::File { .. } => Sink::Buffered,
            Origin::Sparse | Origin::Memory { .. } if self.extends && !self.is_direct => {
                Sink::Islands
            }
            Origin::Sparse => Sink::Unpack,
            Origin::Memory { is_aligned } if is_aligned || !self.is_direct => Sink::Write,
            Origin::Memory { .. } => Sink::WriteAligned,
        }
    }
}

/// Whether a directory's files can share the blocks of files elsewhere: the first file decides,
/// once for a clone.
#[derive(Debug, Default)]
pub(crate) struct Sharing(OnceLock<bool>);

impl Sharing {
    /// Whether files in `directory` can share the blocks of `file`.
    pub(crate) fn can_share(&self, file: BorrowedFd<'_>, directory: &Path) -> bool {
        *self.0.get_or_init(|| clone_io::shares_blocks(file, directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_matrix() {
        let file =
            |is_direct, shares, allows_kernel| Origin::File { is_direct, shares, allows_kernel };
        let memory = |is_aligned| Origin::Memory { is_aligned };
        // The sinks for a cached file and for a direct one.
        let table = [
            (file(false, false, false), Sink::Buffered, Sink::Buffered),
            (file(false, false, true), Sink::Kernel, Sink::Buffered),
            (file(false, true, false), Sink::Kernel, Sink::Kernel),
            (file(false, true, true), Sink::Kernel, Sink::Kernel),
            (file(true, false, false), Sink::Buffered, Sink::Buffered),
            (file(true, false, true), Sink::Buffered, Sink::Buffered),
            (file(true, true, false), Sink::Kernel, Sink::Kernel),
            (file(true, true, true), Sink::Kernel, Sink::Kernel),
        ];
        for extends in [false, true] {
            for (origin, cached, direct) in table {
                let sink = |is_direct| TargetFile { is_direct, extends }.sink(origin);
                assert_eq!((sink(false), sink(true)), (cached, direct), "{origin:?}");
            }
        }
        // The sinks for a cached file that the block extends, for another cached one, and for a
        // direct one.
        let table = [
            (Origin::Sparse, Sink::Islands, Sink::Unpack, Sink::Unpack),
            (memory(false), Sink::Islands, Sink::Write, Sink::WriteAligned),
            (memory(true), Sink::Islands, Sink::Write, Sink::Write),
        ];
        for (origin, extended, cached, direct) in table {
            let sink = |is_direct, extends| TargetFile { is_direct, extends }.sink(origin);
            assert_eq!((sink(false, true), sink(false, false)), (extended, cached), "{origin:?}");
            assert_eq!([sink(true, true), sink(true, false)], [direct; 2], "{origin:?}");
        }
    }
}
