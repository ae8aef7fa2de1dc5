// SPDX-License-Identifier: GPL-2.0-only

//! One thread of a recipient, from its first connection to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clone_protocol::innodb::TaskRole;
use clone_protocol::{Command, CommandCode, Init, Offer, Version};

use super::answer::{locators_expected, silent, unexpected};
use super::apply::Applier;
use super::block::BlockReceiver;
use super::dialogue::{self, Dialogue, Event, Takes, ends_connection};
use super::engine_side::EngineSide;
use super::heartbeat::Heart;
use super::interrupted::Interrupted;
use super::master::Master;
use super::probe::meet_donor;
use super::shared::Shared;
use super::target::Target;
use crate::engine::ServerEngine;
use crate::error::{Error, NetworkError, Result, number};
use crate::link::LinkKind;
use crate::log_target::{CLIENT, log_step};
use crate::session::{Clock, Host, RecipientSession, StagedClone};
use crate::tasks::EngineClone;
use crate::traffic::sleep_until;

/// The most connections of a clone's master, the first included. When this many have broken, the
/// clone fails. Attempts that do not connect are not counted here.
const MAX_RESTARTS: u32 = 100;

/// Least time between two attempts to connect again.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);

/// How long a task that failed waits for the donor to end its stream.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a donor is interrupted although nobody has killed this clone here. InnoDB's archivers end
/// for good if they cannot write a file.
const INTERRUPTED_DONOR: &str = "by KILL at the donor; or the donor's disk was full during a \
                                 clone: then the donor must be restarted before it can be cloned";

/// How often a worker that has failed looks whether the master has told the donor.
const MASTER_INTERVAL: Duration = Duration::from_millis(50);

/// One thread of a recipient.
pub(super) struct Task<'s, S: RecipientSession> {
    session: &'s S,
    shared: Arc<Shared<S>>,
    /// The master has this; a worker does not.
    master: Option<Master<S>>,
    dialogue: Dialogue<'s, S>,
    /// Sends heartbeats while the master has its connections.
    heart: Option<Heart<S>>,
    engine_side: EngineSide,
    receiver: BlockReceiver,
}

/// Whether a task failed for a reason of its own, and not because of the network, KILL, or another
/// task.
fn is_own_reason(error: &Error) -> bool {
    matches!(
        error.number(),
        number::ER_CLONE_PROTOCOL
            | number::ER_ERROR_ON_READ
            | number::ER_ERROR_ON_WRITE
            | number::ER_OUTOFMEMORY
    )
}

/// Puts a clone that is complete in the place of the server's data, which cannot change any more.
fn replace_data<S: RecipientSession>(
    session: &S,
    master: &mut Master<S>,
    staged: &StagedClone,
) -> Result<()> {
    master.begin_replacing(session)?;
    if session.is_killed() {
        return Err(Error::Interrupted);
    }
    let host = session.host();
    host.observer().drop_data(host.unix_micros());
    session.own_data()?.replace_data(staged)
}

/// The locators of the donor, as clones of this server's engines.
type Clones<S> = Vec<EngineClone<<S as crate::session::Session>::Engine>>;

impl<'s, S: RecipientSession> Task<'s, S> {
    /// The statement's thread.
    pub(super) fn master(session: &'s S, shared: Arc<Shared<S>>) -> Self {
        let master = Master::new(session, |shared| {
            Box::new(move |session| {
                let outcome = Task::new(session, shared, None).run();
                // The master gets only the error's number from the engine. So log the text here.
                if let Err(error) = outcome.as_ref()
                    && is_own_reason(error)
                {
                    let raised = session.raised().map(|(_, text)| text);
                    let text = raised.unwrap_or_else(|| error.to_string());
                    log::info!(target: CLIENT, "Worker failed: error: {}: {text}", error.number());
                }
            })
        });
        Self::new(session, shared, Some(master))
    }

    fn new(session: &'s S, shared: Arc<Shared<S>>, master: Option<Master<S>>) -> Self {
        Self {
            session,
            master,
            dialogue: Dialogue::new(session, Arc::clone(&shared)),
            heart: None,
            shared,
            engine_side: EngineSide::default(),
            receiver: BlockReceiver::default(),
        }
    }

    fn is_master(&self) -> bool {
        self.master.is_some()
    }

