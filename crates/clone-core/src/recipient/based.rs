// SPDX-License-Identifier: GPL-2.0-only

//! Blocks of which a part is taken from the base.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use clone_io::{AlignedBuffer, FileWriter, is_direct};
use clone_protocol::innodb::SpacePlace;
use clone_protocol::{EqualUnits, Part};

use super::answer::unexpected;
use super::expected::Expected;
use crate::base::{Base, Reader};
use crate::engine::View;
use crate::error::{Error, Result};
use crate::log_target::CLIENT;

/// What a donor says of the block of the next descriptor: its length, and one bit for each unit.
pub(super) struct Map {
    pub(super) len: u32,
    pub(super) bits: Vec<u8>,
}

impl Map {
    /// The units of the block of this descriptor.
    ///
    /// # Errors
    /// The descriptor has no such block; this recipient has no base.
    pub(super) fn equal_units(
        &self,
        base: Option<&Base>,
        expected: &Expected,
    ) -> Result<EqualUnits> {
        let len = expected.block_len().filter(|len| *len == self.len).ok_or_else(unexpected)?;
        let (base, place) = base.zip(expected.place()).ok_or_else(unexpected)?;
        Ok(EqualUnits::parse(base.digests().units(place, len), &self.bits)?)
    }
}

/// A block, and what of it is in the base.
pub(super) struct BlockInBase<'a> {
    pub(super) base: &'a Base,
    /// Where the block belongs in its tablespace.
    pub(super) place: SpacePlace,
    pub(super) equal: &'a EqualUnits,
    /// Where the files of the clone go.
    pub(super) directory: &'a Path,
}

/// A piece of a part of a block, in one file of the base.
struct Piece {
    /// The file, by its number, and where the piece is in it.
    file: usize,
    offset: u64,
    /// Where the piece is in the block, and its bytes.
    at: usize,
    len: usize,
    /// The number of its first unit.
    first: u64,
}

/// Takes blocks from the base, for one task.
#[derive(Default)]
pub(super) struct Based {
    reader: Reader,
    /// A whole block, or what was written of one and is checked.
    buffer: AlignedBuffer,
}

impl Based {
    /// Writes the block to `file`, at its current offset. Of what is in the base, the file shares
    /// the blocks if the file system can. `rest` are the other bytes of the block, one part behind
    /// the other; with `is_whole`, the whole block.
    ///
    /// # Errors
    /// A file could not be read or written; no memory; the base has changed.
    pub(super) fn write(
        &mut self,
        block: &BlockInBase<'_>,
        rest: &[u8],
        is_whole: bool,
        view: &View<'_>,
        file: BorrowedFd<'_>,
        writer: &FileWriter,
    ) -> Result<()> {
        let failed = |error: io::Error| Error::file(true, view.destination_name, &error);
        let shares = !is_direct(file) && block.base.can_share(block.directory);
        if !shares && is_whole {
            return writer.write_all(file, rest).map_err(failed);
        }
        if !shares {
            let bytes = self.bytes(block, rest)?;
            return writer.write_all(file, bytes).map_err(failed);
        }
        let start = clone_io::offset(file).map_err(failed)?;
        let mut taken = 0;
        for part in block.equal.parts() {
            let at = start + part.range.start as u64;
            let len = part.range.len();
            let own = match (&part.equal, is_whole) {
                (_, true) => &rest[part.range.clone()],
                (Some(_), false) => &[][..],
                (None, false) => {
                    taken += len;
                    &rest[taken - len..taken]
                }
            };
            match (&part.equal, self.share(block, &part, view, file, start)) {
                (None, _) => clone_io::write_all_at(file, own, at).map_err(failed)?,
                (Some(_), Ok(())) => block.base.note(len as u64, true),
                // The block came whole, so the base is not needed. A full disk shows again when the
                // bytes are written.
                (Some(_), Err(error)) if is_whole => {
                    log::warn!(target: CLIENT, "{error}");
                    clone_io::write_all_at(file, own, at).map_err(failed)?;
                }
                (Some(_), Err(error)) => return Err(error),
            }
        }
        clone_io::seek(file, start + block.equal.block_len() as u64).map_err(failed)
    }

    /// The block in memory. `rest` are the bytes that are not in the base.
    ///
    /// # Errors
    /// As [`write`](Self::write)'s.
    pub(super) fn bytes(&mut self, block: &BlockInBase<'_>, rest: &[u8]) -> Result<&mut [u8]> {
        let BlockInBase { base, equal, .. } = block;
        let len = equal.block_len();
        let whole = self.buffer.aligned(len).map_err(|_| Error::OutOfMemory(len))?;
        let mut taken = 0;
        for part in equal.parts() {
            let len = part.range.len();
            if part.equal.is_none() {
                whole[part.range].copy_from_slice(&rest[taken..taken + len]);
                taken += len;
                continue;
            }
            for piece in pieces(block, &part)? {
                let path = path(base, &piece)?;
                let bytes = &mut whole[piece.at..piece.at + piece.len];
                let read = self
                    .reader
                    .open(path)
                    .and_then(|file| clone_io::read_exact_at(file, bytes, piece.offset));
                read.map_err(|error| lost(path, &error.to_string()))?;
                check(block, &piece, bytes)?;
            }
            base.note(len as u64, false);
        }
        Ok(whole)
    }

