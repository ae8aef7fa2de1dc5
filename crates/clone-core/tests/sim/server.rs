// SPDX-License-Identifier: GPL-2.0-only

//! A server in memory: its variables, sessions, backup lock, log, tables and its engines.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use clone_core::base::Base;
use clone_core::bell::Bell;
use clone_core::board::StatusBoard;
use clone_core::checks::Finding;
use clone_core::donor::DonorClones;
use clone_core::facts::Question;
use clone_core::session::{Clock, Host, Observer, PluginName, Work, WorkerKind};
use clone_core::settings::{ReleaseFacts, Settings};

use super::commits::Commits;
use super::engine::Innodb;
use super::engines::SimEngine;
use super::faults::{Action, Event};
use super::follower::{Follower, FollowerShape};
use super::network::Network;
use super::rng::Rng;
use super::scheduler::{Key, Scheduler};
use super::session::{Handle, SimSession};

/// A server.
pub(crate) struct SimHost {
    pub(crate) name: &'static str,
    pub(crate) sim: Arc<Scheduler>,
    pub(crate) network: Arc<Network>,
    pub(crate) innodb: Innodb,
    pub(crate) follower: Follower,
    pub(crate) commits: Commits,
    pub(crate) facts: Mutex<Facts>,
    /// Of a recipient: an older copy of the donor's data.
    pub(crate) base: Mutex<Option<Arc<Base>>>,
    pub(crate) directory: PathBuf,
    settings: Mutex<Settings>,
    board: StatusBoard,
    pub(crate) donor_clones: DonorClones<SimEngine>,
    log: Mutex<Vec<String>>,
    sessions: Mutex<Sessions>,
    lock: Mutex<BackupLock>,
    lock_key: Key,
}

/// What a donor tells of a server, and what else differs between servers.
pub(crate) struct Facts {
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) plugins: Vec<PluginName>,
    /// Libraries in the plugin directory.
    pub(crate) libraries: Vec<String>,
    pub(crate) collations: Vec<String>,
    pub(crate) maturity: &'static str,
    pub(crate) release: ReleaseFacts,
    /// As before 9.0: versions are compared with the variables.
    pub(crate) compares_version_as_variable: bool,
    /// InnoDB has to open its tablespaces when a clone begins, and gives back the backup lock of
    /// the session with that.
    pub(crate) loses_backup_lock: bool,
    /// How often InnoDB has to wait for GTIDs before it fixes its point; by chance if none is said.
    pub(crate) gtid_rounds: Option<usize>,
    /// Bytes that would be free if the server had no data.
    pub(crate) space_without_data: u64,
    /// InnoDB has dropped the server's data for a clone.
    pub(crate) has_dropped_data: bool,
    /// What it tells of itself as a donor.
    pub(crate) told: Told,
    /// Of a recipient: `clone_strict_checks` and `clone_dry_run`.
    pub(crate) is_strict: bool,
    pub(crate) is_dry_run: bool,
    pub(crate) has_keyring: bool,
    pub(crate) has_supervisor: bool,
    /// The results of the last checks.
    pub(crate) findings: Vec<Finding>,
}

