// SPDX-License-Identifier: GPL-2.0-only

//! Two servers, and what must be true whatever happens to them.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use clone_core::board::Begin;
use clone_core::error::{Error, Result};
use clone_core::link::Donor;
use clone_core::progress::Stage;
use clone_core::session::{Clock, Session};
use clone_core::settings::Settings;
use clone_core::status::State;
use clone_core::{local, recipient};
use clone_protocol::innodb::SnapshotState;
use tempfile::TempDir;

use super::engine::{self, Balance, ContentShape, compare};
use super::faults::{Action, Event};
use super::follower::{self, FollowerShape};
use super::network::{Network, NetworkShape};
use super::rng::Rng;
use super::scheduler::Scheduler;
use super::server::{SimHost, default_settings};
use super::session::SimSession;

/// A donor and a recipient.
pub(crate) struct World {
    pub(crate) sim: Arc<Scheduler>,
    pub(crate) network: Arc<Network>,
    pub(crate) donor: Arc<SimHost>,
    pub(crate) recipient: Arc<SimHost>,
    directory: TempDir,
}

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) network: NetworkShape,
    pub(crate) content: ContentShape,
    /// Of the recipient, which decides for both.
    pub(crate) settings: Settings,
    /// Another engine at both, if any.
    pub(crate) follower: Option<FollowerShape>,
}

/// What a clone replaces or makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A new directory of this name.
    Directory(&'static str),
    /// The recipient's own data.
    Server,
}

/// How a clone ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<()>,
    /// Number and text of the error that the user sees, and everything else that was raised.
    pub(crate) warnings: Vec<(u32, String)>,
    /// In the simulation's time.
    pub(crate) took: Duration,
}

/// No simulation takes longer: twice a donor's idle time-out.
const LIMIT: Duration = Duration::from_secs(16 * 3600);

impl Setup {
    /// A quick network, little data and four threads.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            network: NetworkShape {
                latency: Duration::from_millis(2),
                window: 64 << 10,
                rate: 0,
                is_within_host: false,
                shares_files: false,
            },
            content: ContentShape::default(),
            settings: default_settings(),
            follower: None,
        }
    }

    pub(crate) fn threads(mut self, threads: u32) -> Self {
        self.settings.max_concurrency = threads;
        self
    }

    /// With an engine that follows InnoDB.
    pub(crate) fn follower(mut self) -> Self {
        self.follower = Some(FollowerShape::default());
        self
    }

    /// Runs `scenario` in a thread of a new world, and then checks that nothing of it is left.
    pub(crate) fn run(self, scenario: impl FnOnce(&Arc<World>) + Send + 'static) {
        let world = World::new(self);
        let root = Arc::clone(&world);
        let outcome = world.sim.run(move || {
            scenario(&root);
            root.network.leave_alone();
        });
        if let Err(failure) = outcome {
            let seed = self.seed;
            for line in world.network.take_trace() {
                println!("{line}");
            }
            panic!("{failure}\nThis was SIM_SEED={seed}; SIM_TRACE=1 tells all of it. {self:?}");
        }
        world.check_nothing_is_left();
    }
}

impl World {
    fn new(setup: Setup) -> Arc<Self> {
        let mut rng = Rng::new(setup.seed);
        let sim = Scheduler::new(rng.fork(), LIMIT);
        let network = Network::new(&sim, setup.network, rng.fork());
        let directory = tempfile::tempdir().unwrap();
        let mut server = |name, settings| {
            let (path, follower) = (directory.path(), setup.follower);
            let host = SimHost::new(name, &sim, &network, path, settings, follower, rng.fork());
            network.add_host(&host);
            host
        };
        let donor = server("donor", default_settings());
        let recipient = server("recipient", setup.settings);
        donor.innodb.fill(setup.content);
        if setup.follower.is_some() {
            // While commits are blocked there is not much to wait for.
            donor.facts().gtid_rounds = Some(usize::from(setup.seed.is_multiple_of(3)));
        }
        if env::var_os("SIM_TRACE").is_some() {
            network.start_trace();
        }
        Arc::new(Self { sim, network, donor, recipient, directory })
    }

