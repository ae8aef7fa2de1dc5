// SPDX-License-Identifier: GPL-2.0-only

//! A tool around a live RocksDB and its clones.
//!
//! ```text
//! rocksdb-clone demo [--mib N] [--tasks N] [--rounds N] [--directory DIR]
//! ```
//! fills a database, writes to it, clones it while it is written to, proves that each clone is what the database was at one moment, and
//! compares the time with that of `cp -r`.
//!
//! The other commands are the processes of the tests, which kill them: `donate ROOT`, `receive ADDRESS ROOT TASKS`, `start ROOT`,
//! `forward PORT ADDRESS`. They say what they do in lines on standard output.

use std::error::Error;
use std::process::ExitCode;

mod demo;
mod processes;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str =
    "usage: rocksdb-clone demo [--mib N] [--tasks N] [--rounds N] [--directory DIR]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match &arguments[..] {
        ["demo", options @ ..] => demo::run(options),
        ["donate", root] => processes::donate(root),
        ["receive", address, root, tasks] => processes::receive(address, root, tasks),
        ["start", root] => processes::start(root),
        ["forward", port, address] => processes::forward(port, address),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rocksdb-clone: {error}");
            ExitCode::FAILURE
        }
    }
}
