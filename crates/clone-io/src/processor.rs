// SPDX-License-Identifier: GPL-2.0-only

//! Processor time: of the calling thread, and of the machine.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time that the calling thread has used, in user mode and in the kernel.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// How long all processors of this machine have been there, and for how much of that they were
/// idle. Only differences and ratios mean something: the unit is the kernel's tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineTime {
    /// Idle, waiting for a disk, or lent to processes with a positive nice value: these give way.
    pub idle: u64,
    /// All.
    pub total: u64,
}

impl MachineTime {
    /// The counters now, from the first line of `/proc/stat`.
    ///
    /// # Errors
    /// There is no such file, or it says something else.
    pub fn now() -> io::Result<Self> {
        // The first line is the sum over all processors, and has at most 10 numbers of 20 digits.
        let mut line = [0; 256];
        let len = File::open("/proc/stat")?.read(&mut line)?;
        Self::parse(&line[..len]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice` (`proc_stat(5)`).
    /// Guests' time is part of the user's.
    fn parse(stat: &[u8]) -> Option<Self> {
        let line = stat.split(|byte| *byte == b'\n').next()?;
        let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        if fields.next()? != "cpu" {
            return None;
        }
        let mut times = [0; 8];
        for time in &mut times {
            *time = fields.next()?.parse().ok()?;
        }
        let [_, nice, _, idle, wait, ..] = times;
        let total = times.iter().try_fold(0_u64, |sum, time| sum.checked_add(*time))?;
        Some(Self { idle: nice + idle + wait, total })
    }

    /// The share of the time since `earlier` in which processors were idle; none if no time has
    /// passed.
    pub fn idle_since(self, earlier: Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|total| *total != 0)?;
        // The kernel may correct the counters of idle time downwards.
        let idle = self.idle.saturating_sub(earlier.idle);
        Some((idle as f64 / total as f64).min(1.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_works_uses_processor_time() {
        let (begin, used) = (Instant::now(), thread_time());
        while thread_time() - used < Duration::from_millis(5) {
            assert!(begin.elapsed() < Duration::from_secs(60), "no processor time passes");
        }
        let used = thread_time();
        std::thread::sleep(Duration::from_millis(50));
        assert!(thread_time() - used < Duration::from_millis(40), "sleep counts as work");
    }

    #[test]
    fn the_first_line_of_stat_is_parsed() {
        let stat = b"cpu  10 1 20 300 40 5 6 7 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let time = MachineTime::parse(stat).unwrap();
        assert_eq!(time, MachineTime { idle: 341, total: 389 });
        for wrong in [
            &b""[..],
            b"cpu0 1 1 1 1 1 1 1 1",
            b"cpu  1 2 3",
            b"cpu  1 2 3 4 5 6 7 x",
            b"cpu 18446744073709551615 1 1 1 1 1 1 1",
        ] {
            assert_eq!(MachineTime::parse(wrong), None, "{wrong:?}");
        }
        let now = MachineTime::now().unwrap();
        assert!(now.idle <= now.total && now.total > 0, "{now:?}");
    }

    #[test]
    fn idle_time_is_a_share() {
        let time = |idle, total| MachineTime { idle, total };
        assert_eq!(time(150, 300).idle_since(time(100, 200)), Some(0.5));
        assert_eq!(time(100, 200).idle_since(time(100, 200)), None);
        assert_eq!(time(90, 300).idle_since(time(100, 200)), Some(0.0));
        assert_eq!(time(900, 300).idle_since(time(100, 200)), Some(1.0));
        assert_eq!(time(0, 100).idle_since(time(0, 200)), None);
    }
}
