// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone pull`: copies the data of a running server into a new data directory.
//!
//! | Module | |
//! |---|---|
//! | `base` | `--base`: an older copy |
//! | `checks` | what is asked by SQL before any data is copied |
//! | `keyring` | `--keyring-file`: the master key of an encrypted copy |
//! | `target` | the directory: new, or one of a pull that was interrupted |
//! | `state` | what a pull keeps for its next process |
//! | `session`, `link`, `engine` | this program as clone-core sees it |
//! | `progress` | bar, lines, events |
//! | `report` | what is left beside the data: `mysql-clone.cnf` and `mysql-clone.json` |
//! | `paths` | a path without links, as far as it exists |
//! | `prepare` | starts a server once on the copy, for its replication coordinates |

mod base;
mod checks;
mod engine;
mod keyring;
mod link;
mod paths;
mod prepare;
mod progress;
mod report;
mod session;
mod state;
mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clone_classic::{ConnectOptions, SslMode};
use clone_core::base::Base;
use clone_core::error::{Error, number};
use clone_core::recipient::{self, ResumePoint};
use clone_core::settings::Settings;
use clone_innodb::destination::{EncryptedFiles, Options, OutsideFiles, RedoNames};
use clone_protocol::Packing;

use crate::connection;
use crate::failure::{Failure, Kind, Result};
use crate::{signals, verify};
use base::{BaseDirectory, BaseReport};
use checks::{DonorFacts, OTHER_WAYS, OUTSIDE};
use engine::Innodb;
use keyring::KeyringFile;
use progress::{Progress, Show};
use session::{PullHost, PullSession};
use state::StateDirectory;
use target::{Resumed, Target};

/// The most threads, as `clone_max_concurrency`.
const MAX_THREADS: u32 = 128;

/// A donor's error 3872 (`ER_CLONE_ENCRYPTION`).
const NEEDS_TLS: &str = "Clone needs SSL connection";

