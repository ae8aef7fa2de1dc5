// SPDX-License-Identifier: GPL-2.0-only

//! Payloads and their headers.
//!
//! | Bytes | |
//! |---|---|
//! | 3, little-endian | length of the payload; 0xffffff: the payload goes on in the next packet |
//! | 1 | sequence number |
//! | | the payload |
//!
//! The sequence number counts the packets of a command and of its answer. In clone mode it is 0 for
//! each payload, and counts the parts of a long payload (docs/protocol.md, section 2).

use std::cmp::min;

use byteorder::{ByteOrder, LittleEndian};
use clone_io::AlignedBuffer;
use clone_protocol::{BLOCK_HEAD, ResponseCode};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::stream::Stream;
use crate::transport::Transport;

/// Bytes of a packet's header.
const HEADER: usize = 4;

/// A payload part of this length goes on in the next packet.
pub(crate) const CONTINUED: usize = 0xff_ffff;

/// Bytes that are read at once, to find headers. A payload's bytes among them are copied once more.
const AHEAD: usize = 16 << 10;

/// A payload of at most this many bytes leaves in one call with its header.
const SHORT: usize = 16 << 10;

/// First byte of an ERR packet.
pub(crate) const ERR: u8 = 0xff;

/// Reads and writes the payloads of a connection.
pub(crate) struct Packets {
    pub(crate) transport: Transport,
    /// The next packet's sequence number.
    sequence: u8,
    /// The longest payload that is read, bytes.
    pub(crate) max: usize,
    ahead: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    /// A payload of one packet.
    buffer: AlignedBuffer,
    /// A payload of more than one packet.
    long: Zeroizing<Vec<u8>>,
    /// A short packet to send.
    out: Zeroizing<Vec<u8>>,
}

/// A payload that was read.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    /// What follows the code, or the head of a [`Block`](clone_protocol::Block), is aligned.
    pub(crate) data: &'a mut [u8],
    /// Bytes that crossed the network, compressed and with headers, before TLS.
    pub(crate) network_len: u64,
}

impl Packets {
    pub(crate) fn new(stream: Stream, max: usize) -> Self {
        Self {
            transport: Transport::new(stream),
            sequence: 0,
            max,
            ahead: Zeroizing::new(vec![0; AHEAD]),
            start: 0,
            end: 0,
            buffer: AlignedBuffer::new(),
            long: Zeroizing::new(Vec::new()),
            out: Zeroizing::new(Vec::new()),
        }
    }

    /// The next packet, read or sent, begins a command.
    pub(crate) fn restart(&mut self) {
        self.sequence = 0;
        if let Some(frames) = self.transport.frames() {
            frames.restart();
        }
    }

