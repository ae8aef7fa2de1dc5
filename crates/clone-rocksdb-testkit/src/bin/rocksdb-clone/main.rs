// SPDX-License-Identifier: GPL-2.0-only

//! A tool around a live RocksDB and its clones: `rocksdb-clone --help`.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;
mod processes;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A live RocksDB and its clones.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// All but `demo` are processes of the tests, which kill them. They say what they do in lines on
/// standard output.
#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a database, clone it while it is written to, prove that each clone is what the database
    /// was at one moment, and compare the time with that of `cp -r`.
    Demo(demo::Options),
    /// Be a donor under write load, until standard input ends.
    Donate { root: PathBuf },
    /// Clone a donor over the data of the server at ROOT.
    Receive { address: SocketAddr, root: PathBuf, tasks: u32 },
    /// Start the server at ROOT, and say what it has.
    Start { root: PathBuf },
    /// Hand on what comes to a port of 127.0.0.1.
    Forward { port: u16, address: SocketAddr },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("warn"));
    let outcome = match arguments.command {
        Command::Demo(options) => demo::run(&options),
        Command::Donate { root } => processes::donate(&root),
        Command::Receive { address, root, tasks } => processes::receive(address, &root, tasks),
        Command::Start { root } => processes::start(&root),
        Command::Forward { port, address } => processes::forward(port, address),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rocksdb-clone: {error}");
            ExitCode::FAILURE
        }
    }
}
