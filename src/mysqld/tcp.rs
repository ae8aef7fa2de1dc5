// SPDX-License-Identifier: GPL-2.0-only

//! What the kernel knows of a connection's peer.

use std::io;
use std::mem::size_of;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::sockopt;

/// Where `bytes_received` is in Linux's `struct tcp_info`, since Linux 4.1.
const BYTES_RECEIVED: usize = 128;

/// As much of `struct tcp_info` as is read.
const LENGTH: usize = BYTES_RECEIVED + size_of::<u64>();

/// Bytes that have come from the peer since the connection was opened. None if the socket is not a
/// TCP socket.
pub(super) fn bytes_received(socket: &TcpStream) -> Option<u64> {
    let mut info = [0_u8; LENGTH];
    let mut length = libc::socklen_t::try_from(LENGTH).ok()?;
    // SAFETY: an open socket, and memory of the length that is given.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let is_whole = failed == 0 && usize::try_from(length).is_ok_and(|length| length >= LENGTH);
    let bytes = info.last_chunk().filter(|_| is_whole)?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Has the kernel end the connection if the peer's host acknowledges nothing for `limit`, whether
/// something is sent or not. A host whose process is frozen acknowledges.
///
/// # Errors
/// The socket is not a TCP socket.
pub(super) fn end_with_dead_host(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    const LEAST: Duration = Duration::from_secs(1);
    sockopt::set_tcp_keepidle(socket, (limit / 3).max(LEAST))?;
    sockopt::set_tcp_keepintvl(socket, (limit / 6).max(LEAST))?;
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(socket, millis)?;
    sockopt::set_socket_keepalive(socket, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_are_counted_as_they_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut one = TcpStream::connect(listener.local_addr().expect("an address")).expect("one");
        let (mut other, _) = listener.accept().expect("the other");
        assert_eq!(bytes_received(&other), Some(0));
        one.write_all(&[7; 1000]).expect("room");
        other.read_exact(&mut [0; 1000]).expect("as many");
        assert_eq!(bytes_received(&other), Some(1000));
        assert_eq!(bytes_received(&one), Some(0));
        end_with_dead_host(one.as_fd(), Duration::from_secs(7)).expect("a TCP socket");
        assert_eq!(sockopt::tcp_user_timeout(&one).expect("a TCP socket"), 7000);
    }

    #[test]
    fn other_sockets_have_no_count() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let one = TcpStream::from(OwnedFd::from(one));
        assert_eq!(bytes_received(&one), None);
        assert!(end_with_dead_host(one.as_fd(), Duration::from_secs(7)).is_err());
    }
}
