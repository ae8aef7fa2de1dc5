// SPDX-License-Identifier: GPL-2.0-only

//! Data directories that no server has open, as a source of clones: what clone-innodb gives of
//! them is written by its recipient, and a server of the same release starts with the result.
//!
//! No network is between the two. `tests/serve.rs` has that.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clone_innodb::clock::SystemClock;
use clone_innodb::cold::{ColdDirectory, Options};
use clone_innodb::destination::{self, BlockInput, Destination, RedoNames, Target};
use clone_innodb::error::{Error, Result as InnodbResult};
use clone_innodb::source::{BlockOutput, Output, SourceFiles, SourceOptions, SourceTask, Sources};
use clone_protocol::innodb::{Recipient, StreamCheck, TaskRole};
use clone_testkit::anyhow::{Result, ensure};
use clone_testkit::server::Server;
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::writer::{self, Load, Writers};
use clone_testkit::{Mysqld, check, dataset, fixture, releases};

const RUNS: fn() -> bool = || false;

releases! {
    |server| clean(server, &[]);
    #[ignore = "make compat"]
    clean_8_4: "8.4";
    #[ignore = "make compat"]
    clean_8_0: "8.0";
    clean_8_0_19: "8.0.19";
}

releases! {
    crashed;
    #[ignore = "make compat"]
    crashed_8_4: "8.4";
    #[ignore = "make compat"]
    crashed_8_0: "8.0";
    crashed_8_0_19: "8.0.19";
}

#[test]
fn clean_9_7() {
    check(|| clean(Server::locate()?, &[]));
}

#[test]
fn clean_with_small_pages() {
    check(|| clean(Server::locate()?, &["--innodb-page-size=4k"]));
}

#[test]
fn crashed_9_7() {
    check(|| crashed(Server::locate()?));
}

/// Tablespaces outside of the directory are sent with their paths, whether the dictionary's pages
/// name them or the redo does.
#[test]
fn tablespaces_outside_of_the_directory() {
    check(|| {
        // InnoDB does not look into hidden directories.
        let elsewhere = tempfile::TempDir::with_prefix("elsewhere-")?;
        let path = elsewhere.path().display();
        let builder = Mysqld::builder().name("donor");
        let mut donor = builder.option(format!("--innodb-directories={path}")).start()?;
        let create = |name: &str| {
            let table = format!("CREATE TABLE d.{name} (i INT) DATA DIRECTORY = '{path}'");
            donor.session()?.run_all(["CREATE DATABASE IF NOT EXISTS d", &table])
        };
        create("early")?;
        create("dropped")?;
        donor.session()?.run("DROP TABLE d.dropped")?;
        fixture::flush(&donor)?;
        create("late")?;
        donor.kill()?;
        let names = |donor: &Mysqld| -> Result<Vec<String>> {
            let cold = ColdDirectory::open(&Options::new(donor.data_dir()), None)?;
            let files = cold.file_copy(&mut || Ok(()))?;
            let names = files.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned());
            Ok(names.filter(|name| name.starts_with('/')).collect())
        };
        let expected = [format!("{path}/d/early.ibd"), format!("{path}/d/late.ibd")];
        ensure!(names(&donor)? == expected, "{:?}", names(&donor)?);
        donor.start()?;
        donor.stop()?;
        ensure!(names(&donor)? == expected, "{:?}", names(&donor)?);
        Ok(())
    });
}

/// Pages that a server had just written to the doublewrite buffer are torn in the tablespaces.
#[test]
fn torn_pages() {
    check(|| {
        let builder = Mysqld::builder().name("donor").option("--innodb-buffer-pool-size=16M");
        let mut donor = builder.start()?;
        dataset::load_small(&donor)?;
        let writers = Writers::start(&donor, Load::default())?;
        writers.await_transactions(1_000)?;
        donor.kill()?;
        let _ = writers.stop();
        let torn = tear(donor.data_dir())?;
        ensure!(torn > 0, "no page is as it is in the doublewrite buffer");

        let cold = ColdDirectory::open(&Options::new(donor.data_dir()), None)?;
        println!("{torn} pages torn, {} restored", cold.restored_pages());
        ensure!(cold.restored_pages() >= torn, "{} restored", cold.restored_pages());
        let target = donor.scratch("clone");
        copy(&cold, &target, donor.server())?;
        drop(cold);
        let clone = boot(donor.server(), &target, &[])?;
        verify::assert_sound(&clone)?;
        writer::check_invariants(&mut clone.session()?)?;

        // Without the copies a clone is refused.
        for entry in fs::read_dir(donor.data_dir())? {
            let path = entry?.path();
            if path.extension().is_some_and(|name| name == "dblwr") {
                fs::remove_file(path)?;
            }
        }
        let cold = ColdDirectory::open(&Options::new(donor.data_dir()), None)?;
        let refused = copy(&cold, &donor.scratch("refused"), donor.server()).unwrap_err();
        ensure!(format!("{refused:#}").contains("was not written whole"), "{refused:#}");
        Ok(())
    });
}

