// SPDX-License-Identifier: GPL-2.0-only

//! What the blocks of one task take, by the clock and in processor time.

use std::time::Duration;

use crate::session::Host;

/// Two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// Time since any fixed moment.
    pub(super) clock: Duration,
    /// Processor time of this thread.
    pub(super) thread: Duration,
}

impl Times {
    /// The times of the calling thread now.
    pub(super) fn now<H: Host>(host: &H) -> Self {
        Self { clock: host.now(), thread: host.thread_time() }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            clock: self.clock.saturating_sub(earlier.clock),
            thread: self.thread.saturating_sub(earlier.thread),
        }
    }

    /// Time in which the thread did not work.
    pub(super) fn waited(self) -> Duration {
        self.clock.saturating_sub(self.thread)
    }
}

/// Measures the time from one block of a task to the next.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    /// When the previous block ended; none before the first.
    previous: Option<Duration>,
    /// For how long the network took nothing of what was sent before the next block's data.
    blocked: Duration,
}

impl Stopwatch {
    /// The task has done something for `time` that is not part of the next block.
    pub(super) fn exclude(&mut self, time: Duration) {
        if let Some(previous) = &mut self.previous {
            *previous += time;
        }
    }

    /// For `time` the network took nothing of what is sent before the data of the next block.
    pub(super) fn add_blocked(&mut self, time: Duration) {
        self.blocked += time;
    }

    /// A block ends `now`. Returns what [`add_blocked`](Self::add_blocked) has counted for it, and
    /// the time since the end of the previous block. The first block counts from `begin` on.
    pub(super) fn end_block(&mut self, begin: Duration, now: Duration) -> (Duration, Duration) {
        let previous = self.previous.replace(now).unwrap_or(begin);
        (std::mem::take(&mut self.blocked), now.saturating_sub(previous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_takes_the_time_since_the_previous_one() {
        let [zero, one, two] = [0, 1, 2].map(Duration::from_secs);
        let at = |seconds| Duration::from_secs(seconds);
        let mut stopwatch = Stopwatch::default();
        stopwatch.exclude(one);
        assert_eq!(stopwatch.end_block(at(10), at(12)), (zero, two), "the first");
        stopwatch.add_blocked(one);
        stopwatch.add_blocked(one);
        stopwatch.exclude(one);
        assert_eq!(stopwatch.end_block(at(14), at(15)), (two, two), "with a survey before");
        assert_eq!(stopwatch.end_block(at(15), at(16)), (zero, one));
    }
}
