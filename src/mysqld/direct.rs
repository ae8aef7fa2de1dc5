// SPDX-License-Identifier: GPL-2.0-only

//! A plain connection past mysqld's client library and NET layer: the same packets, without their copies.
//!
//! A donor sends a file's block through a buffer that stays in the processor's cache, with its checksum behind it. A stock recipient
//! knows no checksums, so it gets the block by `sendfile`, without a copy of the donor's own; but not on the same machine: there
//! `sendfile` saves the donor a copy that the recipient pays for, since it has to take the bytes from single pages of memory that no cache
//! holds. A recipient reads a block into memory from which it can be written as it lies there; `splice`, which would save that, costs more
//! than it saves (see docs/performance.md). The bytes on the network are the same as mysqld's, so either side does it alone, whatever the
//! other one does. All packets of a clone have sequence number 0 in their headers (`clone_protocol_service.cc` begins a new transaction
//! for each), so there is no state to share with mysqld.
//!
//! Pages that change on their way are no danger. A block that `sendfile` has queued is still the file's memory, and InnoDB may
//! write the page anew before the network takes it. But such a page is tracked and copied again in PAGE COPY, for the same reason
//! for which a read may see it half written; and the donor enters PAGE COPY only when the recipient has acknowledged all of FILE
//! COPY, and so has taken everything from the network. Redo files do not change any more when they are copied.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use clone_core::error::{Error, Result, number};
use clone_core::session::{Packet, Session, TransferError};
use clone_io::{AlignedBuffer, CopyError, Socket, lift_direct};
use clone_protocol::{BLOCK_HEAD, BLOCK_TAIL, Block, BlockForm, ResponseCode};

use super::MysqldSession;

/// Length (3 bytes) and sequence number of a packet.
const HEADER: usize = 4;
/// A packet of this length goes on in the next one.
const CONTINUED: usize = 0xff_ffff;

/// Bytes of a packet that are copied rather than sent by a call of their own.
const SHORT: usize = 16 << 10;

/// Reads the answer to EXECUTE.
pub(super) struct DirectReader {
    timeout: Duration,
    /// `max_allowed_packet`.
    max_packet: usize,
    buffer: AlignedBuffer,
    /// A packet in several parts, which no block of InnoDB's is.
    long: Vec<u8>,
    /// The last packet of the answer was read.
    is_over: bool,
    /// After one error the connection is of no more use.
    broken: Option<u32>,
}

impl DirectReader {
    pub(super) fn new(session: &MysqldSession) -> Self {
        Self {
            timeout: timeout(session, "net_read_timeout", 30),
            max_packet: usize::try_from(variable(session, "max_allowed_packet", 64 << 20))
                .unwrap_or(usize::MAX),
            buffer: AlignedBuffer::new(),
            long: Vec::new(),
            is_over: false,
            broken: None,
        }
    }

    /// COMPLETE or ERROR has come: from now on the client library reads again.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The error after which this connection is of no more use.
    pub(super) fn error(&self) -> Option<Error> {
        self.broken.map(Error::Raised)
    }

