// SPDX-License-Identifier: GPL-2.0-only

//! What a donor's engine calls while it copies: each descriptor leaves in a packet, and its data
//! behind it. [`Terms::way`](super::way::Terms::way) decides how.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use clone_protocol::innodb::SpacePlace;
use clone_protocol::{Block, BlockForm, EqualUnits, Packing};

use super::activity::activity;
use super::allowance::Allowance;
use super::clones::DonorClone;
use super::framer::equal_units;
use super::output::Output;
use super::packers::Choice;
use super::packing::ClonePacking;
use super::peer::Peer;
use super::steering::Measured;
use super::stopwatch::Times;
use super::way::{BlockFacts, Way};
use crate::consistency_point::{ConsistencyPoint, PointEvent, keep_alive};
use crate::engine::{BlockOutput, Engine, ServerEngine, View};
use crate::error::{Error, NetworkError, Result};
use crate::file_channel::Taken;
use crate::link::{DonorLink, TransferError};
use crate::log_target::SERVER;
use crate::session::{Clock, DonorSession, Host};
use crate::tasks::SourceTask;

/// How often the recipient hears from a donor that has nothing to send. The recipient gives up
/// after `net_read_timeout`, 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Sends what an engine copies.
pub(super) struct Sender<'a, S: DonorSession> {
    pub(super) session: &'a S,
    pub(super) link: &'a mut dyn DonorLink,
    pub(super) task: &'a SourceTask<S::Engine>,
    /// Present for tasks of InnoDB.
    pub(super) clone: Option<&'a DonorClone<S::Engine>>,
    pub(super) is_master: bool,
    pub(super) peer: &'a Peer,
    /// Present from the end of PAGE COPY to the beginning of REDO COPY, if other engines follow
    /// InnoDB.
    pub(super) commit_block: Option<S::CommitBlock>,
    pub(super) packing: &'a ClonePacking,
    pub(super) allowance: &'a Allowance,
    pub(super) output: &'a mut Output,
}

