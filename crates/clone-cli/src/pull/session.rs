// SPDX-License-Identifier: GPL-2.0-only

//! This program as clone-core sees it: a recipient without a server.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clone_classic::ConnectOptions;
use clone_core::base::Base;
use clone_core::engine::Cancel;
use clone_core::error::{Error, Result};
use clone_core::link::LinkKind;
use clone_core::parameters::Parameters;
use clone_core::session::{Clock, Host, Observer, RecipientSession, Session, Work, WorkerKind};
use clone_core::settings::{ReleaseFacts, Settings};
use clone_protocol::Packing;

use super::engine::Innodb;
use super::link::PullLink;
use super::progress::Progress;
use super::state::{Begun, StateDirectory};

/// What all threads of a pull share.
pub(crate) struct PullHost {
    pub(crate) settings: Settings,
    pub(crate) release: ReleaseFacts,
    pub(crate) engine: Innodb,
    pub(crate) state: StateDirectory,
    pub(crate) progress: Progress,
    base: Option<Arc<Base>>,
    shared: Mutex<Shared>,
    /// The donor could not be reached when a thread tried last.
    is_lost: AtomicBool,
    /// The user was warned that the donor does not compress as asked.
    has_warned_uncompressed: AtomicBool,
    started: Instant,
}

#[derive(Default)]
struct Shared {
    /// What the donor said of itself.
    parameters: Option<Parameters>,
    /// All errors in the order in which they came: number and text.
    errors: Vec<(u32, String)>,
}

impl PullHost {
    pub(crate) fn new(
        settings: Settings,
        release: ReleaseFacts,
        engine: Innodb,
        state: StateDirectory,
        progress: Progress,
        base: Option<Arc<Base>>,
    ) -> Self {
        let shared = Mutex::default();
        let started = Instant::now();
        Self {
            settings,
            release,
            engine,
            state,
            progress,
            base,
            shared,
            is_lost: AtomicBool::new(false),
            has_warned_uncompressed: AtomicBool::new(false),
            started,
        }
    }

    /// A panic of another thread leaves at worst an error out.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first text that came with this error's number: the error itself may be only a number.
    pub(crate) fn text_of(&self, error: &Error) -> String {
        let number = error.number();
        let shared = self.shared();
        let raised = shared.errors.iter().find(|(raised, _)| *raised == number);
        match (error, raised) {
            (Error::Raised(_), Some((_, text))) => text.clone(),
            _ => error.to_string(),
        }
    }

    /// Tells the user when the donor cannot be reached during the clone, and when it can again.
    fn tell_of_connection(&self, failed: Option<&Error>) {
        // Before the clone has begun, a failed connection ends the pull.
        let Some(donor) = self.parameters() else { return };
        let was_lost = self.is_lost.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(error) if !was_lost => self.progress.warn(&format!(
                "{error} Trying again every 5 seconds, for {} minutes: the donor keeps the clone \
                 that long",
                donor.reconnect_minutes()
            )),
            None if was_lost => self.progress.say("connected again"),
            _ => {}
        }
    }

    /// Tells the user once that a donor with MySQL's own plugin does not compress as asked.
    fn warn_uncompressed(&self) {
        if !self.has_warned_uncompressed.swap(true, Ordering::Relaxed) {
            self.progress.warn(&format!(
                "--compress={} has no effect: the donor has MySQL's own clone plugin, and its \
                 server does not offer this compression. Servers from 8.0.18 on offer zstd1 to \
                 zstd22, unless their protocol_compression_algorithms excludes zstd",
                self.settings.compression.to_string().to_lowercase()
            ));
        }
    }

    /// What the donor said of itself to another process, which has begun the clone.
    pub(super) fn set_parameters(&self, parameters: Parameters) {
        self.shared().parameters = Some(parameters);
    }

    /// What the donor said of itself, if it has been asked.
    pub(crate) fn parameters(&self) -> Option<Parameters> {
        self.shared().parameters.clone()
    }
}

impl Clock for PullHost {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Host for PullHost {
    type Session = PullSession;
    type Thread = std::thread::JoinHandle<()>;

    fn settings(&self) -> Settings {
        self.settings
    }

    fn release(&self) -> ReleaseFacts {
        self.release
    }

    fn processors(&self) -> u32 {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn observer(&self) -> &dyn Observer {
        &self.progress
    }

    fn spawn(self: &Arc<Self>, _: WorkerKind, work: Work<PullSession>) -> io::Result<Self::Thread> {
        let host = Arc::clone(self);
        let thread = std::thread::Builder::new().name("clone worker".to_owned());
        thread.spawn(move || work(&PullSession::new(host)))
    }
}

/// A thread of a pull.
pub(crate) struct PullSession {
    host: Arc<PullHost>,
    /// The first is the error of this thread.
    raised: RefCell<Vec<(u32, String)>>,
}

impl PullSession {
    pub(crate) fn new(host: Arc<PullHost>) -> Self {
        Self { host, raised: RefCell::default() }
    }

    /// The errors of this thread are forgotten.
    pub(super) fn clear(&self) {
        self.raised.borrow_mut().clear();
    }

    /// The clone is about to begin in the directory. `locator` is InnoDB's name of the clone.
    ///
    /// # Errors
    /// What another process would need to go on with the clone cannot be written.
    pub(super) fn note_start(&self, locator: &[u8]) -> Result<()> {
        let Some(parameters) = self.host.parameters() else { return Ok(()) };
        self.host
            .state
            .begin(&Begun::new(&parameters, locator))
            .map_err(|error| Error::file(true, &self.host.state.path().to_string_lossy(), &error))
    }
}

/// A signal ends the whole process: see `signals`. What has been copied stays.
impl Cancel for PullSession {
    fn is_killed(&self) -> bool {
        false
    }
}

impl Session for PullSession {
    type Host = PullHost;
    type Engine = Innodb;

    fn host(&self) -> &Arc<PullHost> {
        &self.host
    }

    fn raise(&self, error: &Error) {
        if matches!(error, Error::Raised(_)) {
            return;
        }
        let raised = (error.number(), error.to_string());
        if self.raised.borrow().contains(&raised) {
            return;
        }
        self.host.shared().errors.push(raised.clone());
        self.raised.borrow_mut().push(raised);
    }

    fn raised(&self) -> Option<(u32, String)> {
        self.raised.borrow().first().cloned()
    }

    fn engines(&self) -> Vec<Innodb> {
        vec![self.host.engine.clone()]
    }
}

impl RecipientSession for PullSession {
    type Link = PullLink;
    type Donor = ConnectOptions;

    fn base(&self) -> Option<Arc<Base>> {
        self.host.base.clone()
    }

    fn name_of(&self, donor: &ConnectOptions) -> String {
        donor.address.to_string()
    }

    fn connect(&self, donor: &ConnectOptions, _: LinkKind, compressed: bool) -> Result<PullLink> {
        let zstd_level = match self.host.settings.compression {
            Packing::Zstd(level) if compressed => Some(level),
            _ => None,
        };
        let connected = PullLink::connect(&ConnectOptions { zstd_level, ..donor.clone() });
        self.host.tell_of_connection(connected.as_ref().err());
        if compressed && connected.as_ref().is_ok_and(|link| !link.is_compressed()) {
            self.host.warn_uncompressed();
        }
        connected
    }

    /// Whatever the donor is, a server of the same release can open its data. Only what this
    /// program has to know must be there.
    fn accept(&self, donor: &Parameters, _: bool) -> Result<()> {
        donor.page_size()?;
        donor.donor_release()?;
        self.host.shared().parameters = Some(donor.clone());
        Ok(())
    }
}