/// Zeroes the second half of each page that is the same in its tablespace and in the doublewrite
/// buffer. Returns how many.
fn tear(directory: &Path) -> Result<usize> {
    const PAGE: usize = 16 << 10;
    let mut tablespaces = Vec::new();
    for pattern in ["shop", "bank", ""] {
        for entry in fs::read_dir(directory.join(pattern))? {
            let path = entry?.path();
            if path.extension().is_some_and(|name| name == "ibd") {
                let file = File::options().read(true).write(true).open(path)?;
                let mut first = [0; 64];
                file.read_exact_at(&mut first, 0)?;
                // Compressed tables have smaller pages.
                if first[57] & 0x1e == 0 {
                    tablespaces.push((first[34..38].to_vec(), file));
                }
            }
        }
    }
    let mut torn = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|name| name != "dblwr") {
            continue;
        }
        for slot in fs::read(path)?.chunks_exact(PAGE) {
            let Some((_, file)) = tablespaces.iter().find(|(id, _)| id[..] == slot[34..38]) else {
                continue;
            };
            let number = u32::from_be_bytes(slot[4..8].try_into()?);
            let offset = u64::from(number) * PAGE as u64;
            let mut page = vec![0; PAGE];
            if file.read_exact_at(&mut page, offset).is_ok() && page == slot {
                file.write_all_at(&[0; PAGE / 2], offset + PAGE as u64 / 2)?;
                torn += 1;
            }
        }
    }
    Ok(torn)
}

/// A server that has shut down, and the same data in the clone.
fn clean(server: &'static Server, options: &[&str]) -> Result<()> {
    let donor = options
        .iter()
        .fold(Mysqld::builder().name("donor"), |builder, option| builder.initialise_with(*option));
    let mut donor = donor.server(server).start()?;
    // The data set has keys that are too long for small pages.
    if options.is_empty() {
        dataset::load_small(&donor)?;
    } else {
        donor.session()?.run_all([
            "CREATE DATABASE small",
            "CREATE TABLE small.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(700))",
            "INSERT INTO small.t (v) VALUES (RANDOM_BYTES(700)), (RANDOM_BYTES(300))",
            "INSERT INTO small.t (v) SELECT a.v FROM small.t a, small.t b, small.t c, small.t d",
        ])?;
    }
    let refused = ColdDirectory::open(&Options::new(donor.data_dir()), None).unwrap_err();
    ensure!(refused.to_string().contains("a server has"), "{refused}");
    let expected = Fingerprint::read(&mut donor.session()?)?;
    donor.stop()?;

    let cold = ColdDirectory::open(&Options::new(donor.data_dir()), None)?;
    ensure!(!cold.needs_recovery(), "redo after a clean shutdown");
    let version = &cold.version().text;
    ensure!(server.version.starts_with(version), "{version} instead of {}", server.version);
    let before = digest(donor.data_dir())?;
    let target = donor.scratch("clone");
    copy(&cold, &target, server)?;
    ensure!(digest(donor.data_dir())? == before, "the directory was changed");

    let clone = boot(server, &target, options)?;
    let differences = expected.differences(&Fingerprint::read(&mut clone.session()?)?);
    ensure!(differences.is_empty(), "{differences:?}");
    verify::assert_sound(&clone)
}

/// A server that is killed while it writes, and its recovery beside that of the clone.
fn crashed(server: &'static Server) -> Result<()> {
    let builder = Mysqld::builder().name("donor").server(server);
    // Pages leave the buffer pool all the time.
    let mut donor = builder.option("--innodb-buffer-pool-size=16M").start()?;
    dataset::load_small(&donor)?;
    let writers = Writers::start(&donor, Load { ddl: false, ..Load::default() })?;
    writers.await_transactions(2_000)?;
    donor.kill()?;
    let _ = writers.stop();

    let cold = ColdDirectory::open(&Options::new(donor.data_dir()), None)?;
    ensure!(cold.needs_recovery(), "no redo after a crash");
    let before = digest(donor.data_dir())?;
    let target = donor.scratch("clone");
    copy(&cold, &target, server)?;
    ensure!(digest(donor.data_dir())? == before, "the directory was changed");
    drop(cold);

    let clone = boot(server, &target, &[])?;
    verify::assert_sound(&clone)?;
    writer::check_invariants(&mut clone.session()?)?;
    // The donor recovers with its binary log, and may have some commits more.
    donor.start()?;
    writer::check_invariants(&mut donor.session()?)?;
    let ledger = |server: &Mysqld| -> Result<u64> {
        server.session()?.one("SELECT COUNT(*) FROM bank.ledger")
    };
    let (ours, theirs) = (ledger(&clone)?, ledger(&donor)?);
    println!("{ours} rows in the clone, {theirs} in the donor");
    ensure!(ours <= theirs && theirs - ours < 100, "{ours} rows instead of {theirs}");
    ensure!(ours >= 1_000, "{ours} rows");
    Ok(())
}

/// Starts a server with what a clone wrote.
fn boot(server: &'static Server, target: &Path, options: &[&str]) -> Result<Mysqld> {
    let builder = Mysqld::builder().name("clone").server(server).adopt(target);
    options.iter().fold(builder, |builder, option| builder.option(*option)).start()
}

