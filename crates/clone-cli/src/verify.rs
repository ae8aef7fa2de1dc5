// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone verify`: `docs/verify.md` says what is checked.

pub(crate) mod in_use;
mod output;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use clone_innodb::verify::{self, Options, Plan, redo};

use crate::failure::{Failure, Kind, Result};
use crate::keyring;

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 no damage, 3 a server has the files open, 6 a file or page \
                        cannot be read, 8 damage was found.")]
pub(crate) struct Arguments {
    /// A data directory, or a file of one: a tablespace, redo log or doublewrite buffer.
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Prints one JSON object a line: each fault and note, and at last the summary.
    #[arg(long)]
    json: bool,
    /// Threads that read and check. By default one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Prints faults only: no notes, no progress, no summary.
    #[arg(long, short)]
    quiet: bool,
    /// The data directory whose redo log the files belong to, for tablespaces that are named alone.
    #[arg(long, value_name = "DIR")]
    redo: Option<PathBuf>,
    /// The file of component_keyring_file or of the plugin keyring_file. Without this file only the
    /// headers of encrypted pages are checked.
    #[arg(long, value_name = "FILE")]
    keyring_file: Option<PathBuf>,
    /// Checks files that a server has open. Pages that the server writes meanwhile look damaged.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    let mut plan = Plan::find(&arguments.paths);
    if let Some(directory) = &arguments.redo {
        let files = redo::find(directory).ok_or_else(|| {
            let directory = directory.display();
            Failure::new(Kind::Usage, format!("--redo: {directory} has no redo log of InnoDB"))
        })?;
        plan.redo = vec![files];
    }
    if plan.spaces.is_empty() && plan.redo.is_empty() && plan.doublewrite.is_empty() {
        let message = match plan.unreadable.first() {
            Some((path, error)) => {
                Failure::new(Kind::Disk, format!("{} cannot be read: {error}", path.display()))
            }
            None => Failure::new(Kind::Usage, "no file of InnoDB was found: name a data directory"),
        };
        return Err(message);
    }
    if !arguments.force {
        in_use::refuse(&plan)?;
    }
    let keyring = arguments.keyring_file.as_deref().map(keyring::from_file).transpose()?;
    let threads = arguments.threads.map_or_else(processors, usize::from);
    check(&plan, &Options { threads, keyring }, arguments.json, arguments.quiet, begin)
}

/// Checks a directory that was pulled. `keyring_file` has the keys of its encrypted tablespaces.
pub(crate) fn pulled(
    directory: &Path,
    keyring_file: Option<&Path>,
    json: bool,
    quiet: bool,
) -> Result<()> {
    let plan = Plan::find(&[directory.to_owned()]);
    let keyring = keyring_file.map(keyring::from_file).transpose()?;
    let options = Options { threads: processors(), keyring };
    check(&plan, &options, json, quiet, Instant::now())
}

fn check(plan: &Plan, options: &Options, json: bool, quiet: bool, begin: Instant) -> Result<()> {
    let bytes = output::total_bytes(plan);
    let output = output::Output::new(json, quiet, bytes);
    let summary = verify::run(plan, options, &output);
    output.finish(&summary, begin.elapsed())?;
    if summary.faults > 0 {
        let faults = summary.faults;
        let message = format!("{faults} faults: docs/verify.md says what to do about each kind");
        return Err(Failure::new(Kind::Damage, message));
    }
    match output.unreadable() {
        0 => Ok(()),
        count => {
            let message = format!("{count} files or pages cannot be read: see above");
            Err(Failure::new(Kind::Disk, message))
        }
    }
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
