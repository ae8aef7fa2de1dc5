// SPDX-License-Identifier: GPL-2.0-only

//! What an instance leaves behind when a test fails: its error log.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;

use anyhow::{Result, anyhow, bail};

use super::Mysqld;

/// Signs in an error log of a server that crashed. InnoDB writes the second on a failed assertion.
const CRASH_SIGNS: [&str; 2] = ["mysqld got signal", "Assertion failure"];
/// Lines of an error log worth printing.
const TAIL_LINES: usize = 60;

#[derive(Debug)]
struct Left {
    name: String,
    log: String,
    /// Why the instance itself is at fault, even if the test found nothing.
    fault: Option<String>,
}

static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());

/// Runs a test that uses servers. Fails also when one of them crashed or did not shut down cleanly.
/// A failed test prints the error logs of all servers that it used, then why it failed: what CI
/// keeps of a long output is its end. A panic outside of this function prints no logs.
///
/// # Panics
/// When the test fails.
pub fn check(test: impl FnOnce() -> Result<()>) {
    crate::log_to_stderr();
    let verdict = panic::catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|payload| {
        Err(anyhow!("a panic, whose place is printed above the logs: {}", message(&*payload)))
    });
    let left = std::mem::take(&mut *lock());
    let faults: Vec<_> = left.iter().filter_map(|left| left.fault.clone()).collect();
    let verdict = verdict.and_then(|()| match faults.is_empty() {
        true => Ok(()),
        false => bail!("{}", faults.join("\n")),
    });
    if let Err(error) = verdict {
        for Left { name, log, .. } in &left {
            eprintln!("--- error log of {name}\n{}", tail(log));
        }
        panic!("{error:?}");
    }
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref().copied()).unwrap_or("no text")
}

/// Called when an instance is dropped.
pub(super) fn leave(mysqld: &Mysqld, stopped: Result<()>) {
    let log = mysqld.log().unwrap_or_default();
    let fault = match stopped {
        Err(error) => Some(format!("{error:#}")),
        Ok(()) => CRASH_SIGNS
            .into_iter()
            .find(|sign| log.contains(sign))
            .map(|sign| format!("{}: '{sign}' in the error log", mysqld.name)),
    };
    lock().push(Left { name: mysqld.name.clone(), log, fault });
}

/// The last lines of a log, without the one line for each plugin of the server at its shutdown.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.contains("Shutting down plugin")).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Left>> {
    // A panic elsewhere leaves the list usable.
    LEFT.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_bounded() {
        let log = "line\n".repeat(TAIL_LINES * 2);
        assert_eq!(tail(&log).lines().count(), TAIL_LINES);
        assert_eq!(tail("one"), "one");
    }

    #[test]
    fn a_panic_is_told_again() {
        for said in ["with 1 value", "as it is"] {
            let failed = panic::catch_unwind(|| {
                check(|| match said {
                    "as it is" => panic!("as it is"),
                    said => panic!("{said}"),
                });
            });
            let Err(payload) = failed else { panic!("the test passed") };
            assert!(message(&*payload).contains(said), "{}", message(&*payload));
        }
    }
}
