// SPDX-License-Identifier: GPL-2.0-only

//! SIGINT and SIGTERM end the program at once, as a kill would: what a pull has copied stays, and
//! the donor keeps the clone for a while.

use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Kind;

/// What is done before the program ends.
#[derive(Default)]
struct AtEnd {
    /// What the user is told.
    text: String,
    /// A process of ours that must not outlive this one.
    child: Option<Pid>,
}

static AT_END: Mutex<Option<AtEnd>> = Mutex::new(None);

/// From now on, a signal ends the program, and the user is told `text`.
///
/// # Errors
/// The operating system does not let this program handle signals.
pub(crate) fn handle(text: &str) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    change(|at_end| text.clone_into(&mut at_end.text));
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_none() {
            return;
        }
        change(|at_end| {
            if let Some(child) = at_end.child {
                // The process may have ended meanwhile.
                let _ = kill_process(child, Signal::TERM);
            }
            // A bar that is shown has the present line.
            eprintln!("\nmysql-clone: interrupted. {}", at_end.text);
        });
        std::process::exit(i32::from(Kind::Interrupted as u8));
    })?;
    Ok(())
}

/// A signal ends this process, too.
pub(crate) fn set_child(child: Option<Pid>) {
    change(|at_end| at_end.child = child);
}

fn change(work: impl FnOnce(&mut AtEnd)) {
    let mut at_end = AT_END.lock().unwrap_or_else(PoisonError::into_inner);
    work(at_end.get_or_insert_default());
}
