// SPDX-License-Identifier: GPL-2.0-only

//! Packets of MySQL's classic protocol over a plain socket, without the copies that mysqld's client
//! library and NET layer make.
//!
//! | Bytes | |
//! |---|---|
//! | 3, little-endian | length of the payload; 0xffffff: the payload goes on in the next packet |
//! | 1 | sequence number, which is 0 for every packet of a clone |
//! | | the payload |
//!
//! The bytes on the network are the same as mysqld's. So one side can use this code, no matter what
//! the other side uses. mysqld begins a new transaction for each packet of a clone
//! (`clone_protocol_service.cc`), so there is no sequence number to share with mysqld.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use byteorder::{ByteOrder, LittleEndian};
use clone_protocol::{BLOCK_HEAD, BLOCK_TAIL, Block, BlockForm, ResponseCode};
use thiserror::Error;
use zeroize::Zeroize;

use crate::buffer::AlignedBuffer;
use crate::copy::CopyError;
use crate::file::end_of_block;
use crate::file_facts::is_direct;
use crate::socket::Socket;

/// Bytes of a packet's header.
const HEADER: usize = 4;

/// A payload part of this length goes on in the next packet.
const CONTINUED: usize = 0xff_ffff;

/// If the second packet of a pair has at most this many bytes, it is copied behind the first, so
/// that both leave in one call.
const SHORT: usize = 16 << 10;

/// Why a packet could not be read. The connection cannot be used any more.
#[derive(Debug, Error)]
pub enum PacketError {
    /// The connection's error: [`io::ErrorKind::TimedOut`], [`io::ErrorKind::UnexpectedEof`] when
    /// the peer has closed the connection, or another one.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A packet of `max_allowed_packet` or more.
    #[error("packet is larger than max_allowed_packet")]
    TooLarge,
    /// An empty packet, or one with a sequence number.
    #[error("packets out of order")]
    OutOfOrder,
}

/// Reads packets into memory from which a file can be written with direct I/O.
pub struct PacketReader {
    timeout: Duration,
    /// `max_allowed_packet`, bytes.
    max_packet: usize,
    buffer: AlignedBuffer,
    /// A payload of more than one packet.
    long: Vec<u8>,
}

/// A payload that was read.
#[derive(Debug)]
pub struct ReceivedPacket<'a> {
    /// The payload. What follows its code, or the head of a [`Block`], is aligned.
    pub data: &'a mut [u8],
    /// Bytes that crossed the network, with headers.
    pub network_len: u64,
}

impl PacketReader {
    /// A reader that waits at most `timeout` for each part of a packet.
    pub fn new(timeout: Duration, max_packet: usize) -> Self {
        Self { timeout, max_packet, buffer: AlignedBuffer::new(), long: Vec::new() }
    }

    /// The next payload.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<ReceivedPacket<'_>, PacketError> {
        let socket = Socket::new(socket, self.timeout);
        let len = self.receive_header(&socket)?;
        if len == 0 {
            return Err(PacketError::OutOfOrder);
        }
        if len == CONTINUED {
            return self.receive_long(&socket);
        }
        let mut code = [0];
        socket.receive(&mut code)?;
        let head = if code[0] == ResponseCode::Block as u8 { BLOCK_HEAD } else { 1 }.min(len);
        let packet = self.buffer.with_headroom(head, len - head)?;
        packet[0] = code[0];
        socket.receive(&mut packet[1..])?;
        Ok(ReceivedPacket { data: packet, network_len: (len + HEADER) as u64 })
    }

    /// Reads a header, and gives the length of the payload part behind it.
    fn receive_header(&self, socket: &Socket<'_>) -> Result<usize, PacketError> {
        let mut header = [0; HEADER];
        socket.receive(&mut header)?;
        let len = LittleEndian::read_u24(&header) as usize;
        if len >= self.max_packet {
            return Err(PacketError::TooLarge);
        }
        Ok(len)
    }

    /// Reads a payload whose first part has [`CONTINUED`] bytes.
    fn receive_long(&mut self, socket: &Socket<'_>) -> Result<ReceivedPacket<'_>, PacketError> {
        self.long.zeroize();
        let (mut part, mut parts) = (CONTINUED, 1);
        loop {
            let filled = self.long.len();
            if filled + part > self.max_packet {
                return Err(PacketError::TooLarge);
            }
            self.long.try_reserve(part).map_err(io::Error::from)?;
            self.long.resize(filled + part, 0);
            socket.receive(&mut self.long[filled..])?;
            if part < CONTINUED {
                let network_len = (self.long.len() + parts * HEADER) as u64;
                return Ok(ReceivedPacket { data: &mut self.long, network_len });
            }
            part = self.receive_header(socket)?;
            parts += 1;
        }
    }
}

