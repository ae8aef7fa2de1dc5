// SPDX-License-Identifier: GPL-2.0-only

//! A recipient whose donor lies: the clone fails with an error, and the server goes on.
//!
//! The donor is an honest server. A proxy replaces some of its packets. After each attack the same
//! recipient clones from the honest donor.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clone_io::{Unpacker, checksum};
use clone_protocol::innodb::{Data, Descriptor, FileMetadata, State};
use clone_protocol::{Block, BlockForm, MAX_BLOCK, Response};
use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Running, Statement, Tls};
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::proxy::rewrite::Sent;
use clone_testkit::proxy::{Proxy, SnapshotState, Traffic};
use clone_testkit::verify::{Fingerprint, check_tables};
use clone_testkit::{Mysqld, SqlError, check};

/// `clone_max_concurrency`, with auto-tuning off.
const TASKS: u32 = 4;
/// `ER_CLONE_DONOR`.
const DONOR_ERROR: u16 = 3862;
/// `ER_CLONE_PROTOCOL`.
const PROTOCOL_ERROR: u16 = 3863;

/// `ER_WRONG_VALUE`.
const WRONG_VALUE: u16 = 1525;
/// `ER_INTERNAL_ERROR`: with the text below, InnoDB's word to the master for a worker's error.
const INTERNAL_ERROR: u16 = 1815;
const CONCURRENT_TASK: &str = "Innodb Clone error in concurrent task";

/// The most that the recipient's memory may grow while blocks claim to be some GiB long.
const MEMORY_LIMIT_KIB: u64 = 64 << 10;
/// How often the recipient clones for each kind of block.
const ATTEMPTS: u32 = 2;
/// The length that a block claims.
const HUGE: u32 = 1 << 30;

/// How long the donor may take to notice that its recipient has failed.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);

/// A part of each name that must not appear.
const MARK: &str = "evil";
const SERVER_SETTINGS: &str = "mysqld-auto.cnf";

/// A donor, a recipient and the proxy between them.
struct Peers {
    donor: Mysqld,
    recipient: Mysqld,
    proxy: Proxy,
    clones: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Destination {
    Directory,
    Own,
}

impl Peers {
    fn start() -> Result<Self> {
        let donor = fixture::server("donor")?.option(DISTANT).start()?;
        clone::make_donor(&donor)?;
        fill(&donor)?;
        let proxy = Proxy::to(donor.port())?;
        let list = format!("127.0.0.1:{},127.0.0.1:{}", proxy.port(), donor.port());
        let recipient = fixture::server("recipient")?
            .option(DISTANT)
            .option("--clone-autotune-concurrency=OFF")
            .option(format!("--clone-max-concurrency={TASKS}"))
            .option(format!("--clone-valid-donor-list={list}"))
            // The default. What only Notes say is not seen.
            .option("--log-error-verbosity=2")
            .start()?;
        Ok(Self { donor, recipient, proxy, clones: 0 })
    }