    /// The next payload. A payload that begins with [`ERR`] may come out of order: a server that
    /// ends a connection does not wait for its turn.
    pub(crate) fn receive(&mut self) -> Result<Payload<'_>, Error> {
        let (len, in_order) = self.header(0)?;
        if len == CONTINUED {
            return self.receive_long(in_order);
        }
        let mut code = 0;
        if len > 0 {
            self.fill(1)?;
            code = self.ahead[self.start];
        }
        if !in_order && code != ERR {
            return Err(Error::out_of_order());
        }
        let head = if code == ResponseCode::Block as u8 { BLOCK_HEAD } else { 1 }.min(len);
        let data =
            self.buffer.with_headroom(head, len - head).map_err(|_| Error::OutOfMemory(len))?;
        let here = min(len, self.end - self.start);
        data[..here].copy_from_slice(&self.ahead[self.start..self.start + here]);
        self.start += here;
        self.transport.read_exact(&mut data[here..])?;
        let network_len = network_len(&mut self.transport, len, 1);
        Ok(Payload { data, network_len })
    }

    /// Reads a payload whose first part has [`CONTINUED`] bytes.
    fn receive_long(&mut self, in_order: bool) -> Result<Payload<'_>, Error> {
        if !in_order {
            return Err(Error::out_of_order());
        }
        self.long.zeroize();
        let (mut part, mut parts) = (CONTINUED, 1);
        loop {
            let end = self.long.len() + part;
            self.long.try_reserve(part).map_err(|_| Error::OutOfMemory(end))?;
            let here = min(part, self.end - self.start);
            self.long.extend_from_slice(&self.ahead[self.start..self.start + here]);
            self.start += here;
            let filled = self.long.len();
            self.long.resize(end, 0);
            self.transport.read_exact(&mut self.long[filled..])?;
            if part < CONTINUED {
                let network_len = network_len(&mut self.transport, end, parts);
                return Ok(Payload { data: &mut self.long, network_len });
            }
            let in_order;
            (part, in_order) = self.header(end)?;
            if !in_order {
                return Err(Error::out_of_order());
            }
            parts += 1;
        }
    }

    /// Reads a header. Gives the length behind it, and whether its sequence number is the next one.
    /// With compression only the frames are in order: a server counts the packets anew in each.
    /// `before` are the bytes of the payload that came in front of it.
    fn header(&mut self, before: usize) -> Result<(usize, bool), Error> {
        self.fill(HEADER)?;
        let header = &self.ahead[self.start..self.start + HEADER];
        let len = LittleEndian::read_u24(header) as usize;
        let in_order = match self.transport.frames() {
            Some(frames) => frames.is_in_order(),
            None => header[3] == self.sequence,
        };
        self.sequence = header[3].wrapping_add(1);
        self.start += HEADER;
        if before + len > self.max {
            return Err(Error::too_large(self.max));
        }
        Ok((len, in_order))
    }

    /// Reads until `count` bytes are ahead.
    fn fill(&mut self, count: usize) -> Result<(), Error> {
        if self.end - self.start >= count {
            return Ok(());
        }
        self.ahead.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < count {
            self.end += self.transport.read_some(&mut self.ahead[self.end..])?;
        }
        Ok(())
    }

    /// Sends a payload that consists of `parts`.
    pub(crate) fn send(&mut self, parts: &[&[u8]]) -> Result<(), Error> {
        self.send_with(parts, false)
    }

    /// Sends two payloads of clone mode, the first of them together with the second if it is short.
    pub(crate) fn send_both(&mut self, first: &[u8], second: &[u8]) -> Result<(), Error> {
        self.restart();
        self.send_with(&[first], true)?;
        self.restart();
        self.send_with(&[second], false)
    }

    /// Sends a payload. With `more`, another one follows at once.
    fn send_with(&mut self, parts: &[&[u8]], more: bool) -> Result<(), Error> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if len <= SHORT {
            self.out.clear();
            let header = self.next_header(len);
            self.out.extend_from_slice(&header);
            parts.iter().for_each(|part| self.out.extend_from_slice(part));
            let sent = self.transport.write_all(&self.out, more);
            // The payload may be a password.
            self.out.zeroize();
            return sent;
        }
        // A payload whose length is a multiple of CONTINUED ends with an empty packet.
        let mut left = len;
        let mut bytes = Bytes { parts, offset: 0 };
        loop {
            let mut packet = left.min(CONTINUED);
            let is_last = packet < CONTINUED;
            let header = self.next_header(packet);
            self.transport.write_all(&header, packet > 0)?;
            left -= packet;
            while packet > 0 {
                let piece = bytes.take(packet);
                packet -= piece.len();
                self.transport.write_all(piece, packet > 0 || !is_last)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The header of the next packet. `len` is at most [`CONTINUED`].
    fn next_header(&mut self, len: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        LittleEndian::write_u24(&mut header, len as u32);
        header[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        header
    }

    /// The server compresses what it sends from now on.
    ///
    /// # Errors
    /// Bytes of the server are here already. It has nothing to say until the client sends a
    /// command.
    pub(crate) fn compress(&mut self) -> Result<(), Error> {
        if self.start != self.end {
            return Err(Error::handshake("there are bytes in front of the compression"));
        }
        self.transport.compress();
        Ok(())
    }

    /// Replaces the plain stream by what `upgrade` makes of it, which is a TLS stream. `upgrade`
    /// gets the bytes of the peer that are here already: they are read as TLS, never as packets.
    pub(crate) fn upgrade(
        self,
        upgrade: impl FnOnce(Stream, &[u8]) -> Result<Stream, Error>,
    ) -> Result<Self, Error> {
        let Self { transport, sequence, max, ahead, start, end, .. } = self;
        Ok(Self { sequence, ..Self::new(upgrade(transport.stream, &ahead[start..end])?, max) })
    }
}

/// Bytes that crossed the network for a payload of `len` bytes in `packets` packets.
fn network_len(transport: &mut Transport, len: usize, packets: usize) -> u64 {
    match transport.frames() {
        Some(frames) => frames.take_network_len(),
        None => (len + packets * HEADER) as u64,
    }
}

/// Slices, taken piece by piece.
struct Bytes<'a> {
    parts: &'a [&'a [u8]],
    offset: usize,
}

impl<'a> Bytes<'a> {
    /// The next bytes, at most `max`. Nothing only if there is nothing any more.
    fn take(&mut self, max: usize) -> &'a [u8] {
        while let Some(part) = self.parts.first() {
            let rest = &part[self.offset..];
            if !rest.is_empty() {
                let piece = &rest[..rest.len().min(max)];
                self.offset += piece.len();
                return piece;
            }
            (self.parts, self.offset) = (&self.parts[1..], 0);
        }
        &[]
    }
}
