// SPDX-License-Identifier: GPL-2.0-only

//! Who is told, and what all threads know.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::fault::Fault;
use crate::encryption::Keyring;

/// What is told while files are checked. Each function may be called by several threads at once.
pub trait Observer: Sync {
    /// A fault.
    fn fault(&self, fault: &Fault);
    /// What was not checked, or what helps to understand the faults.
    fn note(&self, note: &str);
    /// A file, or a page of it, that cannot be read.
    fn unreadable(&self, path: &Path, page: Option<u32>, error: &io::Error);
    /// So many more bytes were read.
    fn progress(&self, bytes: u64);
}

/// What all threads know.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) keyring: Option<&'a Keyring>,
    pub(crate) end_lsn: Option<u64>,
    /// Whether pages are held against each other.
    pub(crate) checks_structure: bool,
    /// Tablespace and page of each good copy in the doublewrite buffer.
    pub(crate) copies: HashSet<(u32, u32)>,
}
