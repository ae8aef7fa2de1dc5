// SPDX-License-Identifier: GPL-2.0-only

//! The data behind a descriptor: received, checked, unpacked, and written to the engine's file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clone_io::{ALIGNMENT, AlignedBuffer, CopyError, FileWriter, Sparse, Unpacker, checksum};
use clone_protocol::innodb::SpacePlace;
use clone_protocol::{Block, BlockForm, EqualUnits, HandoverKey, Response};
use zeroize::Zeroize;

use super::answer::unexpected;
use super::based::{Based, BlockInBase};
use super::expected::Expected;
use crate::base::Base;
use crate::engine::View;
use crate::error::{Error, NetworkError, Result};
use crate::file_channel::{FileTaker, TakenFile};
use crate::link::Packet;
use crate::log_target::CLIENT;
use crate::sink::{Origin, Sink, TargetFile};

/// Receives the data of one task.
#[derive(Default)]
pub(super) struct BlockReceiver {
    /// Aligned memory. Blocks are unpacked into it, and direct I/O writes from it.
    buffer: AlignedBuffer,
    unpacker: Unpacker,
    /// The socket where a donor on this machine hands over files.
    taker: Option<Box<dyn FileTaker>>,
    /// Takes blocks from the base.
    pub(super) based: Based,
}

/// How long to wait for the file of a block that has been announced. The donor sends the file at
/// about the same time.
const HANDOVER_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a file that was handed over that are copied at once where its blocks cannot be shared.
const PIECE: usize = 1 << 20;

/// The data of a descriptor, checked.
pub(super) struct Received<'l> {
    location: Location<'l>,
    /// The form in which the data came; none for DATA.
    pub(super) form: Option<BlockForm>,
    /// Bytes of data.
    pub(super) len: u64,
    /// Bytes that crossed the network for the data.
    pub(super) network_len: u64,
    expected: Expected,
}