    /// Lets `file` share a part with the base, and checks what is in `file` then: the base may
    /// change at any time. `start` is where the block begins in `file`. Does nothing with a part
    /// that is not in the base.
    fn share(
        &mut self,
        block: &BlockInBase<'_>,
        part: &Part,
        view: &View<'_>,
        file: BorrowedFd<'_>,
        start: u64,
    ) -> Result<()> {
        if part.equal.is_none() {
            return Ok(());
        }
        for piece in pieces(block, part)? {
            let path = path(block.base, &piece)?;
            let at = start + piece.at as u64;
            let from = self.reader.open(path).map_err(|error| lost(path, &error.to_string()))?;
            clone_io::share_range(from, piece.offset, file, at, piece.len as u64).map_err(
                |error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => lost(path, "the file is shorter than it was"),
                    // Most errors are of the file that is written: a full disk, a quota.
                    _ => Error::file(true, view.destination_name, &error),
                },
            )?;
            let bytes = self.buffer.aligned(piece.len);
            let bytes = bytes.map_err(|_| Error::OutOfMemory(piece.len))?;
            clone_io::read_exact_at(file, bytes, at)
                .map_err(|error| Error::file(false, view.destination_name, &error))?;
            check(block, &piece, bytes)?;
        }
        Ok(())
    }
}

/// The pieces of a part of equal units.
fn pieces(block: &BlockInBase<'_>, part: &Part) -> Result<Vec<Piece>> {
    let BlockInBase { base, place, equal, .. } = block;
    let Some(units) = &part.equal else { return Ok(Vec::new()) };
    let unit = base.digests().unit() as usize;
    let mut pieces: Vec<Piece> = Vec::new();
    for index in units.clone() {
        let at = equal.units().range(index).start;
        let first = equal.units().first + index as u64;
        let whole = SpacePlace { offset: place.offset + at as u64, ..*place };
        // A donor can only name units of which there are digests, and these lie in files.
        let known = base.digests().get(place.space_id, first).and_then(|_| base.locate(whole));
        let (file, offset) = known.ok_or_else(unexpected)?;
        match pieces.last_mut() {
            Some(last) if last.file == file => last.len += unit,
            _ => pieces.push(Piece { file, offset, at, len: unit, first }),
        }
    }
    Ok(pieces)
}

fn path<'b>(base: &'b Base, piece: &Piece) -> Result<&'b Path> {
    base.file(piece.file).map(|file| file.path.as_path()).ok_or_else(unexpected)
}

/// Checks bytes that come from the base.
fn check(block: &BlockInBase<'_>, piece: &Piece, bytes: &[u8]) -> Result<()> {
    let BlockInBase { base, place, .. } = block;
    match base.find_changed(place.space_id, piece.first, bytes) {
        None => Ok(()),
        Some(unit) => {
            let unit_len = u64::from(base.digests().unit());
            let at = (unit - piece.first) * unit_len + piece.offset;
            Err(lost(
                path(base, piece)?,
                &format!("{unit_len} bytes at {at} are not what they were"),
            ))
        }
    }
}

/// The base does not have any more what it had.
fn lost(path: &Path, why: &str) -> Error {
    Error::Internal(format!(
        "The base has changed or is damaged: '{}': {why}. Nothing may write to a base while a clone \
         uses it",
        path.display()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::num::NonZeroUsize;
    use std::os::fd::AsFd;

    use super::*;
    use crate::base::BaseFile;
    use crate::error::number;

    const UNIT: usize = 4096;

    /// Shares the first page of a base of two pages, whose file then has `len` bytes, with a file
    /// at `start`.
    fn share(len: u64, start: u64) -> Error {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old.ibd");
        let old = vec![7; 2 * UNIT];
        std::fs::write(&path, &old).unwrap();
        let place = SpacePlace { space_id: 1, offset: 0 };
        let file = BaseFile { place, len: old.len() as u64, path: path.clone() };
        let base = Base::read(vec![file], UNIT as u32, NonZeroUsize::MIN).unwrap();
        let equal = base.compare(place, &old).unwrap();
        let part = &equal.parts()[0];
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let block = BlockInBase { base: &base, place, equal: &equal, directory: directory.path() };
        let view = View { destination_name: "new.ibd", ..View::default() };
        let new = tempfile::tempfile_in(directory.path()).unwrap();
        Based::default().share(&block, part, &view, new.as_fd(), start).unwrap_err()
    }

    #[test]
    fn an_error_of_the_new_file_is_not_one_of_the_base() {
        // No file system has files of 2^62 bytes (EFBIG). A full disk takes the same way.
        let error = share(2 * UNIT as u64, 1 << 62);
        assert_eq!(error.number(), number::ER_ERROR_ON_WRITE, "{error}");
        assert!(error.to_string().starts_with("write 'new.ibd': "), "{error}");
    }

    #[test]
    fn a_base_that_is_shorter_than_it_was_is_lost() {
        let error = share(UNIT as u64, 0);
        assert_eq!(error.number(), number::ER_INTERNAL_ERROR, "{error}");
        assert!(error.to_string().contains("old.ibd': the file is shorter than it was"), "{error}");
    }
}
