// SPDX-License-Identifier: GPL-2.0-only

//! The tests.

mod base;
mod clean;
mod failures;
mod follower_faults;
mod followers;
mod handover;
mod hostile;
mod keep;
mod local;
mod random;
mod resume;
mod silence;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what happened in several worlds, for a test that must not pass because nothing did.
#[derive(Clone, Default)]
struct Tally(Arc<AtomicU64>);

impl Tally {
    /// Counts one, and returns how many there are with it.
    fn add(&self) -> u64 {
        1 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