    /// Begins a clone while the donor's packets are rewritten. The counter is that of the packets
    /// that the closure has replaced.
    fn begin(
        &mut self,
        destination: Destination,
        mut rewrite: impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<(Running, PathBuf, Arc<AtomicU32>)> {
        clone::await_donor_idle(&self.donor, CLEAN_UP_LIMIT)?;
        let replaced = Arc::new(AtomicU32::new(0));
        self.proxy.reset()?;
        self.proxy.rewrite({
            let replaced = Arc::clone(&replaced);
            move |sent| {
                rewrite(sent).inspect(|_| {
                    replaced.fetch_add(1, Ordering::Relaxed);
                })
            }
        });
        self.clones += 1;
        let directory = self.recipient.scratch(&format!("clone{}", self.clones));
        let account = clone::donor_account();
        let mut statement =
            Statement::instance_at("127.0.0.1", self.proxy.port(), account).tls(Tls::Disabled);
        if destination == Destination::Directory {
            statement = statement.into_directory(&directory);
        }
        Ok((Running::start(&self.recipient, &statement)?, directory, replaced))
    }

    /// A clone from a donor that lies so fails with an error of the protocol. The server goes on.
    fn refuses(
        &mut self,
        destination: Destination,
        rewrite: impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<SqlError> {
        let error = self.fails(destination, rewrite)?;
        ensure!(is_of_protocol(&error), "{error}");
        Ok(error)
    }

    /// The clone fails with any error. The server goes on.
    fn fails(
        &mut self,
        destination: Destination,
        rewrite: impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<SqlError> {
        let pid = self.recipient.pid()?;
        let mut session = self.recipient.session()?;
        let (running, _, replaced) = self.begin(destination, rewrite)?;
        let failure = running.failure();
        let lives = session.run("DO 1").is_ok() && self.recipient.is_running()?;
        ensure!(lives && self.recipient.pid()? == pid, "the server ended: {failure:?}");
        let error = failure?;
        ensure!(replaced.load(Ordering::Relaxed) > 0, "nothing was replaced, {error}");
        let status = clone::status(&mut session)?.context("no status")?;
        let is_told = status.state == "Failed" && status.error_number == i64::from(error.number);
        ensure!(is_told, "{error}, but {status:?}");
        Ok(error)
    }

    /// The recipient still clones from the honest donor.
    fn recovers(&self) -> Result<()> {
        self.proxy.reset()?;
        fixture::assert_clones(&self.recipient, &self.donor)
            .context("a clone from the honest donor")
    }

    /// The clone in a directory is what the donor is.
    fn verify(&self, directory: PathBuf) -> Result<()> {
        let clone = Mysqld::builder().name("clone").adopt(directory).start()?;
        let mut session = clone.session()?;
        let (_, found) = check_tables(&mut session)?;
        ensure!(found.is_empty(), "{found:#?}");
        let expected = Fingerprint::read(&mut self.donor.session()?)?;
        let differences = expected.differences(&Fingerprint::read(&mut session)?);
        ensure!(differences.is_empty(), "{differences:#?}");
        Ok(())
    }
}

/// Some tablespaces, one of them with blocks for all tasks.
fn fill(donor: &Mysqld) -> Result<()> {
    let mut session = donor.session()?;
    session.run_all([
        "SET SESSION cte_max_recursion_depth = 20000",
        "CREATE DATABASE shop",
        "CREATE TABLE shop.victim (id INT PRIMARY KEY, text TEXT)",
        "CREATE TABLE shop.noise (id INT PRIMARY KEY, bytes VARBINARY(1000))",
        "INSERT INTO shop.victim WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s \
         WHERE n < 10000) SELECT n, REPEAT(SHA2(n, 256), 10) FROM s",
        "INSERT INTO shop.noise SELECT id, RANDOM_BYTES(1000) FROM shop.victim",
    ])
}

fn is_of_protocol(error: &SqlError) -> bool {
    let is_inside =
        error.number == DONOR_ERROR && error.message.contains(&PROTOCOL_ERROR.to_string());
    error.number == PROTOCOL_ERROR || is_inside
}

/// A worker found the error before the master did, and InnoDB did not pass it on.
fn is_of_worker(error: &SqlError) -> bool {
    error.number == INTERNAL_ERROR && error.message.contains(CONCURRENT_TASK)
}

/// The descriptor of InnoDB's in a packet.
fn descriptor<'a>(sent: &Sent<'a>) -> Option<Descriptor<'a>> {
    match sent.response {
        Response::DataDescriptor { descriptor, .. } => Descriptor::parse(descriptor).ok(),
        _ => None,
    }
}

/// A packet with another descriptor than that of `sent`.
fn describes(sent: &Sent<'_>, descriptor: &Descriptor<'_>) -> Option<Vec<u8>> {
    let Response::DataDescriptor { db_type, locator_index, .. } = sent.response else {
        return None;
    };
    let (mut bytes, mut packet) = (Vec::new(), Vec::new());
    descriptor.encode(&mut bytes);
    Response::DataDescriptor { db_type, locator_index, descriptor: &bytes }.encode(&mut packet);
    Some(packet)
}

fn block(form: BlockForm, len: u32, bytes: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    Response::Block(Block { form, len, checksum: checksum(bytes), bytes }).encode(&mut packet);
    packet
}

/// A byte, `len` times, as few bytes of this form.
fn bomb(form: BlockForm, len: u32) -> Vec<u8> {
    match form {
        BlockForm::Zstd => zstd_bomb(len),
        BlockForm::Lz4 => lz4_bomb(len),
        // No granule is there.
        BlockForm::Sparse => vec![0; len.div_ceil(512).div_ceil(8) as usize],
        BlockForm::Raw | BlockForm::File | BlockForm::Base => Vec::new(),
    }
}

/// One frame of blocks that repeat one byte, each of the most bytes that a block may have.
fn zstd_bomb(len: u32) -> Vec<u8> {
    const MOST: u32 = 128 << 10;
    const REPEAT: u32 = 1 << 1;
    // Magic number; the content's size in four bytes, and no window size.
    let mut frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &len.to_le_bytes()].concat();
    let mut left = len;
    while left > 0 {
        let here = left.min(MOST);
        left -= here;
        let header = here << 3 | REPEAT | u32::from(left == 0);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0xaa);
    }
    frame
}

