// SPDX-License-Identifier: GPL-2.0-only

//! Real MySQL servers, data, load and proofs for the tests of mysql-clone.
//!
//! Read in this order:
//!
//! * [`server`]: where the MySQL binaries are. [`plugin`]: which clone plugin a server loads.
//! * [`mysqld`]: one running instance: its own data directory, socket and port; start, stop,
//!   restart.
//! * [`sql`]: a session, and the errors a statement is expected to raise.
//! * [`clone`]: the `CLONE` statement, its progress and its result.
//! * [`dataset`]: tables of every kind to clone. [`writer`]: transactions that go on meanwhile.
//! * [`verify`]: what two servers hold, compared. [`replica`]: the proof that a clone is exactly
//!   the donor at the replication position it reports.
//! * [`faults`]: a disk that is too small, DDL that gets stuck. [`proxy`]: a network that breaks.
//!   [`balancer`]: one address of several servers.
//! * [`hosts`]: two machines, as far as the network goes. [`relay`]: a long way between them.
//! * [`keyring`]: servers that can encrypt.
//! * [`volume`]: a file system whose files can share blocks.
//! * [`program`]: `mysql-clone serve` as it runs.
//! * [`own_data`]: whose data a server has after a clone over its own.
//! * [`fixture`]: donors and recipients as most tests want them.
//!
//! Everything started here ends with the process that started it, and each wait has a bound.
//!
//! # Environment
//!
//! * `MYSQL_CLONE_PLUGIN`: `ours` or `stock`. The tests are right when the stock plugin passes
//!   them.
//! * `MYSQL_CLONE_SO`: our shared library. Without it, `cargo build --release` makes one.
//! * `MYSQL_CLONE_PROGRAM`: our program. Without it, `cargo build --release` makes one.
//! * `MYSQL_CLONE_MYSQLD` and others: the server, as `mysql-test/server.sh` prints them.
//! * `MYSQL_CLONE_CACHE`: where initialised data directories are kept;
//!   `~/.cache/mysql-clone/testkit`.
//! * `TMPDIR`: where the instances live, each with some hundred MiB. Its path must be short.

pub mod balancer;
pub mod clone;
pub mod dataset;
pub mod faults;
pub mod fixture;
pub mod hosts;
pub mod keyring;
pub mod mysqld;
pub mod own_data;
pub mod plugin;
pub mod program;
pub mod proxy;
pub mod relay;
pub mod replica;
pub mod server;
pub mod sql;
pub mod verify;
pub mod volume;
pub mod writer;

mod process;
mod template;
mod wait;

use std::process::ExitCode;

pub use anyhow;
pub use fastrand;
pub use mysqld::{Mysqld, check};
pub use plugin::Plugin;
pub use process::Usage;
pub use sql::{Session, SqlError};
pub use wait::{cancel, until};

/// Sends what is logged to standard error, from warnings on unless `RUST_LOG` says otherwise. For
/// programs, once; [`check`] does it for tests.
pub fn log_to_stderr() {
    let filter = env_logger::Env::default().default_filter_or("warn");
    // It fails if there is a logger already, and then that one is to be used.
    let _ = env_logger::Builder::from_env(filter).try_init();
}

/// How a program of the test kit ends: it tells an error on standard error.
pub fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a test for each release of MySQL: `run` is called with its server. A release that differs
/// from a neighbour in nothing that is known is `#[ignore = "make compat"]`.
#[macro_export]
macro_rules! releases {
    ($run:expr; $($(#[$attribute:meta])* $name:ident: $release:literal;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                $crate::check(|| ($run)($crate::server::Server::release($release)?));
            }
        )+
    };
}

/// Says why a test cannot run on this machine, and ends it: for functions that return a
/// `Result<()>`.
///
/// `.ci/step` counts such tests by this line on standard output, and names them in its summary.
/// Tests of crates that do not use this one print the same line.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("SKIPPED: {}", format_args!($($reason)*));
        return Ok(());
    }};
}