    /// The whole life of a task.
    pub(super) fn run(self) -> Result<()> {
        self.run_connections(false)
    }

    /// The whole life of the master of a clone that another process has begun.
    pub(super) fn resume(mut self, interrupted: Interrupted) -> Result<()> {
        let Interrupted { parameters, locator, descriptors } = interrupted;
        let begun = self.engine_side.begin_interrupted(
            self.session,
            &self.shared,
            &parameters,
            locator,
            descriptors,
        );
        if let Err(error) = begun {
            self.session.raise(&error);
            return Err(error);
        }
        if let Some(master) = &mut self.master {
            master.parameters = parameters;
        }
        self.run_connections(true)
    }

    /// Connects, and connects again after a network failure, until the clone is complete or has
    /// failed. `is_restart`: the clone has begun before the first connection.
    fn run_connections(mut self, mut is_restart: bool) -> Result<()> {
        let mut outcome;
        let mut restarts = 0;
        loop {
            restarts += 1;
            if self.is_master() {
                self.shared.donor_knows.store(false, Ordering::Relaxed);
            }
            outcome = if is_restart { self.reconnect() } else { self.connect() };
            if outcome.is_err() {
                break;
            }
            outcome = self.clone_over_connection(is_restart);
            let was_killed = self.was_killed(&outcome);
            if was_killed {
                outcome = Err(Error::Interrupted);
            }
            // Before the apply has begun, the donor has nothing to resume.
            let again = self.is_master()
                && self.engine_side.is_active()
                && matches!(&outcome, Err(error) if error.is_network())
                && restarts < MAX_RESTARTS;
            if again {
                self.log_outcome("Source Network issue", &outcome);
            } else if is_restart {
                self.log_outcome("Source break restart loop", &outcome);
            }
            let begins_again = self.is_master()
                && matches!(&outcome, Err(error) if self.shared.begins_again_after(error));
            // Which donor was silent, and for how long, is more than the network's error says.
            let silence = self.dialogue.silence().filter(|_| self.is_master());
            let silence = silence.filter(|_| !was_killed && !again && !begins_again);
            let clear_error = was_killed || again || begins_again || silence.is_some();
            if let Err(error) = &outcome
                && !clear_error
            {
                // Raise this error first: the user sees the first one.
                self.session.raise(error);
            }
            self.disconnect(&outcome, clear_error);
            if let Some(silence) = silence {
                let donor = self.session.name_of(&self.shared.donor);
                let error = silent(&donor, silence);
                self.session.raise(&error);
                outcome = Err(error);
            }
            if let Err(error) = &outcome {
                self.engine_side.fail(self.session, &self.shared, error);
            }
            if let Some(master) = &mut self.master {
                master.join_workers();
            }
            if !again {
                break;
            }
            is_restart = true;
        }
        self.finish(outcome)
    }

    /// INIT, REINIT or ATTACH, then EXECUTE.
    fn clone_over_connection(&mut self, is_restart: bool) -> Result<()> {
        let command = match (self.is_master(), is_restart) {
            (true, false) => CommandCode::Init,
            (true, true) => CommandCode::Reinit,
            (false, _) => CommandCode::Attach,
        };
        let mut outcome = self.command(command);
        if outcome.is_ok() && command == CommandCode::Init {
            outcome = self.delay_after_data_drop();
        }
        self.log_outcome(dialogue::name(command), &outcome);
        outcome?;
        if let Some(master) = &mut self.master {
            master.spawn_initial_workers(self.session, &self.shared);
        }
        let outcome = self.command(CommandCode::Execute);
        self.log_outcome(dialogue::name(CommandCode::Execute), &outcome);
        outcome
    }

    /// Opens the data connection and, for the master, the auxiliary one.
    fn connect(&mut self) -> Result<()> {
        if self.is_master() {
            meet_donor(self.session, &self.shared)?;
        }
        // The engines drop the data of the server once, on the first connection.
        let drops_data =
            self.is_master() && self.shared.target.drops_data() && !self.engine_side.is_active();
        let kind = if drops_data { LinkKind::DataOfReplacement } else { LinkKind::Data };
        self.dialogue.connect(kind)?;
        if !self.is_master() {
            return Ok(());
        }
        let outcome = self.dialogue.connect_auxiliary();
        if outcome.is_err() {
            let left = self.command(CommandCode::Exit);
            self.log_outcome("Source Task COM_EXIT", &left);
            self.dialogue.disconnect_data("Source Task Disconnect:", left.is_err(), false);
        } else {
            self.heart = self.dialogue.start_heart(self.engine_side.is_active());
        }
        outcome
    }

