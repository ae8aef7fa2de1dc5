// SPDX-License-Identifier: GPL-2.0-only

//! A tablespace in memory, to be damaged.

use std::fs;
use std::path::Path;

use clone_innodb::format::checksum::{self, Damage};
use clone_innodb::verify::page_size::page_size;
use clone_protocol::innodb::PageSize;
use clone_testkit::anyhow::{Context, Result};

pub(crate) const NULL: u32 = u32::MAX;
pub(crate) const INDEX: u16 = 17_855;

#[derive(Clone, Debug)]
pub(crate) struct Table {
    bytes: Vec<u8>,
    page_size: PageSize,
}

impl Table {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path)?;
        let (page_size, _) =
            page_size(&bytes[..bytes.len().min(256 << 10)]).context("page size")?;
        Ok(Self { bytes, page_size })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn size(&self) -> usize {
        self.page_size.physical as usize
    }

    pub(crate) fn page(&self, number: u32) -> &[u8] {
        &self.bytes[number as usize * self.size()..][..self.size()]
    }

    /// Changes a page without giving it a new checksum.
    pub(crate) fn raw(&mut self, number: u32) -> &mut [u8] {
        let size = self.size();
        &mut self.bytes[number as usize * size..][..size]
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    pub(crate) fn len(&self) -> u32 {
        (self.bytes.len() / self.size()) as u32
    }

    /// Puts bytes into a page and gives it a good checksum.
    pub(crate) fn put(&mut self, number: u32, at: usize, bytes: &[u8]) {
        self.raw(number)[at..at + bytes.len()].copy_from_slice(bytes);
        self.seal(number);
    }

    pub(crate) fn put32(&mut self, number: u32, at: usize, value: u32) {
        self.put(number, at, &value.to_be_bytes());
    }

    pub(crate) fn put16(&mut self, number: u32, at: usize, value: u16) {
        self.put(number, at, &value.to_be_bytes());
    }

    /// Gives an uncompressed page a good checksum.
    pub(crate) fn seal(&mut self, number: u32) {
        let page = self.raw(number);
        let end = page.len();
        page.copy_within(20..24, end - 4);
        if let Err(Damage::Checksum(_, sum)) = checksum::check(page, false) {
            page[..4].copy_from_slice(&sum.to_be_bytes());
            page[end - 8..end - 4].copy_from_slice(&sum.to_be_bytes());
        }
    }

    pub(crate) fn u16(&self, number: u32, at: usize) -> u16 {
        u16::from_be_bytes(self.page(number)[at..at + 2].try_into().unwrap())
    }

    pub(crate) fn u32(&self, number: u32, at: usize) -> u32 {
        u32::from_be_bytes(self.page(number)[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn u64(&self, number: u32, at: usize) -> u64 {
        u64::from_be_bytes(self.page(number)[at..at + 8].try_into().unwrap())
    }

    pub(crate) fn prev(&self, number: u32) -> u32 {
        self.u32(number, 8)
    }

    pub(crate) fn next(&self, number: u32) -> u32 {
        self.u32(number, 12)
    }

    /// Where the descriptor of a page's extent stands in page 0, for pages of 16 KiB.
    pub(crate) fn descriptor(page: u32) -> usize {
        150 + page as usize / 64 * 40
    }

    /// Where the bit is that says that the page is free: byte and bit.
    pub(crate) fn free_bit(page: u32) -> (usize, u32) {
        let bit = page % 64 * 2;
        (Self::descriptor(page) + 24 + bit as usize / 8, bit % 8)
    }

    pub(crate) fn is_free(&self, page: u32) -> bool {
        let (at, bit) = Self::free_bit(page);
        self.page(0)[at] >> bit & 1 == 1
    }

    pub(crate) fn is_index(&self, page: u32) -> bool {
        self.u16(page, 24) == INDEX && !self.is_free(page)
    }

    /// The used pages of a level of an index, in the order of the file.
    pub(crate) fn level(&self, index: u64, level: u16) -> Vec<u32> {
        (0..self.len())
            .filter(|page| self.is_index(*page))
            .filter(|page| self.u64(*page, 66) == index && self.u16(*page, 64) == level)
            .collect()
    }

    /// The indexes, in order.
    pub(crate) fn indexes(&self) -> Vec<u64> {
        let mut found: Vec<_> = (0..self.len())
            .filter(|page| self.is_index(*page))
            .map(|page| self.u64(page, 66))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Pages in the middle of the leaves of the first index.
    pub(crate) fn leaves(&self) -> Vec<u32> {
        let leaves = self.level(self.indexes()[0], 0);
        leaves
            .into_iter()
            .filter(|page| self.prev(*page) != NULL && self.next(*page) != NULL)
            .collect()
    }

    pub(crate) fn root(&self) -> u32 {
        self.level(self.indexes()[0], 1)[0]
    }

    /// Whether the byte at this place of the file is in a range that is checked, as docs/verify.md
    /// says.
    pub(crate) fn is_checked(&self, at: usize) -> bool {
        let (number, at) = (at / self.size(), at % self.size());
        let page = self.page(number as u32);
        if page.iter().all(|byte| *byte == 0) {
            return true;
        }
        if self.page_size.is_compressed {
            return !(16..24).contains(&at) && !(26..34).contains(&at);
        }
        if page[24..26] == [0, 14] {
            let len = usize::from(u16::from_be_bytes([page[32], page[33]]));
            return at != 26 && at < 38 + len;
        }
        !(26..34).contains(&at)
    }
}
