// SPDX-License-Identifier: GPL-2.0-only

//! InnoDB's files as bytes: what stands where, and whether it was written whole. Nothing here reads
//! a file.
//!
//! | Module | |
//! |---|---|
//! | [`bytes`] | numbers in pages |
//! | `layout` | where fields stand in a page, and the types of pages |
//! | [`page`] | the first page of a new tablespace; how long a compressed page is |
//! | [`checksum`] | the checksum of a page |
//! | [`expand`] | pages with transparent compression |
//! | [`space_header`] | what page 0 says of its tablespace |
//! | [`extents`] | extent descriptors |
//! | [`inodes`] | segment inodes |
//! | [`doublewrite`] | where copies of pages are |
//! | `encryption_info` | the key of a tablespace or of the redo log |
//! | [`redo`] | the header of a redo file, and the blocks of the log |

pub mod bytes;
pub mod checksum;
pub mod doublewrite;
pub(crate) mod encryption_info;
pub mod expand;
pub mod extents;
pub mod inodes;
pub(crate) mod layout;
pub mod page;
pub mod redo;
pub mod space_header;
