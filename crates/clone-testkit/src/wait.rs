// SPDX-License-Identifier: GPL-2.0-only

//! Bounded waiting, and giving up early.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Makes all that goes on in this crate fail soon, in any thread: waiting, loading, cloning,
/// comparing. Stopping servers still works. For use when the user pressed Ctrl-C.
pub fn cancel() {
    CANCELLED.store(true, Ordering::Relaxed);
}

/// Fails once [`cancel`] has been called.
pub(crate) fn go_on() -> Result<()> {
    if CANCELLED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Calls `ready` every 20 ms until it returns a value. Fails with `what` in the text after `limit`,
/// or at once when `ready` fails.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        go_on()?;
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", limit.as_secs_f32());
        }
        sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn waits_no_longer_than_the_limit() {
        let error = until("nothing", Duration::from_millis(50), || Ok(None::<()>)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0.05 s in vain for nothing");
        let mut calls = 0;
        let third = || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        };
        assert_eq!(until("the third call", Duration::from_secs(5), third).unwrap(), 3);
    }
}
