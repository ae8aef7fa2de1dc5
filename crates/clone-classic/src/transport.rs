// SPDX-License-Identifier: GPL-2.0-only

//! A connection's bytes, compressed or not.

use crate::compressed::Frames;
use crate::error::Error;
use crate::stream::{Stream, fill};

/// A stream, and what its bytes are.
pub(crate) struct Transport {
    pub(crate) stream: Stream,
    /// The bytes of the stream are these frames, which hold the packets. None without compression.
    frames: Option<Frames>,
}

impl Transport {
    /// A transport without compression.
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, frames: None }
    }

    /// The server compresses what it sends from now on.
    pub(crate) fn compress(&mut self) {
        self.frames = Some(Frames::new());
    }

    /// The compression, if there is one.
    pub(crate) fn frames(&mut self) -> Option<&mut Frames> {
        self.frames.as_mut()
    }

    /// Whether the server compresses what it sends.
    pub(crate) fn is_compressed(&self) -> bool {
        self.frames.is_some()
    }

    /// Reads some bytes, at least one.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        match &mut self.frames {
            Some(frames) => frames.read_some(&mut self.stream, buffer),
            None => self.stream.read_some(buffer),
        }
    }

    /// Fills `buffer`.
    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        fill(buffer, |rest| self.read_some(rest))
    }

    /// Sends all of `data`. With `more`, more follows at once.
    pub(crate) fn write_all(&mut self, data: &[u8], more: bool) -> Result<(), Error> {
        match &mut self.frames {
            Some(frames) => frames.write_all(&mut self.stream, data, more),
            None => self.stream.write_all(data, more),
        }
    }
}