    /// The next packet, as the service's `get_response` gives it.
    pub(super) fn receive(
        &mut self,
        session: &MysqldSession,
        socket: BorrowedFd<'_>,
    ) -> Result<Packet<'_>> {
        let socket = self.open(session, socket)?;
        let (len, code) = self.begin(session, &socket)?;
        self.is_over = [ResponseCode::Complete as u8, ResponseCode::Error as u8].contains(&code);
        if len >= self.max_packet {
            return Err(self.fail(session, number::ER_NET_PACKET_TOO_LARGE));
        }
        if len == CONTINUED {
            return self.receive_long(session, &socket, code);
        }
        // What is behind the code, or a block's head, shall be aligned.
        let head = if code == ResponseCode::Block as u8 { BLOCK_HEAD } else { 1 }.min(len);
        let packet = self.buffer.with_headroom(head, len - head);
        packet[0] = code;
        if let Err(error) = socket.receive(&mut packet[1..]) {
            return Err(self.fail(session, read_error(&error)));
        }
        let network_len = (len + HEADER) as u64;
        Ok(Packet { data: self.buffer.with_headroom(head, len - head), network_len })
    }

    fn open<'fd>(&self, session: &MysqldSession, socket: BorrowedFd<'fd>) -> Result<Socket<'fd>> {
        if let Some(error) = self.error() {
            return Err(error);
        }
        if session.is_killed() {
            return Err(Error::Interrupted);
        }
        Ok(Socket::new(socket, self.timeout))
    }

    /// Reads the header of the next packet and its first byte: the length, and that byte.
    fn begin(&mut self, session: &MysqldSession, socket: &Socket<'_>) -> Result<(usize, u8)> {
        let mut bytes = [0; HEADER + 1];
        if let Err(error) = socket.receive(&mut bytes) {
            return Err(self.fail(session, read_error(&error)));
        }
        let [low, middle, high, sequence, code] = bytes;
        let len = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if len == 0 || sequence != 0 {
            return Err(self.fail(session, number::ER_NET_PACKETS_OUT_OF_ORDER));
        }
        Ok((len, code))
    }

    fn receive_long(
        &mut self,
        session: &MysqldSession,
        socket: &Socket<'_>,
        code: u8,
    ) -> Result<Packet<'_>> {
        self.long.clear();
        self.long.push(code);
        let mut part = CONTINUED;
        let mut filled = 1;
        let mut parts = 1;
        loop {
            if filled + part > self.max_packet {
                return Err(self.fail(session, number::ER_NET_PACKET_TOO_LARGE));
            }
            let end = if parts == 1 { part } else { filled + part };
            self.long.resize(end, 0);
            if let Err(error) = socket.receive(&mut self.long[filled..]) {
                return Err(self.fail(session, read_error(&error)));
            }
            filled = end;
            if part < CONTINUED {
                break;
            }
            let mut header = [0; HEADER];
            if let Err(error) = socket.receive(&mut header) {
                return Err(self.fail(session, read_error(&error)));
            }
            let [low, middle, high, _] = header;
            part = u32::from_le_bytes([low, middle, high, 0]) as usize;
            parts += 1;
        }
        let network_len = (filled + parts * HEADER) as u64;
        Ok(Packet { data: &mut self.long, network_len })
    }

    fn fail(&mut self, session: &MysqldSession, number: u32) -> Error {
        self.broken = Some(number);
        raised(session, number)
    }
}

/// What is known of the connection when the first block is sent.
#[derive(Clone, Copy)]
struct Peer {
    timeout: Duration,
    is_within_host: bool,
}

/// Sends blocks of files, and what tells of them.
#[derive(Default)]
pub(super) struct DirectWriter {
    peer: Option<Peer>,
    /// Two packets are built here, or one and the beginning of the next.
    head: Vec<u8>,
    /// What is not sent inside the kernel.
    buffer: Vec<u8>,
    /// After one error the connection is of no more use.
    broken: Option<u32>,
}

impl DirectWriter {
    /// The error after which the connection is of no more use.
    pub(super) fn check(&self) -> Result<()> {
        self.broken.map_or(Ok(()), |number| Err(Error::Raised(number)))
    }

    /// See [`clone_core::session::DonorLink::send_file`].
    pub(super) fn send_file(
        &mut self,
        session: &MysqldSession,
        socket: BorrowedFd<'_>,
        descriptor: &[u8],
        file: BorrowedFd<'_>,
        len: u32,
        is_block: bool,
    ) -> Result<bool, TransferError> {
        self.check().map_err(TransferError::Link)?;
        // Direct I/O is best done in large pieces, and a file that is too short must not be noticed in mid-packet.
        if lift_direct(file) || clone_io::end_of_block(file, u64::from(len)).is_none() {
            return Ok(false);
        }
        let head = Block::head(ResponseCode::Block as u8, BlockForm::Raw, len);
        let (head, tail) = match is_block {
            true => (&head[..], BLOCK_TAIL),
            false => (&[ResponseCode::Data as u8][..], 0),
        };
        let packets = [(descriptor.len(), descriptor), (head.len() + len as usize + tail, head)];
        if packets.iter().any(|(len, _)| *len >= CONTINUED) {
            return Ok(false);
        }
        let Some(peer) = self.meet(session, socket) else { return Ok(false) };
        let socket = Socket::new(socket, peer.timeout);
        self.put_together(packets);
        let (len, buffer) = (u64::from(len), &mut self.buffer);
        let sent = match is_block || peer.is_within_host {
            true => socket.send_file(&self.head, file, len, is_block, buffer),
            false => socket.send_file_inside_kernel(&self.head, file, len, buffer),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(CopyError::Write(error)) => {
                Err(TransferError::Link(self.fail(session, &socket, &error)))
            }
            Err(CopyError::Read(error)) => {
                // The recipient waits for the rest of the packet, and can be told nothing.
                socket.shut_down();
                self.broken = Some(number::ER_NET_ERROR_ON_WRITE);
                Err(TransferError::File(error))
            }
        }
    }

