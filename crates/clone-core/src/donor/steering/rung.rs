// SPDX-License-Identifier: GPL-2.0-only

//! The packings among which [`Steering`](super::Steering) chooses, and what is known of each.

use clone_protocol::Packing;

/// The packings, from the one that takes the least processor time on.
pub(super) const LADDER: [Packing; 5] =
    [Packing::None, Packing::Lz4, Packing::Zstd(1), Packing::Zstd(3), Packing::Zstd(6)];

/// After so many seconds the data may be different, so a packing is surveyed again.
const FRESH: f64 = 1.0;

/// Seconds between a trial without success and the next one. Doubles each time.
pub(super) const BACKOFF: f64 = 5.0;

/// The most seconds between two such trials.
const MAX_BACKOFF: f64 = 120.0;

/// Figures follow the blocks as if they were the mean of so many bytes.
const MEMORY: f64 = 8e6;

/// A ratio that changes by this factor in one window means that the data is different.
const OTHER_DATA: f64 = 1.25;

/// What is known of one packing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// Bytes sent for each byte of data.
    pub(super) ratio: f64,
    /// Seconds to pack a byte, by the clock.
    pub(super) pace: f64,
    /// Processor seconds to pack a byte.
    pub(super) cpu: f64,
}

/// One packing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung {
    pub(super) packing: Packing,
    pub(super) figures: Figures,
    /// The ratio when it was surveyed.
    pub(super) surveyed: f64,
    /// When the figures were measured.
    pub(super) at: Option<f64>,
    /// No trial before that.
    pub(super) not_before: f64,
    pub(super) backoff: f64,
}

impl Figures {
    pub(super) fn scaled(self, by: f64) -> Self {
        Self { ratio: (self.ratio * by).min(1.0), pace: self.pace * by, cpu: self.cpu * by }
    }

    /// The best that may be hoped for before anything was measured. A packing that would not help
    /// even then is not surveyed.
    pub(super) fn hoped(packing: Packing) -> Self {
        let (ratio, speed) = match packing {
            Packing::None | Packing::Auto => return Self { ratio: 1.0, pace: 0.0, cpu: 0.0 },
            Packing::Lz4 => (0.3, 1e9),
            Packing::Zstd(..2) => (0.2, 700e6),
            Packing::Zstd(..5) => (0.15, 350e6),
            Packing::Zstd(_) => (0.12, 120e6),
        };
        Self { ratio, pace: 1.0 / speed, cpu: 1.0 / speed }
    }
}

impl Rung {
    pub(super) fn new(packing: Packing) -> Self {
        let figures = Figures::hoped(packing);
        let surveyed = figures.ratio;
        Self { packing, figures, surveyed, at: None, not_before: 0.0, backoff: BACKOFF }
    }

    /// Takes what blocks of `raw` bytes took.
    pub(super) fn note(&mut self, now: f64, raw: f64, figures: Figures) {
        let weight = if self.at.is_some() { (raw / MEMORY).min(1.0) } else { 1.0 };
        let mix = |old: f64, new: f64| old + (new - old) * weight;
        self.figures = Figures {
            ratio: mix(self.figures.ratio, figures.ratio),
            pace: mix(self.figures.pace, figures.pace),
            cpu: mix(self.figures.cpu, figures.cpu),
        };
        self.at = Some(now);
    }

    /// The data is different now. Sending without packing takes no time that could be remembered.
    pub(super) fn forget(&mut self) {
        self.at = None;
        if self.packing == Packing::None {
            self.figures = Figures::hoped(self.packing);
        }
    }

    pub(super) fn is_fresh(&self, now: f64) -> bool {
        self.at.is_some_and(|at| now - at < FRESH)
    }

    /// The packing does not make the clone faster: no trial of it for `seconds`, and then twice as
    /// long.
    pub(super) fn refuse(&mut self, now: f64, seconds: f64) {
        self.not_before = now + seconds;
        self.backoff = (2.0 * seconds).min(MAX_BACKOFF);
    }
}

/// Whether two ratios of one packing may be those of one kind of data.
pub(super) fn is_same_data(one: f64, other: f64) -> bool {
    one <= other * OTHER_DATA && other <= one * OTHER_DATA
}
