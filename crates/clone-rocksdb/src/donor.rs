// SPDX-License-Identifier: GPL-2.0-only

//! The donor: any number of clones of one live database at once.
//!
//! * `snapshot`: one clone: which phase it is in, what each task does next, restart and end.
//! * `checkpoint`: what it holds on disk: checkpoints that are renewed, and the logs.
//! * `files`: which files there are and which are to be sent.
//! * `copy`: the loop of one task.
//!
//! Most of a database are SSTs, which never change. They are sent first, from a checkpoint that is
//! renewed when it gets old, so that a long clone does not keep what compactions have made useless.
//! Then comes the last checkpoint, of which only what is new has to be sent, and the logs since,
//! each up to its length at one moment: the point of the clone. RocksDB's recovery replays them.
//!
//! What no log has is lost if it happens between the last checkpoint and that moment, which follow
//! each other at once: files ingested by a bulk load, column families created or dropped, writes
//! with the log disabled. The backup lock keeps DDL out meanwhile.
//!
//! RocksDB 6.23, that of Percona Server 8.0.27, can lose more in a recovery, of a clone or of the
//! database itself: a transaction that was prepared in the log before a flush and committed in the
//! one after it. Its MANIFEST says that the older log is not needed any more, since
//! `FindMinPrepLogReferencedByMemTable` leaves out the memtables of the column family that is
//! flushed. So in a server, where the moment is one at which nobody is between prepare and commit,
//! the last checkpoint is made within it.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clone_engine::Begun;
use clone_engine::BlockOutput;
use clone_engine::Cancel;
use clone_engine::Error;
use clone_engine::Mode;
use clone_engine::Result;
use clone_engine::Tasks;
use clone_protocol::rocksdb::CloneId;
use clone_protocol::rocksdb::Locator;

pub use checkpoint::remove_stale_checkpoints;

use crate::database::Database;
use copy::Copy;
use snapshot::Snapshot;

mod checkpoint;
mod copy;
mod files;
mod snapshot;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

/// How a donor goes about it.
#[derive(Clone, Copy, Debug)]
pub struct DonorOptions {
    /// A checkpoint that is older is renewed (`rocksdb_clone_checkpoint_max_age`); zero: never.
    pub checkpoint_max_age: Duration,
    /// The most checkpoints of one clone before the last (`rocksdb_clone_checkpoint_max_count`); 0:
    /// no limit, 1: no renewal.
    pub checkpoint_max_count: u32,
    /// How long a clone that lost its connection is kept for a restart. Short where InnoDB, which
    /// comes first, waits anyway.
    pub restart_timeout: Duration,
    /// How long a restart waits for the old main task to notice that its connection is lost.
    pub takeover_timeout: Duration,
}

impl Default for DonorOptions {
    fn default() -> Self {
        Self {
            checkpoint_max_age: Duration::from_secs(600),
            checkpoint_max_count: 90,
            restart_timeout: Duration::from_secs(300),
            takeover_timeout: Duration::from_secs(60),
        }
    }
}

/// The donor of one database: all clones of it.
pub struct Donor {
    database: Arc<dyn Database>,
    options: DonorOptions,
    snapshots: RwLock<BTreeMap<CloneId, Arc<Snapshot>>>,
    ids: Ids,
}

impl Donor {
    /// The donor of `database`; there is one for each. Removes what clones left behind when their
    /// process died.
    pub fn new(database: Arc<dyn Database>, options: DonorOptions) -> Self {
        // What cannot be removed costs room, but no clone: their names never come again.
        let _ = remove_stale_checkpoints(database.directory());
        Self { database, options, snapshots: RwLock::default(), ids: Ids::new() }
    }

    /// Begins a clone, adds a task to one, or goes on with one after its connection was lost.
    ///
    /// # Errors
    /// A locator that names no clone of this donor; the database's; KILL.
    pub fn begin(&self, session: &dyn Cancel, locator: Option<&[u8]>, mode: Mode) -> Result<Begun> {
        let locator = locator.map(Locator::parse).transpose()?;
        let (id, task) = match (mode, locator) {
            (Mode::Start, None | Some(Locator::Version)) => (self.start()?, Tasks::MAIN),
            (Mode::AddTask, Some(Locator::Clone { id, .. })) => {
                (id, self.snapshot(id)?.tasks.add_worker()?)
            }
            (Mode::Restart, Some(Locator::Clone { id, states })) => {
                self.snapshot(id)?.take_over(session, &states)?;
                (id, Tasks::MAIN)
            }
            (mode, _) => {
                return Err(Error::Protocol(format!(
                    "Wrong Clone RPC: RocksDB locator for {mode:?}"
                )));
            }
        };
        Ok(Begun { locator: Locator::of(id).to_bytes(), task })
    }