    /// See [`clone_core::session::DonorLink::send_both`]. False if packets are too long for that, and nothing was sent.
    pub(super) fn send_both(
        &mut self,
        session: &MysqldSession,
        socket: BorrowedFd<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Result<bool> {
        self.check()?;
        let packets = [(first.len(), first), (second.len(), second)];
        if packets.iter().any(|(len, _)| *len >= CONTINUED) {
            return Ok(false);
        }
        let Some(peer) = self.meet(session, socket) else { return Ok(false) };
        let socket = Socket::new(socket, peer.timeout);
        let sent = if second.len() <= SHORT {
            self.put_together(packets);
            socket.send(&self.head, false)
        } else {
            self.put_together([packets[0], (second.len(), &[])]);
            socket.send(&self.head, true).and_then(|()| socket.send(second, false))
        };
        match sent {
            Ok(()) => Ok(true),
            Err(error) => Err(self.fail(session, &socket, &error)),
        }
    }

    /// What is known of the connection; none if it is not made for this.
    fn meet(&mut self, session: &MysqldSession, socket: BorrowedFd<'_>) -> Option<Peer> {
        if self.peer.is_none() {
            let timeout = timeout(session, "net_write_timeout", 60);
            let is_limited = Socket::new(socket, timeout).limit_send_file();
            let is_within_host = clone_io::is_within_host(socket);
            self.peer = is_limited.then_some(Peer { timeout, is_within_host });
        }
        self.peer
    }

    /// Puts two packets into `head`: their lengths, and what there is of each.
    fn put_together(&mut self, packets: [(usize, &[u8]); 2]) {
        self.head.clear();
        for (len, payload) in packets {
            let [low, middle, high, ..] = len.to_le_bytes();
            self.head.extend_from_slice(&[low, middle, high, 0]);
            self.head.extend_from_slice(payload);
        }
    }

    /// The connection has failed, perhaps in the middle of a packet: it is of no more use.
    fn fail(&mut self, session: &MysqldSession, socket: &Socket<'_>, error: &io::Error) -> Error {
        socket.shut_down();
        let number = match error.kind() {
            io::ErrorKind::TimedOut => number::ER_NET_WRITE_INTERRUPTED,
            _ => number::ER_NET_ERROR_ON_WRITE,
        };
        self.broken = Some(number);
        raised(session, number)
    }
}

/// A page may carry a tablespace's key.
impl Drop for DirectWriter {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.buffer);
        zeroize::Zeroize::zeroize(&mut self.head);
    }
}

fn read_error(error: &io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::TimedOut => number::ER_NET_READ_INTERRUPTED,
        _ => number::ER_NET_READ_ERROR,
    }
}

fn raised(session: &MysqldSession, number: u32) -> Error {
    let error = Error::Raised(number);
    session.raise(&error);
    error
}

/// As `clone_protocol_service.cc:set_read_timeout` and `set_write_timeout` have it: the variable, but at least so many seconds.
fn timeout(session: &MysqldSession, name: &str, least: u64) -> Duration {
    Duration::from_secs(variable(session, name, least).max(least))
}

fn variable(session: &MysqldSession, name: &str, default: u64) -> u64 {
    let value = session.configs(&[name]).ok().and_then(|mut values| values.pop());
    value.and_then(|text| text.parse().ok()).unwrap_or(default)
}
