// SPDX-License-Identifier: GPL-2.0-only

//! What all connections of one clone share at the donor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use clone_protocol::innodb::Locator;

use super::allowance::Allowance;
use super::base::DonorBase;
use super::packing::ClonePacking;
use super::peer::Peers;
use crate::consistency_point::ConsistencyPoint;

/// A clone of which this server is the donor. It can outlive a connection.
#[derive(Debug)]
pub(crate) struct DonorClone<E> {
    /// Present if other engines follow InnoDB.
    pub(crate) point: Option<ConsistencyPoint<E>>,
    /// How the blocks of all tasks are packed.
    pub(crate) packing: ClonePacking,
    /// What is known of an older copy that the recipient has.
    pub(crate) base: DonorBase,
}

/// All clones of which a server is the donor. An acknowledgement comes in another session than the
/// clone's data, and finds the clone here.
#[derive(Debug)]
pub struct DonorClones<E> {
    /// The key is InnoDB's clone id.
    running: Mutex<BTreeMap<u64, Weak<DonorClone<E>>>>,
    /// The recipients of the connections.
    pub(crate) peers: Peers,
    /// The processor time in which blocks are packed.
    pub(super) allowance: Allowance,
}

impl<E> Default for DonorClones<E> {
    fn default() -> Self {
        Self { running: Mutex::default(), peers: Peers::default(), allowance: Allowance::default() }
    }
}

impl<E> DonorClones<E> {
    /// Registers `clone` under the clone id in InnoDB's `locator`, until `clone` is dropped.
    pub(crate) fn add(&self, locator: &[u8], clone: &Arc<DonorClone<E>>) {
        let Ok(locator) = Locator::parse(locator) else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, clone| clone.strong_count() != 0);
        running.insert(locator.clone_id, Arc::downgrade(clone));
    }

    /// The clone that InnoDB's `locator` names.
    pub(crate) fn find(&self, locator: &[u8]) -> Option<Arc<DonorClone<E>>> {
        let locator = Locator::parse(locator).ok()?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&locator.clone_id)?.upgrade()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clone_protocol::innodb::{Descriptor, SnapshotState};

    use super::*;

    fn clone() -> DonorClone<()> {
        DonorClone { point: None, packing: ClonePacking::default(), base: DonorBase::default() }
    }

    fn locator(clone_id: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Descriptor::Locator(Locator {
            version: clone_protocol::innodb::VERSION,
            clone_id,
            snapshot_id: 1,
            index: 0,
            state: SnapshotState::Init,
            metadata_transferred: false,
            progress: None,
        })
        .encode(&mut bytes);
        bytes
    }

    #[test]
    fn clones_are_found_as_long_as_they_run() {
        let clones = DonorClones::default();
        let (one, other) = (Arc::new(clone()), Arc::new(clone()));
        clones.add(&locator(1), &one);
        clones.add(&locator(3), &other);
        clones.add(b"no locator", &one);
        assert!(Arc::ptr_eq(&clones.find(&locator(1)).unwrap(), &one));
        assert!(Arc::ptr_eq(&clones.find(&locator(3)).unwrap(), &other));
        drop(one);
        assert!(clones.find(&locator(1)).is_none());
        assert!(clones.find(&locator(5)).is_none());
        assert!(clones.find(b"no locator").is_none());
        clones.add(&locator(7), &other);
        assert_eq!(clones.running.lock().unwrap().len(), 2, "what has ended is forgotten");
    }
}
