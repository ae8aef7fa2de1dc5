// SPDX-License-Identifier: GPL-2.0-only

//! What a donor's engine calls while it copies: each descriptor leaves in a packet, and its data behind it.
//!
//! Three ways, the first that can be taken:
//!
//! * The recipient is on the same machine: the file itself is handed over, and the recipient copies the block. But a short block that is
//!   mostly zeros goes the next way.
//! * As a [`Block`] with a checksum, which the recipient has offered to take: packed if it wants that, without its zeros if not, or as it
//!   is. Over TLS, which protects bytes better than a checksum, only one that is shorter so.
//! * As DATA, like the stock plugin.
//!
//! What is neither packed nor kept from the network by TLS goes from the file to the connection past mysqld, as a block or as DATA
//! ([`DonorLink::send_file`]), where that can be done.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use clone_io::{AlignedBuffer, Codec, FileGiver, Packer, Taken};
use clone_protocol::innodb::{Descriptor, SnapshotState};
use clone_protocol::{BLOCK_HEAD, BLOCK_TAIL, Block, BlockForm, Offer, Response, ResponseCode};

use super::clones::DonorClone;
use crate::error::{Error, Result, number};
use crate::meeting::{Boundary, wait_until};
use crate::point::{self, Point, Sign};
use crate::session::{Callbacks, DonorLink, Engine, Host, Session, Side, TransferError, View};
use crate::storage::Located;
use crate::traffic::sleep_until;

/// What a connection sends from, and what it agreed with the recipient about that.
#[derive(Default)]
pub(super) struct Buffers {
    /// Descriptors are built here.
    packet: Vec<u8>,
    /// Data is read here, with room for what precedes and follows it in the packet.
    data: AlignedBuffer,
    /// There if the recipient takes blocks.
    packer: Option<Packer>,
    /// What the packer makes no shorter is sent as a block, too, and not as DATA.
    sums_all: bool,
    /// There if the recipient is on this machine and takes files over.
    giver: Option<FileGiver>,
    /// Files have been handed over, and the recipient could take them.
    has_met: bool,
    max_block: u32,
}

impl Buffers {
    /// Does as the recipient would like. `hands_over`: files may be handed over here; `is_plain`: nothing else protects the bytes.
    pub(super) fn agree(
        &mut self,
        offer: Option<Offer>,
        hands_over: bool,
        is_plain: bool,
    ) -> Result<()> {
        let key = offer.and_then(|offer| offer.handover).filter(|_| hands_over);
        // A recipient that cannot be reached is not where it seems to be.
        self.giver = key.and_then(|key| FileGiver::connect(key.bytes()).ok());
        self.has_met = false;
        // InnoDB takes the next power of two.
        let power = |len: u32| len.min(MAX_BLOCK).checked_ilog2().map_or(0, |power| 1 << power);
        let max_block = offer.filter(|_| self.giver.is_some()).map(|offer| offer.max_block);
        self.max_block = max_block.map_or(0, power);
        let level = offer.and_then(|offer| offer.packing.level());
        self.sums_all = level.is_some() || (offer.is_some() && is_plain);
        let packer = offer.map(|_| Packer::new(level)).transpose();
        self.packer =
            packer.map_err(|error| Error::Internal(format!("Clone compression: {error}")))?;
        Ok(())
    }

    /// Blocks of this length are packed if that helps. Between two processes of one machine nothing is gained by it, but that short
    /// ones without their zeros are less work than handing a file over. Not with a bandwidth limit, though: the recipient takes as long for
    /// a block as for what is in it, and while it takes those that wait in its socket, the next file could not be handed over.
    fn packs(&self, len: usize) -> bool {
        let Some(packer) = &self.packer else { return false };
        let is_better = len <= SHORT_BLOCK && packer.is_cheap() && self.max_block != 0;
        self.giver.is_none() || is_better
    }

    /// A block of this length is to be packed, unless it shows that it does not pay. Else it is not worth a look, as little as those
    /// before it.
    fn tries_to_pack(&self, len: usize) -> bool {
        self.packs(len) && !self.packer.as_ref().is_some_and(Packer::would_pass_over)
    }

