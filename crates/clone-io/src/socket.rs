// SPDX-License-Identifier: GPL-2.0-only

//! A connected TCP socket without TLS: whole reads and writes, and files sent through one buffer.
//!
//! The owner of the socket goes on using it. So nothing is read beyond what was asked for, and no
//! option of the socket is changed. Each wait for the peer has a limit.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use clone_protocol::{BLOCK_TAIL, Block};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, getpeername, getsockname};

use crate::checksum::Checksum;
use crate::copy::CopyError;
use crate::file::read_exact;

/// A socket, and the longest wait for its peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket<'fd> {
    fd: BorrowedFd<'fd>,
    /// The longest wait until the peer sends or takes something.
    timeout: Duration,
}

impl<'fd> Socket<'fd> {
    /// A socket, and the longest wait until its peer sends or takes something.
    pub(crate) fn new(fd: BorrowedFd<'fd>, timeout: Duration) -> Self {
        Self { fd, timeout }
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::UnexpectedEof`] when the peer has closed the
    /// connection, [`io::ErrorKind::TimedOut`].
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::net::recv(self.fd, &mut buffer[filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => filled += count,
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends all of `data`; with `more` the kernel may hold it back until more follows. Returns for
    /// how long the connection took nothing.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`].
    pub(crate) fn send(&self, mut data: &[u8], more: bool) -> io::Result<Duration> {
        let mut blocked = Duration::ZERO;
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        while !data.is_empty() {
            match rustix::net::send(self.fd, data, flags) {
                Ok(count) => data = &data[count..],
                Err(Errno::AGAIN) => {
                    let begin = Instant::now();
                    self.wait(PollFlags::OUT)?;
                    blocked += begin.elapsed();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(blocked)
    }

    /// Sends `head`, then `len` bytes of `file` from its current offset, and with `sums` the tail
    /// of a [`Block`] with their [`checksum`](crate::checksum). The bytes go through `buffer`,
    /// which stays in the processor's cache. A short file leaves in one call. Returns for how long
    /// the connection took nothing; the time to read the file does not count.
    ///
    /// # Errors
    /// [`CopyError::Read`] for the file, [`CopyError::Write`] for the connection. In both cases the
    /// peer waits for bytes that do not come, so the connection cannot be used any more.
    pub(crate) fn send_file(
        &self,
        head: &[u8],
        file: BorrowedFd<'_>,
        len: u64,
        sums: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<Duration, CopyError> {
        let mut blocked = Duration::ZERO;
        let mut checksum = Checksum::default();
        let room = head.len() + BUFFER + BLOCK_TAIL;
        if buffer.len() < room {
            buffer.try_reserve(room).map_err(|error| CopyError::Read(error.into()))?;
            buffer.resize(room, 0);
        }
        buffer[..head.len()].copy_from_slice(head);
        let mut filled = head.len();
        let mut left = len;
        loop {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            let piece = &mut buffer[filled..filled + part];
            read_exact(file, piece).map_err(CopyError::Read)?;
            filled += part;
            left -= part as u64;
            if sums {
                checksum.update(piece);
            }
            let is_last = left == 0;
            if is_last && sums {
                let end = filled + BLOCK_TAIL;
                buffer[filled..end].copy_from_slice(&Block::tail(checksum.finish()));
                filled = end;
            }
            blocked += self.send(&buffer[..filled], !is_last).map_err(CopyError::Write)?;
            if is_last {
                return Ok(blocked);
            }
            filled = 0;
        }
    }

    /// Ends the connection in both directions. A peer that waits for bytes then gets an error.
    pub(crate) fn shut_down(&self) {
        // The connection may be closed already.
        let _ = rustix::net::shutdown(self.fd, Shutdown::Both);
    }

    /// Waits until the socket is ready.
    fn wait(&self, events: PollFlags) -> io::Result<()> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
            match poll(&mut [PollFd::new(&self.fd, events)], Some(&limit)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                // The next call reports an error or the end of the connection.
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether the peer of a connected TCP socket is on this machine: the peer has this end's address,
/// or a loopback address.
pub fn is_within_host(socket: BorrowedFd<'_>) -> bool {
    let own = getsockname(socket).ok();
    let peer = getpeername(socket).ok().flatten();
    let ip = |address| SocketAddr::try_from(address).ok().map(|address| address.ip());
    match (own.and_then(ip), peer.and_then(ip)) {
        (Some(own), Some(peer)) => peer == own || peer.to_canonical().is_loopback(),
        _ => false,
    }
}

/// Bytes that are read and sent at once: few enough to stay in the processor's cache, and enough to
/// be worth a system call.
const BUFFER: usize = 256 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io::{Seek, SeekFrom, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        one.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    fn socket(stream: &TcpStream, limit: Duration) -> Socket<'_> {
        Socket::new(stream.as_fd(), limit)
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn a_file_goes_over_a_connection_between_packets() {
        let data = pattern(5 << 20);
        let (one, other) = pair();
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&data).unwrap();
        from.seek(SeekFrom::Start(100)).unwrap();
        let len = data.len() - 300;
        let sender = thread::spawn(move || {
            let socket = socket(&one, LIMIT);
            let file = from.as_fd();
            socket.send_file(b"head", file, len as u64, false, &mut Vec::new()).unwrap();
            socket.send(b"tail", false).unwrap();
            assert_eq!(from.stream_position().unwrap(), 100 + len as u64);
        });
        let socket = socket(&other, LIMIT);
        let mut four = [0; 4];
        socket.receive(&mut four).unwrap();
        assert_eq!(&four, b"head");
        let mut copied = vec![0; len];
        socket.receive(&mut copied).unwrap();
        socket.receive(&mut four).unwrap();
        assert_eq!(&four, b"tail");
        sender.join().unwrap();
        assert!(copied == data[100..100 + len]);
    }

    #[test]
    fn a_file_is_summed_on_its_way() {
        let data = pattern(3 * BUFFER + 17);
        for len in [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, data.len() - 1] {
            let (one, other) = pair();
            let mut from = tempfile::tempfile().unwrap();
            from.write_all(&data).unwrap();
            from.seek(SeekFrom::Start(1)).unwrap();
            let sender = thread::spawn(move || {
                let socket = socket(&one, LIMIT);
                let file = from.as_fd();
                socket.send_file(b"head", file, len as u64, true, &mut Vec::new()).unwrap();
                assert_eq!(from.stream_position().unwrap(), 1 + len as u64);
            });
            let mut received = vec![0; 4 + len + 4];
            socket(&other, LIMIT).receive(&mut received).unwrap();
            sender.join().unwrap();
            let sum = crate::checksum(&data[1..=len]).to_le_bytes();
            assert!(received == [b"head", &data[1..=len], &sum].concat(), "{len} bytes");
        }
    }

    #[test]
    fn waiting_for_the_peer_is_told() {
        const PAUSE: Duration = Duration::from_millis(100);
        let len = 32 << 20;
        let (one, other) = pair();
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&pattern(len)).unwrap();
        from.rewind().unwrap();
        let receiver = thread::spawn(move || {
            thread::sleep(PAUSE);
            socket(&other, LIMIT).receive(&mut vec![0; len]).unwrap();
        });
        let file = from.as_fd();
        let blocked = socket(&one, LIMIT).send_file(b"", file, len as u64, false, &mut Vec::new());
        receiver.join().unwrap();
        assert!(blocked.unwrap() > PAUSE / 2);
        let (one, _other) = pair();
        assert_eq!(socket(&one, LIMIT).send(b"short", false).unwrap(), Duration::ZERO);
    }

    #[test]
    fn a_peer_on_this_machine_is_known_by_its_address() {
        let (one, other) = pair();
        assert!(is_within_host(one.as_fd()));
        assert!(is_within_host(other.as_fd()));
        // Without an address, as without a peer, nothing is known.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_within_host(listener.as_fd()));
        let (unnamed, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_within_host(unnamed.as_fd()));
    }

    #[test]
    fn a_peer_that_is_silent_or_gone_is_an_error() {
        let (one, other) = pair();
        let impatient = socket(&other, Duration::from_millis(50));
        let error = impatient.receive(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Nobody reads: the buffers fill up.
        let error = socket(&one, Duration::from_millis(50)).send(&pattern(64 << 20), false);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(other);
        let error = socket(&one, LIMIT).send(&pattern(1 << 20), false).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));

        let (one, other) = pair();
        one.shutdown(std::net::Shutdown::Both).unwrap();
        let gone = socket(&other, LIMIT);
        assert_eq!(gone.receive(&mut [0]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_that_fails_is_told_from_the_connection() {
        let (one, _other) = pair();
        let short = tempfile::tempfile().unwrap();
        let socket = socket(&one, LIMIT);
        let sent = socket.send_file(b"", short.as_fd(), 10, true, &mut Vec::new());
        assert!(matches!(sent, Err(CopyError::Read(_))), "{sent:?}");
    }
}