/// One literal, a match that repeats it, and the five literals that end a block.
fn lz4_bomb(len: u32) -> Vec<u8> {
    let repeated = len - 6 - 4 - 15;
    let mut bytes = vec![0x1f, 0xaa, 1, 0];
    bytes.resize(bytes.len() + (repeated / 255) as usize, 255);
    bytes.extend_from_slice(&[(repeated % 255) as u8, 0x50]);
    bytes.extend_from_slice(&[0xaa; 5]);
    bytes
}

#[test]
fn bombs_unpack_to_their_length() {
    for form in [BlockForm::Zstd, BlockForm::Lz4] {
        for len in [1 << 20, (1 << 20) + 77] {
            let packed = bomb(form, len);
            let mut place = vec![0; len as usize];
            assert!(packed.len() < place.len() / 200, "{form:?}: {}", packed.len());
            Unpacker::new().unpack(form, &packed, &mut place).unwrap();
            assert!(place.iter().all(|byte| *byte == 0xaa), "{form:?}");
        }
    }
}

/// What a donor says of a block, and what it sends.
#[derive(Clone, Copy, Debug)]
struct Lie {
    /// The descriptor's length; as it was if none.
    described: Option<u32>,
    form: BlockForm,
    /// The length in the block; as it was if none.
    announced: Option<u32>,
    /// The length that the bytes unpack to.
    unpacked: u32,
    /// How many blocks are such.
    times: u32,
}

impl Lie {
    /// The descriptor tells the truth; the block says that it is longer.
    fn of_block(form: BlockForm, len: u32) -> Self {
        Self { described: None, form, announced: Some(len), unpacked: len, times: u32::MAX }
    }

    /// Replaces descriptors and the blocks behind them.
    fn told(self) -> impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static {
        let bytes = bomb(self.form, self.unpacked);
        let mut due: BTreeMap<u64, Data> = BTreeMap::new();
        let mut times = self.times;
        move |sent| {
            if let Some(descriptor) = descriptor(sent) {
                due.remove(&sent.connection);
                let Descriptor::Data(data) = descriptor else { return None };
                if times == 0 {
                    return None;
                }
                times -= 1;
                due.insert(sent.connection, data);
                let data_len = self.described?;
                return describes(sent, &Descriptor::Data(Data { data_len, ..data }));
            }
            let Response::Block(_) = sent.response else { return None };
            let data = due.remove(&sent.connection)?;
            Some(block(self.form, self.announced.unwrap_or(data.data_len), &bytes))
        }
    }
}