    /// A block of this length has not been looked at.
    fn pass_over(&mut self, len: usize) {
        if self.packs(len)
            && let Some(packer) = &mut self.packer
        {
            packer.pass_over();
        }
    }

    /// How long blocks may be, bytes; 0 for as long as they would be without an agreement.
    pub(super) fn max_block(&self) -> u32 {
        self.max_block
    }

    /// Room for `len` bytes of data; around it is what else [`pack`](Self::pack) needs.
    fn place(&mut self, len: usize) -> &mut [u8] {
        &mut self.data.with_headroom(BLOCK_HEAD, len + BLOCK_TAIL)[BLOCK_HEAD..BLOCK_HEAD + len]
    }

    /// The packet of the descriptor, and the packet with the `len` bytes that were put into their [`place`](Self::place).
    fn pack(&mut self, len: usize) -> Result<(&mut [u8], &mut [u8])> {
        let packs = self.packs(len);
        let packet = self.data.with_headroom(BLOCK_HEAD, len + BLOCK_TAIL);
        let data = &packet[BLOCK_HEAD..BLOCK_HEAD + len];
        let length = u32::try_from(len)
            .map_err(|_| Error::Internal("Clone data is longer than 4 GiB".to_owned()))?;
        let packer = self.packer.as_mut().filter(|_| packs);
        let packed = packer.and_then(|packer| packer.pack(data, BLOCK_HEAD, BLOCK_TAIL));
        if packed.is_none() && !self.sums_all {
            let packet = &mut packet[BLOCK_HEAD - 1..BLOCK_HEAD + len];
            packet[0] = ResponseCode::Data as u8;
            return Ok((&mut self.packet, packet));
        }
        let sum = clone_io::checksum;
        let (form, sum, packet) = match packed {
            // Without a look at the zeros.
            Some((Codec::Sparse, packed)) => {
                let end = packed.len() - BLOCK_TAIL;
                (BlockForm::Sparse, sum(&packed[BLOCK_HEAD..end]), packed)
            }
            Some((Codec::Lz4, packed)) => (BlockForm::Lz4, sum(data), packed),
            Some((Codec::Zstd, packed)) => (BlockForm::Zstd, sum(data), packed),
            None => (BlockForm::Raw, sum(data), packet),
        };
        let head = Block::head(ResponseCode::Block as u8, form, length);
        packet[..BLOCK_HEAD].copy_from_slice(&head);
        let end = packet.len() - BLOCK_TAIL;
        packet[end..].copy_from_slice(&Block::tail(sum));
        Ok((&mut self.packet, packet))
    }
}

/// Sends what an engine copies.
pub(super) struct Sender<'a, S: Session> {
    pub(super) session: &'a S,
    pub(super) link: &'a mut dyn DonorLink,
    pub(super) engine: &'a Located<S::Engine>,
    pub(super) locator_index: u8,
    /// InnoDB's tasks have this.
    pub(super) clone: Option<&'a DonorClone<S::Engine>>,
    pub(super) is_master: bool,
    /// From the end of PAGE COPY to the beginning of REDO COPY, if engines follow InnoDB.
    pub(super) commits_are_blocked: Option<S::CommitBlock>,
    pub(super) buffers: &'a mut Buffers,
}

