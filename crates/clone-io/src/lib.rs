// SPDX-License-Identifier: GPL-2.0-only

//! System calls of a clone: file to buffer, buffer to file, file to file, packets over a socket,
//! codecs, and hand-over of open files to another process.
//!
//! Functions that read and write files begin at the file's current offset, because engines give
//! files in this way. They move exactly the number of bytes that was asked for, or fail.

#![deny(unsafe_code)]

mod ahead;
mod buffer;
mod checksum;
mod codec;
mod copy;
mod descriptors;
mod digest;
mod direct;
mod file;
mod file_facts;
mod handover;
mod packet;
mod processor;
mod socket;
mod sparse;
mod writer;

pub use buffer::{ALIGNMENT, AlignedBuffer};
pub use checksum::{Checksum, checksum};
pub use codec::{Packer, Unpacker};
pub use copy::{CopyError, copy_file_to_file, share_range};
pub use descriptors::{FREE_DESCRIPTORS, check_free_descriptors};
pub use digest::Digester;
pub use direct::{set_direct, takes_direct_writes};
pub use file::{end_of_block, offset, read_exact, read_exact_at, seek, write_all, write_all_at};
pub use file_facts::{can_share_blocks, is_direct, is_read_only, may_share_blocks, shares_blocks};
pub use handover::{FileGiver, FileTaker, Taken, TakenFile, check_handover};
pub use packet::{PacketError, PacketReader, PacketWriter, ReceivedPacket};
pub use processor::{idle_time, process_time, thread_time};
pub use socket::is_within_host;
pub use sparse::Sparse;
pub use writer::{FileWriter, extends};
