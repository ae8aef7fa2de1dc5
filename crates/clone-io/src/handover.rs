// SPDX-License-Identifier: GPL-2.0-only

//! Open files that go from one process to another on the same machine, instead of what is in them.
//!
//! The taker listens on a socket of the abstract Unix name space. For each block the giver sends the file with one byte
//! ([`FileGiver::give`]), and waits for one byte that says that the block has been copied ([`FileGiver::wait`]). So the file is read no
//! later than if it had been read before it was sent, unless the wait is broken off, and then the clone over this connection is, too.
//!
//! The name of such a socket is no secret on its machine, and containers may share the machine's names and a user's number, but not its files.
//! So the giver begins with a secret that came to it over the clone's own connection; and both ends look whether the other one is a
//! process of the same user.

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
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

/// What precedes the key's first half in a socket's name.
const NAME: &str = "mysql-clone-";

/// Bytes of the name, and of the secret behind it.
const HALF: usize = 16;

/// Connections that may wait for the taker. One is wanted; if strangers' take all places, the giver goes without.
const BACKLOG: i32 = 16;

/// How long a connection may take for the secret, which the giver sends at once.
const GREETING: Duration = Duration::from_millis(100);

/// The longest wait without a look at whether to stop.
const SLICE: Duration = Duration::from_millis(100);

/// The end that gets files.
pub struct FileTaker {
    key: [u8; 2 * HALF],
    listener: OwnedFd,
    /// There after the first file has come.
    giver: Option<Arc<OwnedFd>>,
}

/// A file that came. If it goes before its block [is copied](Self::is_copied), the giver hears that no more files are wanted.
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

impl FileTaker {
    /// Listens under a new name.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen() -> io::Result<Self> {
        let mut key = [0; 2 * HALF];
        if rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())? != key.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let listener = socket()?;
        rustix::net::bind(&listener, &address(&key)?)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self { key, listener, giver: None })
    }

    /// What the giver has to be told, and nobody else.
    pub fn key(&self) -> [u8; 2 * HALF] {
        self.key
    }

    /// The next file, for which to wait at most `limit`. What is to be copied from it begins at its current offset.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`], [`io::ErrorKind::UnexpectedEof`] if the giver is gone, and
    /// [`io::ErrorKind::InvalidData`] if what came is no regular file.
    pub fn take(&mut self, limit: Duration) -> io::Result<TakenFile> {
        let deadline = Instant::now() + limit;
        let giver = match &self.giver {
            Some(giver) => giver,
            None => self.giver.insert(Arc::new(self.accept(deadline)?)),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = loop {
            let mut data = [IoSliceMut::new(&mut byte)];
            match rustix::net::recvmsg(giver, &mut data, &mut control, flags) {
                Ok(message) => break message,
                Err(Errno::AGAIN) => wait(giver.as_fd(), deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let file = files.next().and_then(|mut files| files.next());
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        // What is no file may keep its reader waiting for ever.
        let facts = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(TakenFile { file, giver: Some(Arc::clone(giver)) })
    }

    /// The first connection of a process of our own user that knows the secret; others are closed.
    fn accept(&self, deadline: Instant) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(giver) if is_same_user(giver.as_fd()) && self.is_greeted_by(&giver) => {
                    return Ok(giver);
                }
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => wait(self.listener.as_fd(), deadline)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_greeted_by(&self, giver: &OwnedFd) -> bool {
        let deadline = Instant::now() + GREETING;
        let mut secret = [0; HALF];
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
        secret == self.key[HALF..]
    }
}

impl TakenFile {
    /// Lets the giver go on. If it is gone, its connection will tell.
    pub fn is_copied(mut self) {
        if let Some(giver) = self.giver.take() {
            // One byte always finds room: the giver reads each before it lets the next one come.
            let _ = rustix::net::send(&giver, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
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
    /// Connects to the taker of this key. It need not be there, nor on this machine.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::PermissionDenied`] if it is another user's process that listens.
    pub fn connect(key: [u8; 2 * HALF]) -> io::Result<Self> {
        let taker = socket()?;
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
        Ok(Self { taker })
    }

    /// Sends the file, of which the taker is to copy a block from its current offset on. It should be one that can only be read.
    ///
    /// # Errors
    /// The operating system's: the taker has got nothing.
    pub fn give(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let data = [IoSlice::new(&[0])];
            match rustix::net::sendmsg(&self.taker, &data, &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the taker has copied the block that ends at `end`, and at most `limit`. `is_over` is asked ten times a second.
    ///
    /// The file's offset is at the end of the block then, and it is put there if the taker refused the block.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::TimedOut`], and [`io::ErrorKind::InvalidData`] if the taker says that it has copied the
    /// block, and the offset is elsewhere.
    pub fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        limit: Duration,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Taken> {
        let deadline = Instant::now() + limit;
        let mut byte = [0];
        loop {
            match rustix::net::recv(&self.taker, &mut byte, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => {
                    rustix::fs::seek(file, SeekFrom::Start(end))?;
                    return Ok(Taken::Refused);
                }
                Ok(_) if rustix::fs::tell(file)? == end => return Ok(Taken::Copied),
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(Errno::AGAIN) if is_over() => return Ok(Taken::Stopped),
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

fn is_same_user(socket: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
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
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
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
        let giver = FileGiver::connect(taker.key()).unwrap();
        assert!(timed_out(taker.take(moment).unwrap_err()));
        let from = file("one");
        let waited = giver.wait(from.as_fd(), 0, moment, &mut || false);
        assert!(timed_out(waited.unwrap_err()));
        let waited = giver.wait(from.as_fd(), 0, LIMIT, &mut || true);
        assert_eq!(waited.unwrap(), Taken::Stopped);
        drop(giver);
        let error = taker.take(LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_block_that_is_not_copied_is_the_last() {
        let mut taker = FileTaker::listen().unwrap();
        let giver = FileGiver::connect(taker.key()).unwrap();
        let from = file("one");
        giver.give(from.as_fd()).unwrap();
        drop(taker.take(LIMIT).unwrap());
        let waited = giver.wait(from.as_fd(), 3, LIMIT, &mut || false);
        assert_eq!(waited.unwrap(), Taken::Refused);
        assert!(giver.give(from.as_fd()).is_err());
    }

    #[test]
    fn who_says_copied_and_has_not_is_found_out() {
        let mut taker = FileTaker::listen().unwrap();
        let giver = FileGiver::connect(taker.key()).unwrap();
        let from = file("one");
        giver.give(from.as_fd()).unwrap();
        taker.take(LIMIT).unwrap().is_copied();
        let error = giver.wait(from.as_fd(), 3, LIMIT, &mut || false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let mut taker = FileTaker::listen().unwrap();
        let giver = FileGiver::connect(taker.key()).unwrap();
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
        giver.give(file("one").as_fd()).unwrap();
        let from = taker.take(LIMIT).unwrap();
        let mut text = [0; 3];
        crate::read_exact(from.as_fd(), &mut text).unwrap();
        assert_eq!(&text, b"one");
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
