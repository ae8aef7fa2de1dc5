// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone`: clones MySQL instances without a server.

#![forbid(unsafe_code)]

mod connection;
mod failure;
mod keyring;
mod manual;
mod password;
mod pull;
mod serve;
mod signals;
mod verify;

use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Clones MySQL instances without a server.
#[derive(Debug, Parser)]
#[command(name = "mysql-clone", version, after_help = failure::EXIT_CODES, disable_help_flag = true)]
struct Arguments {
    /// Shows this text. As with MySQL's clients, -h is the host.
    #[arg(short = '?', long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies the data of a running server into a new data directory.
    Pull(Box<pull::Arguments>),
    /// Checks the files of a data directory that no server has open.
    Verify(verify::Arguments),
    /// Offers a data directory that no server has open to CLONE INSTANCE.
    Serve(Box<serve::Arguments>),
}

fn main() -> ExitCode {
    let matches = program().subcommand(manual::command()).get_matches();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let outcome = match matches.subcommand() {
        Some((manual::NAME, arguments)) => manual::run(arguments, program()),
        _ => run(&Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mysql-clone: [ERROR] {failure}");
            failure.kind.into()
        }
    }
}

fn run(arguments: &Arguments) -> failure::Result<()> {
    match &arguments.command {
        Command::Pull(arguments) => pull::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
    }
}

/// The command line as clap knows it.
fn program() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_consistent() {
        super::program().debug_assert();
    }
}