/// What a donor answers to questions: rows of a text and a number.
pub(crate) type Told = Vec<(Question, Vec<(&'static str, u64)>)>;

#[derive(Default)]
struct Sessions {
    last_id: u32,
    running: BTreeMap<u32, Arc<Handle>>,
}

/// Clones share it, DDL has it alone.
#[derive(Default)]
struct BackupLock {
    clones: BTreeSet<u32>,
    ddl: bool,
}

impl SimHost {
    pub(crate) fn new(
        name: &'static str,
        sim: &Arc<Scheduler>,
        network: &Arc<Network>,
        directory: &Path,
        settings: Settings,
        follower: Option<FollowerShape>,
        rng: Rng,
    ) -> Arc<Self> {
        let directory = directory.join(name);
        std::fs::create_dir_all(directory.join("#clone")).unwrap();
        // InnoDB draws what it would draw without a follower.
        let follower = Follower::new(sim, network, follower, rng.clone().fork());
        let innodb = Innodb::new(sim, network, rng);
        Arc::new(Self {
            name,
            sim: Arc::clone(sim),
            network: Arc::clone(network),
            innodb,
            follower,
            commits: Commits::new(sim),
            facts: Mutex::new(Facts::default()),
            base: Mutex::default(),
            board: StatusBoard::load(directory.clone()),
            donor_clones: DonorClones::default(),
            directory,
            settings: Mutex::new(settings),
            log: Mutex::default(),
            sessions: Mutex::default(),
            lock: Mutex::default(),
            lock_key: sim.key(),
        })
    }

    /// Changes the plugin's variables.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings.lock().unwrap());
    }

    pub(crate) fn set_variable(&self, name: &str, value: &str) {
        self.facts().variables.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    /// What the performance schema shows.
    pub(crate) fn board(&self) -> &StatusBoard {
        &self.board
    }

    /// Writes a line to the log.
    pub(super) fn log(&self, target: &str, text: &str) {
        self.sim.pause();
        self.network.trace(|| format!("{} {target}: {text}", self.name));
        self.log.lock().unwrap().push(text.to_owned());
    }

    /// All lines of the log so far.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn register(&self) -> Arc<Handle> {
        let mut sessions = self.sessions.lock().unwrap();
        sessions.last_id += 1;
        let id = sessions.last_id;
        let handle = Arc::new(Handle::new(id));
        sessions.running.insert(id, Arc::clone(&handle));
        handle
    }

    pub(super) fn unregister(&self, id: u32) {
        self.sessions.lock().unwrap().running.remove(&id);
    }

    /// Connection ids of all sessions.
    pub(crate) fn session_ids(&self) -> Vec<u32> {
        self.sessions.lock().unwrap().running.keys().copied().collect()
    }

    /// Sessions of workers, and of donors' connections.
    pub(crate) fn helpers(&self) -> usize {
        let sessions = self.sessions.lock().unwrap();
        sessions.running.values().filter(|session| !session.is_user()).count()
    }

    /// KILL QUERY for what users run; sessions of workers and donors are not theirs.
    pub(crate) fn kill_users(&self) {
        for session in self.sessions.lock().unwrap().running.values() {
            if session.is_user() {
                session.kill();
            }
        }
        self.sim.notify_all();
    }

    /// False if DDL did not end in time.
    pub(super) fn acquire_backup_lock(&self, session: u32, timeout: Duration) -> bool {
        let deadline = self.sim.now() + timeout;
        loop {
            {
                let mut lock = self.lock.lock().unwrap();
                if !lock.ddl {
                    lock.clones.insert(session);
                    return true;
                }
            }
            if self.sim.now() >= deadline {
                return false;
            }
            self.sim.wait(self.lock_key, Some(deadline));
        }
    }

    pub(super) fn release_backup_lock(&self, session: u32) {
        self.lock.lock().unwrap().clones.remove(&session);
        self.sim.notify(self.lock_key);
    }

    /// The sessions that hold the backup lock.
    pub(crate) fn backup_lock_holders(&self) -> Vec<u32> {
        self.lock.lock().unwrap().clones.iter().copied().collect()
    }

    /// DDL begins or ends. It does not wait for clones, whose part this is not.
    pub(crate) fn set_ddl(&self, runs: bool) {
        self.lock.lock().unwrap().ddl = runs;
        self.sim.notify(self.lock_key);
    }
}

impl Clock for SimHost {
    fn now(&self) -> Duration {
        self.sim.now()
    }

    fn unix_micros(&self) -> u64 {
        u64::try_from(self.sim.now().as_micros()).unwrap()
    }

    fn sleep(&self, duration: Duration) {
        self.sim.sleep(duration);
    }

    /// Looks 50 times: the bell is outside of the simulation.
    fn wait_for(&self, bell: &Bell, limit: Duration) -> bool {
        let deadline = self.sim.now() + limit;
        loop {
            let left = deadline.saturating_sub(self.sim.now());
            let is_rung = bell.take();
            if is_rung || left.is_zero() {
                return is_rung;
            }
            self.sim.sleep(left.min(limit / 50));
        }
    }

    /// Work takes no time here. So a thread waits all the time.
    fn thread_time(&self) -> Duration {
        Duration::ZERO
    }

    fn idle_time(&self) -> Option<Duration> {
        None
    }
}

impl Host for SimHost {
    type Session = SimSession;
    type Thread = JoinHandle<()>;

    fn settings(&self) -> Settings {
        *self.settings.lock().unwrap()
    }

    fn release(&self) -> ReleaseFacts {
        self.facts().release
    }

    fn observer(&self) -> &dyn Observer {
        &self.board
    }

    fn spawn(
        self: &Arc<Self>,
        kind: WorkerKind,
        work: Work<SimSession>,
    ) -> io::Result<JoinHandle<()>> {
        self.sim.pause();
        let is_heart = kind == WorkerKind::Heartbeat;
        if !is_heart && matches!(self.network.ask(&Event::Spawn), Action::Fail(_)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let host = Arc::clone(self);
        Ok(self.sim.spawn(format!("{} worker", self.name), move || {
            work(&SimSession::worker(&host));
        }))
    }
}

impl Default for Facts {
    fn default() -> Self {
        let variables = [
            ("version", "9.7.4"),
            ("version_compile_machine", "x86_64"),
            ("version_compile_os", "Linux"),
            ("character_set_server", "utf8mb4"),
            ("character_set_filesystem", "binary"),
            ("collation_server", "utf8mb4_0900_ai_ci"),
            ("innodb_page_size", "16384"),
            ("lower_case_table_names", "0"),
            ("max_allowed_packet", "67108864"),
            ("protocol_compression_algorithms", "zlib,zstd,uncompressed"),
            ("clone_donor_timeout_after_network_failure", "5"),
            ("clone_exclude_plugins_list", ""),
            ("innodb_force_recovery", "0"),
            ("innodb_read_only", "OFF"),
            ("server_uuid", "8a94f357-aab4-11df-86ab-c80aa9429562"),
            ("event_scheduler", "ON"),
            ("performance_schema", "ON"),
        ];
        let plugin = |name: &str, library: Option<&str>| PluginName {
            name: name.to_owned(),
            library: library.map(str::to_owned),
        };
        Self {
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            plugins: vec![
                plugin("InnoDB", None),
                plugin("clone", Some("mysql_clone.so")),
                plugin("semisync", Some("semisync_source.so")),
            ],
            libraries: vec!["mysql_clone.so".to_owned(), "semisync_source.so".to_owned()],
            collations: vec!["utf8mb4_0900_ai_ci".to_owned(), "latin1_swedish_ci".to_owned()],
            maturity: "LTS",
            release: ReleaseFacts::LATEST,
            compares_version_as_variable: false,
            loses_backup_lock: false,
            gtid_rounds: None,
            space_without_data: u64::MAX,
            has_dropped_data: false,
            told: Told::default(),
            is_strict: false,
            is_dry_run: false,
            has_keyring: false,
            has_supervisor: true,
            findings: Vec::new(),
        }
    }
}

/// The variables as a simulation sets them out: few threads, no limits.
pub(crate) fn default_settings() -> Settings {
    Settings { max_concurrency: 4, autotune_concurrency: false, ..Settings::default() }
}
