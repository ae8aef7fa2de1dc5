// SPDX-License-Identifier: GPL-2.0-only

//! A packing that is tried.

use super::window::{Shown, Window};

/// A trial that is slower than this is over at once.
const BAD: f64 = 1.3;

/// Bytes that each task sends before a trial counts: what the buffers between donor and recipient
/// hold.
pub(super) const SETTLE: f64 = 8e6;

/// Seconds after which a trial counts in any case. Buffers on a slow link hold less.
const SETTLE_SECONDS: f64 = 10.0;

/// A packing is in use to see whether it takes as long as the model says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    /// The packing that was in use before the trial.
    pub(super) from: usize,
    /// Seconds for a byte before the trial.
    pub(super) before: f64,
    /// Predicted time for a byte with the tried packing, as a fraction of `before`. A return has
    /// the prediction for the trial that failed.
    pub(super) part: f64,
    /// Bytes per second of the link before the trial.
    pub(super) link: Option<f64>,
    /// Bytes to send until the buffers hold nothing of the previous packing.
    unsettled: f64,
    /// Seconds after which the trial counts in any case.
    settles_in: f64,
    /// The trial of `from` has failed, and the packing before that trial is in use again. Perhaps
    /// the link has changed meanwhile, so that this packing is not as fast as it was.
    pub(super) is_return: bool,
}

impl Trial {
    /// A trial that begins now. `from` is the packing in use until now.
    pub(super) fn new(
        from: usize,
        before: f64,
        part: f64,
        link: Option<f64>,
        is_return: bool,
    ) -> Self {
        let (unsettled, settles_in) = (SETTLE, SETTLE_SECONDS);
        Self { from, before, part, link, unsettled, settles_in, is_return }
    }

    /// Counts a window. Returns true if the trial is over: earlier windows have settled it, or this
    /// window is too slow.
    pub(super) fn count_window(&mut self, window: &Window, shown: &Shown) -> bool {
        let is_settled = self.unsettled <= 0.0 || self.settles_in <= 0.0;
        self.unsettled -= window.sent / shown.tasks;
        self.settles_in -= shown.time * window.raw;
        // After a return, the buffers hold blocks that hold more data than the new ones: these
        // seem to be slow at first.
        let is_bad = shown.time > BAD * self.before && shown.is_limited && !self.is_return;
        is_settled || is_bad
    }

    /// Seconds for a byte with half of the gain.
    pub(super) fn half(&self) -> f64 {
        f64::midpoint(1.0, self.part) * self.before
    }
}