/// Where the data is.
enum Location<'l> {
    /// In the connection's memory.
    Packet(&'l mut [u8]),
    /// In the connection's memory, without its zeros.
    Sparse(Sparse<'l>),
    /// At the beginning of the receiver's buffer.
    Buffer,
    /// In a file that the donor has handed over.
    File(Box<dyn TakenFile>),
}

impl BlockReceiver {
    /// Takes the donor's files from `taker` from now on. Returns the key that the donor needs; none
    /// without `taker`.
    pub(super) fn take_files(&mut self, taker: Option<Box<dyn FileTaker>>) -> Option<HandoverKey> {
        self.taker = taker;
        self.taker.as_ref().and_then(|taker| HandoverKey::new(taker.key()))
    }

    /// Takes no more files. A donor that waits for the copy of a block goes on.
    pub(super) fn close_files(&mut self) {
        self.taker = None;
    }

    /// Takes the first file, and tests whether files in `directory` can share its blocks. Nothing
    /// is copied. If the blocks cannot be shared, the donor sends its data over the connection.
    ///
    /// # Errors
    /// This task has not asked for files.
    pub(super) fn try_sharing(&mut self, directory: &Path, takes_files: &AtomicBool) -> Result<()> {
        let taker = self.taker.as_mut().ok_or_else(unexpected)?;
        let reason = match taker.take(HANDOVER_LIMIT) {
            Ok(file) if taker.can_share(file.as_fd(), directory) => {
                file.confirm_copy();
                return Ok(());
            }
            Ok(_) => "their blocks cannot be shared here".to_owned(),
            Err(error) => error.to_string(),
        };
        self.taker = None;
        takes_files.store(false, Ordering::Relaxed);
        log::info!(target: CLIENT, "The donor sends its files: {reason}");
        Ok(())
    }

    /// Checks a packet of data, and unpacks it unless it can be written as it is.
    ///
    /// # Errors
    /// The packet is no data, or its length differs from the expected one. A damaged packet counts
    /// as an error of the network: the clone goes on over a new connection, where the engine asks
    /// for the block again.
    pub(super) fn receive<'l>(
        &mut self,
        packet: Packet<'l>,
        expected: Expected,
        takes_files: &AtomicBool,
    ) -> Result<Received<'l>> {
        let Packet { data, network_len } = packet;
        let (form, len, sum) = match Response::parse(data)? {
            Response::Data(bytes) => (None, bytes.len(), 0),
            Response::Block(Block { form, len, checksum, .. }) => {
                (Some(form), len as usize, checksum)
            }
            _ => {
                let text = "Wrong Clone RPC response, expecting data packet COM_RES_DATA";
                return Err(Error::Protocol(text.to_owned()));
            }
        };
        // The engine seeks and counts by its descriptor. With more or fewer bytes, later data would
        // go to the wrong place.
        if expected.len().is_some_and(|expected| expected as usize != len) {
            let text = "Wrong Clone RPC response, data length differs from its descriptor";
            return Err(Error::Protocol(text.to_owned()));
        }
        let location = match form {
            None => Location::Packet(&mut data[1..]),
            Some(BlockForm::Base) => return Err(unexpected()),
            Some(BlockForm::File) => Location::File(self.take_file(takes_files)?),
            Some(form) => {
                let range = Block::range(data.len());
                let bytes = &mut data[range];
                if checksum(bytes) != sum {
                    return Err(damaged("its checksum differs"));
                }
                self.unpack(form, bytes, len, expected.holds_key())?
            }
        };
        Ok(Received { location, form, len: len as u64, network_len, expected })
    }

    /// The file that the donor has handed over for the block at hand.
    fn take_file(&mut self, takes_files: &AtomicBool) -> Result<Box<dyn TakenFile>> {
        let taker = self.taker.as_mut().ok_or_else(unexpected)?;
        taker.take(HANDOVER_LIMIT).map_err(|error| {
            // The clone goes on over a new connection, where files are sent.
            takes_files.store(false, Ordering::Relaxed);
            log::warn!(target: CLIENT, "The donor handed over no file: {error}");
            NetworkError::Read.into()
        })
    }

    fn unpack<'l>(
        &mut self,
        form: BlockForm,
        bytes: &'l mut [u8],
        len: usize,
        holds_key: bool,
    ) -> Result<Location<'l>> {
        match form {
            BlockForm::Raw => return Ok(Location::Packet(bytes)),
            BlockForm::Sparse if !holds_key => {
                let block = Sparse::parse(bytes, len);
                return block.map(Location::Sparse).ok_or_else(|| damaged("it cannot be unpacked"));
            }
            _ => {}
        }
        let unpacked = self.buffer.aligned(len).map_err(|_| Error::OutOfMemory(len))?;
        let outcome = self.unpacker.unpack(form, bytes, unpacked);
        if holds_key {
            bytes.zeroize();
        }
        outcome.map(|()| Location::Buffer).map_err(|_| damaged("it cannot be unpacked"))
    }

    /// Writes the data to `file`, at its current offset.
    ///
    /// # Errors
    /// A file could not be read or written; no memory.
    pub(super) fn write(
        &mut self,
        received: Received<'_>,
        view: &View<'_>,
        file: BorrowedFd<'_>,
        writer: &FileWriter,
    ) -> Result<()> {
        let len = usize::try_from(received.len).unwrap_or(usize::MAX);
        let failed = |error: io::Error| Error::file(true, view.destination_name, &error);
        let sink = TargetFile::of(file).sink(received.location.origin());
        let buffer = &mut self.buffer;
        let holds_key = received.expected.holds_key();
        match received.location {
            Location::File(from) if !holds_key => {
                let inside_kernel = sink == Sink::Kernel;
                let fd = from.as_fd();
                writer.copy(fd, file, received.len, inside_kernel, buffer, PIECE).map_err(
                    |error| match error {
                        CopyError::Read(error) => Error::file(false, &donors_file(view), &error),
                        CopyError::Write(error) => failed(error),
                    },
                )?;
                from.confirm_copy();
                Ok(())
            }
            Location::Sparse(block) if sink == Sink::Islands && !holds_key => {
                writer.write_sparse(file, &block, buffer).map_err(failed)
            }
            location => {
                let bytes = match location {
                    Location::Packet(bytes) if sink != Sink::WriteAligned => bytes,
                    location => location.aligned(buffer, len, view, holds_key)?,
                };
                received.expected.check(bytes)?;
                match sink {
                    Sink::Islands => writer.write_islands(file, bytes).map_err(failed),
                    _ => writer.write_all(file, bytes).map_err(failed),
                }
            }
        }
    }

    /// Writes a block to `file`, at its current offset, with the equal units from the base.
    /// `received` are the other bytes of the block; with `is_whole`, all of its bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write)'s; the base has changed.
    pub(super) fn write_based(
        &mut self,
        received: Option<Received<'_>>,
        is_whole: bool,
        block: &BlockInBase<'_>,
        view: &View<'_>,
        file: BorrowedFd<'_>,
        writer: &FileWriter,
    ) -> Result<()> {
        let Self { buffer, based, .. } = self;
        let rest = Received::rest(received, buffer, view)?;
        based.write(block, rest, is_whole, view, file, writer)
    }

    /// Returns the block in memory, with the equal units from the base, as [`bytes`](Self::bytes).
    ///
    /// # Errors
    /// As [`write_based`](Self::write_based)'s.
    pub(super) fn bytes_based(
        &mut self,
        received: Option<Received<'_>>,
        block: &BlockInBase<'_>,
        view: &View<'_>,
    ) -> Result<&mut [u8]> {
        let Self { buffer, based, .. } = self;
        let rest = Received::rest(received, buffer, view)?;
        based.bytes(block, rest)
    }

    /// Which units of a block that came whole are in the base.
    pub(super) fn find_in_base(
        received: &Received<'_>,
        base: &Base,
        place: SpacePlace,
    ) -> Option<EqualUnits> {
        match &received.location {
            Location::Packet(bytes) => base.compare(place, bytes),
            _ => None,
        }
    }

    /// Returns the data in memory that the engine may change. If the data may hold a key, all other
    /// copies are wiped.
    ///
    /// # Errors
    /// A file could not be read or written; no memory.
    pub(super) fn bytes<'b>(
        &'b mut self,
        received: Received<'b>,
        view: &View<'_>,
    ) -> Result<&'b mut [u8]> {
        let len = usize::try_from(received.len).unwrap_or(usize::MAX);
        let expected = received.expected;
        let bytes = match received.location {
            Location::Packet(bytes) if view.is_os_buffer_cached || is_aligned(bytes) => bytes,
            location => location.aligned(&mut self.buffer, len, view, expected.holds_key())?,
        };
        expected.check(bytes)?;
        Ok(bytes)
    }
}

