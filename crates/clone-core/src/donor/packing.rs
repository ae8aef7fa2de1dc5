// SPDX-License-Identifier: GPL-2.0-only

//! How the blocks of one clone are packed: the choice that its tasks share, and what it has saved.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clone_protocol::{BlockForm, Forms, Packing};

use super::steering::{Measured, Steering, Survey};
use crate::log_target::SERVER;
use crate::saved::Saved;

/// What the tasks of one clone share about packing. When the last task has ended, the log gets a
/// line about it.
#[derive(Debug, Default)]
pub(crate) struct ClonePacking {
    state: Mutex<State>,
    tasks: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// What the recipient has asked for.
    wanted: Packing,
    /// Present if the recipient leaves the choice to the donor.
    steering: Option<Steering>,
    totals: Totals,
}

/// A task that sends, until this is dropped.
pub(super) struct AtWork<'a>(&'a ClonePacking);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ClonePacking {
    /// A task begins to send, to a recipient that wants this packing and accepts these forms.
    pub(super) fn begin(&self, wanted: Packing, accepts: Forms) -> AtWork<'_> {
        let is_first = self.tasks.fetch_add(1, Ordering::Relaxed) == 0;
        let mut state = self.state();
        // A new process may have resumed the clone, with another choice.
        if state.wanted != wanted {
            (state.wanted, state.steering) = (wanted, None);
        }
        match &mut state.steering {
            Some(steering) if is_first => steering.pause(),
            None if wanted == Packing::Auto => {
                let accepts = |packing| accepts.contains(form(packing));
                state.steering = Some(Steering::new(accepts));
            }
            _ => {}
        }
        AtWork(self)
    }

    /// How to pack the next block. If a survey is due, the caller packs the block in each way of
    /// the survey first, and gives the survey back.
    pub(super) fn choose(&self) -> (Packing, Option<Survey>) {
        let mut state = self.state();
        let wanted = state.wanted;
        state.steering.as_mut().map_or((wanted, None), Steering::choose)
    }

    /// Takes a survey back with which no block was packed. It is due for the next block.
    pub(super) fn give_back(&self, survey: Survey) {
        if let Some(steering) = &mut self.state().steering {
            steering.give_back(survey);
        }
    }

    /// Takes a survey back with which one block more was packed.
    pub(super) fn surveyed(&self, now: Duration, survey: Survey) {
        if let Some(steering) = &mut self.state().steering {
            steering.surveyed(now, survey);
        }
    }

    /// Takes what a block took. From now on packing may use this many `processors`.
    pub(super) fn sent(&self, now: Duration, one: &Measured, processors: f64) {
        let mut state = self.state();
        state.totals.add(one.packing, one.raw, one.sent);
        let tasks = self.tasks.load(Ordering::Relaxed);
        if let Some(steering) = &mut state.steering {
            steering.sent(now, one, tasks, processors);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClonePacking {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.totals.is_worth_a_line() {
            log::info!(target: SERVER, "Compression {}: {}", state.wanted, state.totals);
        }
    }
}

/// The form of blocks that are packed in this way.
pub(super) fn form(packing: Packing) -> BlockForm {
    match packing {
        Packing::None | Packing::Auto => BlockForm::Sparse,
        Packing::Lz4 => BlockForm::Lz4,
        Packing::Zstd(_) => BlockForm::Zstd,
    }
}

/// What was sent with each packing.
#[derive(Debug, Default)]
pub(crate) struct Totals(Saved<Packing>);

impl Totals {
    /// Adds `raw` bytes of data that were sent as `sent` bytes.
    pub(crate) fn add(&mut self, packing: Packing, raw: u64, sent: u64) {
        self.0.add(packing, raw, sent);
    }

    /// There was data, and some of it was packed.
    pub(crate) fn is_worth_a_line(&self) -> bool {
        self.0.has_saved()
    }
}

/// See [`Saved::write`].
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "sent", |packing| match packing {
            Packing::None => "not compressed".to_owned(),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_read_like_this() {
        const MIB: u64 = 1 << 20;
        let mut totals = Totals::default();
        assert!(!totals.is_worth_a_line());
        totals.add(Packing::None, 12 * MIB, 12 * MIB);
        assert!(!totals.is_worth_a_line());
        totals.add(Packing::Zstd(1), 500 * MIB, 200 * MIB);
        totals.add(Packing::Zstd(1), 300 * MIB, 118 * MIB);
        totals.add(Packing::Lz4, MIB, MIB / 2);
        assert!(totals.is_worth_a_line());
        assert_eq!(
            totals.to_string(),
            "813 MiB of data sent as 330 MiB; not compressed: 12 MiB as 12 MiB; LZ4: 1 MiB as 0 \
             MiB; ZSTD1: 800 MiB as 318 MiB"
        );
    }

    #[test]
    fn tasks_at_work_are_counted() {
        let packing = ClonePacking::default();
        let first = packing.begin(Packing::Auto, Forms::default());
        let second = packing.begin(Packing::Auto, Forms::default());
        assert_eq!(packing.tasks.load(Ordering::Relaxed), 2);
        assert_eq!(packing.choose().0, Packing::None, "AUTO begins without packing");
        drop((first, second));
        assert_eq!(packing.tasks.load(Ordering::Relaxed), 0);
        let fixed = ClonePacking::default();
        let _task = fixed.begin(Packing::Zstd(3), Forms::default());
        assert_eq!(fixed.choose().0, Packing::Zstd(3));
    }

    #[test]
    fn a_resumed_clone_follows_the_new_choice() {
        let packing = ClonePacking::default();
        let is_steered = || packing.state().steering.is_some();
        for wanted in [Packing::Auto, Packing::Zstd(19), Packing::Auto, Packing::None] {
            drop(packing.begin(wanted, Forms::default()));
            let is_auto = wanted == Packing::Auto;
            let fixed = if is_auto { Packing::None } else { wanted };
            assert_eq!((is_steered(), packing.choose().0), (is_auto, fixed), "{wanted}");
        }
    }
}