/// Sizes, times and sums of all files below a directory.
fn digest(directory: &Path) -> Result<Vec<(String, u64, std::time::SystemTime, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            found.extend(digest(&entry.path())?);
            continue;
        }
        let mut sum = 0_u64;
        if metadata.is_file() {
            let file = File::open(entry.path())?;
            let mut bytes = vec![0; 1 << 20];
            let mut at = 0;
            loop {
                let len = file.read_at(&mut bytes, at)?;
                if len == 0 {
                    break;
                }
                at += len as u64;
                let words = bytes[..len].chunks(8);
                sum = words.fold(sum, |sum, word| {
                    let mut all = [0; 8];
                    all[..word.len()].copy_from_slice(word);
                    (sum ^ u64::from_le_bytes(all)).wrapping_mul(0x0100_0000_01b3).rotate_left(7)
                });
            }
        }
        let path = entry.path().display().to_string();
        found.push((path, metadata.len(), metadata.modified()?, sum));
    }
    found.sort();
    Ok(found)
}

/// Clones a directory, with four tasks.
fn copy(cold: &ColdDirectory, target: &Path, server: &Server) -> Result<()> {
    let clock = Arc::new(SystemClock::default());
    let options = SourceOptions { max_clones: 1, geometry: cold.geometry(), first_id: 7 };
    let sources = Sources::new(Arc::<SystemClock>::clone(&clock), options);
    let is_ring = server.version.starts_with("8.0.19");
    let redo = if is_ring { RedoNames::IbLogfile } else { RedoNames::InnodbRedo };
    let master = sources.start(&RUNS)?;
    let locator = master.locator();
    let options = destination::Options { redo, ..destination::Options::default() };
    let destination = Destination::create(&locator, target, options, clock)?;
    let recipient = Recipient { has_spare_redo_file: is_ring, ..Recipient::new(cold.page_size()) };
    let stream = StreamCheck::new(recipient);
    thread::scope(|scope| {
        let task = destination.add_task(&RUNS, &locator)?;
        let check = stream.task(TaskRole::Master);
        connect(scope, cold, &sources, master, task, check).join().unwrap()
    })
}

type Packet = (Vec<u8>, Vec<u8>);

fn connect<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    cold: &'scope ColdDirectory,
    sources: &'scope Sources,
    mut source: SourceTask,
    mut task: destination::DestinationTask,
    mut check: clone_protocol::innodb::TaskCheck,
) -> thread::ScopedJoinHandle<'scope, Result<()>> {
    let (packets, received) = sync_channel(4);
    let locator = source.locator();
    let donor = scope.spawn(move || {
        let copied = source.copy(&RUNS, cold, &mut Sender { packets });
        source.end(&RUNS, copied.as_ref().err().map_or(0, Error::number), Duration::ZERO);
        copied
    });
    scope.spawn(move || {
        let received: Receiver<Packet> = received;
        for (descriptor, bytes) in received {
            check.check(&descriptor)?;
            let acknowledge =
                |descriptor: &[u8]| sources.acknowledge(&RUNS, &locator, 0, descriptor);
            let mut input = Input { bytes, acknowledge: &acknowledge };
            task.apply(&RUNS, &descriptor, &mut input)?;
        }
        donor.join().unwrap()?;
        Ok(task.end(&RUNS, 0)?)
    })
}

struct Sender {
    packets: SyncSender<Packet>,
}

impl BlockOutput for Sender {
    fn file(&mut self, output: &Output<'_>, file: BorrowedFd<'_>, len: u32) -> InnodbResult<()> {
        let mut bytes = vec![0; len as usize];
        File::from(file.try_clone_to_owned().unwrap()).read_exact(&mut bytes).unwrap();
        self.buffer(output, &bytes)
    }

    fn buffer(&mut self, output: &Output<'_>, data: &[u8]) -> InnodbResult<()> {
        let sent = self.packets.send((output.descriptor.to_vec(), data.to_vec()));
        sent.map_err(|_| Error::caller(1160, "broken"))
    }
}

struct Input<'a> {
    bytes: Vec<u8>,
    acknowledge: &'a dyn Fn(&[u8]) -> InnodbResult<()>,
}

impl BlockInput for Input<'_> {
    fn write_to(&mut self, target: &Target<'_>, file: BorrowedFd<'_>) -> InnodbResult<()> {
        let mut file = File::from(file.try_clone_to_owned().unwrap());
        file.write_all(self.read(target)?).map_err(|error| Error::caller(1026, error))
    }

    fn read(&mut self, target: &Target<'_>) -> InnodbResult<&mut [u8]> {
        if self.bytes.len() as u64 != u64::from(target.len) {
            return Err(Error::caller(1158, "a block of another length"));
        }
        Ok(&mut self.bytes)
    }

    fn acknowledge(&mut self, descriptor: &[u8]) -> InnodbResult<()> {
        (self.acknowledge)(descriptor)
    }
}
