// SPDX-License-Identifier: GPL-2.0-only

//! Holds a bandwidth limit over all tasks of a clone.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The longest wait that [`Throttle::reserve`] asks for at once.
///
/// A task that waits does not read from its connection, and the donor gives a connection up when it
/// cannot write for 60 s (`net_write_timeout`): a wait must end well before.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// How far tasks may be ahead of the limit before they have to wait.
///
/// At 10 GiB/s a block of 64 KiB is due in 6 microseconds, which no sleep can hit. So small debts
/// gather to one sleep of this length or more.
const MAX_AHEAD: Duration = Duration::from_millis(5);

/// How much unused bandwidth is kept for later, so that a stall does not lower the speed of the
/// whole clone.
///
/// A stall is made up for at [`PEAK`]: one of a second within 15 seconds.
const MAX_CREDIT: Duration = Duration::from_secs(10);

/// Percent of the limit that tasks never exceed, whatever credit they have.
const PEAK: u64 = 106;

/// How much unused bandwidth may be sent at once, at the speed of the machine.
///
/// It makes up for sleeps that last longer than asked for, some milliseconds on an idle machine,
/// tens on a busy one.
const MAX_BURST: Duration = Duration::from_millis(100);

/// One bandwidth limit, shared by all tasks of a clone.
///
/// All tasks draw on one account. Bytes are booked as debt, time pays the debt off at the limit's
/// rate, and a task that finds the account in debt waits until it is paid. So the sum of all tasks
/// keeps to the limit whatever their number, speed and block size, unlike in the stock plugin,
/// which gives each task a share that it re-estimates every second (`Client_Stat::task_target`) and
/// forgets what a task sent beyond it.
///
/// # Bounds
/// From the first call to any moment `t` later, the tasks book at most `rate * (t + 5 ms)`. Over
/// any span `t` after that it is `1.06 * rate * (t + 105 ms)`: 118% of the limit in any one second,
/// and less than 110% in any span of 3 seconds or more. One block for each task comes on top of
/// both.
///
/// Time in which the tasks do not send is made up for afterwards, up to 10 seconds of it: a tenth
/// of a second at once, the rest at those 106%. So the whole clone averages the limit if it stalls
/// for up to 5% of the time, and 90% of it if it stalls for up to 15%. Credit does not help if the
/// machine is too slow.
///
/// # Changes of the limit
/// A new limit counts from the next call on. After a raise, debt is paid at the new rate. After a
/// cut, what was booked before is paid within the time that it would have taken under the old
/// limit.
#[derive(Debug, Default)]
pub struct Throttle {
    account: Mutex<Option<Account>>,
}

impl Throttle {
    /// A throttle with an even account: the first second of a clone has no credit to spend.
    pub fn new() -> Self {
        Self::default()
    }

    /// Books `bytes` that the caller is about to move, or has just moved, and gives the time that
    /// it must wait before it goes on.
    ///
    /// `now` is monotonic time since any fixed moment, the same for all tasks. `rate` is the limit
    /// in bytes per second, 0 for none; without a limit the account is closed and forgotten.
    ///
    /// With zero bytes nothing is booked and the answer is the time until the whole account is
    /// even. Two uses:
    /// * A wait of [`MAX_WAIT`] may be a part of what is due: ask again with zero bytes after it.
    /// * A caller that sleeps in slices can ask between them and shorten its wait to the answer: it
    ///   is the smaller of the two only after a raise of the limit.
    pub fn reserve(&self, now: Duration, bytes: u64, rate: u64) -> Duration {
        // The account is a few numbers that are always consistent, so that a panic of another task
        // does not matter.
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        if rate == 0 {
            *account = None;
            return Duration::ZERO;
        }
        let account = account.get_or_insert_with(|| Account::open(now, rate));
        account.pay(now);
        account.set_rate(rate);
        account.book(bytes);
        let wait = account.due().saturating_sub(now);
        if wait <= MAX_AHEAD { Duration::ZERO } else { wait.min(MAX_WAIT) }
    }
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// What the tasks owe to the limit.
#[derive(Debug)]
struct Account {
    /// Up to when time has been counted.
    paid_until: Duration,
    /// Paid at the limit, so that the whole clone keeps to the limit.
    average: Debt,
    /// Paid at [`PEAK`], so that short periods of the clone stay near the limit.
    peak: Debt,
}

impl Account {
    fn open(now: Duration, rate: u64) -> Self {
        Self {
            paid_until: now,
            average: Debt { rate, nano_bytes: 0, max_credit: MAX_CREDIT },
            peak: Debt { rate: peak(rate), nano_bytes: 0, max_credit: MAX_BURST },
        }
    }

    /// Counts the time up to `now`. Tasks read the clock before they get here, so it may be a
    /// little older than the last one's.
    fn pay(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.paid_until);
        self.paid_until += elapsed;
        self.average.pay(elapsed);
        self.peak.pay(elapsed);
    }

    fn set_rate(&mut self, rate: u64) {
        self.average.set_rate(rate);
        self.peak.set_rate(peak(rate));
    }

    fn book(&mut self, bytes: u64) {
        self.average.book(bytes);
        self.peak.book(bytes);
    }

    /// The moment when all debt will be paid.
    fn due(&self) -> Duration {
        self.paid_until.saturating_add(self.average.due_in().max(self.peak.due_in()))
    }
}

/// Bytes to be paid at a rate.
///
/// The unit is a billionth of a byte. Then debt divided by bytes per second is nanoseconds, and
/// nothing is lost in rounding however small the steps are.
#[derive(Debug)]
struct Debt {
    /// Bytes per second, not 0.
    rate: u64,
    /// Negative is credit.
    nano_bytes: i128,
    /// The most credit: what this time pays.
    max_credit: Duration,
}

impl Debt {
    fn pay(&mut self, elapsed: Duration) {
        self.nano_bytes = self.nano_bytes.saturating_sub(worth(elapsed, self.rate));
        self.limit_credit();
    }

    fn set_rate(&mut self, rate: u64) {
        if rate < self.rate && self.nano_bytes > 0 {
            self.nano_bytes =
                self.nano_bytes.saturating_mul(i128::from(rate)) / i128::from(self.rate);
        }
        self.rate = rate;
        self.limit_credit();
    }

    fn book(&mut self, bytes: u64) {
        self.nano_bytes = self.nano_bytes.saturating_add(i128::from(bytes) * NANOS_PER_SECOND);
    }

    fn limit_credit(&mut self) {
        self.nano_bytes = self.nano_bytes.max(-worth(self.max_credit, self.rate));
    }

    fn due_in(&self) -> Duration {
        let nanos = self.nano_bytes.max(0).unsigned_abs().div_ceil(u128::from(self.rate));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn peak(rate: u64) -> u64 {
    let peak = u128::from(rate) * u128::from(PEAK) / 100;
    u64::try_from(peak).unwrap_or(u64::MAX)
}

/// What `time` pays at `rate`, in billionths of a byte.
fn worth(time: Duration, rate: u64) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX).saturating_mul(i128::from(rate))
}

#[cfg(test)]
mod tests;
