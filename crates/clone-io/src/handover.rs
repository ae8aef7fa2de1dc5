// SPDX-License-Identifier: GPL-2.0-only

//! Hands open files over from one process to another on the same machine, instead of sending their
//! content.
//!
//! The taker listens on a Unix stream socket of the abstract name space. Both ends know 32 bytes
//! that came over the clone's own connection: the first 16 are in the socket's name, the other 16
//! are a secret. On the socket:
//!
//! | | From | Bytes | Descriptor | What for |
//! |---|---|---|---|---|
//! | 1 | giver | the 16 bytes of the secret, when it connects | | the taker closes a connection without them |
//! | 2 | taker | one byte 2, when it takes the first file | its mount namespace (`/proc/self/ns/mnt`) | the giver closes the connection if this is not its own mount namespace |
//! | 3 | giver | one byte 0 | the file | the taker copies a block, from the file's current offset on |
//! | 4 | taker | one byte 1 | | the block has been copied |
//!
//! Steps 3 and 4 are repeated for each block. The giver waits for step 4. So the taker has read the
//! block when the giver goes on. If the wait ends early, the clone over this connection ends, too.
//!
//! # What the two ends check
//!
//! Every process on the machine can see the name of the socket, and connect to it. So the taker
//! asks for the secret.
//!
//! Both ends ask Linux (`SO_PEERCRED`) whether the other end is a process of the same user. They
//! refuse a process that has no number in their own PID namespace (the number is 0), and every
//! process if they run as the user that stands for all unknown users
//! (`/proc/sys/kernel/overflowuid`).
//!
//! Containers may share the machine's socket names and the number of a user, but not its files. A
//! file that is open for reading can be opened again for writing through `/proc/self/fd`. So the
//! giver hands files over only to a process that sees the same files by their names: to one of its
//! own mount namespace. The taker proves that with a descriptor, because Linux lets a process open
//! only its own namespace and those of processes that it may inspect. The giver never sends its own
//! namespace: the taker could send it back. A process that has received our namespace from an
//! honest taker could send it to another giver. For that it needs the secrets of both clones. Only
//! the donor of one clone and the recipient of the other know both.
//!
//! # Open files
//!
//! A taker has two descriptors open from its first file on (the connection and the file at hand),
//! and one before (the listener). A giver has one. For a moment each needs two more at most. So
//! that hand-over takes no descriptor that the server needs, an end begins only if
//! [`FREE_DESCRIPTORS`](crate::FREE_DESCRIPTORS) are free. A clone has 128 threads at most, which
//! take 128 descriptors more when all have begun, so 128 are left. A descriptor that cannot be had
//! later ends the hand-over, and the data is sent.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType,
};
use zeroize::Zeroizing;

use crate::descriptors::check_free_descriptors;
use peer::{is_our_mount_namespace, is_same_user, mount_namespace};

mod peer;

/// The byte beside a file.
const FILE: u8 = 0;

/// The byte that says that a block has been copied.
const COPIED: u8 = 1;

/// The byte beside the taker's mount namespace.
const NAMESPACE: u8 = 2;

/// The beginning of a socket's name. The first half of the key follows.
const NAME: &str = "mysql-clone-";

/// Bytes of each half of the key: the name, and the secret.
const HALF: usize = 16;

/// The most connections that may wait for the taker. One is needed. If other processes take all
/// places, the giver cannot connect, and no files are handed over.
const BACKLOG: i32 = 16;

/// How long a connection may take to send the secret. The giver sends it at once.
const GREETING: Duration = Duration::from_millis(100);

/// The longest wait before `is_over` is asked again.
const SLICE: Duration = Duration::from_millis(100);

/// The end that gets files.
pub struct FileTaker {
    key: Zeroizing<[u8; 2 * HALF]>,
    giver: Giver,
}

/// The taker's socket.
#[derive(Debug)]
enum Giver {
    /// Listens for the giver.
    Awaited(OwnedFd),
    /// The giver has connected and knows the secret. There is no listener any more.
    Connected(Arc<OwnedFd>),
}

/// A file that was handed over. If it is dropped before its block [is copied](Self::is_copied), the
/// giver learns that no more files are wanted.
#[derive(Debug)]
pub struct TakenFile {
    file: OwnedFd,
    giver: Option<Arc<OwnedFd>>,
}

impl fmt::Debug for FileTaker {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTaker").field("giver", &self.giver).finish_non_exhaustive()
    }
}

