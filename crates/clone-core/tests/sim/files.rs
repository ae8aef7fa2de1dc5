// SPDX-License-Identifier: GPL-2.0-only

//! Open files that go from a donor to a recipient on the same machine, in memory and in the
//! simulation's time.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clone_core::file_channel::{FileGiver, FileTaker, Taken, TakenFile};
use clone_io::end_of_block;
use clone_protocol::HandoverKey;

use super::faults::{Action, Event};
use super::network::Network;
use super::scheduler::{Key, Scheduler};

/// The places of one machine where files are taken, by their keys.
#[derive(Default)]
pub(crate) struct Channels {
    open: Mutex<BTreeMap<[u8; 32], Arc<Channel>>>,
    /// How many blocks were handed over.
    copied: Mutex<u32>,
}

struct Channel {
    sim: Arc<Scheduler>,
    notified: Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: VecDeque<File>,
    /// Answers that the donor has not read: whether the block was copied.
    answers: VecDeque<bool>,
    is_closed: bool,
}

impl Channel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, copied: bool) {
        self.state().answers.push_back(copied);
        self.sim.notify(self.notified);
    }

    fn close(&self) {
        self.state().is_closed = true;
        self.sim.notify(self.notified);
    }
}

impl Channels {
    /// How many blocks were handed over.
    pub(crate) fn copied(&self) -> u32 {
        *self.copied.lock().unwrap()
    }
}

impl Network {
    /// A recipient takes files.
    pub(crate) fn listen_for_files(self: &Arc<Self>) -> io::Result<Box<dyn FileTaker>> {
        self.need_descriptor(&Event::Listen)?;
        let mut open = self.files.open.lock().unwrap();
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(open.len() as u64 + 1).to_be_bytes());
        let channel = Arc::new(Channel {
            sim: Arc::clone(&self.sim),
            notified: self.sim.key(),
            state: Mutex::default(),
        });
        open.insert(key, Arc::clone(&channel));
        Ok(Box::new(Taker { network: Arc::clone(self), key, channel }))
    }

    /// Fails with EMFILE if the test says so.
    fn need_descriptor(&self, event: &Event<'_>) -> io::Result<()> {
        match self.ask(event) {
            Action::Fail(_) => Err(io::Error::from_raw_os_error(24)),
            _ => Ok(()),
        }
    }

    /// A donor connects to a recipient that takes files.
    pub(crate) fn connect_files(
        self: &Arc<Self>,
        key: HandoverKey,
    ) -> io::Result<Box<dyn FileGiver>> {
        self.need_descriptor(&Event::ConnectFiles)?;
        let channel = self.files.open.lock().unwrap().get(&key.bytes()).cloned();
        let channel = channel.ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(Giver { network: Arc::clone(self), channel }))
    }
}

struct Taker {
    network: Arc<Network>,
    key: [u8; 32],
    channel: Arc<Channel>,
}

impl FileTaker for Taker {
    fn key(&self) -> [u8; 32] {
        self.key
    }

    fn can_share(&self, _: BorrowedFd<'_>, _: &Path) -> bool {
        self.network.shape().shares_files
    }

    fn take(&mut self, limit: Duration) -> io::Result<Box<dyn TakenFile>> {
        let deadline = self.channel.sim.now() + limit;
        loop {
            if let Some(file) = self.channel.state().files.pop_front() {
                self.network.need_descriptor(&Event::TakeFile)?;
                let network = Arc::clone(&self.network);
                let channel = Some(Arc::clone(&self.channel));
                return Ok(Box::new(Handed { file, network, channel }));
            }
            if self.channel.sim.now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.channel.sim.wait(self.channel.notified, Some(deadline));
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.channel.close();
    }
}

struct Handed {
    file: File,
    network: Arc<Network>,
    channel: Option<Arc<Channel>>,
}

impl AsFd for Handed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl TakenFile for Handed {
    fn confirm_copy(mut self: Box<Self>) {
        if let Some(channel) = self.channel.take() {
            *self.network.files.copied.lock().unwrap() += 1;
            channel.answer(true);
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            channel.answer(false);
        }
    }
}

struct Giver {
    network: Arc<Network>,
    channel: Arc<Channel>,
}

impl FileGiver for Giver {
    fn may_share(&self, _: BorrowedFd<'_>) -> bool {
        true
    }

    fn give(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.channel.sim.pause();
        let lost = matches!(self.network.ask(&Event::HandOver), Action::Fail(_));
        if lost || self.channel.state().is_closed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let file = File::from(file.try_clone_to_owned()?);
        self.channel.state().files.push_back(file);
        self.channel.sim.notify(self.channel.notified);
        Ok(())
    }

    fn wait(
        &self,
        file: BorrowedFd<'_>,
        end: u64,
        limit: Duration,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Taken> {
        let sim = &self.channel.sim;
        let deadline = sim.now() + limit;
        loop {
            let (answer, is_closed) = {
                let mut state = self.channel.state();
                (state.answers.pop_front(), state.is_closed)
            };
            match answer {
                Some(true) if end_of_block(file, 0) == Some(end) => return Ok(Taken::Copied),
                Some(true) => return Err(io::ErrorKind::InvalidData.into()),
                Some(false) => return Ok(Taken::Refused),
                None if is_closed => return Ok(Taken::Refused),
                None if is_over() => return Ok(Taken::Stopped),
                None if sim.now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => {
                    let slice = sim.now() + Duration::from_millis(100);
                    sim.wait(self.channel.notified, Some(deadline.min(slice)));
                }
            }
        }
    }
}