/// The arguments of `pull`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "these are flags of a command line")]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: connection::Arguments,
    /// The new data directory. It must not exist, or be empty, or hold a pull from this donor that
    /// was interrupted. Such a pull goes on.
    #[arg(long, short = 'D', value_name = "DIR")]
    datadir: PathBuf,
    /// An older copy of the donor's data, for example an earlier pull or the data directory of a
    /// broken replica. Pages that are the same are not sent again. Where the file system can, they
    /// are shared with this directory. Nothing is changed there, and nothing else may change it
    /// during the pull.
    #[arg(long, value_name = "OLDDIR")]
    base: Option<PathBuf>,
    /// Checks whether the pull could work, and stops before any data is copied.
    #[arg(long)]
    check: bool,
    /// Removes what an interrupted pull has left in --datadir, and stops.
    #[arg(long, conflicts_with = "check")]
    discard: bool,
    /// The most threads and connections.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_THREADS)))]
    threads: u32,
    /// The most MiB a second from the network. 0: no limit.
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    max_rate: u32,
    /// How the donor compresses what it sends: auto (a donor with this project's plugin measures
    /// what is fastest, MySQL's own plugin does not compress), off, zstd1 to zstd22, or lz4 (this
    /// project's plugin only).
    #[arg(long, value_name = "HOW", default_value_t = Packing::Auto)]
    compress: Packing,
    /// Stops DDL at the donor during the clone. Donors before 8.0.27 do that in any case.
    #[arg(long)]
    block_ddl: bool,
    /// Seconds that the donor may wait for DDL.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    ddl_timeout: u32,
    /// Refuses donors with tablespaces outside of their data directory. Without this option such
    /// tablespaces go below DIR/outside.
    #[arg(long)]
    refuse_outside: bool,
    /// For an encrypted donor: writes the master key of the copy to this new file, for
    /// component_keyring_file. The connection must have TLS.
    #[arg(long, value_name = "PATH")]
    keyring_file: Option<PathBuf>,
    /// After the copy, starts this mysqld once on the copy, alone and without network. The server
    /// recovers the data and tells binary log file, position and GTIDs.
    #[arg(long, value_name = "MYSQLD")]
    prepare: Option<PathBuf>,
    /// An argument for the mysqld of --prepare. May be repeated.
    #[arg(long, value_name = "ARGUMENT", requires = "prepare", allow_hyphen_values = true)]
    prepare_argument: Vec<String>,
    /// After the copy, checks all pages as `mysql-clone verify` does. With --prepare, trees and
    /// extents are checked, too.
    #[arg(long)]
    verify: bool,
    /// Writes one JSON object a line to standard output: progress, and the report at the end.
    #[arg(long)]
    json: bool,
    /// Shows neither progress nor the report.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.discard {
        return target::discard(&arguments.datadir);
    }
    let show = match (arguments.json, arguments.quiet) {
        (true, _) => Show::Json,
        (_, true) => Show::Nothing,
        _ => Show::Text,
    };
    let progress = Progress::new(show);
    let mut connect = arguments.connection.options(link::READ_TIMEOUT)?;
    let keyring = arguments.keyring_file.as_deref().map(std::path::absolute).transpose();
    let keyring = keyring.map_err(|error| other(&error))?;
    if keyring.is_some() && connect.tls.mode == SslMode::Preferred {
        // No later connection may do without TLS.
        connect.tls.mode = SslMode::Required;
    }
    let open = |path: &PathBuf| BaseDirectory::open(path, &arguments.datadir);
    let base = arguments.base.as_ref().map(open).transpose()?;
    let donor = format!("{}@{}", connect.user, connect.address);
    let facts = DonorFacts::ask(&connect)?;
    let layout = layout(arguments.refuse_outside, keyring.as_deref());
    let (target, resumed) = Target::open(&arguments.datadir, &donor, &layout)?;
    let of_base = base.iter().filter_map(|base| base.warning(&facts));
    for warning in facts.warnings().into_iter().chain(of_base) {
        progress.warn(&warning);
    }
    checks::refuse(&base.iter().filter_map(|base| base.refusal(&facts)).collect::<Vec<_>>())?;
    let shareable = base.as_ref().map_or(0, |base| base.shareable(target.path()));
    if resumed.is_none() {
        let mut reasons = facts.refusals(arguments.refuse_outside, keyring.is_some());
        let path = keyring.as_deref();
        reasons.extend(path.into_iter().flat_map(|path| keyring::refusals(path, target.path())));
        reasons.extend(target.space_refusal(facts.bytes, shareable));
        checks::refuse(&reasons)?;
    }
    if arguments.check {
        progress.finish();
        progress.say(&format!("{donor} can be pulled into '{}'", arguments.datadir.display()));
        return Ok(());
    }
    let begun = Instant::now();
    let keyring = keyring.as_deref();
    let read = base.as_ref().map(|base| base.read(&progress)).transpose()?;
    let base = base.as_ref().zip(read.as_ref());
    let pull = Pull {
        arguments,
        connect: &connect,
        target: &target,
        facts: &facts,
        keyring,
        base: read.as_ref(),
        shareable,
    };
    let copied = match resumed {
        Some(resumed) => pull.go_on(progress, resumed)?,
        None => pull.clone(progress)?,
    };
    copied.host.progress.finish();
    let mut facts = facts.clone();
    facts.complete(copied.host.parameters().as_ref(), target.path());
    let base = base.map(|(base, read)| base.report(read));
    finish(arguments, &donor, &facts, &copied, base, begun)
}

/// What decides how files are written. A pull that goes on must have the same.
fn layout(refuse_outside: bool, keyring: Option<&Path>) -> String {
    let outside = if refuse_outside { "outside refused" } else { "outside below" };
    match keyring {
        None => outside.to_owned(),
        Some(path) => format!("{outside}, keyring file '{}'", path.display()),
    }
}

/// What a pull is made of, new or not.
struct Pull<'a> {
    arguments: &'a Arguments,
    connect: &'a ConnectOptions,
    target: &'a Target,
    facts: &'a DonorFacts,
    /// The path of `--keyring-file`.
    keyring: Option<&'a Path>,
    /// The older copy of `--base`.
    base: Option<&'a Arc<Base>>,
    /// Bytes of it that need no room on the disk once more.
    shareable: u64,
}

/// A copy that is complete.
struct Copied {
    host: Arc<PullHost>,
    keyring: Option<KeyringFile>,
    /// Another process has begun the copy.
    is_resumed: bool,
}

