// SPDX-License-Identifier: GPL-2.0-only

//! Checks the files of a data directory that no server has open.
//!
//! [`Plan::find`] looks for files, [`run`] reads each of them once from its beginning to its end
//! and tells an [`Observer`] what is wrong. A page is first checked by itself: its checksum, its
//! number, the number of its tablespace, its LSN, its list of records. 24 bytes of each page are
//! kept, and all descriptors of extents and inodes of segments. When a tablespace was read, they
//! are held against each other: neighbours and levels of trees, lists of extents, which page
//! belongs to which segment. No dictionary is read.
//!
//! Memory: 24 bytes for each page of the tablespaces that are read at once, and 1 MiB for each
//! thread. `docs/verify.md` lists what is checked and what is not.

mod allocation;
mod directory;
mod doublewrite;
mod examine;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod memory;
mod observer;
pub mod page_size;
pub mod redo;
pub mod rows;
mod run;
mod scan;
mod space;
mod tree;

pub use directory::{Plan, SpaceFiles};
pub use fault::{Fault, Kind};
pub use memory::{Told, check_bytes};
pub use observer::Observer;
pub use run::{Options, Summary, run};