    /// Has all events decided by `hook` from now on.
    pub(crate) fn interfere(&self, hook: impl FnMut(&Event<'_>) -> Action + Send + 'static) {
        self.network.interfere(hook);
    }

    /// `CLONE INSTANCE` at the recipient.
    pub(crate) fn clone_remote(&self, target: Target) -> Outcome {
        self.clone_with(self.donor_address(), target)
    }

    /// The same with another donor or other options.
    pub(crate) fn clone_with(&self, donor: Donor, target: Target) -> Outcome {
        let directory = match target {
            Target::Directory(name) => Some(self.path(name)),
            Target::Server => None,
        };
        let session = SimSession::user(&self.recipient);
        let started = self.sim.now();
        let begin = Begin {
            pid: session.handle.id,
            source: Some((&donor.host.clone(), donor.port)),
            destination: directory.as_ref().map(|path| path.to_str().unwrap()),
            now_us: self.recipient.unix_micros(),
            is_dry_run: self.recipient.facts().is_dry_run,
        };
        let result = self
            .recipient
            .board()
            .run(&session, begin, || recipient::clone_instance(&session, donor, directory.clone()));
        let path = directory.unwrap_or_else(|| self.recipient.directory.join("replaced"));
        let outcome = self.outcome(&session, result, started);
        self.check_clone(&outcome, &path, target);
        outcome
    }

    /// `CLONE LOCAL` at the donor.
    pub(crate) fn clone_local(&self, name: &'static str) -> Outcome {
        let path = self.path(name);
        let session = SimSession::user(&self.donor);
        let started = self.sim.now();
        let begin = Begin {
            pid: session.handle.id,
            source: None,
            destination: path.to_str(),
            now_us: self.donor.unix_micros(),
            is_dry_run: false,
        };
        let result =
            self.donor.board().run(&session, begin, || local::clone_local(&session, path.clone()));
        let outcome = self.outcome(&session, result, started);
        if !outcome.is_second() {
            self.check_board(&self.donor, &outcome, Target::Directory(name));
            self.check_content(&outcome, &path);
            assert_eq!(self.donor.helpers(), 0, "workers are left");
            check_idle(&self.donor);
            assert_eq!(self.donor.backup_lock_holders(), NOBODY);
            assert!(!self.donor.commits.has_block(), "after a local clone");
        }
        outcome
    }

    /// A statement begins at the donor, for whose end a block of commits has to wait.
    pub(crate) fn run_statement(&self, lasts: Duration) -> JoinHandle<()> {
        let donor = Arc::clone(&self.donor);
        donor.commits.set_statement(true);
        self.sim.spawn("statement".to_owned(), move || {
            donor.sim.sleep(lasts);
            donor.commits.set_statement(false);
        })
    }

    /// Bytes that the newest clone had to move.
    pub(crate) fn transfer(&self) -> u64 {
        let content = self.donor.innodb.content();
        use SnapshotState::{FileCopy, PageCopy, RedoCopy};
        [FileCopy, PageCopy, RedoCopy].into_iter().map(|state| content.transfer(state)).sum()
    }

    /// Waits until the donor has noticed that all its recipients are gone, and says how long that
    /// took.
    pub(crate) fn settle(&self) -> Duration {
        let started = self.sim.now();
        let mut step = Duration::from_millis(100);
        while !self.donor.session_ids().is_empty() {
            self.sim.sleep(step);
            step = (step * 2).min(Duration::from_secs(20));
        }
        self.sim.now() - started
    }

    pub(crate) fn donor_address(&self) -> Donor {
        Donor {
            host: self.donor.name.to_owned(),
            port: 3306,
            user: "clone".to_owned(),
            password: "secret".to_owned().into(),
            ssl_mode: 2,
        }
    }

    /// A directory for a clone.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn outcome(&self, session: &SimSession, result: Result<()>, started: Duration) -> Outcome {
        let warnings = session.warnings();
        self.network.trace(|| format!("clone ended: {result:?} {warnings:?}"));
        assert_eq!(result.is_err(), session.raised().is_some(), "{result:?} {warnings:?}");
        Outcome { result, warnings, took: self.sim.now() - started }
    }

    /// What holds as soon as a clone has ended.
    fn check_clone(&self, outcome: &Outcome, directory: &Path, target: Target) {
        let recipient = &self.recipient;
        if outcome.is_second() {
            return;
        }
        self.check_board(recipient, outcome, target);
        self.check_content(outcome, directory);
        let keeps_lock = target == Target::Server && outcome.result.is_ok();
        assert_eq!(recipient.backup_lock_holders().len(), usize::from(keeps_lock));
        assert_eq!(recipient.helpers(), 0, "workers are left");
        check_idle(recipient);
        assert!(outcome.result.is_err() || !self.donor.commits.has_block(), "{outcome:?}");
    }