impl Pull<'_> {
    /// Copies into a new directory.
    fn clone(&self, progress: Progress) -> Result<Copied> {
        let Self { target, connect, .. } = *self;
        let keyring = self.keyring.map(KeyringFile::generate).transpose()?;
        let state = target.begin(keyring.as_ref().map(KeyringFile::noted))?;
        signals::handle(&target.resume_hint()).map_err(|error| other(&error))?;
        if let Some(Err(failure)) = keyring.as_ref().map(KeyringFile::write) {
            target.empty()?;
            return Err(failure);
        }
        let host = self.host(state, progress, keyring.as_ref(), false);
        let session = PullSession::new(Arc::clone(&host));
        let outcome =
            recipient::clone_instance(&session, connect.clone(), Some(target.path().to_owned()));
        outcome.map_err(|error| failed(target, &host, &error))?;
        Ok(Copied { host, keyring, is_resumed: false })
    }

    fn begin_anew(&self, progress: Progress, why: &str) -> Result<Copied> {
        progress.warn(&format!("{why}. The copy begins anew."));
        self.target.empty()?;
        self.clone(progress)
    }

    /// Goes on with the clone of a process that was interrupted. Begins anew if that clone is lost.
    fn go_on(&self, progress: Progress, resumed: Resumed) -> Result<Copied> {
        let Self { target, connect, .. } = *self;
        let Resumed { state, clone: Some((parameters, locator)) } = resumed else {
            drop(resumed);
            return self.begin_anew(
                progress,
                "The interrupted pull had not begun to copy, or this machine has restarted since",
            );
        };
        let noted = state.pulled().keyring.clone();
        let keyring = noted.as_ref().map(KeyringFile::reopen).transpose()?.flatten();
        if let (Some(noted), None) = (&noted, &keyring) {
            drop(state);
            let path = noted.path.display();
            let why = format!("The keyring file of the interrupted pull, '{path}', is not there");
            return self.begin_anew(progress, &why);
        }
        let Ok(place) = target::Place::read(&state.journal()) else {
            let why = match keyring.is_some() && !state.journal().exists() {
                true => {
                    "The interrupted pull cannot go on: an encrypted tablespace was created during \
                     it, and the journal of a pull never holds a key"
                }
                false => "The journal of the interrupted pull cannot be used",
            };
            drop(state);
            return self.begin_anew(progress, why);
        };
        signals::handle(&target.resume_hint()).map_err(|error| other(&error))?;
        progress.say(&format!("going on with the interrupted pull, in {}", place.stage().name()));
        progress.resume(&place);
        let host = self.host(state, progress, keyring.as_ref(), true);
        host.set_parameters(parameters.clone());
        let done = |host| Ok(Copied { host, keyring, is_resumed: true });
        if place.is_complete() {
            host.engine.complete(&locator).map_err(|error| failed(target, &host, &error))?;
            return done(host);
        }
        let session = PullSession::new(Arc::clone(&host));
        let point = ResumePoint { parameters, locator, descriptors: place.descriptors() };
        let path = target.path().to_owned();
        match recipient::resume_instance(&session, connect.clone(), path, point) {
            Ok(()) => done(host),
            Err(error) if error.number() == number::ER_CLONE_DONOR => {
                let why =
                    format!("The donor has ended the interrupted clone ({})", host.text_of(&error));
                drop(session);
                let host = Arc::into_inner(host).ok_or_else(|| other(&"a thread is left"))?;
                let PullHost { progress, .. } = host;
                self.begin_anew(progress, &why)
            }
            Err(error) => Err(failed(target, &host, &error)),
        }
    }

    fn host(
        &self,
        state: StateDirectory,
        progress: Progress,
        keyring: Option<&KeyringFile>,
        is_resumed: bool,
    ) -> Arc<PullHost> {
        let options = options(self.arguments, self.facts, state.journal(), keyring);
        // Files that share blocks with the base are written through the cache.
        let direct = self.base.is_none() && clone_io::takes_direct_writes(self.target.path());
        let options = Options { shareable: self.shareable, direct, ..options };
        let engine = Innodb::new(self.target.path().to_owned(), options, is_resumed);
        let (settings, release) = (settings(self.arguments), self.facts.release());
        let base = self.base.cloned();
        Arc::new(PullHost::new(settings, release, engine, state, progress, base))
    }
}

