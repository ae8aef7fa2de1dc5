// SPDX-License-Identifier: GPL-2.0-only

//! A live database cloned, proved, and measured.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use clap::Args;
use clone_rocksdb_testkit::database::Source;
use clone_rocksdb_testkit::exported;
use clone_rocksdb_testkit::exported::Exported;
use clone_rocksdb_testkit::exported::Renewal;
use clone_rocksdb_testkit::live::Settings;
use clone_rocksdb_testkit::load;
use clone_rocksdb_testkit::load::Load;
use clone_rocksdb_testkit::load::Writers;
use clone_rocksdb_testkit::local;
use clone_rocksdb_testkit::node::Node;
use clone_rocksdb_testkit::socket::Pull;
use clone_rocksdb_testkit::socket::Server;
use clone_rocksdb_testkit::verify;

use crate::Result;

const DONOR: u32 = 42;
const RECIPIENT: u32 = 43;

/// What to clone, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Size of the database in MiB.
    #[arg(long, default_value_t = 200)]
    mib: u64,
    /// Tasks of a clone.
    #[arg(long, default_value_t = 4)]
    tasks: u32,
    /// Clones of each kind.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the databases are put.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// A way from one place to another, and what it took.
struct Way {
    name: &'static str,
    seconds: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = options.directory.join(format!("rocksdb-clone-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let outcome = measure(options, &directory);
    let _ = fs::remove_dir_all(&directory);
    outcome
}

fn measure(options: &Options, directory: &Path) -> Result<()> {
    let settings = Settings { memtable: 64 << 20, file: 64 << 20, ..Settings::default() };
    let node = Node::new(&directory.join("donor"), settings.clone())?;
    let live = node.open()?;
    load::fill(&live, options.mib << 20, 1)?;
    let source = Source::new(live);
    let engine: Arc<Exported> =
        Arc::new(exported::register(DONOR, source.clone(), node.root(), Renewal::default())?);
    let server = Server::start(engine.clone())?;
    println!(
        "a database of {} MiB, 2 writers, {} tasks, in {}",
        size(&node.database())? >> 20,
        options.tasks,
        directory.display()
    );
    let load = Load { threads: 2, keys: 100_000, pause: Duration::from_millis(2) };
    let writers = Writers::start(source.live(), load, 2);
    let mut ways = ["clone in process", "clone over TCP", "cp -r", "cp -r and sync"]
        .map(|name| Way { name, seconds: Vec::new() });
    for round in 1..=options.rounds {
        // In another order each time: what was measured before may still be on its way to the disk.
        for at in 0..ways.len() {
            let at = (at + round as usize) % ways.len();
            let target = directory.join("target");
            let (measured, proof) = match at {
                0 | 1 => {
                    let address = (at == 1).then(|| server.address());
                    let recipient = Recipient { options, target: &target, settings: &settings };
                    recipient.clone(&source, &engine, address, &writers)?
                }
                _ => (copy(&source, directory, &target, at == 3, &writers)?, String::new()),
            };
            let Measured { seconds, bytes, batches } = measured;
            ways[at].seconds.push(seconds);
            println!(
                "round {round}: {:<16} {seconds:6.2} s, {:6.0} MiB/s, {batches} batches written meanwhile{proof}",
                ways[at].name,
                mib(bytes) / seconds,
            );
            fs::remove_dir_all(&target)?;
        }
    }
    writers.stop()?;
    let bytes = mib(size(&node.database())?);
    for Way { name, seconds } in &mut ways {
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        println!(
            "median: {name:<16} {median:6.2} s, about {:.0} MiB/s ({:.2} to {:.2} s)",
            bytes / median,
            seconds[0],
            seconds[seconds.len() - 1]
        );
    }
    Ok(())
}

/// What a copy took.
struct Measured {
    seconds: f64,
    bytes: u64,
    batches: u64,
}

impl Measured {
    /// Measures `work`; how much it has copied is known later.
    fn of(writers: &Writers, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let batches = writers.batches();
        let began = Instant::now();
        work()?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(Self { seconds, bytes: 0, batches: writers.batches() - batches })
    }
}

/// A server that is cloned to.
struct Recipient<'a> {
    options: &'a Options,
    target: &'a Path,
    settings: &'a Settings,
}

impl Recipient<'_> {
    /// Clones, within this process or over TCP, starts on the clone, and compares every key. The
    /// time is that of the clone, with its checkpoints, until all of it is on disk.
    fn clone(
        &self,
        source: &Source,
        donor: &Exported,
        address: Option<SocketAddr>,
        writers: &Writers,
    ) -> Result<(Measured, String)> {
        let node = Node::new(self.target, self.settings.clone())?;
        let own = Source::new(node.open()?);
        let client = exported::register(RECIPIENT, own, self.target, Renewal::default())?;
        let tasks = self.options.tasks;
        let mut measured = Measured::of(writers, || {
            match address {
                None => local::clone(donor, &client, None, tasks)?,
                Some(address) => {
                    let pull = Pull { address, directory: None, tasks, breaks: Vec::new() };
                    pull.run(&client)?;
                }
            }
            Ok(())
        })?;
        drop(client);
        node.swap()?;
        measured.bytes = size(&node.database())?;
        let copy = node.open()?;
        let cut = source.cut_at(copy.sequence()).ok_or("a clone of no cut")?;
        let compared = verify::compare(&cut, &copy)?;
        let proof = format!("; {} keys equal at write {}", compared.keys, copy.sequence());
        Ok((measured, proof))
    }
}

/// What an administrator would do: a checkpoint, and a copy of it. The checkpoint is not in the
/// time.
fn copy(
    source: &Source,
    directory: &Path,
    target: &Path,
    sync: bool,
    writers: &Writers,
) -> Result<Measured> {
    let checkpoint = directory.join("checkpoint");
    source.live().create_checkpoint(&checkpoint)?;
    let mut measured = Measured::of(writers, || {
        run_command(Command::new("cp").arg("-r").arg(&checkpoint).arg(target))?;
        if sync {
            run_command(Command::new("sync").arg("-f").arg(target))?;
        }
        Ok(())
    })?;
    measured.bytes = size(&checkpoint)?;
    fs::remove_dir_all(&checkpoint)?;
    Ok(measured)
}

fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn size(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        // A compaction may have removed it since.
        let Ok(metadata) = entry?.metadata() else { continue };
        if metadata.is_file() {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
