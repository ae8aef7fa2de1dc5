// SPDX-License-Identifier: GPL-2.0-only

//! What the two ends send on their socket: a byte, and perhaps a descriptor beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The byte beside a file.
pub(super) const FILE: u8 = 0;

/// The byte that says that a block has been copied.
pub(super) const COPIED: u8 = 1;

/// The byte beside the taker's mount namespace.
pub(super) const NAMESPACE: u8 = 2;

/// The beginning of a socket's name. The first half of the key follows.
const NAME: &str = "mysql-clone-";

/// Bytes of each half of the key: the name, and the secret.
pub(super) const HALF: usize = 16;

/// Sends a byte with a descriptor. An empty socket has room for both.
pub(super) fn send_descriptor(
    socket: BorrowedFd<'_>,
    byte: u8,
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let bytes = [byte];
    let data = [IoSlice::new(&bytes)];
    loop {
        match rustix::net::sendmsg(socket, &data, &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives the next byte and the descriptor beside it, if there is one. None if the other end is
/// gone. Does not wait.
///
/// # Errors
/// The operating system's; EMFILE if there is a descriptor, and this process may not have another.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<(u8, Option<OwnedFd>)>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut data, &mut control, flags)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut descriptors| descriptors.next());
    if descriptor.is_none() && message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE);
    }
    Ok((message.bytes != 0).then_some((byte[0], descriptor)))
}

pub(super) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

pub(super) fn address(key: &[u8; 2 * HALF]) -> io::Result<SocketAddrUnix> {
    let mut name = NAME.to_owned();
    for byte in &key[..HALF] {
        name.push_str(&format!("{byte:02x}"));
    }
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// Waits until there is something to read.
pub(super) fn wait(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    match poll_until(socket, deadline)? {
        0 if Instant::now() >= deadline => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// The number of sockets, 0 or 1, that have something to read or have ended.
pub(super) fn poll_until(socket: BorrowedFd<'_>, moment: Instant) -> io::Result<usize> {
    let left = moment.saturating_duration_since(Instant::now());
    let limit = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
    match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&limit)) {
        Ok(count) => Ok(count),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