    /// Makes a checkpoint: so the memtables have been written out, and
    /// [`fix_point`](Self::fix_point) finds little to do.
    ///
    /// For a server that clones other engines too: it chooses one moment for all of them and calls
    /// this shortly before it, `fix_point` at it, and [`copy`](Self::copy) afterwards. `copy` alone
    /// chooses its own.
    ///
    /// # Errors
    /// The database's; unknown clone.
    pub fn prepare_point(&self, locator: &[u8]) -> Result<()> {
        let snapshot = self.find(locator)?;
        snapshot.prepare_point().inspect_err(|error| snapshot.fail(error.clone()))
    }

    /// Makes this moment, at which nobody commits, the point of the clone: the last checkpoint, and
    /// the live logs as long as they are now. After [`prepare_point`](Self::prepare_point); once.
    ///
    /// # Errors
    /// The database's; unknown clone; it is not the time.
    pub fn fix_point(&self, locator: &[u8]) -> Result<()> {
        let snapshot = self.find(locator)?;
        snapshot.fix_point().inspect_err(|error| snapshot.fail(error.clone()))
    }

    /// Sends files to `output` until none is left for `task`. `buffer_size` is that of the applying
    /// side, or 0.
    ///
    /// # Errors
    /// The output's, the database's, KILL, or that of another task: one that fails ends all.
    pub fn copy(
        &self,
        session: &dyn Cancel,
        locator: &[u8],
        task: u32,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        let snapshot = self.find(locator)?;
        snapshot.tasks.verify(task)?;
        let outcome = Copy::new(&snapshot, session, buffer_size, output).run(task);
        if let Err(error) = &outcome {
            snapshot.fail(error.clone());
        }
        outcome
    }

    /// The recipient has failed with `error`. It acknowledges nothing else.
    ///
    /// # Errors
    /// Unknown clone; an acknowledgement without an error.
    pub fn ack(&self, _: &dyn Cancel, locator: &[u8], error: u32, _: &[u8]) -> Result<()> {
        let snapshot = self.find(locator)?;
        if error == 0 {
            return Err(Error::Protocol(
                "Wrong Clone RPC: RocksDB acknowledgement without an error".to_owned(),
            ));
        }
        snapshot.fail(Error::Raised(error));
        Ok(())
    }

    /// Ends `task`, with `error` or 0. The main task waits for all others; its end gives everything
    /// back.
    ///
    /// # Errors
    /// Unknown clone or task.
    pub fn end(&self, session: &dyn Cancel, locator: &[u8], task: u32, error: u32) -> Result<()> {
        let snapshot = self.find(locator)?;
        snapshot.tasks.verify(task)?;
        if task != Tasks::MAIN {
            if error != 0 {
                snapshot.fail(Error::Raised(error));
            }
            snapshot.tasks.remove(task);
            return Ok(());
        }
        if snapshot.end_main(session, error) {
            self.snapshots.write().unwrap_or_else(PoisonError::into_inner).remove(&snapshot.id);
        }
        Ok(())
    }

    fn start(&self) -> Result<CloneId> {
        let id = self.ids.next();
        let snapshot = Arc::new(Snapshot::new(id, Arc::clone(&self.database), self.options)?);
        self.snapshots.write().unwrap_or_else(PoisonError::into_inner).insert(id, snapshot);
        Ok(id)
    }

    fn find(&self, locator: &[u8]) -> Result<Arc<Snapshot>> {
        match Locator::parse(locator)? {
            Locator::Clone { id, .. } => self.snapshot(id),
            Locator::Version => Err(snapshot::unknown()),
        }
    }

    fn snapshot(&self, id: CloneId) -> Result<Arc<Snapshot>> {
        let snapshots = self.snapshots.read().unwrap_or_else(PoisonError::into_inner);
        snapshots.get(&id).cloned().ok_or_else(snapshot::unknown)
    }
}

/// Numbers for clones. The upper half is this donor's own, by chance, so that a locator of a donor
/// that has died since names no clone of its successor.
struct Ids {
    incarnation: u32,
    last: AtomicU32,
}

impl Ids {
    fn new() -> Self {
        // Each RandomState is seeded by the operating system.
        let random = RandomState::new().hash_one(()).to_be_bytes();
        let [a, b, c, d, ..] = random;
        Self { incarnation: u32::from_be_bytes([a, b, c, d]), last: AtomicU32::new(0) }
    }

    /// The next number. None comes again before 2^32 others.
    fn next(&self) -> CloneId {
        loop {
            let count = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if let Some(id) = CloneId::new(u64::from(self.incarnation) << 32 | u64::from(count)) {
                return id;
            }
        }
    }
}
