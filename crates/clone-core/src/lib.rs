// SPDX-License-Identifier: GPL-2.0-only

//! Clone sessions of MySQL: the donor, the recipient and the local clone, without mysqld and without sockets.
//!
//! * [`session`]: the traits of everything outside: server, session, storage engine, connections.
//! * [`donor`], [`recipient`], [`local`]: the three roles. `donor/way.rs` decides how a block leaves the
//!   donor, `sink.rs` how a block gets into its file. `storage` has a task's part in each engine,
//!   `params` what peers tell and check of each other, `workers` the threads of a clone.
//! * `consistency_point`: how all engines of a clone show one moment.
//! * `traffic`, `meter`, `tuner`, [`throttle`]: speed measured, the number of threads, and bandwidth
//!   limits. Time is passed in.
//! * [`board`], [`status`], [`progress`]: what the `performance_schema` tables show, and their files.
//! * [`donor_list`], [`compat`]: `clone_valid_donor_list`, and which versions may clone each other.
//! * [`error`]: one error, with MySQL's numbers.

#![forbid(unsafe_code)]

pub mod board;
pub mod compat;
mod consistency_point;
pub mod donor;
pub mod donor_list;
pub mod error;
pub mod local;
pub mod meter;
mod params;
pub mod progress;
pub mod recipient;
mod recovery;
pub mod session;
mod sink;
pub mod status;
mod storage;
pub mod throttle;
mod traffic;
mod tuner;
mod workers;

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