    /// The tables of the performance schema.
    fn check_board(&self, host: &SimHost, outcome: &Outcome, target: Target) {
        if host.facts().is_dry_run {
            assert!(host.board().status().is_none(), "a dry run is shown");
            return;
        }
        let status = host.board().status().unwrap();
        let state = match (&outcome.result, target) {
            (Ok(()), Target::Directory(_)) => State::Completed,
            (Ok(()), Target::Server) => State::InProgress,
            (Err(_), _) => State::Failed,
        };
        assert_eq!(status.state, state);
        let shown = (status.error_number, status.error_message.as_str().to_owned());
        assert_eq!(shown, outcome.warnings.first().cloned().unwrap_or_default());
        let progress = host.board().progress();
        let Some(progress) = progress.filter(|_| outcome.result.is_ok()) else { return };
        for stage in &Stage::ALL[..5] {
            assert_eq!(progress.stage(*stage).state, State::Completed, "{stage:?}");
        }
    }

    fn check_content(&self, outcome: &Outcome, directory: &Path) {
        assert!(!self.recipient.directory.join("staging").exists(), "{outcome:?}");
        if outcome.result.is_err() {
            let is_own = directory.starts_with(self.directory.path().join("first"))
                || directory.starts_with(self.directory.path().join("clone"));
            assert!(!is_own || !directory.exists(), "a clone that failed is left: {outcome:?}");
            let part = follower::committed(directory);
            assert_eq!(part, None, "the follower's part of a clone that failed: {outcome:?}");
            return;
        }
        if let Err(difference) = compare(&self.donor.innodb.content(), directory) {
            panic!("{difference}");
        }
        if self.donor.follower.is_installed() {
            if let Err(difference) = follower::compare(&self.donor.follower.data(), directory) {
                panic!("{difference}");
            }
            let points = (Some(engine::committed(directory)), follower::committed(directory));
            assert_eq!(points.0, points.1, "InnoDB and the follower are at different points");
        }
    }

    /// What holds when all threads have ended.
    fn check_nothing_is_left(&self) {
        for thread in self.network.dissolve() {
            thread.join().unwrap();
        }
        check_idle(&self.donor);
        assert!(!self.donor.commits.has_block(), "commits are blocked for ever");
        assert_eq!(self.donor.backup_lock_holders(), NOBODY);
        assert_eq!(self.donor.session_ids(), NOBODY);
        assert_eq!(self.recipient.session_ids(), NOBODY);
        assert_eq!(self.network.left_open(), 0, "connections that the recipient has not closed");
    }
}

const NOBODY: [u32; 0] = [];

/// Nothing of a clone is left in a server's engines.
fn check_idle(host: &SimHost) {
    assert!(host.innodb.is_idle(), "a clone is left in InnoDB at the {}", host.name);
    assert!(host.follower.is_idle(), "a clone is left in the follower at the {}", host.name);
    for Balance { begun, ended, .. } in [host.innodb.balance(), host.follower.balance()] {
        assert_eq!(begun, ended, "tasks that began, and that ended, at the {}", host.name);
    }
}

impl Outcome {
    /// There was another clone, whose traces are still to be seen.
    fn is_second(&self) -> bool {
        self.number() == Some(Error::TooManyClones.number())
    }

    /// The number of the error that the user sees.
    pub(crate) fn number(&self) -> Option<u32> {
        self.warnings.first().map(|(number, _)| *number)
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        self.warnings.first().map_or("", |(_, text)| text)
    }

    /// All numbers that were raised.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.warnings.iter().map(|(number, _)| *number).collect()
    }

    /// The clone must have succeeded.
    #[track_caller]
    pub(crate) fn assert_ok(&self) -> &Self {
        assert_eq!(self.result, Ok(()), "{:?}", self.warnings);
        self
    }

    /// The clone must have failed with this error.
    #[track_caller]
    pub(crate) fn assert_error(&self, number: u32) -> &Self {
        assert_eq!(self.number(), Some(number), "{:?}", self.warnings);
        self
    }
}
