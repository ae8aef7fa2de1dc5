// SPDX-License-Identifier: GPL-2.0-only

//! The doublewrite buffer: copies of the pages that were being written when a server ended.
//!
//! A server writes each page here first, so that a page that was written in part can be restored.
//! A server that opens a clone does not look here (`buf0dblwr.cc:recv::Pages::recover`), so a donor
//! of a crashed directory has to send the page restored.
//!
//! | Server | Copies |
//! |---|---|
//! | since 8.0.20 | `#ib_<page size>_<number>.dblwr`: one page after the other, each in a slot as long as a page of the instance |
//! | before | two extents of `ibdata1`, named in the page of the transaction system |
//!
//! `.bdblwr` files of `innodb_doublewrite=DETECT_ONLY` have no copies. A page that they name and
//! that is torn cannot be restored.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::checksum::PageState;
use super::files::{open, read_exact};
use super::scan::DataFile;
use super::tablespace::{u32_at, u64_at};
use crate::error::{Error, FileOperation, Result};

/// The most bytes of all doublewrite files. A server has some ten MiB.
const MAX_BYTES: u64 = 1 << 30;

/// `FIL_PAGE_OFFSET`, `FIL_PAGE_LSN` and `FIL_PAGE_SPACE_ID`.
const PAGE_NUMBER: usize = 4;
const LSN: usize = 16;
const SPACE_ID: usize = 34;

/// The page of the transaction system (`FSP_TRX_SYS_PAGE_NO`).
const TRX_SYS_PAGE: u64 = 5;
/// `TRX_SYS_DOUBLEWRITE` there, from the end, and what it has.
const TRX_SYS_DOUBLEWRITE: usize = 200;
const MAGIC_AT: usize = 10;
const MAGIC: u32 = 536_853_855;
const EXTENTS_AT: [usize; 2] = [14, 18];

/// A page that a server would restore.
type Repair = Vec<u8>;

/// What a doublewrite buffer restores.
#[derive(Debug)]
pub(super) struct Doublewrite {
    /// By the index of the file and the offset in it.
    repairs: BTreeMap<(usize, u64), Repair>,
    /// Pages of the first file of the system tablespace that hold copies, in bytes.
    extents: Vec<(u64, u64)>,
}

impl Doublewrite {
    /// Reads the copies, and compares them with the pages in `files`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn load(directory: &Path, page_size: u32, files: &[DataFile]) -> Result<Self> {
        let extents = legacy_extents(files, page_size)?;
        let mut buffer = Self { repairs: BTreeMap::new(), extents };
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
            for (from, to) in buffer.extents.clone() {
                let mut bytes = vec![0; page_size as usize];
                for at in (from..to).step_by(page_size as usize) {
                    let system = files.iter().find(|file| file.source.space_id == 0);
                    let Some(system) = system.filter(|file| at + slot <= file.source.size) else {
                        continue;
                    };
                    system.read(&mut bytes, at)?;
                    buffer.compare(&bytes, files)?;
                }
            }
            if buffer.extents.is_empty() {
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
        file.source.space_id == 0
            && file.first_page == 0
            && self.extents.iter().any(|(from, to)| (*from..*to).contains(&offset))
    }

    /// Decides whether a copy is to be used: the page is older or as old, and is not whole.
    fn compare(&mut self, slot: &[u8], files: &[DataFile]) -> Result<()> {
        let (Some(space), Some(number)) = (u32_at(slot, SPACE_ID), u32_at(slot, PAGE_NUMBER))
        else {
            return Ok(());
        };
        let Some((index, file, offset)) = place(files, space, number) else { return Ok(()) };
        let Some(size) = file.size else { return Ok(()) };
        let Some(copy) = slot.get(..size.physical as usize) else { return Ok(()) };
        if PageState::of(copy, size) != PageState::Whole {
            return Ok(());
        }
        let mut page = vec![0; copy.len()];
        file.read(&mut page, offset)?;
        let known = self.repairs.get(&(index, offset));
        let is_older = |other: &[u8]| u64_at(other, LSN) <= u64_at(copy, LSN);
        let is_wanted = match PageState::of(&page, size) {
            PageState::Whole => false,
            PageState::Zeros => true,
            // What a page with transparent compression has lost cannot be seen.
            PageState::Torn | PageState::Packed => is_older(&page),
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
    let prefix = format!("#ib_{page_size}_");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".dblwr") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The extents of the system tablespace that hold copies before 8.0.20, from byte to byte.
fn legacy_extents(files: &[DataFile], page_size: u32) -> Result<Vec<(u64, u64)>> {
    let size = u64::from(page_size);
    let Some(system) = files.iter().find(|file| file.source.space_id == 0) else {
        return Ok(Vec::new());
    };
    if system.source.size < (TRX_SYS_PAGE + 1) * size {
        return Ok(Vec::new());
    }
    let mut page = vec![0; page_size as usize];
    system.read(&mut page, TRX_SYS_PAGE * size)?;
    let fields = page.get(page.len() - TRX_SYS_DOUBLEWRITE..).unwrap_or_default();
    if u32_at(fields, MAGIC_AT) != Some(MAGIC) {
        return Ok(Vec::new());
    }
    let extent = system.size.map_or(0, crate::page::PageSize::extent);
    let extents = EXTENTS_AT.iter().filter_map(|at| {
        let from = u64::from(u32_at(fields, *at)?) * size;
        (from != 0).then_some((from, from + extent))
    });
    Ok(extents.collect())
}