/// A payload may carry a tablespace's key.
impl Drop for PacketReader {
    fn drop(&mut self) {
        self.long.zeroize();
    }
}

/// Sends pairs of packets: a descriptor, and the data behind it.
pub struct PacketWriter {
    timeout: Duration,
    /// The headers, the descriptor, and the beginning of the data or all of it.
    head: Vec<u8>,
    /// Parts of a file on their way.
    buffer: Vec<u8>,
}

impl PacketWriter {
    /// A writer that waits at most `timeout` for the peer to take something.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, head: Vec::new(), buffer: Vec::new() }
    }

    /// Sends two payloads. Returns false if one of them is too long for one packet. Then nothing
    /// was sent.
    ///
    /// # Errors
    /// The connection's, which is closed then.
    pub fn send_pair(
        &mut self,
        socket: BorrowedFd<'_>,
        first: &[u8],
        second: &[u8],
    ) -> io::Result<bool> {
        if first.len() >= CONTINUED || second.len() >= CONTINUED {
            return Ok(false);
        }
        let socket = Socket::new(socket, self.timeout);
        let is_short = second.len() <= SHORT;
        let beginning = if is_short { second } else { &[] };
        self.put_together(first, second.len(), beginning)?;
        let sent = socket.send(&self.head, !is_short).and_then(|_| match is_short {
            true => Ok(()),
            false => socket.send(second, false).map(drop),
        });
        if sent.is_err() {
            socket.shut_down();
        }
        sent.map(|()| true)
    }

    /// Sends the payload `descriptor`, and then a payload with `len` bytes of `file`, from the
    /// file's current offset on. The second payload is a raw [`Block`] with its checksum, or DATA.
    ///
    /// Returns for how long the connection took nothing. Returns none if the file is opened for
    /// direct I/O, if it ends before the block does, or if the payload is too long for one packet.
    /// Then nothing was read or sent.
    ///
    /// # Errors
    /// The file's, or the connection's. The connection is closed in both cases: the peer would wait
    /// for bytes that do not come.
    pub fn send_file(
        &mut self,
        socket: BorrowedFd<'_>,
        descriptor: &[u8],
        file: BorrowedFd<'_>,
        len: u32,
        with_checksum: bool,
    ) -> Result<Option<Duration>, CopyError> {
        let block = Block::head(BlockForm::Raw, len);
        let (head, tail) = match with_checksum {
            true => (&block[..], BLOCK_TAIL),
            false => (&[ResponseCode::Data as u8][..], 0),
        };
        let payload = head.len() + len as usize + tail;
        if payload >= CONTINUED
            || descriptor.len() >= CONTINUED
            || is_direct(file)
            || end_of_block(file, u64::from(len)).is_none()
        {
            return Ok(None);
        }
        self.put_together(descriptor, payload, head).map_err(CopyError::Write)?;
        let socket = Socket::new(socket, self.timeout);
        let len = u64::from(len);
        let sent = socket.send_file(&self.head, file, len, with_checksum, &mut self.buffer);
        if sent.is_err() {
            socket.shut_down();
        }
        sent.map(Some)
    }

    /// Puts into `head`: the packet of `first`, and the header and the beginning of a packet whose
    /// payload has `len` bytes.
    fn put_together(&mut self, first: &[u8], len: usize, beginning: &[u8]) -> io::Result<()> {
        self.head.clear();
        self.head.try_reserve(2 * HEADER + first.len() + beginning.len())?;
        for (len, payload) in [(first.len(), first), (len, beginning)] {
            let mut header = [0; HEADER];
            // Both lengths are below CONTINUED.
            LittleEndian::write_u24(&mut header, len as u32);
            self.head.extend_from_slice(&header);
            self.head.extend_from_slice(payload);
        }
        Ok(())
    }
}

