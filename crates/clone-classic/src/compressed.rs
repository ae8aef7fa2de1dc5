// SPDX-License-Identifier: GPL-2.0-only

//! The compression of the classic protocol, with Zstandard.
//!
//! The packets of a session with their headers are one stream of bytes, which is cut into frames:
//!
//! | Bytes | |
//! |---|---|
//! | 3, little-endian | length of the frame's bytes |
//! | 1 | sequence number: counts the frames of a command and of its answer |
//! | 3, little-endian | length of the bytes when unpacked; 0: they are not packed |
//! | | the bytes |
//!
//! MySQL packs each frame by itself. The server packs at the level that the client names when it
//! logs in. This client sends little, and packs nothing.

use std::cmp::min;
use std::io;

use byteorder::{ByteOrder, LittleEndian};
use clone_io::Unpacker;
use clone_protocol::BlockForm;
use zeroize::{Zeroizing, optimization_barrier};

use crate::error::Error;
use crate::stream::Stream;

/// Bytes of a frame's header.
const HEADER: usize = 7;

/// The most bytes that a frame can have, packed or not: its lengths have 3 bytes.
const MAX_FRAME: usize = 0xff_ffff;

/// The frames of a connection whose server packs what it sends. The stream that carries them is
/// always the same one.
pub(crate) struct Frames {
    /// The next frame's sequence number.
    sequence: u8,
    /// No frame was read since [`restart`](Self::restart).
    is_first: bool,
    /// The first frame since [`restart`](Self::restart) had the next sequence number.
    in_order: bool,
    /// The bytes of a frame as it came. Zeros, unless a frame is being read.
    packed: Zeroizing<Vec<u8>>,
    /// The bytes of a frame, of which those from `start` on have not been read. Zeros, when all
    /// have been read.
    bytes: Zeroizing<Vec<u8>>,
    start: usize,
    unpacker: Unpacker,
    /// Bytes of frames that came, with headers, since [`take_network_len`](Self::take_network_len).
    network_len: u64,
}

impl Frames {
    /// The next byte of the stream, read or sent, begins a frame.
    pub(crate) fn new() -> Self {
        Self {
            sequence: 0,
            is_first: true,
            in_order: true,
            packed: Zeroizing::default(),
            bytes: Zeroizing::default(),
            start: 0,
            unpacker: Unpacker::new(),
            network_len: 0,
        }
    }

    /// The next frame, read or sent, begins a command.
    pub(crate) fn restart(&mut self) {
        (self.sequence, self.is_first, self.in_order) = (0, true, true);
    }

    /// Whether the first frame since [`restart`](Self::restart) had the next sequence number. A
    /// later one that has not is an error.
    pub(crate) fn is_in_order(&self) -> bool {
        self.in_order
    }

    /// Bytes of frames, with headers, that came since the last call.
    pub(crate) fn take_network_len(&mut self) -> u64 {
        std::mem::take(&mut self.network_len)
    }

    /// Reads some bytes, at least one.
    pub(crate) fn read_some(
        &mut self,
        stream: &mut Stream,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        if self.start == self.bytes.len() {
            self.read_frame(stream)?;
        }
        let count = min(buffer.len(), self.bytes.len() - self.start);
        buffer[..count].copy_from_slice(&self.bytes[self.start..self.start + count]);
        self.start += count;
        if self.start == self.bytes.len() {
            wipe(&mut self.bytes);
        }
        Ok(count)
    }

    fn read_frame(&mut self, stream: &mut Stream) -> Result<(), Error> {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let len = LittleEndian::read_u24(&header) as usize;
        self.in_order = header[3] == self.sequence;
        if !self.in_order && !self.is_first {
            return Err(Error::out_of_order());
        }
        self.is_first = false;
        self.sequence = header[3].wrapping_add(1);
        let unpacked = LittleEndian::read_u24(&header[4..]) as usize;
        if len == 0 {
            return Err(Error::malformed("a compressed frame has no bytes"));
        }
        self.network_len += (HEADER + len) as u64;
        self.start = 0;
        if unpacked == 0 {
            resize(&mut self.bytes, len)?;
            return stream.read_exact(&mut self.bytes);
        }
        resize(&mut self.packed, len)?;
        stream.read_exact(&mut self.packed)?;
        resize(&mut self.bytes, unpacked)?;
        let outcome = self.unpacker.unpack(BlockForm::Zstd, &self.packed, &mut self.bytes);
        wipe(&mut self.packed);
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Error::not_unpacked(),
            _ => Error::OutOfMemory(unpacked),
        })
    }

    /// Sends all of `data`. With `more`, more follows at once.
    pub(crate) fn write_all(
        &mut self,
        stream: &mut Stream,
        data: &[u8],
        more: bool,
    ) -> Result<(), Error> {
        let mut frames = data.chunks(MAX_FRAME).peekable();
        while let Some(frame) = frames.next() {
            let mut header = [0; HEADER];
            LittleEndian::write_u24(&mut header, frame.len() as u32);
            header[3] = self.sequence;
            self.sequence = self.sequence.wrapping_add(1);
            stream.write_all(&header, true)?;
            stream.write_all(frame, more || frames.peek().is_some())?;
        }
        Ok(())
    }
}

/// Overwrites bytes that may be a key. [`Zeroize`](zeroize::Zeroize) does that byte by byte, which
/// is too slow for all data of a clone.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

/// Gives `bytes`, which are zeros, this length, which is at most [`MAX_FRAME`].
fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<(), Error> {
    bytes.try_reserve(len.saturating_sub(bytes.len())).map_err(|_| Error::OutOfMemory(len))?;
    bytes.resize(len, 0);
    Ok(())
}
