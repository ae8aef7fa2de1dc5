// SPDX-License-Identifier: GPL-2.0-only

//! Processor time: of the calling thread, of this process, and what nobody uses.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a tick of `/proc/stat`: `USER_HZ` is 100 on all of Linux' ABIs that MySQL runs
/// on.
const TICK: u64 = 10;

/// The processor time that the calling thread has used, in user mode and in the kernel.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The processor time that this process has used, in all of its threads.
pub fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// For how long the processors of this machine were idle, all added, since some moment: from the
/// first line of `/proc/stat`. Processors that wait for a disk count as idle, and those that work
/// for processes with a positive nice value, which give way.
///
/// # Errors
/// There is no such file, or it says something else.
pub fn idle_time() -> io::Result<Duration> {
    // The first line is the sum over all processors, and has at most 10 numbers of 20 digits.
    let mut line = [0; 256];
    let len = File::open("/proc/stat")?.read(&mut line)?;
    parse(&line[..len]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice` (`proc_stat(5)`).
fn parse(stat: &[u8]) -> Option<Duration> {
    let line = stat.split(|byte| *byte == b'\n').next()?;
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    if fields.next()? != "cpu" {
        return None;
    }
    let mut times = [0_u64; 5];
    for time in &mut times {
        *time = fields.next()?.parse().ok()?;
    }
    let [_, nice, _, idle, wait] = times;
    let ticks = [nice, wait].into_iter().try_fold(idle, u64::checked_add)?;
    ticks.checked_mul(TICK).map(Duration::from_millis)
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
    fn a_process_has_the_time_of_its_threads() {
        let (begin, used) = (Instant::now(), process_time());
        let work = move || {
            let used = thread_time();
            while thread_time() - used < Duration::from_millis(20) {
                assert!(begin.elapsed() < Duration::from_secs(60), "no processor time passes");
            }
        };
        std::thread::spawn(work).join().unwrap();
        assert!(process_time() - used >= Duration::from_millis(20));
    }

    #[test]
    fn the_first_line_of_stat_is_parsed() {
        let stat = b"cpu  10 1 20 300 40 5 6 7 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse(stat), Some(Duration::from_millis(3410)));
        for wrong in [
            &b""[..],
            b"cpu0 1 1 1 1 1 1 1 1",
            b"cpu  1 2 3",
            b"cpu  1 2 3 4 x",
            b"cpu  1 1 1 18446744073709551615 1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert!(idle_time().unwrap() > Duration::ZERO);
    }
}