impl Received<'_> {
    /// The bytes, in memory; none without a packet.
    fn rest<'b>(
        received: Option<Received<'b>>,
        buffer: &'b mut AlignedBuffer,
        view: &View<'_>,
    ) -> Result<&'b [u8]> {
        match received {
            None => Ok(&[]),
            Some(Received { location: Location::Packet(bytes), .. }) => Ok(bytes),
            Some(received) => {
                let len = usize::try_from(received.len).unwrap_or(usize::MAX);
                let holds_key = received.expected.holds_key();
                Ok(received.location.aligned(buffer, len, view, holds_key)?)
            }
        }
    }
}

impl Location<'_> {
    /// The facts that decide how the data gets into its file.
    fn origin(&self) -> Origin {
        match self {
            Location::Packet(bytes) => Origin::Memory { is_aligned: is_aligned(bytes) },
            Location::Sparse(_) => Origin::Sparse,
            Location::Buffer => Origin::Memory { is_aligned: true },
            // The first file has shown that blocks are shared (`BlockReceiver::try_sharing`).
            Location::File(file) => Origin::File {
                is_direct: clone_io::is_direct(file.as_fd()),
                shares: true,
                allows_kernel: true,
            },
        }
    }

    /// Brings the `len` bytes of data into `buffer`.
    fn aligned<'b>(
        self,
        buffer: &'b mut AlignedBuffer,
        len: usize,
        view: &View<'_>,
        holds_key: bool,
    ) -> Result<&'b mut [u8]> {
        let bytes = buffer.aligned(len).map_err(|_| Error::OutOfMemory(len))?;
        match self {
            Location::Buffer => {}
            Location::Sparse(block) => block.unpack(bytes),
            Location::Packet(packet) => {
                bytes.copy_from_slice(packet);
                if holds_key {
                    packet.zeroize();
                }
            }
            Location::File(file) => {
                clone_io::read_exact(file.as_fd(), bytes)
                    .map_err(|error| Error::file(false, &donors_file(view), &error))?;
                file.confirm_copy();
            }
        }
        Ok(bytes)
    }
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// A name for a handed-over file, for error messages. The file comes without a name, so this is the
/// name of the recipient's file.
fn donors_file(view: &View<'_>) -> String {
    format!("{} at the donor", view.destination_name)
}

/// Logs that a block differs from what the donor sent, and returns the error for it.
pub(super) fn damaged(how: &str) -> Error {
    log::warn!(target: CLIENT, "A block arrived damaged: {how}");
    NetworkError::Read.into()
}