    /// Connects again, trying until the donor's time-out is over; a donor with time-out 0 gets one
    /// attempt.
    fn reconnect(&mut self) -> Result<()> {
        let host = self.session.host().clone();
        let started = host.now();
        let patience = self.master.as_ref().map_or(Duration::ZERO, Master::reconnect_timeout);
        let mut attempts = 0;
        loop {
            let attempted = host.now();
            let Err(error) = self.connect() else { return Ok(()) };
            attempts += 1;
            log::info!(target: CLIENT, "Source re-connect failed: count: {attempts}");
            let passed = host.now().saturating_sub(started);
            if patience.is_zero() || passed > patience {
                return Err(self.unreachable(error, passed, attempts));
            }
            // After KILL the user sees first what the clone was waiting for, as with the stock
            // plugin.
            let raise = |_: &Error| self.session.raise(&error);
            sleep_until(self.session, attempted + RECONNECT_INTERVAL).inspect_err(raise)?;
        }
    }

    /// The error of a clone that has lost its donor, and could not connect again.
    fn unreachable(&self, error: Error, passed: Duration, attempts: u32) -> Error {
        let Error::Connect(text) = error else { return error };
        let donor = self.session.name_of(&self.shared.donor);
        let seconds = passed.as_secs();
        Error::Connect(format!(
            "{text} (the clone lost the donor {donor}, and tried {attempts} times in {seconds} seconds \
             to connect again. Look whether the donor runs, at its host, and at firewalls and proxies \
             on the way)"
        ))
    }

    /// Returns true if a failure of the network is really KILL: KILL may close the connection
    /// shortly before it marks the session.
    ///
    /// The donor must be told the difference: after a network failure the donor keeps the clone for
    /// this recipient.
    fn was_killed(&self, outcome: &Result<()>) -> bool {
        const MOMENT: Duration = Duration::from_millis(100);
        if !self.is_master() || !matches!(outcome, Err(error) if error.is_network()) {
            return false;
        }
        sleep_until(self.session, self.session.host().now() + MOMENT).is_err()
    }

    /// Sends EXIT on both connections and closes them. With `clear_error`, the errors of the
    /// network are cleared from the session.
    fn disconnect(&mut self, outcome: &Result<()>, clear_error: bool) {
        // The donor may wait for the copy of a block that this task has not read about yet.
        self.receiver.close_files();
        if let Err(error) = outcome {
            self.tell_donor(error);
        }
        if self.is_master() {
            self.dialogue.disconnect_auxiliary(outcome);
            self.heart = None;
            self.shared.donor_knows.store(true, Ordering::Relaxed);
        }
        let mut abort = matches!(outcome, Err(error) if ends_connection(error));
        if abort {
            self.log_outcome("Task skip COM_EXIT", outcome);
        } else {
            let left = self.command(CommandCode::Exit);
            abort = left.is_err();
            self.log_outcome("Task COM_EXIT", &left);
        }
        self.dialogue.disconnect_data("Task Disconnect :", abort, outcome.is_ok() || clear_error);
    }

    /// Tells the donor of an error for which no connection can help, before the data connection
    /// ends. A donor that sees the end of the connection first takes it for a network failure, and
    /// keeps the clone until this recipient comes back.
    fn tell_donor(&mut self, error: &Error) {
        let concerns_donor = self.engine_side.is_active()
            && !error.is_network()
            && error.number() != number::ER_CLONE_DONOR;
        if !concerns_donor || self.shared.donor_knows.load(Ordering::Relaxed) {
            return;
        }
        if self.is_master() {
            self.dialogue.report_local_error(error);
        } else if ends_connection(error) {
            // The master tells, on its other connection.
            let host = self.session.host();
            let end = host.now() + DRAIN_TIMEOUT;
            while !self.shared.donor_knows.load(Ordering::Relaxed) && host.now() < end {
                // KILL reaches the master, too.
                if sleep_until(self.session, host.now() + MASTER_INTERVAL).is_err() {
                    return;
                }
            }
        }
    }

