// SPDX-License-Identifier: GPL-2.0-only

//! A tablespace in memory, checked as one in a file is: for tests and for fuzzing.

use super::examine::{Examiner, Expected, Found};
use super::fault::Kind;
use super::page_size::page_size;
use super::space::Sink;
use super::{allocation, tree};

/// A fault: its page, its index, its kind and what is wrong.
pub type Told = (Option<u32>, Option<u64>, Kind, String);

impl Sink for Vec<Told> {
    fn fault(&mut self, page: Option<u32>, index: Option<u64>, kind: Kind, detail: String) {
        self.push((page, index, kind, detail));
    }
}

/// Checks all whole pages of a tablespace, but not how long it should be.
pub fn check_bytes(bytes: &[u8]) -> Vec<Told> {
    let mut told = Vec::new();
    let Some((page_size, _)) = page_size(bytes) else {
        told.fault(None, None, Kind::Header, "no page size fits the pages".into());
        return told;
    };
    let expected = Expected::of(bytes, page_size, None);
    let (mut examiner, mut found) = (Examiner::default(), Found::default());
    let pages = (0..).zip(bytes.chunks_exact(page_size.physical as usize));
    let records = pages
        .map(|(number, page)| examiner.page(&expected, number, page, &mut found, &mut told))
        .collect();
    let space = found.into_space(records, page_size);
    let owners = allocation::check(&space, &mut told);
    tree::check(&space, &owners, &mut told);
    told
}