#[test]
fn blocks_that_claim_gigabytes_take_no_memory() {
    check(|| {
        let mut peers = Peers::start()?;
        // With all that a clone needs.
        let (running, directory, _) = peers.begin(Destination::Directory, |_| None)?;
        running.finish()?;
        ensure!(peers.proxy.traffic().workers == TASKS - 1, "{:?}", peers.proxy.traffic());
        fs::remove_dir_all(directory)?;
        peers.recovers()?;
        let before = peers.recipient.usage()?.peak_rss_kib;

        let whole = Some(u32::MAX);
        let lies = [
            Lie { described: whole, announced: whole, ..Lie::of_block(BlockForm::Zstd, u32::MAX) },
            Lie {
                described: Some(HUGE),
                announced: Some(HUGE),
                ..Lie::of_block(BlockForm::Zstd, HUGE)
            },
            Lie::of_block(BlockForm::Zstd, MAX_BLOCK + 1),
            Lie::of_block(BlockForm::Lz4, HUGE),
            Lie::of_block(BlockForm::Sparse, HUGE),
        ];
        for lie in lies {
            let mut workers = 0;
            let mut text = String::new();
            for _ in 0..ATTEMPTS {
                let error = peers.fails(Destination::Directory, lie.told());
                let error = error.with_context(|| format!("{lie:?}"))?;
                ensure!(is_of_protocol(&error) || is_of_worker(&error), "{lie:?}: {error}");
                text = error.to_string();
                workers += peers.proxy.traffic().workers;
            }
            peers.recovers()?;
            let (peak, sent) =
                (peers.recipient.usage()?.peak_rss_kib, bomb(lie.form, lie.unpacked));
            eprintln!(
                "described {:?}, {:?} of {:?} in {} bytes: {ATTEMPTS} refusals, {workers} workers, \
                 VmHWM {before} -> {peak} KiB; {text}",
                lie.described,
                lie.form,
                lie.announced,
                sent.len()
            );
            ensure!(peak - before < MEMORY_LIMIT_KIB, "{lie:?}: {before} -> {peak} KiB");
        }

        // Blocks that unpack to more than they announce count as damaged. The next ones are right.
        for form in [BlockForm::Zstd, BlockForm::Lz4, BlockForm::Sparse] {
            let lie = Lie { announced: None, times: 2, ..Lie::of_block(form, HUGE) };
            let (running, directory, replaced) = peers.begin(Destination::Directory, lie.told())?;
            running.finish().with_context(|| format!("{lie:?}"))?;
            // The first one ends all connections, perhaps before the second one is sent.
            ensure!(replaced.load(Ordering::Relaxed) > 0, "{form:?}");
            ensure!(peers.proxy.traffic().resumed > 0, "{form:?}: {:?}", peers.proxy.traffic());
            fs::remove_dir_all(directory)?;
        }
        let after = peers.recipient.usage()?.peak_rss_kib;
        eprintln!("more than announced: VmHWM {before} -> {after} KiB");
        ensure!(after - before < MEMORY_LIMIT_KIB, "{before} -> {after} KiB");
        peers.recovers()
    });
}

/// Which file gets another name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Table,
    SystemTablespace,
}

impl Whose {
    fn is(self, file: &FileMetadata<'_>) -> bool {
        match self {
            Self::Table => file.name.ends_with(b"/victim.ibd"),
            Self::SystemTablespace => file.name == b"ibdata1",
        }
    }
}

/// Renames a file of FILE COPY.
fn renamed(
    whose: Whose,
    name: Vec<u8>,
) -> impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static {
    move |sent| match descriptor(sent)? {
        Descriptor::FileMetadata(file) if whose.is(&file) => {
            describes(sent, &Descriptor::FileMetadata(FileMetadata { name: &name, ..file }))
        }
        _ => None,
    }
}

#[test]
fn no_file_gets_a_name_that_no_tablespace_has() {
    check(|| {
        let mut peers = Peers::start()?;
        let elsewhere = peers.recipient.scratch("elsewhere");
        fs::create_dir(&elsewhere)?;
        let kept = elsewhere.join("kept");
        fs::write(&kept, "of somebody else")?;
        let path = |name: &str| elsewhere.join(name).to_str().unwrap().to_owned();
        let mut attacks = Vec::new();
        for (whose, name) in [
            (Whose::Table, format!("./{SERVER_SETTINGS}")),
            (Whose::SystemTablespace, SERVER_SETTINGS.to_owned()),
            (Whose::Table, format!("./{MARK}.so")),
            (Whose::Table, format!("./a\n{}", path(&format!("{MARK}.ibd")))),
            // InnoDB would remove `elsewhere` when it rolls back.
            (Whose::Table, format!("./a\n{}\n{MARK}.ibd", elsewhere.display())),
            (Whose::Table, path(&format!("{MARK}.cnf"))),
            (Whose::SystemTablespace, path(&format!("{MARK}.dat"))),
            (Whose::Table, format!("./shop/../../{MARK}.ibd")),
        ] {
            attacks.push((whose, name, PROTOCOL_ERROR));
        }
        // A tablespace's name, in a directory that the recipient does not know: InnoDB refuses it.
        attacks.push((Whose::Table, path(&format!("{MARK}.ibd")), WRONG_VALUE));
        for (whose, name, expected) in attacks {
            for destination in [Destination::Directory, Destination::Own] {
                let outcome = peers.fails(destination, renamed(whose, name.clone().into_bytes()));
                let what = || format!("{name:?} for {whose:?}, {destination:?}");
                let error = outcome.with_context(what)?;
                eprintln!("{}: {error}", what());
                ensure!(error.number == expected, "{}: {error}", what());
                let found = forbidden(&peers.recipient.scratch(""))?;
                ensure!(found.is_empty(), "{}: {found:?}", what());
                ensure!(kept.exists(), "{}: {} is gone", what(), kept.display());
            }
            peers.recovers().with_context(|| format!("after {name:?}"))?;
        }
        Ok(())
    });
}