    /// Ends the task in the engines. If the clone has failed, the server's data may change again.
    fn finish(&mut self, outcome: Result<()>) -> Result<()> {
        if let Some(master) = &mut self.master
            && self.shared.clones().len() > 1
        {
            // Other engines send their data after InnoDB's last state. That stage ends here.
            master.finish_stage(self.session, &self.shared);
        }
        let mut outcome = outcome;
        if self.is_master() && outcome.is_ok() && self.shared.target.drops_data() {
            let emptied = self.session.own_data().and_then(|data| data.empty_doublewrite_buffer());
            outcome = emptied.inspect_err(|error| self.session.raise(error));
        }
        let error = outcome.as_ref().err().map_or(0, Error::number);
        let ended = self.engine_side.end(self.session, &self.shared, error);
        let mut outcome = outcome.and(ended);
        let Some(master) = &mut self.master else { return outcome };
        if let (Ok(()), Target::Staging(directory)) = (&outcome, &self.shared.target) {
            let staged = self.shared.placement().staged(directory);
            outcome = replace_data(self.session, master, &staged);
        }
        if let Err(error) = &outcome {
            master.end_replacing(self.session);
            let first = self.shared.first_error.get();
            if let Some(first) = first.filter(|first| first.number() == error.number())
                && self.session.raised().is_none()
            {
                self.session.raise(first);
            }
        }
        outcome
    }

    /// Runs one command over the data connection, until the donor's COMPLETE.
    fn command(&mut self, code: CommandCode) -> Result<()> {
        let command = self.prepare(code)?;
        let clones = self.transfer(&command)?;
        match (code, clones) {
            (CommandCode::Init, Some(clones)) => self.begin_clone(clones),
            (CommandCode::Attach, Some(clones)) => {
                self.engine_side.join(self.session, &self.shared, clones)
            }
            (CommandCode::Init | CommandCode::Attach, None) => Err(locators_expected()),
            _ => Ok(()),
        }
    }

