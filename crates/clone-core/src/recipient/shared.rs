// SPDX-License-Identifier: GPL-2.0-only

//! What all tasks of a recipient's clone share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use clone_io::FileWriter;
use clone_protocol::innodb::StreamCheck;
use clone_protocol::{Offer, Version};

use super::arrived::Arrived;
use super::placement::Placement;
use super::sign_of_life::Heartbeats;
use super::target::Target;
use crate::base::Base;
use crate::error::{Error, number};
use crate::facts::Facts;
use crate::new_directory::NewDirectory;
use crate::session::{Host, RecipientSession};
use crate::settings::Settings;
use crate::tasks::EngineClone;
use crate::traffic::Traffic;

/// What all tasks of a clone share.
pub(super) struct Shared<S: RecipientSession> {
    pub(super) donor: Arc<S::Donor>,
    pub(super) target: Target,
    /// The version that this recipient offers, then the one that donor and recipient agreed on, as
    /// a number of [`Version`].
    version: AtomicU32,
    clones: Mutex<Vec<EngineClone<S::Engine>>>,
    /// Checks InnoDB's descriptors. Set when the donor has been accepted.
    pub(super) stream: OnceLock<StreamCheck>,
    pub(super) traffic: Traffic,
    pub(super) heartbeats: Arc<Heartbeats>,
    /// Whether the donor may hand files over. False once the first file could not be shared.
    pub(super) takes_files: AtomicBool,
    /// The first error of a task that is none of the network. Through the engines only its number
    /// reaches the master.
    pub(super) first_error: OnceLock<Error>,
    /// The master has told the donor that the clone has failed, or has left the donor.
    pub(super) donor_knows: AtomicBool,
    pub(super) writer: FileWriter,
    /// The offer to a donor of this project.
    pub(super) offer: Offer,
    /// What came in each form.
    arrived: Mutex<Arrived>,
    /// Whether connections use the compression of the classic protocol. The master sets this before
    /// the first connection.
    pub(super) compressed: OnceLock<bool>,
    /// What the donor has told before the first connection, if it was asked.
    pub(super) facts: OnceLock<Facts>,
    /// The files of a clone in a staging directory.
    placement: Mutex<Placement>,
    /// Bytes that the clone takes on the disk, as the donor estimates; 0 before FILE COPY.
    disk_estimate: AtomicU64,
    /// The directory of the target.
    pub(super) new_directory: NewDirectory,
    /// An older copy of the donor's data.
    pub(super) base: Option<Arc<Base>>,
    pub(super) has_told_base: AtomicBool,
    /// If the disk has no room, the clone begins again and drops the data first.
    pub(super) may_drop_data: bool,
}

impl<S: RecipientSession> Shared<S> {
    pub(super) fn new(session: &S, donor: Arc<S::Donor>, target: Target) -> Self {
        let host = session.host();
        let settings = host.settings();
        Self {
            donor,
            target,
            version: AtomicU32::new(host.release().protocol.number()),
            clones: Mutex::new(Vec::new()),
            stream: OnceLock::new(),
            traffic: Traffic::new(),
            heartbeats: Arc::default(),
            takes_files: AtomicBool::new(settings.file_handover),
            first_error: OnceLock::new(),
            donor_knows: AtomicBool::new(false),
            writer: FileWriter::default(),
            offer: offer(&settings),
            arrived: Mutex::default(),
            compressed: OnceLock::new(),
            facts: OnceLock::new(),
            placement: Mutex::default(),
            disk_estimate: AtomicU64::new(0),
            new_directory: NewDirectory::default(),
            base: session.base(),
            has_told_base: AtomicBool::new(false),
            may_drop_data: false,
        }
    }

    /// The clone in each engine. A panic of another task does not make the list wrong: the list is
    /// replaced as a whole.
    pub(super) fn clones(&self) -> MutexGuard<'_, Vec<EngineClone<S::Engine>>> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files of a clone in a staging directory. A panic of another task leaves at worst a file
    /// that the server has not accepted, and the clone then fails.
    pub(super) fn placement(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came in each form. A panic of another task leaves the counts as they are.
    pub(super) fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the clone begins again and drops the server's data first, after this error. The
    /// error is then not one of the statement.
    pub(super) fn begins_again_after(&self, error: &Error) -> bool {
        self.may_drop_data && error.number() == number::ER_CLONE_DISK_SPACE
    }

    /// Notes how many bytes the clone takes on the disk.
    pub(super) fn note_disk_estimate(&self, bytes: u64) {
        self.disk_estimate.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Bytes that the clone takes on the disk, as far as known.
    pub(super) fn disk_estimate(&self) -> u64 {
        self.disk_estimate.load(Ordering::Relaxed)
    }

    pub(super) fn version(&self) -> Version {
        Version::from_wire(self.version.load(Ordering::Relaxed)).unwrap_or(Version::LATEST)
    }

    /// The donor has chosen this version.
    pub(super) fn set_version(&self, version: Version) {
        self.version.store(version.number(), Ordering::Relaxed);
    }

    /// Whether the donor knows the digests of the base.
    pub(super) fn told_base(&self) -> bool {
        self.has_told_base.load(Ordering::Relaxed)
    }

    /// Whether connections use the compression of the classic protocol.
    pub(super) fn is_compressed(&self) -> bool {
        self.compressed.get().copied().unwrap_or(false)
    }
}

/// The offer of a recipient with these settings.
fn offer(settings: &Settings) -> Offer {
    Offer { packing: settings.compression, ..Offer::default() }
}