/// Files below `directory` with a name of the test's.
fn forbidden(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // The server removes files of a clone that failed.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        if has_forbidden_name(&entry.file_name()) {
            found.push(entry.path());
        }
        if entry.file_type()?.is_dir() {
            found.extend(forbidden(&entry.path())?);
        }
    }
    Ok(found)
}

fn has_forbidden_name(name: &OsStr) -> bool {
    let text = String::from_utf8_lossy(name.as_bytes());
    text.contains(MARK) || text.contains(SERVER_SETTINGS) || text.contains('\n')
}

#[test]
fn tablespaces_have_pages_of_the_servers_size() {
    /// Sizes in the FSP flags: 512 bytes, doubled so often.
    const KIB_4: u32 = 3;
    const KIB_16: u32 = 5;

    check(|| {
        let mut peers = Peers::start()?;
        for (logical, compressed) in [(KIB_4, 0), (KIB_4, KIB_16), (0, KIB_16 + 1)] {
            let fsp_flags = logical << 6 | compressed << 1;
            for destination in [Destination::Directory, Destination::Own] {
                let error = peers.refuses(destination, move |sent| match descriptor(sent)? {
                    Descriptor::FileMetadata(file) if Whose::Table.is(&file) => {
                        let fsp_flags = file.fsp_flags & !(0xf << 6 | 0xf << 1) | fsp_flags;
                        let file = FileMetadata { fsp_flags, ..file };
                        describes(sent, &Descriptor::FileMetadata(file))
                    }
                    _ => None,
                });
                let what = || format!("FSP flags {fsp_flags:#x}, {destination:?}");
                eprintln!("{}: {}", what(), error.with_context(what)?);
            }
            peers.recovers().with_context(|| format!("after FSP flags {fsp_flags:#x}"))?;
        }
        Ok(())
    });
}

/// The donor's number of the master's task.
const MASTER: u32 = 0;

/// The start of PAGE COPY.
const PAGE_COPY: State = State {
    state: SnapshotState::PageCopy,
    task: MASTER,
    chunks: 1,
    files: 1,
    estimate: 1 << 20,
    estimate_disk: 1 << 20,
    start: true,
    ack: false,
};

/// What comes in place of what while the donor is in FILE COPY.
#[derive(Clone, Copy, Debug)]
enum Early {
    /// PAGE COPY starts before the file with this index is described.
    StartInPlaceOfFile(u32),
    /// PAGE COPY starts on the master's connection before the end of FILE COPY.
    StartInPlaceOfEnd,
    /// The same on the workers' connections.
    StartInPlaceOfWorkersEnd,
    /// DDL has changed the first file, or added a file, before the end of FILE COPY.
    Ddl { file_index: u32 },
    /// A page is changed before the end of FILE COPY.
    Page,
}

impl Early {
    /// Workers get it.
    fn is_for_workers(self) -> bool {
        matches!(self, Self::StartInPlaceOfWorkersEnd | Self::Page)
    }

