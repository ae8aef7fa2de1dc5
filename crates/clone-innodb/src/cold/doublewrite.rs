// SPDX-License-Identifier: GPL-2.0-only

//! What the doublewrite buffer restores.
//!
//! The recipient does not get these files, so the pages are sent restored. `.bdblwr` files of
//! `innodb_doublewrite=DETECT_ONLY` have no copies. A page that they name and that is torn cannot
//! be restored.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::checksum::PageState;
use super::files::{open, read_exact};
use super::scan::DataFile;
use crate::error::{Error, FileOperation, Result};
use crate::format::bytes::{u32_at, u64_at};
use crate::format::doublewrite::{self, TRX_SYS_PAGE};
use crate::format::layout::{LSN, NUMBER, SPACE_ID};

/// The most bytes of all doublewrite files. A server has some ten MiB.
const MAX_BYTES: u64 = 1 << 30;

/// A page that a server would restore.
type Repair = Vec<u8>;

/// What a doublewrite buffer restores.
#[derive(Debug)]
pub(super) struct Doublewrite {
    /// By the index of the file and the offset in it.
    repairs: BTreeMap<(usize, u64), Repair>,
    /// Pages of the system tablespace that hold copies.
    blocks: Vec<Range<u32>>,
}

impl Doublewrite {
    /// Reads the copies, and compares them with the pages in `files`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn load(directory: &Path, page_size: u32, files: &[DataFile]) -> Result<Self> {
        let blocks = legacy_blocks(files, page_size)?;
        let mut buffer = Self { repairs: BTreeMap::new(), blocks };
        let slot = u64::from(page_size);
        let separate = list(directory, page_size)?;
        let mut left = MAX_BYTES;
        for path in &separate {
            let (file, facts) = open(path)?;
            left = left.checked_sub(facts.size).ok_or_else(|| {
                Error::Refused(format!("the doublewrite files have more than {MAX_BYTES} bytes"))
            })?;
            let mut bytes = vec![0; page_size as usize];
            for at in 0..facts.size / slot {
                read_exact(&file, path, &mut bytes, at * slot)?;
                buffer.compare(&bytes, files)?;
            }
        }
        if separate.is_empty() {
            for page in buffer.blocks.clone().into_iter().flatten() {
                let Some((_, system, at)) = place(files, 0, page) else { continue };
                let mut bytes = vec![0; page_size as usize];
                system.read(&mut bytes, at)?;
                buffer.compare(&bytes, files)?;
            }
            if buffer.blocks.is_empty() {
                log::warn!(
                    "{} has no doublewrite buffer: torn pages could not be restored",
                    directory.display()
                );
            }
        }
        Ok(buffer)
    }

    /// Pages that are restored.
    pub(super) fn len(&self) -> usize {
        self.repairs.len()
    }

    /// Restores a page. Returns false if there is no copy of it that must be used.
    pub(super) fn repair(&self, file: usize, offset: u64, page: &mut [u8]) -> bool {
        let found = self.repairs.get(&(file, offset)).filter(|copy| copy.len() == page.len());
        if let Some(copy) = found {
            page.copy_from_slice(copy);
        }
        found.is_some()
    }

    /// Whether a page of the system tablespace holds copies: it need not be whole.
    pub(super) fn has_copies_at(&self, file: &DataFile, offset: u64) -> bool {
        let Some(size) = file.size.filter(|_| file.source.space_id == 0) else { return false };
        let page = u64::from(file.first_page) + offset / u64::from(size.physical);
        self.blocks.iter().any(|block| (block.start.into()..block.end.into()).contains(&page))
    }

    /// Decides whether a copy is to be used: the page is older or as old, and is not whole.
    fn compare(&mut self, slot: &[u8], files: &[DataFile]) -> Result<()> {
        let (space, number) = (u32_at(slot, SPACE_ID), u32_at(slot, NUMBER));
        let Some((index, file, offset)) = place(files, space, number) else { return Ok(()) };
        let Some(size) = file.size else { return Ok(()) };
        let Some(copy) = slot.get(..size.physical as usize) else { return Ok(()) };
        // Copies of encrypted pages are encrypted since 8.0.23, and plain before.
        let key = file.key.as_ref();
        if PageState::of(copy, size, key) != PageState::Whole {
            return Ok(());
        }
        let mut page = vec![0; copy.len()];
        file.read(&mut page, offset)?;
        let known = self.repairs.get(&(index, offset));
        let is_older = |other: &[u8]| u64_at(other, LSN) <= u64_at(copy, LSN);
        let is_wanted = match PageState::of(&page, size, key) {
            PageState::Whole => false,
            PageState::Zeros => true,
            PageState::Torn => is_older(&page),
        };
        if is_wanted && known.is_none_or(|known| is_older(known)) {
            self.repairs.insert((index, offset), copy.to_vec());
        }
        Ok(())
    }
}

/// Where a page is: the index of its file, the file, and the offset.
fn place(files: &[DataFile], space: u32, number: u32) -> Option<(usize, &DataFile, u64)> {
    let mut all = files.iter().enumerate();
    all.find_map(|(index, file)| {
        let size = u64::from(file.size.filter(|_| file.source.space_id == space)?.physical);
        let offset = u64::from(number.checked_sub(file.first_page)?) * size;
        (offset + size <= file.source.size).then_some((index, file, offset))
    })
}

/// The files of copies, by name.
fn list(directory: &Path, page_size: u32) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(FileOperation::Open, directory, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let is_copies = doublewrite::is_file(&entry.file_name().to_string_lossy());
        if is_copies && doublewrite::page_size(&path) == Some(page_size) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The pages of the system tablespace that hold copies before 8.0.20.
fn legacy_blocks(files: &[DataFile], page_size: u32) -> Result<Vec<Range<u32>>> {
    let Some((_, system, at)) = place(files, 0, TRX_SYS_PAGE) else { return Ok(Vec::new()) };
    let Some(size) = system.size else { return Ok(Vec::new()) };
    let mut page = vec![0; page_size as usize];
    system.read(&mut page, at)?;
    Ok(doublewrite::blocks(&page, size.extent_pages()))
}