impl<'a, S: Session> Sender<'a, S> {
    /// The master has this for InnoDB, if engines follow it.
    fn point(&self) -> Option<&'a Point<S::Engine>> {
        self.clone.filter(|_| self.is_master)?.point.as_ref()
    }

    fn check_killed(&self) -> Result<()> {
        if self.session.is_killed() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn encode_descriptor(&mut self, view: &View<'_>) {
        Response::DataDescriptor {
            db_type: self.engine.engine.db_type(),
            locator_index: self.locator_index,
            descriptor: view.descriptor,
        }
        .encode(&mut self.buffers.packet);
    }

    fn send_descriptor(&mut self, view: &View<'_>) -> Result<()> {
        self.encode_descriptor(view);
        let sent = self.link.send(view.is_secure, &mut self.buffers.packet);
        if view.is_secure {
            zeroize::Zeroize::zeroize(self.buffers.packet.as_mut_slice());
        }
        sent
    }

    /// Sends the descriptor, and the `len` bytes that were put into their [`place`](Buffers::place).
    fn send_block(&mut self, view: &View<'_>, len: usize) -> Result<()> {
        if view.is_secure {
            self.send_descriptor(view)?;
            let (_, packet) = self.buffers.pack(len)?;
            return self.link.send(false, packet);
        }
        self.encode_descriptor(view);
        let (descriptor, packet) = self.buffers.pack(len)?;
        self.link.send_both(descriptor, packet)
    }

    /// Hands the file over for one block; false if that is not possible, and nothing has happened.
    ///
    /// It waits until the recipient has copied the block, for the engine counts on it that a block has been read when this is over:
    /// pages that change later are in PAGE COPY only as long as it tracks them.
    fn hand_over(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<bool> {
        if self.buffers.giver.is_none() || view.is_secure {
            return Ok(false);
        }
        // What can be shared on the disk takes no space, however short it is.
        let is_worth_a_look =
            self.buffers.tries_to_pack(len as usize) && clone_io::is_copied_through_memory(file);
        if is_worth_a_look || !clone_io::is_read_only(file) {
            return Ok(false);
        }
        let Some(end) = clone_io::end_of_block(file, u64::from(len)) else { return Ok(false) };
        if !self.buffers.has_met {
            // Whether files arrive at all, which more than this code has a say in (SELinux, limits), shows with a block of no bytes.
            let start = end - u64::from(len);
            self.buffers.has_met = self.give(file, start, None, 0)? == Some(Taken::Copied);
            if !self.buffers.has_met {
                let text = "The recipient cannot take files over, they are sent";
                self.session.host().log(Side::Server, text);
                self.buffers.giver = None;
                return Ok(false);
            }
        }
        self.buffers.pass_over(len as usize);
        let taken = self.give(file, end, Some(view), len)?;
        if taken != Some(Taken::Copied) {
            // If the recipient refused it, it has failed. It reads on until it hears of the end, like after any block.
            self.buffers.giver = None;
        }
        Ok(taken.is_some())
    }

    /// Gives the file for a block that ends at `end`, and waits until it has been copied. None if the recipient has got nothing.
    fn give(
        &mut self,
        file: BorrowedFd<'_>,
        end: u64,
        view: Option<&View<'_>>,
        len: u32,
    ) -> Result<Option<Taken>> {
        let Some(giver) = self.buffers.giver.take() else { return Ok(None) };
        if giver.give(file).is_err() {
            return Ok(None);
        }
        let mut head = Block::head(ResponseCode::Block as u8, BlockForm::File, len);
        match view {
            Some(view) => {
                self.encode_descriptor(view);
                self.link.send_both(&mut self.buffers.packet, &mut head)?;
            }
            None => self.link.send(false, &mut head)?,
        }
        let session = self.session;
        let waited = giver.wait(file, end, HANDOVER_LIMIT, &mut || session.is_killed());
        self.buffers.giver = Some(giver);
        match waited {
            Ok(Taken::Stopped) => Err(Error::Interrupted),
            Ok(taken) => Ok(Some(taken)),
            Err(error) => {
                let text = format!("The recipient did not copy a block: {error}");
                session.host().log(Side::Server, &text);
                let error = Error::Raised(number::ER_NET_WRITE_INTERRUPTED);
                session.raise(&error);
                Err(error)
            }
        }
    }

    /// Sends the block past mysqld; false if that is not possible, and nothing has happened.
    fn send_directly(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<bool> {
        if view.is_secure || self.buffers.tries_to_pack(len as usize) {
            return Ok(false);
        }
        self.encode_descriptor(view);
        let is_block = self.buffers.sums_all;
        let sent =
            self.link.send_file(&self.buffers.packet, file, len, is_block).map_err(|error| {
                match error {
                    TransferError::Link(error) => error,
                    TransferError::File(error) => Error::file(false, view.source_name, &error),
                }
            })?;
        if sent {
            self.buffers.pass_over(len as usize);
        }
        Ok(sent)
    }
}

/// Bytes of a block for which handing its file over takes longer than what there is to copy, if most of it are zeros: a new table has
/// 112 KiB.
const SHORT_BLOCK: usize = 256 << 10;

/// The longest block that a recipient may ask for, bytes.
const MAX_BLOCK: u32 = 16 << 20;

/// How often the recipient hears from a donor that has nothing to send; it gives up after `net_read_timeout`, 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a recipient may take for a block that was handed over; its bandwidth limits are in that.
const HANDOVER_LIMIT: Duration = Duration::from_secs(120);

/// How often a donor looks for the acknowledgement that it waits for.
const POLL: Duration = Duration::from_millis(10);

impl<S: Session> Sender<'_, S> {
    /// Waits for the acknowledgement, has the other engines fix their point, and lets InnoDB go on to its own.
    fn come_to_the_point(&mut self) -> Result<()> {
        let Some(point) = self.point() else { return Ok(()) };
        let session = self.session;
        let mut last_sent = session.host().now();
        let acknowledged = loop {
            if point.failed().is_some() {
                // InnoDB says how.
                return Ok(());
            }
            match point.acknowledged() {
                Some(descriptor) => break descriptor,
                None => self.keep_alive(&mut last_sent)?,
            }
            sleep_until(session, session.host().now() + POLL)?;
        };
        let block = point.fix(session, &mut || match point.failed().map(Error::Raised) {
            None => self.keep_alive(&mut last_sent),
            // The clone may go on over another connection.
            Some(error) if error.is_network() => Err(error),
            Some(_) => Err(Error::Internal("Clone error in another task".to_owned())),
        })?;
        self.commits_are_blocked = Some(block);
        self.engine.engine.ack(session, &self.engine.locator, 0, &acknowledged)?;
        if let Some(clone) = self.clone {
            clone.acknowledge(SnapshotState::PageCopy);
        }
        Ok(())
    }

    /// At the end of a state, lets InnoDB go on when the recipient has acknowledged it: all tasks at once, so that none has to sleep
    /// there ([`meeting`](crate::meeting)).
    fn await_acknowledgement(&self, descriptor: &[u8]) {
        let boundary = Descriptor::parse(descriptor).ok().as_ref().and_then(Boundary::of);
        let (Some(clone), Some(boundary)) = (self.clone, boundary) else { return };
        if !boundary.is_start {
            let has_failed = || clone.point.as_ref().is_some_and(|point| point.failed().is_some());
            let is_over = || clone.is_acknowledged(boundary.state) || has_failed();
            wait_until(self.session, self.is_master, is_over);
        }
    }

    fn let_commits_go(&mut self) -> Result<()> {
        let Some(point) = self.point() else { return Ok(()) };
        point.let_commits_go(self.session, self.commits_are_blocked.take())
    }

    /// Says something to the recipient if it has heard nothing for long. KILL is noticed.
    fn keep_alive(&mut self, last_sent: &mut Duration) -> Result<()> {
        self.check_killed()?;
        let now = self.session.host().now();
        if now.saturating_sub(*last_sent) < KEEP_ALIVE {
            return Ok(());
        }
        *last_sent = now;
        self.send_descriptor(&View { descriptor: &point::keep_alive(), ..View::default() })
    }
}

impl<S: Session> Callbacks for Sender<'_, S> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        self.check_killed()?;
        if self.hand_over(view, file, len)? || self.send_directly(view, file, len)? {
            return Ok(());
        }
        // First the data, then its descriptor: a file that cannot be read must not leave the recipient waiting for it.
        let len = len as usize;
        clone_io::read_exact(file, self.buffers.place(len))
            .map_err(|error| Error::file(false, view.source_name, &error))?;
        self.send_block(view, len)
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        self.check_killed()?;
        let sign = self.point().and_then(|_| Sign::of(view.descriptor));
        if sign == Some(Sign::RedoCopyBegins) {
            self.let_commits_go()?;
        }
        if data.is_empty() {
            self.send_descriptor(view)?;
            if sign == Some(Sign::PageCopyEnds) {
                self.come_to_the_point()?;
            }
            self.await_acknowledgement(view.descriptor);
            return Ok(());
        }
        self.buffers.place(data.len()).copy_from_slice(data);
        self.send_block(view, data.len())
    }

    fn apply_file(&mut self, _: &View<'_>, _: BorrowedFd<'_>) -> Result<()> {
        Err(Error::Internal("Apply callback from Clone Server".to_owned()))
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        Err(Error::Internal("Apply callback from Clone Server".to_owned()))
    }
}