/// Checks that this process can prove its mount namespace, which both ends need.
///
/// # Errors
/// The operating system's, for example if `/proc` is not mounted. Nothing is handed over then.
pub fn check_handover() -> io::Result<()> {
    mount_namespace().map(drop)
}

impl FileTaker {
    /// Listens under a new name.
    ///
    /// # Errors
    /// The operating system's, that of [`check_handover`], and EMFILE if fewer than
    /// [`FREE_DESCRIPTORS`](crate::FREE_DESCRIPTORS) are free.
    pub fn listen() -> io::Result<Self> {
        check_handover()?;
        let mut key = Zeroizing::new([0; 2 * HALF]);
        if rustix::rand::getrandom(&mut *key, rustix::rand::GetRandomFlags::empty())? != key.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let listener = socket()?;
        // Counted after the socket is open, so that threads which begin together count each other's
        // sockets.
        check_free_descriptors()?;
        rustix::net::bind(&listener, &address(&key)?)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self { key, giver: Giver::Awaited(listener) })
    }

    /// The key. Only the giver may learn it.
    pub fn key(&self) -> [u8; 2 * HALF] {
        *self.key
    }

    /// Waits for the next file, at most `limit`. The block to copy begins at the file's current
    /// offset.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`], [`io::ErrorKind::UnexpectedEof`] if the
    /// giver is gone, and [`io::ErrorKind::InvalidData`] if the giver sent something else than a
    /// regular file.
    pub fn take(&mut self, limit: Duration) -> io::Result<TakenFile> {
        let deadline = Instant::now() + limit;
        let giver = match &self.giver {
            Giver::Connected(giver) => Arc::clone(giver),
            Giver::Awaited(listener) => {
                let giver = Arc::new(self.accept(listener, deadline)?);
                send_descriptor(giver.as_fd(), NAMESPACE, mount_namespace()?.as_fd())?;
                self.giver = Giver::Connected(Arc::clone(&giver));
                giver
            }
        };
        let message = loop {
            match receive(giver.as_fd()) {
                Ok(message) => break message,
                Err(Errno::AGAIN) => wait(giver.as_fd(), deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let (byte, file) = message.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let file = file.filter(|_| byte == FILE);
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        // Reading from something else, such as a pipe, could wait for ever.
        let facts = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(TakenFile { file, giver: Some(giver) })
    }

    /// Accepts the first connection of a process of our own user that knows the secret. Closes the
    /// others.
    fn accept(&self, listener: &OwnedFd, deadline: Instant) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(listener, flags) {
                Ok(giver)
                    if is_same_user(giver.as_fd()) && self.is_greeted_by(&giver, deadline) =>
                {
                    return Ok(giver);
                }
                // The deadline is checked here, too, because strangers may connect faster than they
                // are refused.
                Ok(_) if Instant::now() >= deadline => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => wait(listener.as_fd(), deadline)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns true if the connection begins with the secret, before the deadline.
    fn is_greeted_by(&self, giver: &OwnedFd, deadline: Instant) -> bool {
        let deadline = deadline.min(Instant::now() + GREETING);
        let mut secret = Zeroizing::new([0; HALF]);
        let mut filled = 0;
        while filled < HALF {
            match rustix::net::recv(giver, &mut secret[filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((count, _)) => filled += count,
                Err(Errno::AGAIN) if wait(giver.as_fd(), deadline).is_ok() => {}
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        *secret == self.key[HALF..]
    }
}

impl TakenFile {
    /// Tells the giver that the block has been copied. If the giver is gone, the clone's connection
    /// shows that.
    pub fn is_copied(mut self) {
        if let Some(giver) = self.giver.take() {
            // The socket always has room for one byte: the giver reads each byte before it hands
            // over the next file.
            let _ = rustix::net::send(&giver, &[COPIED], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

impl AsFd for TakenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for TakenFile {
    fn drop(&mut self) {
        if let Some(giver) = &self.giver {
            let _ = rustix::net::shutdown(giver, Shutdown::Both);
        }
    }
}

/// The end that gives files.
#[derive(Debug)]
pub struct FileGiver {
    taker: OwnedFd,
    /// The taker has proved that it is of our mount namespace.
    is_neighbour: Cell<bool>,
}

/// How a wait for the taker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The block has been copied.
    Copied,
    /// The taker is gone, or has no use for files any more. It knows that this block is missing.
    Refused,
    /// The caller did not want to wait any longer.
    Stopped,
}

impl FileGiver {
    /// Connects to the taker of this key. Fails if the taker is gone, or on another machine.
    ///
    /// # Errors
    /// The operating system's, that of [`check_handover`], and EMFILE if fewer than
    /// [`FREE_DESCRIPTORS`](crate::FREE_DESCRIPTORS) are free;
    /// [`io::ErrorKind::PermissionDenied`] if a process of another user listens.
    pub fn connect(key: [u8; 2 * HALF]) -> io::Result<Self> {
        check_handover()?;
        let key = Zeroizing::new(key);
        let taker = socket()?;
        check_free_descriptors()?;
        rustix::net::connect(&taker, &address(&key)?)?;
        if !is_same_user(taker.as_fd()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // An empty socket takes these few bytes at once.
        if rustix::net::send(&taker, &key[HALF..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?
            != HALF
        {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(Self { taker, is_neighbour: Cell::new(false) })
    }

    /// Sends the file. The taker copies a block from the file's current offset on. The file should
    /// be open for reading only. [`wait`](Self::wait) must follow, with the same file.
    ///
    /// The first file is sent by `wait`, after the taker has proved its mount namespace. The taker
    /// sends the proof when it takes the first file. So between `give` and `wait` the caller must
    /// tell the taker to take a file.
    ///
    /// # Errors
    /// The operating system's. The taker has received nothing.
    pub fn give(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        if !self.is_neighbour.get() {
            return Ok(());
        }
        send_descriptor(self.taker.as_fd(), FILE, file)
    }

    /// Waits until the taker has copied the block that ends at `end`, and at most `limit`.
    /// `is_over` is asked ten times a second. If it returns true, the wait ends.
    ///
    /// Afterwards the file's offset is at the end of the block. If the taker refused the block or
    /// must not have files, `wait` puts the offset there.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`], and [`io::ErrorKind::InvalidData`] if
    /// the taker says that it has copied the block, but the offset is not at the end of the block.
    pub fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        limit: Duration,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Taken> {
        let deadline = Instant::now() + limit;
        if !self.is_neighbour.get() {
            match self.answer(deadline, is_over)? {
                Answer::Stopped => return Ok(Taken::Stopped),
                Answer::Byte(NAMESPACE, Some(namespace))
                    if is_our_mount_namespace(namespace.as_fd()) =>
                {
                    self.is_neighbour.set(true);
                    if self.give(file).is_err() {
                        return self.refused(file, end);
                    }
                }
                Answer::Byte(..) | Answer::End => return self.refused(file, end),
            }
        }
        match self.answer(deadline, is_over)? {
            Answer::Stopped => Ok(Taken::Stopped),
            Answer::End => self.refused(file, end),
            Answer::Byte(COPIED, None) if rustix::fs::tell(file)? == end => Ok(Taken::Copied),
            Answer::Byte(..) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits for the taker's next message.
    fn answer(&self, deadline: Instant, is_over: &mut dyn FnMut() -> bool) -> io::Result<Answer> {
        loop {
            match receive(self.taker.as_fd()) {
                Ok(Some((byte, descriptor))) => return Ok(Answer::Byte(byte, descriptor)),
                Ok(None) | Err(Errno::CONNRESET) => return Ok(Answer::End),
                // The taker's proof cannot be had.
                Err(Errno::MFILE) => return Ok(Answer::End),
                Err(Errno::AGAIN) if is_over() => return Ok(Answer::Stopped),
                Err(Errno::AGAIN) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    poll_until(self.taker.as_fd(), deadline.min(now + SLICE))?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts the file's offset behind the block, and closes the connection, so that the taker waits
    /// for no more files.
    fn refused(&self, file: BorrowedFd<'_>, end: u64) -> io::Result<Taken> {
        // This fails if the taker is gone.
        let _ = rustix::net::shutdown(&self.taker, Shutdown::Both);
        rustix::fs::seek(file, SeekFrom::Start(end))?;
        Ok(Taken::Refused)
    }
}

/// The taker's answer.
enum Answer {
    /// A byte, perhaps with a descriptor.
    Byte(u8, Option<OwnedFd>),
    /// The taker is gone.
    End,
    /// The caller did not want to wait any longer.
    Stopped,
}

/// Sends a byte with a descriptor. An empty socket has room for both.
fn send_descriptor(socket: BorrowedFd<'_>, byte: u8, descriptor: BorrowedFd<'_>) -> io::Result<()> {
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
fn receive(socket: BorrowedFd<'_>) -> Result<Option<(u8, Option<OwnedFd>)>, Errno> {
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

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

fn address(key: &[u8; 2 * HALF]) -> io::Result<SocketAddrUnix> {
    let mut name = NAME.to_owned();
    for byte in &key[..HALF] {
        name.push_str(&format!("{byte:02x}"));
    }
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// Waits until there is something to read.
fn wait(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    match poll_until(socket, deadline)? {
        0 if Instant::now() >= deadline => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// The number of sockets, 0 or 1, that have something to read or have ended.
fn poll_until(socket: BorrowedFd<'_>, moment: Instant) -> io::Result<usize> {
    let left = moment.saturating_duration_since(Instant::now());
    let limit = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
    match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&limit)) {
        Ok(count) => Ok(count),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;
    use std::io::{Seek, Write};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    /// Two ends that have exchanged a block of no bytes.
    fn pair() -> (FileTaker, FileGiver) {
        let mut taker = FileTaker::listen().unwrap();
        let giver = FileGiver::connect(taker.key()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| taker.take(LIMIT).unwrap().is_copied());
            let first = file("");
            giver.give(first.as_fd()).unwrap();
            let waited = giver.wait(first.as_fd(), 0, LIMIT, &mut || false);
            assert_eq!(waited.unwrap(), Taken::Copied);
        });
        (taker, giver)
    }

    #[test]
    fn blocks_are_read_where_the_giver_stands_before_it_goes_on() {
        let mut taker = FileTaker::listen().unwrap();
        let giver = FileGiver::connect(taker.key()).unwrap();
        let thread = thread::spawn(move || {
            let mut from = file("one, two, three");
            for start in [5, 0] {
                from.seek(io::SeekFrom::Start(start)).unwrap();
                giver.give(from.as_fd()).unwrap();
                // Both have one and the same offset.
                let waited = giver.wait(from.as_fd(), start + 3, LIMIT, &mut || false);
                assert_eq!(waited.unwrap(), Taken::Copied);
            }
            let waited = giver.wait(from.as_fd(), 9, LIMIT, &mut || false);
            assert_eq!(waited.unwrap(), Taken::Refused);
            assert_eq!(from.stream_position().unwrap(), 9);
            assert!(giver.give(from.as_fd()).is_err());
        });
        for expected in [b"two", b"one"] {
            let mut text = [0; 3];
            let from = taker.take(LIMIT).unwrap();
            crate::read_exact(from.as_fd(), &mut text).unwrap();
            assert_eq!(&text, expected);
            from.is_copied();
        }
        drop(taker);
        thread.join().unwrap();
    }

    #[test]
    fn neither_waits_for_ever() {
        let moment = Duration::from_millis(20);
        let timed_out = |error: io::Error| error.kind() == io::ErrorKind::TimedOut;
        let mut taker = FileTaker::listen().unwrap();
        assert!(timed_out(taker.take(moment).unwrap_err()));
        let from = file("one");
        let giver = FileGiver::connect(taker.key()).unwrap();
        let waited = giver.wait(from.as_fd(), 0, moment, &mut || false);
        assert!(timed_out(waited.unwrap_err()));
        let waited = giver.wait(from.as_fd(), 0, LIMIT, &mut || true);
        assert_eq!(waited.unwrap(), Taken::Stopped);
        let (mut taker, giver) = pair();
        assert!(timed_out(taker.take(moment).unwrap_err()));
        giver.give(from.as_fd()).unwrap();
        let waited = giver.wait(from.as_fd(), 0, moment, &mut || false);
        assert!(timed_out(waited.unwrap_err()));
        let waited = giver.wait(from.as_fd(), 0, LIMIT, &mut || true);
        assert_eq!(waited.unwrap(), Taken::Stopped);
        drop(giver);
        drop(taker.take(LIMIT).unwrap());
        let error = taker.take(LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Connections of our own user that say nothing come faster than their time runs out.
    #[test]
    fn strangers_do_not_hold_up_the_limit() {
        let mut taker = FileTaker::listen().unwrap();
        let address = address(&taker.key()).unwrap();
        let is_over = AtomicBool::new(false);
        let took = thread::scope(|scope| {
            scope.spawn(|| {
                let mut strangers = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let stranger = socket().unwrap();
                    // It fails while the backlog is full.
                    match rustix::net::connect(&stranger, &address) {
                        Ok(()) => strangers.push(stranger),
                        Err(_) => thread::yield_now(),
                    }
                }
            });
            thread::sleep(Duration::from_millis(100));
            let began = Instant::now();
            let error = taker.take(Duration::from_millis(50)).unwrap_err();
            let took = began.elapsed();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            took
        });
        assert!(took < Duration::from_secs(1), "a limit of 50 ms took {took:?}");
    }

    /// Whatever is no mount namespace, or not ours, gets no file.
    #[test]
    fn who_proves_nothing_gets_no_file() {
        let own = mount_namespace().unwrap();
        let other = File::open("/proc/self/ns/pid").unwrap();
        let file_of_ours = file("");
        let proofs: [(u8, Option<BorrowedFd<'_>>); 5] = [
            (NAMESPACE, None),
            (NAMESPACE, Some(other.as_fd())),
            (NAMESPACE, Some(file_of_ours.as_fd())),
            (COPIED, Some(own.as_fd())),
            (COPIED, None),
        ];
        for (byte, proof) in proofs {
            let taker = FileTaker::listen().unwrap();
            let giver = FileGiver::connect(taker.key()).unwrap();
            let Giver::Awaited(listener) = &taker.giver else { unreachable!() };
            let impostor = taker.accept(listener, Instant::now() + LIMIT).unwrap();
            match proof {
                Some(proof) => send_descriptor(impostor.as_fd(), byte, proof).unwrap(),
                None => {
                    rustix::net::send(&impostor, &[byte], SendFlags::empty()).unwrap();
                }
            }
            let mut from = file("one");
            giver.give(from.as_fd()).unwrap();
            let waited = giver.wait(from.as_fd(), 3, LIMIT, &mut || false);
            assert_eq!(waited.unwrap(), Taken::Refused);
            assert_eq!(from.stream_position().unwrap(), 3);
            // The connection has ended, and no file came before its end.
            assert!(matches!(receive(impostor.as_fd()), Ok(None)));
        }
    }

    #[test]
    fn a_block_that_is_not_copied_is_the_last() {
        let (mut taker, giver) = pair();
        let from = file("one");
        giver.give(from.as_fd()).unwrap();
        drop(taker.take(LIMIT).unwrap());
        let waited = giver.wait(from.as_fd(), 3, LIMIT, &mut || false);
        assert_eq!(waited.unwrap(), Taken::Refused);
        assert!(giver.give(from.as_fd()).is_err());
    }

    #[test]
    fn who_says_copied_and_has_not_is_found_out() {
        let (mut taker, giver) = pair();
        let from = file("one");
        giver.give(from.as_fd()).unwrap();
        taker.take(LIMIT).unwrap().is_copied();
        let error = giver.wait(from.as_fd(), 3, LIMIT, &mut || false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let (mut taker, giver) = pair();
        let (reader, _writer) = io::pipe().unwrap();
        giver.give(reader.as_fd()).unwrap();
        assert_eq!(taker.take(LIMIT).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // Nor is a byte without one.
        rustix::net::send(&giver.taker, &[0], SendFlags::empty()).unwrap();
        assert_eq!(taker.take(LIMIT).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nobody_listens_under_other_names() {
        let taker = FileTaker::listen().unwrap();
        let mut key = taker.key();
        key[0] ^= 1;
        assert!(FileGiver::connect(key).is_err());
        let key = taker.key();
        drop(taker);
        assert!(FileGiver::connect(key).is_err());
    }

    #[test]
    fn strangers_who_know_the_name_alone_give_nothing() {
        let mut taker = FileTaker::listen().unwrap();
        let (silent, mut wrong) = (socket().unwrap(), taker.key());
        rustix::net::connect(&silent, &address(&wrong).unwrap()).unwrap();
        wrong[HALF] ^= 1;
        let stranger = FileGiver::connect(wrong).unwrap();
        let bad = file("bad");
        stranger.give(bad.as_fd()).unwrap();
        let giver = FileGiver::connect(taker.key()).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let one = file("one");
                giver.give(one.as_fd()).unwrap();
                let waited = giver.wait(one.as_fd(), 3, LIMIT, &mut || false);
                assert_eq!(waited.unwrap(), Taken::Copied);
            });
            let from = taker.take(LIMIT).unwrap();
            let mut text = [0; 3];
            crate::read_exact(from.as_fd(), &mut text).unwrap();
            assert_eq!(&text, b"one");
            from.is_copied();
        });
        let waited = stranger.wait(bad.as_fd(), 3, LIMIT, &mut || false);
        assert_eq!(waited.unwrap(), Taken::Refused);
    }

    #[test]
    fn only_files_that_cannot_be_written_are_read_only() {
        let named = tempfile::NamedTempFile::new().unwrap();
        assert!(!crate::is_read_only(named.as_file().as_fd()));
        assert!(crate::is_read_only(File::open(named.path()).unwrap().as_fd()));
    }
}
