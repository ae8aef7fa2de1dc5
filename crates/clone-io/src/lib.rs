// SPDX-License-Identifier: GPL-2.0-only

//! The copy paths of a clone: file to buffer, buffer to file, file to file, and open files to another process.
//!
//! All of them work from the current offset of the files, because that is how an engine hands them over (it has sought them), and
//! all of them move exactly the asked number of bytes or fail. What the kernel can do without a copy through user space is probed
//! once and remembered ([`copy_file_to_file`]).

#![deny(unsafe_code)]

mod ahead;
mod buffer;
mod checksum;
mod codec;
mod copy;
mod direct;
mod file;
mod handover;
mod socket;
mod sparse;
mod writer;
mod zeros;

pub use buffer::{ALIGNMENT, AlignedBuffer};
pub use checksum::{Checksum, checksum};
pub use codec::{Codec, Packer, Unpacker};
pub use copy::{CopyError, copy_file_to_file};
pub use direct::{is_copied_through_memory, lift_direct};
pub use file::{end_of_block, read_exact, write_all};
pub use handover::{FileGiver, FileTaker, Taken, TakenFile, is_read_only};
pub use socket::{Socket, is_within_host};
pub use sparse::Sparse;
pub use writer::FileWriter;
