// SPDX-License-Identifier: GPL-2.0-only

//! Holds a bandwidth limit over all tasks of a clone.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The longest wait that [`Throttle::reserve`] asks for at once.
///
/// A task that waits does not read from its connection, and the donor gives a connection up when it cannot write for 60 s
/// (`net_write_timeout`): a wait must end well before.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// How far tasks may be ahead of the limit before they have to wait.
///
/// At 10 GiB/s a block of 64 KiB is due in 6 microseconds, which no sleep can hit. So small debts gather to one sleep of this length or
/// more.
const MAX_AHEAD: Duration = Duration::from_millis(5);

/// How much unused bandwidth is kept for later.
///
/// It makes up for sleeps that last longer than asked for, some milliseconds on an idle machine, tens on a busy one. It is also
/// what an idle clone may send at once when it goes on: a tenth of a second's worth.
const MAX_CREDIT: Duration = Duration::from_millis(100);

/// One bandwidth limit, shared by all tasks of a clone.
///
/// All tasks draw on one account. Bytes are booked as debt, time pays the debt off at the limit's rate, and a task that finds the
/// account in debt waits until it is paid. So the sum of all tasks keeps to the limit whatever their number, speed and block
/// size, unlike in the stock plugin, which gives each task a share that it re-estimates every second (`Client_Stat::task_target`)
/// and forgets what a task sent beyond it.
///
/// Over any span of time `t` the tasks book at most `rate * (t + 105 ms)`, and one block for each task on top.
///
/// # Changes of the limit
/// A new limit counts from the next call on. After a raise, debt is paid at the new rate. After a cut, what was booked before is
/// paid within the time that it would have taken under the old limit.
#[derive(Debug, Default)]
pub struct Throttle {
    account: Mutex<Option<Account>>,
}

impl Throttle {
    /// A throttle with an even account: the first second of a clone has no credit to spend.
    pub fn new() -> Self {
        Self::default()
    }

    /// Books `bytes` that the caller is about to move, or has just moved, and gives the time that it must wait before it goes on.
    ///
    /// `now` is monotonic time since any fixed moment, the same for all tasks. `rate` is the limit in bytes per second, 0 for
    /// none; without a limit the account is closed and forgotten.
    ///
    /// With zero bytes nothing is booked and the answer is the time until the whole account is even. Two uses:
    /// * A wait of [`MAX_WAIT`] may be a part of what is due: ask again with zero bytes after it.
    /// * A caller that sleeps in slices can ask between them and shorten its wait to the answer: it is the smaller of the two
    ///   only after a raise of the limit.
    pub fn reserve(&self, now: Duration, bytes: u64, rate: u64) -> Duration {
        // The account is a few numbers that are always consistent, so that a panic of another task does not matter.
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        if rate == 0 {
            *account = None;
            return Duration::ZERO;
        }
        let account = account.get_or_insert(Account { paid_until: now, rate, debt: 0 });
        account.pay(now);
        account.set_rate(rate);
        account.debt = account.debt.saturating_add(i128::from(bytes) * NANOS_PER_SECOND);
        let wait = account.due().saturating_sub(now);
        if wait <= MAX_AHEAD { Duration::ZERO } else { wait.min(MAX_WAIT) }
    }
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// What the tasks owe to the limit.
///
/// The unit of `debt` is a billionth of a byte. Then debt divided by bytes per second is nanoseconds, and nothing is lost in
/// rounding however small the steps are.
#[derive(Debug)]
struct Account {
    /// Up to when time has been counted.
    paid_until: Duration,
    /// The limit since then, bytes per second, not 0.
    rate: u64,
    /// Negative is credit.
    debt: i128,
}

impl Account {
    /// Counts the time up to `now`. Tasks read the clock before they get here, so it may be a little older than the last one's.
    fn pay(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.paid_until);
        self.paid_until += elapsed;
        self.debt = self.debt.saturating_sub(worth(elapsed, self.rate));
        self.limit_credit();
    }

    fn set_rate(&mut self, rate: u64) {
        if rate < self.rate && self.debt > 0 {
            self.debt = self.debt.saturating_mul(i128::from(rate)) / i128::from(self.rate);
        }
        self.rate = rate;
        self.limit_credit();
    }

    fn limit_credit(&mut self) {
        self.debt = self.debt.max(-worth(MAX_CREDIT, self.rate));
    }

    /// When the account will be even.
    fn due(&self) -> Duration {
        let debt = self.debt.max(0).unsigned_abs();
        let nanos = debt.div_ceil(u128::from(self.rate));
        self.paid_until
            .saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// What `time` pays at `rate`.
fn worth(time: Duration, rate: u64) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX).saturating_mul(i128::from(rate))
}

#[cfg(test)]
mod tests;