/// After the copy: the report, and a server that is started once.
fn finish(
    arguments: &Arguments,
    donor: &str,
    facts: &DonorFacts,
    copied: &Copied,
    base: Option<BaseReport>,
    begun: Instant,
) -> Result<()> {
    let directory = &arguments.datadir;
    let Copied { host, keyring, is_resumed } = copied;
    let keyring_file = match keyring {
        Some(keyring) if keyring.finish(directory, *is_resumed)? => Some(keyring.path().to_owned()),
        _ => None,
    };
    let mut report = report::Report::new(donor, facts, host, begun.elapsed(), keyring_file);
    report.base = base;
    let write = |report: &report::Report| {
        report
            .write(directory, facts)
            .map_err(|error| Failure::new(Kind::Disk, format!("cannot write the report: {error}")))
    };
    write(&report)?;
    host.state.remove().map_err(|error| {
        let state = host.state.path().display();
        Failure::new(Kind::Disk, format!("cannot remove '{state}': {error}"))
    })?;
    if let Some(mysqld) = &arguments.prepare {
        host.progress.say("starting the server once, to recover the data");
        report.coordinates = Some(prepare::run(mysqld, &arguments.prepare_argument, directory)?);
        write(&report)?;
    }
    if arguments.verify {
        let keyring_file = report.keyring_file.as_deref();
        verify::pulled(directory, keyring_file, arguments.json, arguments.quiet)?;
    }
    host.progress.event(&report.event());
    if !arguments.json && !arguments.quiet {
        print!("{report}");
    }
    Ok(())
}

fn options(
    arguments: &Arguments,
    facts: &DonorFacts,
    journal: PathBuf,
    keyring: Option<&KeyringFile>,
) -> Options {
    Options {
        encrypted: match keyring {
            Some(keyring) => EncryptedFiles::Wrap(keyring.key()),
            None => EncryptedFiles::Refuse,
        },
        outside: match arguments.refuse_outside {
            true => OutsideFiles::Refuse,
            false => OutsideFiles::Below(OUTSIDE.into()),
        },
        redo: match facts.has_redo_directory() {
            true => RedoNames::InnodbRedo,
            false => RedoNames::IbLogfile,
        },
        server_version: facts.version_id(),
        journal: Some(journal),
        ..Options::default()
    }
}

fn settings(arguments: &Arguments) -> Settings {
    Settings {
        block_ddl: arguments.block_ddl,
        ddl_timeout: arguments.ddl_timeout,
        max_concurrency: arguments.threads,
        max_network_bandwidth: arguments.max_rate,
        // Asked for by name, compression is worth the question to the donor.
        enable_compression: matches!(arguments.compress, Packing::Lz4 | Packing::Zstd(_)),
        compression: arguments.compress,
        // What is left decides whether it stays; see `failed`.
        keep_failed_directory: true,
        // Each read has a limit instead (`link::READ_TIMEOUT`), and no heartbeats are sent.
        peer_timeout: 0,
        ..Settings::default()
    }
}

/// What the user is told of a clone that failed, whose files are removed.
fn failed(target: &Target, host: &PullHost, error: &Error) -> Failure {
    host.progress.finish();
    let mut text = host.text_of(error);
    let kind = match error {
        Error::Connect(_) => Kind::Network,
        Error::Donor { .. } => Kind::Peer,
        Error::DiskSpace { .. } | Error::File { .. } | Error::FileExists(_) => Kind::Disk,
        Error::NotSupported(_) => Kind::Refused,
        _ if error.is_network() => Kind::Network,
        _ => match error.number() {
            number::ER_CLONE_DONOR => Kind::Peer,
            number::ER_CLONE_DISK_SPACE | number::ER_ERROR_ON_WRITE => Kind::Disk,
            number::ER_NOT_SUPPORTED_YET => Kind::Refused,
            _ => Kind::Other,
        },
    };
    // What an account may not ask, the clone finds out: the donor refuses to send keys without TLS
    // (3872), and clone-innodb refuses them without a master key.
    let finds_keys = text.contains(NEEDS_TLS)
        || matches!(error, Error::NotSupported(what) if what.contains("encrypted"));
    if finds_keys && !host.engine.has_keyring() {
        text += &format!(
            ". Pull with --keyring-file PATH and with TLS (--ssl-mode=REQUIRED). {OTHER_WAYS}"
        );
    }
    if let Err(error) = target.empty() {
        text = format!("{text}\n{}", error.message);
    }
    Failure::new(kind, format!("ERROR {}: {text}", error.number()))
}

fn other(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Other, error.to_string())
}
