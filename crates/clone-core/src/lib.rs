// SPDX-License-Identifier: GPL-2.0-only

//! Clone sessions of MySQL: the donor, the recipient and the local clone, without mysqld and without sockets.
//!
//! A map:
//!
//! * [`session`]: the traits through which everything outside is seen: server, session, storage engine, connections.
//! * [`donor`], [`recipient`], [`local`]: the three roles. `storage` is their common view of the engines, `params` what peers
//!   tell and check of each other, `crew` and `traffic` the threads of a clone and what they move.
//! * `apply_order`, `file_list`, `meeting`: what happens around InnoDB's calls when a clone is applied.
//! * [`point`]: how several engines come to one point.
//! * [`meter`], [`tuner`], [`throttle`]: speed measured, the number of threads, and bandwidth limits. Time is passed in.
//! * [`board`], [`status`], [`progress`], [`recovery`]: what the `performance_schema` tables show, and its files.
//! * [`donor_list`], [`compat`]: `clone_valid_donor_list`, and which versions may clone each other.
//! * [`error`]: one error, with MySQL's numbers.

#![forbid(unsafe_code)]

mod apply_order;
pub mod board;
pub mod compat;
mod crew;
pub mod donor;
pub mod donor_list;
pub mod error;
mod file_list;
pub mod local;
mod meeting;
pub mod meter;
mod params;
pub mod point;
pub mod progress;
pub mod recipient;
pub mod recovery;
pub mod session;
pub mod status;
mod storage;
pub mod throttle;
mod traffic;
pub mod tuner;

use board::Begin;
use error::{Error, Result};
use session::{Host, Session};

/// Runs a clone whose state the `performance_schema` tables show: one at a time, and its end with the error that the user sees.
fn run_on_board<S: Session>(
    session: &S,
    begin: Begin<'_>,
    clone: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let host = session.host();
    if host.board().begin(begin).is_err() {
        session.raise(&Error::TooManyClones);
        return Err(Error::TooManyClones);
    }
    let outcome = clone();
    let shown = outcome.as_ref().err().map(|error| {
        session.raise(error);
        if session.raised().is_none() {
            session.raise(&Error::Internal(format!("Clone failed with error {}", error.number())));
        }
        session.raised().unwrap_or_else(|| (error.number(), error.to_string()))
    });
    let shown = shown.as_ref().map(|(number, text)| (*number, text.as_str()));
    host.board().end(shown, host.unix_micros());
    outcome
}