/// A page may carry a tablespace's key.
impl Drop for PacketWriter {
    fn drop(&mut self) {
        self.buffer.zeroize();
        self.head.zeroize();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::thread;

    use clone_protocol::Response;

    use super::*;
    use crate::buffer::ALIGNMENT;

    const LIMIT: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn reader() -> PacketReader {
        PacketReader::new(LIMIT, 64 << 20)
    }

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        LittleEndian::write_u24(&mut bytes, payload.len() as u32);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn pairs_arrive_as_two_packets() {
        for len in [1, SHORT, SHORT + 1, 1 << 20] {
            let (one, other) = pair();
            let second = pattern(len);
            let expected = second.clone();
            let sender = thread::spawn(move || {
                PacketWriter::new(LIMIT).send_pair(one.as_fd(), b"first", &second).unwrap()
            });
            let mut reader = reader();
            let first = reader.receive(other.as_fd()).unwrap();
            assert_eq!((&*first.data, first.network_len), (&b"first"[..], 9));
            assert!(reader.receive(other.as_fd()).unwrap().data == expected);
            assert!(sender.join().unwrap());
        }
    }

    #[test]
    fn files_arrive_as_blocks_or_as_data() {
        let data = pattern(3 << 20);
        for with_checksum in [true, false] {
            let (one, other) = pair();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&data).unwrap();
            file.seek(SeekFrom::Start(100)).unwrap();
            let len = 2 << 20;
            let sender = thread::spawn(move || {
                let mut writer = PacketWriter::new(LIMIT);
                let (socket, file) = (one.as_fd(), file.as_fd());
                let sent = writer.send_file(socket, b"desc", file, len, with_checksum).unwrap();
                // The rest of the file is too short for one more.
                let again = writer.send_file(socket, b"desc", file, len, with_checksum).unwrap();
                sent.is_some() && again.is_none()
            });
            let mut reader = reader();
            assert_eq!(reader.receive(other.as_fd()).unwrap().data, b"desc");
            let packet = reader.receive(other.as_fd()).unwrap().data;
            let expected = &data[100..100 + len as usize];
            match Response::parse(packet).unwrap() {
                Response::Block(block) => {
                    assert!(with_checksum && block.bytes == expected);
                    assert_eq!(block.checksum, crate::checksum(expected));
                    assert_eq!(block.bytes.as_ptr().addr() % ALIGNMENT, 0);
                }
                Response::Data(bytes) => {
                    assert!(!with_checksum && bytes == expected);
                    assert_eq!(bytes.as_ptr().addr() % ALIGNMENT, 0);
                }
                other => panic!("{other:?}"),
            }
            assert!(sender.join().unwrap());
        }
    }

    #[test]
    fn long_payloads_come_in_parts() {
        let data = pattern(CONTINUED + 5);
        let (mut one, other) = pair();
        let sent = [packet(&data[..CONTINUED]), packet(&data[CONTINUED..])].concat();
        let sender = thread::spawn(move || one.write_all(&sent).unwrap());
        let mut reader = reader();
        let received = reader.receive(other.as_fd()).unwrap();
        assert!(received.data == data);
        assert_eq!(received.network_len, data.len() as u64 + 8);
        sender.join().unwrap();
        let mut writer = PacketWriter::new(LIMIT);
        assert!(!writer.send_pair(other.as_fd(), b"first", &data).unwrap());
    }

    #[test]
    fn packets_that_are_refused() {
        let read = |bytes: &[u8]| {
            let (mut one, other) = pair();
            one.write_all(bytes).unwrap();
            drop(one);
            let mut reader = PacketReader::new(LIMIT, 1000);
            reader.receive(other.as_fd()).map(|packet| packet.data.to_vec())
        };
        assert_eq!(read(&packet(b"fine")).unwrap(), b"fine");
        assert!(matches!(read(&packet(b"")), Err(PacketError::OutOfOrder)));
        assert!(matches!(read(&packet(&[7; 1000])), Err(PacketError::TooLarge)));
        assert!(matches!(read(&[0xff, 0xff, 0xff, 0, 1]), Err(PacketError::TooLarge)));
        let cut = read(&packet(b"whole")[..6]).unwrap_err();
        assert!(
            matches!(cut, PacketError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof)
        );
    }

    #[test]
    fn a_silent_peer_is_an_error() {
        let (_one, other) = pair();
        let mut reader = PacketReader::new(Duration::from_millis(50), 1000);
        let Err(PacketError::Io(error)) = reader.receive(other.as_fd()) else { panic!("silent") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_error_closes_the_connection() {
        let (one, mut other) = pair();
        let mut writer = PacketWriter::new(Duration::from_millis(50));
        // Nobody reads: the socket's buffers fill up.
        let error =
            (0..64).find_map(|_| writer.send_pair(one.as_fd(), b"first", &[7; 8 << 20]).err());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::TimedOut);
        let mut rest = Vec::new();
        other.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < 64 * (8 << 20));
    }
}