    /// Builds the command. The engines give their locators for it.
    fn prepare(&mut self, code: CommandCode) -> Result<Command<'static>> {
        let (session, shared) = (self.session, &self.shared);
        Ok(match code {
            CommandCode::Init => {
                self.engine_side.begin_version(session, shared)?;
                Command::Init(self.init_payload(code))
            }
            CommandCode::Reinit => {
                self.engine_side.restart(session, shared)?;
                Command::Reinit(self.init_payload(code))
            }
            CommandCode::Attach => Command::Attach(self.init_payload(code)),
            CommandCode::Execute => {
                let role = if self.is_master() { TaskRole::Master } else { TaskRole::Worker };
                self.engine_side.begin_stream(shared, role);
                Command::Execute
            }
            CommandCode::Ack | CommandCode::Exit | CommandCode::Heartbeat => Command::Exit,
        })
    }

    fn init_payload(&self, code: CommandCode) -> Init {
        let heartbeats = &self.shared.heartbeats;
        // Releases that speak less have not been seen with the bit in the version.
        let may_ask =
            code == CommandCode::Init && self.session.host().release().protocol >= Version::V3;
        let settings = self.session.host().settings();
        Init {
            version: self.shared.version().number(),
            ddl_timeout: settings.ddl_timeout,
            block_ddl: settings.block_ddl,
            sends_heartbeats: heartbeats.is_sending() && (may_ask || heartbeats.is_agreed()),
            locators: self.shared.clones().iter().map(EngineClone::to_wire).collect(),
        }
    }

    /// After INIT: checks everything, and only then changes anything.
    fn begin_clone(&mut self, clones: Clones<S>) -> Result<()> {
        let session = self.session;
        self.engine_side.end(session, &self.shared, 0)?;
        let Some(master) = &mut self.master else { return Err(unexpected()) };
        master.parameters.version = self.shared.version();
        master.parameters.facts = self.shared.facts.get().cloned().unwrap_or_default();
        let replaces_data = self.shared.target.own_directory().is_none();
        session.accept(&master.parameters, replaces_data)?;
        match &self.shared.target {
            Target::Directory(_) => master.next_stage(session, 0),
            Target::Server => {
                master.begin_replacing(session)?;
                master.next_stage(session, 0);
                session.own_data()?.check_replaceable()?;
            }
            Target::Staging(_) => {
                // What would stop the replacement at the end is an error now.
                master.begin_replacing(session)?;
                master.next_stage(session, 0);
                session.own_data()?.check_replaceable()?;
                master.end_replacing(session);
                self.engine_side.begin_version(session, &self.shared)?;
                self.engine_side.end(session, &self.shared, 0)?;
                session.host().observer().keep_data();
            }
        }
        if session.is_dry_run() {
            return Err(Error::DryRun);
        }
        self.engine_side.begin(session, &self.shared, clones, &master.parameters)
    }

    /// The offer behind EXECUTE.
    fn offer(&mut self) -> Offer {
        let takes_files = self.shared.takes_files.load(Ordering::Relaxed);
        let handover = match takes_files && self.dialogue.is_within_host() {
            true => self.receiver.take_files(self.session.listen_for_files()),
            false => None,
        };
        Offer { handover, ..self.shared.offer }
    }

    /// Sends the command and handles the donor's answer, until its last packet. Returns the
    /// locators, if the answer had some.
    ///
    /// A task that fails reads on until the donor ends the stream. The master tells the donor of
    /// the failure. Only after the end of the stream the connection can be used for COM_EXIT.
    fn transfer(&mut self, command: &Command<'_>) -> Result<Option<Clones<S>>> {
        let session = self.session;
        let offer = matches!(command, Command::Execute).then(|| self.offer());
        self.dialogue.send(command, offer)?;
        let mut clones = None;
        let mut failure: Option<(Error, Duration)> = None;
        loop {
            let takes = match (&failure, command, &mut self.master) {
                (Some(_), ..) => Takes::Nothing,
                (None, Command::Init(_), Some(master)) => Takes::Parameters(&mut master.parameters),
                _ => Takes::Stream,
            };
            let received = self.dialogue.receive(command, takes);
            if let Some((first, since)) = &failure {
                match received {
                    // The stream has ended, or the connection broke meanwhile. The reason of the
                    // failure is `first`.
                    Ok(Event::Complete) | Err(_) => return Err(first.clone()),
                    // If a worker heard the donor's error first, only its number came through the
                    // engine. The text is here.
                    Ok(Event::Error(error)) => {
                        session.raise(&error);
                        return Err(first.clone());
                    }
                    Ok(_) if session.host().now().saturating_sub(*since) > DRAIN_TIMEOUT => {
                        log::warn!(
                            target: CLIENT,
                            "No error from remote in 30 sec after local issue: error: {}: {first}",
                            first.number()
                        );
                        return Err(NetworkError::PacketsOutOfOrder.into());
                    }
                    Ok(_) => continue,
                }
            }
            let outcome = match received {
                Ok(Event::Complete) => return Ok(clones),
                Ok(Event::Error(error)) => {
                    self.engine_side.fail(session, &self.shared, &error);
                    return Err(self.explained(command, error));
                }
                Err(error) => {
                    self.engine_side.fail(session, &self.shared, &error);
                    return Err(error);
                }
                Ok(Event::Parameter) => Ok(()),
                Ok(Event::Numbered) => {
                    self.heart.iter().for_each(Heart::beat);
                    Ok(())
                }
                Ok(Event::Locators(version, locators)) => {
                    self.shared.set_version(version);
                    EngineSide::resolve(&self.shared, locators).map(|found| clones = Some(found))
                }
                Ok(Event::Descriptor { db_type, locator_index }) => {
                    self.apply(db_type, locator_index)
                }
                Ok(Event::FileTrial) => {
                    self.receiver.try_sharing(self.shared.target.path(), &self.shared.takes_files)
                }
                Ok(Event::Data) => Err(unexpected()),
            };
            if let Err(error) = outcome {
                session.raise(&error);
                self.engine_side.fail(session, &self.shared, &error);
                if ends_connection(&error) {
                    return Err(error);
                }
                self.log_outcome("Wait for remote after local issue", &Err(error.clone()));
                // The donor must not wait for blocks that nobody copies.
                self.receiver.close_files();
                failure = Some((error, session.host().now()));
            }
        }
    }

    /// Gives the current descriptor to its engine.
    fn apply(&mut self, db_type: u8, locator_index: usize) -> Result<()> {
        let descriptor = self.dialogue.take_descriptor();
        let outcome = self.apply_descriptor(db_type, locator_index, &descriptor);
        self.dialogue.give_back(descriptor);
        if let Err(error) = &outcome {
            self.session.raise(error);
            // After KILL the donor is told when this task disconnects. A silent donor is not waited
            // for once more.
            let tells = self.is_master() && !self.session.is_killed();
            let tells = tells && self.dialogue.silence().is_none();
            if tells && error.number() != number::ER_CLONE_DONOR {
                self.dialogue.report_local_error(error);
            }
        }
        outcome
    }

    fn apply_descriptor(
        &mut self,
        db_type: u8,
        locator_index: usize,
        descriptor: &[u8],
    ) -> Result<()> {
        let Self { session, shared, master, dialogue, engine_side, receiver, .. } = self;
        let (clone, expected) = engine_side.check(shared, db_type, locator_index, descriptor)?;
        let placed = match clone.is_innodb() {
            true => EngineSide::place(*session, shared, descriptor)?,
            false => None,
        };
        let descriptor = placed.as_ref().map_or(descriptor, |placed| placed.as_slice());
        let mut applier = Applier {
            session: *session,
            shared,
            dialogue,
            receiver,
            master: master.as_mut(),
            locator_index,
            expected,
            failure: None,
        };
        let applied = engine_side.apply(*session, &clone, locator_index, descriptor, &mut applier);
        applier.finish(applied)
    }

    /// Adds to a donor's error what the donor does not say. If a stock donor cannot clone an
    /// engine, it only says that INIT is wrong. If InnoDB at the donor cannot clone any more, it
    /// only says that it was interrupted.
    fn explained(&self, command: &Command<'_>, error: Error) -> Error {
        match error {
            Error::Donor { number: code, message }
                if matches!(command, Command::Execute)
                    && u32::try_from(code) == Ok(number::ER_QUERY_INTERRUPTED)
                    && !self.session.is_killed() =>
            {
                Error::Donor { number: code, message: format!("{message} ({INTERRUPTED_DONOR})") }
            }
            Error::Donor { number: code, message }
                if matches!(command, Command::Init(init) if init.locators.len() > 1)
                    && u32::try_from(code) == Ok(number::ER_CLONE_PROTOCOL) =>
            {
                let clones = self.shared.clones();
                let others = clones.iter().filter(|one| !one.is_innodb());
                let names: Vec<_> = others.map(|one| one.engine.name()).collect();
                let names = names.join(", ");
                let message = format!(
                    "{message} (to be cloned with {names}, the donor needs this clone plugin and the engine)"
                );
                Error::Donor { number: code, message }
            }
            other => other,
        }
    }

    /// Waits for `clone_delay_after_data_drop`, so that file systems that free space late can free
    /// it.
    fn delay_after_data_drop(&self) -> Result<()> {
        let host = self.session.host();
        let seconds = u64::from(host.settings().delay_after_data_drop);
        if !self.shared.target.drops_data() || seconds == 0 {
            return Ok(());
        }
        log::info!(target: CLIENT, "Begin Delay after data drop");
        let (minutes, rest) = (seconds / 60, seconds % 60);
        log::info!(
            target: CLIENT,
            "Wait time remaining is {minutes} minutes and {rest} seconds."
        );
        let end = host.now() + Duration::from_secs(seconds);
        let mut next_line = host.now() + Duration::from_secs(60);
        let mut outcome = Ok(());
        while outcome.is_ok() && host.now() < end {
            outcome = sleep_until(self.session, next_line.min(end));
            let left = end.saturating_sub(host.now());
            if outcome.is_ok() && !left.is_zero() {
                next_line += Duration::from_secs(60);
                let minutes = left.as_secs() / 60;
                log::info!(target: CLIENT, "Wait time remaining is {minutes} minutes.");
            }
        }
        log::info!(target: CLIENT, "End Delay after data drop");
        outcome
    }

    fn log_outcome(&self, step: &str, outcome: &Result<()>) {
        log_step(self.session, CLIENT, step, outcome);
    }
}
