// SPDX-License-Identifier: GPL-2.0-only

//! What the tests run as processes of their own, to be killed at any moment.

use std::io;
use std::io::BufRead;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clone_rocksdb::Client;
use clone_rocksdb::Donor;
use clone_rocksdb::DonorOptions;
use clone_rocksdb::Layout;
use clone_rocksdb::RocksDb;
use clone_rocksdb_testkit::database::Source;
use clone_rocksdb_testkit::exported;
use clone_rocksdb_testkit::exported::Renewal;
use clone_rocksdb_testkit::live::Settings;
use clone_rocksdb_testkit::live::TornLog;
use clone_rocksdb_testkit::load;
use clone_rocksdb_testkit::load::Load;
use clone_rocksdb_testkit::load::Writers;
use clone_rocksdb_testkit::node::Node;
use clone_rocksdb_testkit::socket::Pull;
use clone_rocksdb_testkit::socket::Server;
use clone_rocksdb_testkit::verify;

use crate::Result;

const DB_TYPE: u32 = 42;

/// Small files, so that a small database has many.
fn settings() -> Settings {
    Settings { memtable: 256 << 10, file: 256 << 10, blobs_from: Some(900), ..Settings::default() }
}

/// One line, at once.
fn say(line: std::fmt::Arguments<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// A donor under write load, until standard input ends. Answers `digest SEQUENCE` for a cut, and
/// `batches` with how many its writers have written.
pub(crate) fn donate(root: &Path) -> Result<()> {
    // Killed before, perhaps within a write.
    let settings = Settings { torn_log: TornLog::Tolerated, ..settings() };
    let node = Node::new(root, settings)?;
    let is_new = !node.database().join("CURRENT").exists();
    let live = node.open()?;
    if is_new {
        load::fill(&live, 2 << 20, 1)?;
    }
    let source = Source::new(live);
    let options = DonorOptions {
        checkpoint_max_age: Duration::from_millis(100),
        checkpoint_max_count: 5,
        restart_timeout: Duration::from_secs(3),
        takeover_timeout: Duration::from_secs(5),
    };
    let donor = Donor::new(Arc::new(source.clone()), options);
    let engine = RocksDb::new(donor, Client::new(Layout::rocksdb(root)));
    let engine =
        exported::register_engine(DB_TYPE, Arc::new(engine)).ok_or("there is an engine")?;
    let server = Server::start(Arc::new(engine))?;
    let load = Load { threads: 2, keys: 500, pause: Duration::from_millis(1) };
    let writers = Writers::start(source.live(), load, source.live().sequence());
    say(format_args!("sequence {}", source.live().sequence()))?;
    say(format_args!("listening {}", server.address()))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("digest", sequence)) => {
                let digest = source.cut_at(sequence.parse()?).map(|cut| verify::digest(&cut));
                match digest.transpose()? {
                    Some(digest) => say(format_args!("digest {digest:016x}"))?,
                    None => say(format_args!("digest none"))?,
                }
            }
            _ => say(format_args!("sequence {}", source.live().sequence()))?,
        }
    }
    writers.stop()?;
    Ok(())
}

/// A server that starts, clones the donor over its own data, and stops.
pub(crate) fn receive(address: SocketAddr, root: &Path, tasks: u32) -> Result<()> {
    let node = Node::new(root, settings())?;
    say(format_args!("swap {:?}", node.swap()?))?;
    let live = node.open()?;
    let engine = exported::register(DB_TYPE, Source::new(live), node.root(), Renewal::default())?;
    let pull = Pull { address, directory: None, tasks, breaks: Vec::new() };
    say(format_args!("cloning"))?;
    let pulled = pull.run(&engine)?;
    say(format_args!("cloned {}", pulled.restarts))
}

/// A server that starts, and says what it has.
pub(crate) fn start(root: &Path) -> Result<()> {
    let node = Node::new(root, settings())?;
    say(format_args!("swap {:?}", node.swap()?))?;
    let live = node.open()?;
    if live.sequence() == 0 {
        load::fill(&live, 64 << 10, 2)?;
    }
    let snapshot = live.snapshot();
    say(format_args!("has {} {:016x}", snapshot.sequence(), verify::digest(&snapshot)?))
}

/// The network between two of them: hands on what comes to `port`.
pub(crate) fn forward(port: u16, address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    say(format_args!("forwarding {}", listener.local_addr()?))?;
    for incoming in listener.incoming() {
        let incoming = incoming?;
        // A donor that is not there is a connection that breaks.
        let Ok(outgoing) = TcpStream::connect(address) else { continue };
        for (from, to) in [(incoming.try_clone()?, outgoing.try_clone()?), (outgoing, incoming)] {
            thread::spawn(move || {
                let _ = io::copy(&mut &from, &mut &to);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
    Ok(())
}