    fn replacement(self, sent: &Sent<'_>) -> Option<Vec<u8>> {
        let state = SnapshotState::PageCopy;
        let early = match (self, descriptor(sent)?) {
            (Self::StartInPlaceOfFile(index), Descriptor::FileMetadata(file))
                if file.state == SnapshotState::FileCopy && file.file_index == index =>
            {
                Descriptor::State(PAGE_COPY)
            }
            (Self::StartInPlaceOfEnd, Descriptor::State(end))
                if is_end(&end) && end.task == MASTER =>
            {
                Descriptor::State(PAGE_COPY)
            }
            (Self::StartInPlaceOfWorkersEnd, Descriptor::State(end))
                if is_end(&end) && end.task != MASTER =>
            {
                Descriptor::State(State { task: end.task, ..PAGE_COPY })
            }
            (Self::Ddl { file_index }, Descriptor::FileMetadata(file))
                if file.state == SnapshotState::FileCopy && file.file_index == 1 =>
            {
                Descriptor::FileMetadata(FileMetadata { state, file_index, renamed: true, ..file })
            }
            (Self::Page, Descriptor::Data(data)) if data.state == SnapshotState::FileCopy => {
                Descriptor::Data(Data { state, ..data })
            }
            _ => return None,
        };
        describes(sent, &early)
    }
}

/// The end of FILE COPY, and no keep-alive.
fn is_end(state: &State) -> bool {
    state.state == SnapshotState::FileCopy && !state.start && !state.ack
}

#[test]
fn no_state_begins_before_the_end_of_the_last_one() {
    check(|| {
        let mut peers = Peers::start()?;
        for early in [
            Early::StartInPlaceOfFile(0),
            Early::StartInPlaceOfFile(1),
            Early::StartInPlaceOfEnd,
            Early::StartInPlaceOfWorkersEnd,
            Early::Ddl { file_index: 0 },
            Early::Ddl { file_index: 1000 },
            Early::Page,
        ] {
            for destination in [Destination::Directory, Destination::Own] {
                let outcome = peers.fails(destination, move |sent| early.replacement(sent));
                let what = || format!("{early:?}, {destination:?}");
                let error = outcome.with_context(what)?;
                eprintln!("{}: {error}", what());
                let is_refused =
                    is_of_protocol(&error) || early.is_for_workers() && is_of_worker(&error);
                ensure!(is_refused, "{}: {error}", what());
            }
            peers.recovers().with_context(|| format!("after {early:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_damaged_block_is_logged_and_sent_again() {
    check(|| {
        let mut peers = Peers::start()?;
        for compression in ["OFF", "ZSTD1"] {
            let set = format!("SET GLOBAL clone_compression = {compression}");
            peers.recipient.session()?.run(set)?;
            let logged = warnings(&peers.recipient)?.len();
            let (running, directory, replaced) =
                peers.begin(Destination::Directory, damaged(&[1, 20]))?;
            running.finish().with_context(|| format!("compression {compression}"))?;
            let Traffic { resumed, .. } = peers.proxy.traffic();
            let warnings = warnings(&peers.recipient)?.split_off(logged);
            let damaged = replaced.load(Ordering::Relaxed);
            eprintln!("{damaged} blocks damaged, {resumed} times resumed: {warnings:#?}");
            ensure!(damaged == 2 && resumed > 0, "{damaged} damaged, resumed {resumed}");
            // A task may be cut off because of another one's block before it reads its own.
            ensure!((1..=2).contains(&warnings.len()), "{warnings:#?}");
            peers.verify(directory)?;
            peers.recovers()?;
        }
        Ok(())
    });
}

/// Flips one bit in the middle of the blocks with these numbers, of all blocks from 1 on.
fn damaged(numbers: &'static [u32]) -> impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static {
    let mut count = 0;
    move |sent| {
        let Response::Block(block) = &sent.response else { return None };
        count += 1;
        if !numbers.contains(&count) {
            return None;
        }
        let mut bytes = block.bytes.to_vec();
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle)? ^= 0x10;
        let mut packet = Vec::new();
        Response::Block(Block { bytes: &bytes, ..*block }).encode(&mut packet);
        Some(packet)
    }
}

/// The lines on damaged blocks in the error log.
fn warnings(recipient: &Mysqld) -> Result<Vec<String>> {
    let log = recipient.log()?;
    let lines = log.lines().filter(|line| line.contains("A block arrived damaged"));
    let lines: Vec<_> = lines.map(ToOwned::to_owned).collect();
    ensure!(lines.iter().all(|line| line.contains("[Warning]")), "{lines:#?}");
    Ok(lines)
}