impl<'a, S: DonorSession> Sender<'a, S> {
    /// The consistency point. Only the master's task of InnoDB has it, and only if other engines
    /// follow.
    fn point(&self) -> Option<&'a ConsistencyPoint<S::Engine>> {
        self.clone.filter(|_| self.is_master)?.point.as_ref()
    }

    fn check_killed(&self) -> Result<()> {
        if self.session.is_killed() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn describe(&mut self, view: &View<'_>) {
        let db_type = self.task.clone.engine.db_type();
        // There are at most MAX_ENGINES, 16.
        let index = u8::try_from(self.task.index()).unwrap_or(u8::MAX);
        self.output.framer.describe(db_type, index, view.descriptor);
    }

    fn send_descriptor(&mut self, view: &View<'_>) -> Result<()> {
        self.describe(view);
        let sent = self.link.send(view.is_secure, self.output.framer.descriptor());
        if view.is_secure {
            self.output.framer.wipe_descriptor();
        }
        sent
    }

    /// How to pack the next block.
    fn choose(&mut self) -> Result<Choice> {
        let may_pack = self.allowance.may_pack(&**self.session.host());
        self.output.packers.choose(self.packing, may_pack)
    }

    /// Time by the clock, and processor time of this thread.
    fn times(&self) -> Times {
        Times::now(&**self.session.host())
    }

    /// Packs the first `len` bytes in the framer for the survey, if there is one, and leaves the
    /// packers ready for the packing that was chosen.
    fn survey(&mut self, choice: &mut Choice, len: usize) -> Result<()> {
        let Some(mut survey) = choice.survey.take() else { return Ok(()) };
        let (host, begin) = (&**self.session.host(), self.times());
        let Output { framer, packers, .. } = &mut *self.output;
        let block = framer.place(len)?;
        survey.sample(|packing| packers.sample(packing, block, || Times::now(host)))?;
        packers.switch(choice.packing)?;
        let end = self.times();
        let took = end.since(begin);
        // The time of the survey is no time of the next block.
        self.output.stopwatch.exclude(took.clock);
        self.allowance.spend(host, took.thread);
        self.packing.surveyed(end.clock, survey);
        Ok(())
    }

    /// Tells of a block that was packed since `begin` and is sent now. `one` has all but the time
    /// since the previous block.
    fn note(&mut self, begin: Times, one: Measured) {
        let now = self.times().clock;
        let (before, elapsed) = self.output.stopwatch.end_block(begin.clock, now);
        let one = Measured { blocked: before + one.blocked, elapsed, ..one };
        let processors = self.allowance.spend(&**self.session.host(), one.pack_cpu);
        self.packing.sent(now, &one, processors);
    }

    /// Sends the descriptor and its data, the first `len` bytes in the framer. With `pack`, the
    /// data is packed as was chosen if it shrinks.
    fn send_packet(
        &mut self,
        view: &View<'_>,
        len: usize,
        mut choice: Choice,
        pack: bool,
    ) -> Result<()> {
        self.survey(&mut choice, len)?;
        let Choice { packing, should_skip, .. } = choice;
        let unpacked = self.output.terms.unpacked();
        if view.is_secure {
            self.send_descriptor(view)?;
        } else {
            self.describe(view);
        }
        let begin = self.times();
        let Output { framer, packers, .. } = &mut *self.output;
        if should_skip {
            packers.skip(packing);
        }
        let packer = packers.packer(packing).filter(|_| pack);
        let (descriptor, packet) = framer.finish(len, packer, unpacked)?;
        let sent = packet.len();
        let packed = Times::now(&**self.session.host());
        match view.is_secure {
            true => self.link.send(false, packet)?,
            false => self.link.send_both(descriptor, packet)?,
        }
        let blocked = self.times().since(packed).waited();
        let is_packed = packing != Packing::None;
        let pack = if is_packed { packed.since(begin) } else { Times::default() };
        let (raw, sent) = (len as u64, sent as u64);
        let (pack, pack_cpu) = (pack.clock, pack.thread);
        let one = Measured { packing, raw, sent, pack, pack_cpu, blocked, ..Measured::default() };
        self.note(begin, one);
        Ok(())
    }

    /// Sends the block of `len` bytes at the file's current offset.
    fn send_block(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        let end = clone_io::end_of_block(file, u64::from(len));
        let terms = self.output.terms;
        let handover = self.output.handover.as_ref();
        let may_share = end.is_some()
            && handover.is_some_and(|handover| handover.may_share(file))
            && clone_io::is_read_only(file);
        let is_shared = terms.shares_block(may_share, view.is_secure);
        let choice = if is_shared { Choice::default() } else { self.choose()? };
        let base = self.clone.map(|clone| &clone.base).filter(|_| terms.compares);
        let place = base.and_then(|base| base.place(view.descriptor, len));
        let has_digests = place.is_some();
        let Choice { should_skip, .. } = choice;
        let facts = BlockFacts { is_secure: view.is_secure, may_share, should_skip, has_digests };
        let way = terms.way(facts);
        match (way, end) {
            (Way::Share, Some(end)) => {
                if self.share(view, file, end, len)? {
                    return Ok(());
                }
                self.output.stop_sharing();
                self.send_block(view, file, len)
            }
            (Way::Stream { checksum }, Some(_)) => {
                match self.stream(view, file, len, &choice, checksum)? {
                    true => Ok(()),
                    false => self.send_through_memory(view, file, len, choice, way, place),
                }
            }
            // If the file ends before the block does, reading it gives the error.
            _ => self.send_through_memory(view, file, len, choice, way, place),
        }
    }

    /// Reads the block into memory, and sends it from there. [`Way::packs`] says whether it is
    /// packed. `place` is where it belongs, if it is compared.
    fn send_through_memory(
        &mut self,
        view: &View<'_>,
        file: BorrowedFd<'_>,
        len: u32,
        choice: Choice,
        way: Way,
        place: Option<SpacePlace>,
    ) -> Result<()> {
        let len = len as usize;
        // Read the data before the descriptor is sent. If the file cannot be read, the recipient
        // must not wait for data.
        clone_io::read_exact(file, self.output.framer.place(len)?)
            .map_err(|error| Error::file(false, view.source_name, &error))?;
        if let (Way::Compare { .. }, Some(place)) = (way, place)
            && let Some(equal) = self.compare(place, len)?
        {
            return self.send_rest(view, &equal, choice, way);
        }
        self.send_packet(view, len, choice, way.packs())
    }

    /// Which units of the block in memory are equal to the recipient's base; none if there are
    /// none. The processor time counts as time for packing.
    fn compare(&mut self, place: SpacePlace, len: usize) -> Result<Option<EqualUnits>> {
        let begin = self.times();
        let block = self.output.framer.place(len)?;
        let equal = self.clone.and_then(|clone| clone.base.compare(place, block));
        let end = self.times();
        self.allowance.spend_comparing(end.since(begin).thread);
        Ok(equal)
    }

    /// Sends which units are equal, the descriptor, and what differs of the block in memory.
    fn send_rest(
        &mut self,
        view: &View<'_>,
        equal: &EqualUnits,
        choice: Choice,
        way: Way,
    ) -> Result<()> {
        let len = equal.block_len();
        let rest = equal.keep_rest(self.output.framer.place(len)?);
        let begin = self.times();
        self.link.send(false, &mut equal_units(equal))?;
        if rest == 0 {
            self.send_descriptor(view)?;
        }
        // This wait counts for the next block of which data is sent.
        let waited = self.times().since(begin).waited();
        self.output.stopwatch.add_blocked(waited);
        if rest > 0 {
            return self.send_packet(view, rest, choice, way.packs());
        }
        if let Some(survey) = choice.survey {
            self.packing.give_back(survey);
        }
        Ok(())
    }

    /// Sends the block from the file to the socket. Returns false if this file or this connection
    /// does not allow that. Then nothing was read or sent.
    fn stream(
        &mut self,
        view: &View<'_>,
        file: BorrowedFd<'_>,
        len: u32,
        choice: &Choice,
        checksum: bool,
    ) -> Result<bool> {
        self.describe(view);
        let begin = self.times();
        let descriptor = self.output.framer.descriptor();
        let sent = self.link.send_file(descriptor, file, len, checksum);
        let sent = sent.map_err(|error| match error {
            TransferError::Link(error) => error,
            TransferError::File(error) => Error::file(false, view.source_name, &error),
        })?;
        let Some(blocked) = sent else { return Ok(false) };
        let Choice { packing, should_skip, .. } = *choice;
        if should_skip {
            self.output.packers.skip(packing);
        }
        let (raw, sent) = (len.into(), len.into());
        self.note(begin, Measured { packing, raw, sent, blocked, ..Measured::default() });
        Ok(true)
    }

    /// Hands the file over for one block that ends at `end`. Returns false if the recipient has
    /// received nothing.
    ///
    /// Waits until the recipient has copied the block. InnoDB relies on that: the block must be
    /// read before the callback ends. A page that changes later is copied again in PAGE COPY only
    /// while InnoDB tracks changes.
    fn share(&mut self, view: &View<'_>, file: BorrowedFd<'_>, end: u64, len: u32) -> Result<bool> {
        let Some(handover) = &self.output.handover else { return Ok(false) };
        if !handover.is_tried() && !self.try_sharing(file, end - u64::from(len))? {
            log::info!(target: SERVER, "The recipient cannot share the donor's files, they are sent");
            return Ok(false);
        }
        if !self.give(file) {
            return Ok(false);
        }
        self.describe(view);
        let mut head = Block::head(BlockForm::File, len);
        self.link.send_both(self.output.framer.descriptor(), &mut head)?;
        if self.wait_for_recipient(file, end)? == Taken::Refused {
            self.output.stop_sharing();
        }
        Ok(true)
    }

    /// Asks the recipient whether it can share the file's blocks: hands the file over for a block
    /// of 0 bytes at `start`.
    fn try_sharing(&mut self, file: BorrowedFd<'_>, start: u64) -> Result<bool> {
        if !self.give(file) {
            return Ok(false);
        }
        self.link.send(false, &mut Block::head(BlockForm::File, 0))?;
        let can_share = self.wait_for_recipient(file, start)? == Taken::Copied;
        if let Some(handover) = self.output.handover.as_mut().filter(|_| can_share) {
            handover.accept();
        }
        Ok(can_share)
    }

    /// Sends the open file. Returns false if the recipient has received nothing.
    fn give(&self, file: BorrowedFd<'_>) -> bool {
        self.output.handover.as_ref().is_some_and(|handover| handover.give(file))
    }

    fn wait_for_recipient(&mut self, file: BorrowedFd<'_>, end: u64) -> Result<Taken> {
        let Some(handover) = &self.output.handover else { return Ok(Taken::Refused) };
        let (session, peer) = (self.session, self.peer);
        let host = session.host();
        let is_silent = || peer.silence(host.now(), host.settings().patience(), false).is_some();
        let mut is_over = || session.is_killed() || is_silent();
        match handover.wait(file, end, &mut is_over) {
            Ok(Taken::Stopped) if session.is_killed() => Err(Error::Interrupted),
            // The connection is closed, too.
            Ok(Taken::Stopped) => Err(NetworkError::WriteTimeout.into()),
            Ok(other) => Ok(other),
            Err(error) => {
                log::warn!(target: SERVER, "The recipient did not copy a block: {error}");
                Err(NetworkError::WriteTimeout.into())
            }
        }
    }

    /// Waits for the acknowledgement of PAGE COPY, has the other engines fix the consistency point,
    /// and gives InnoDB the acknowledgement, so that InnoDB fixes its own point.
    fn reach_consistency_point(&mut self) -> Result<()> {
        let Some(point) = self.point() else { return Ok(()) };
        let session = self.session;
        self.peer.set_activity("waits for running statements, to block commits for one point");
        let mut last_sent = session.host().now();
        let reached = point.reach(session, &mut || self.keep_alive(&mut last_sent))?;
        // None if a task of the clone has failed. InnoDB then reports how the clone ends.
        let Some((commit_block, acknowledgement)) = reached else { return Ok(()) };
        self.commit_block = Some(commit_block);
        let clone = &self.task.clone;
        clone.engine.ack(session, &clone.locator, 0, &acknowledgement)
    }

    fn unblock_commits(&mut self) -> Result<()> {
        let Some(point) = self.point() else { return Ok(()) };
        point.unblock_commits(self.commit_block.take())
    }

    /// Sends a keep-alive if the recipient has received nothing for [`KEEP_ALIVE`]. Fails after
    /// KILL.
    fn keep_alive(&mut self, last_sent: &mut Duration) -> Result<()> {
        self.check_killed()?;
        let now = self.session.host().now();
        if now.saturating_sub(*last_sent) < KEEP_ALIVE {
            return Ok(());
        }
        *last_sent = now;
        self.send_descriptor(&View { descriptor: &keep_alive(), ..View::default() })
    }
}

impl<S: DonorSession> BlockOutput for Sender<'_, S> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        self.check_killed()?;
        self.send_block(view, file, len)
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        self.check_killed()?;
        let event = self.point().and_then(|_| PointEvent::of(view.descriptor));
        if event == Some(PointEvent::RedoCopyBegins) {
            self.unblock_commits()?;
        }
        if data.is_empty() {
            self.send_descriptor(view)?;
            if let Some(clone) = self.clone {
                clone.base.note(view.descriptor);
            }
            if let Some(activity) = activity(view.descriptor) {
                self.peer.set_activity(activity);
            }
            if event == Some(PointEvent::PageCopyEnds) {
                self.reach_consistency_point()?;
            }
            return Ok(());
        }
        self.output.framer.place(data.len())?.copy_from_slice(data);
        let choice = self.choose()?;
        let pack = self.output.terms.packs_block(choice.should_skip);
        self.send_packet(view, data.len(), choice, pack)
    }
}
