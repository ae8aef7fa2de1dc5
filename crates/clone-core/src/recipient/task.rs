// SPDX-License-Identifier: GPL-2.0-only

//! One thread of a recipient, from its first connection to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clone_protocol::innodb::TaskRole;
use clone_protocol::{BlockForm, Command, Init, Offer, Version};

use super::answer::{explained, locators_expected, silent, unexpected};
use super::apply::Applier;
use super::based::Map;
use super::block::BlockReceiver;
use super::delay::wait_after_data_drop;
use super::dialogue::{Event, Takes, ends_connection};
use super::donor_side::DonorSide;
use super::engine_side::EngineSide;
use super::master::Master;
use super::resume_point::ResumePoint;
use super::shared::Shared;
use super::target::Target;
use crate::error::{Error, Result, number};
use crate::log_target::CLIENT;
use crate::session::{self, Host, RecipientSession};
use crate::tasks::EngineClone;

/// The most connections of a clone's master, the first included. When this many have broken, the
/// clone fails. Attempts that do not connect are not counted here.
const MAX_CONNECTIONS: u32 = 100;

/// What a task does after it has cloned over a connection.
enum After {
    /// It connects again. The donor keeps the clone for this recipient.
    Reconnect,
    /// It ends without an error of the statement: the clone begins again, without the server's data
    /// ([`Shared::begins_again_after`]).
    DropDataAndBegin,
    /// It ends. The failure of the network was really KILL.
    Killed,
    /// It ends. The donor has been silent for so long, which says more than the network's error.
    Silent(Duration),
    /// It ends. The clone is complete, or has failed.
    End,
}

/// One thread of a recipient.
pub(super) struct Task<'s, S: RecipientSession> {
    session: &'s S,
    shared: Arc<Shared<S>>,
    /// The master has this; a worker does not.
    master: Option<Master<S>>,
    donor_side: DonorSide<'s, S>,
    engine_side: EngineSide,
    receiver: BlockReceiver,
    /// What the donor has said of the next descriptor's block.
    map: Option<Map>,
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
            donor_side: DonorSide::new(session, Arc::clone(&shared), master.is_some()),
            master,
            shared,
            engine_side: EngineSide::default(),
            receiver: BlockReceiver::default(),
            map: None,
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
    pub(super) fn resume(mut self, point: ResumePoint) -> Result<()> {
        let ResumePoint { parameters, locator, descriptors } = point;
        let begun = self.engine_side.begin_resumed(
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
    /// failed. `has_begun`: the engines have begun the clone, on an earlier connection or in
    /// another process.
    fn run_connections(mut self, mut has_begun: bool) -> Result<()> {
        let mut outcome;
        let mut connections = 0;
        loop {
            connections += 1;
            outcome = match &self.master {
                Some(master) if has_begun => self.donor_side.reconnect(master.reconnect_timeout()),
                _ => self.donor_side.connect(false),
            };
            if outcome.is_err() {
                break;
            }
            outcome = self.clone_over_connection(has_begun);
            let after = self.after(&outcome, connections);
            if matches!(after, After::Killed) {
                outcome = Err(Error::Interrupted);
            }
            if matches!(after, After::Reconnect) {
                self.donor_side.log_step("Source Network issue", &outcome);
            } else if has_begun {
                self.donor_side.log_step("Source break restart loop", &outcome);
            }
            let clear_error = !matches!(after, After::End);
            if let (Err(error), After::End) = (&outcome, &after) {
                // To disconnect may raise another error.
                self.session.raise(error);
            }
            self.disconnect(&outcome, clear_error);
            if let After::Silent(silence) = after {
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
            if !matches!(after, After::Reconnect) {
                break;
            }
            has_begun = true;
        }
        self.finish(outcome)
    }

    /// Decides what this task does after `outcome` on its connection, the last of `connections`.
    /// The connection is still open.
    fn after(&self, outcome: &Result<()>, connections: u32) -> After {
        match outcome {
            _ if self.donor_side.was_killed(outcome) => After::Killed,
            _ if !self.is_master() => After::End,
            // Before the apply has begun, the donor has nothing to resume.
            Err(error)
                if error.is_network()
                    && self.engine_side.is_active()
                    && connections < MAX_CONNECTIONS =>
            {
                After::Reconnect
            }
            Err(error) if self.shared.begins_again_after(error) => After::DropDataAndBegin,
            _ => self.donor_side.dialogue.silence().map_or(After::End, After::Silent),
        }
    }

    /// INIT, REINIT or ATTACH, then EXECUTE.
    fn clone_over_connection(&mut self, has_begun: bool) -> Result<()> {
        let (step, outcome) = match (self.is_master(), has_begun) {
            (true, false) => ("Command COM_INIT", self.init()),
            (true, true) => ("Command COM_REINIT", self.reinit()),
            (false, _) => ("Command COM_ATTACH", self.attach()),
        };
        self.donor_side.log_step(step, &outcome);
        outcome?;
        self.tell_base()?;
        if let Some(master) = &mut self.master {
            master.spawn_initial_workers(self.session, &self.shared);
        }
        let outcome = self.execute();
        self.donor_side.log_step("Command COM_EXECUTE", &outcome);
        outcome
    }

    /// Tells the donor what this recipient has in its base, before any task asks for data.
    fn tell_base(&mut self) -> Result<()> {
        let takes = self.master.as_ref().is_some_and(|master| master.parameters.takes_base());
        let Some(base) = self.shared.base.clone().filter(|_| takes) else { return Ok(()) };
        let told = base
            .commands()
            .into_iter()
            .try_for_each(|one| self.transfer(&Command::Base(one), None).map(drop));
        self.shared.has_told_base.store(told.is_ok(), Ordering::Relaxed);
        self.donor_side.log_step("Digests", &told);
        told
    }

    /// Sends EXIT on the task's connections and closes them. With `clear_error`, the errors of the
    /// network are cleared from the session.
    fn disconnect(&mut self, outcome: &Result<()>, clear_error: bool) {
        // The donor may wait for the copy of a block that this task has not read about yet.
        self.receiver.close_files();
        if let Err(error) = outcome
            && self.engine_side.is_active()
        {
            self.donor_side.tell(error);
        }
        if let Err(error) = self.donor_side.disconnect(outcome, clear_error) {
            self.engine_side.fail(self.session, &self.shared, &error);
        }
    }

    /// The statement is killed: its clone fails, also if all data has arrived.
    fn check_killed(&self) -> Result<()> {
        if self.is_master() { session::check_killed(self.session) } else { Ok(()) }
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
        // InnoDB looks for KILL when it ends its task, gives the clone up, and does not say so.
        outcome = outcome.and_then(|()| self.check_killed());
        let error = outcome.as_ref().err().map_or(0, Error::number);
        let ended = self.engine_side.end(self.session, &self.shared, error);
        outcome = outcome.and(ended);
        if matches!(self.shared.target, Target::Directory(_)) {
            outcome = outcome.and_then(|()| self.check_killed());
        }
        let Some(master) = &mut self.master else { return outcome };
        if let (Ok(()), Target::Staging(directory)) = (&outcome, &self.shared.target) {
            let staged = self.shared.placement().staged(directory);
            outcome = master.replace_data(self.session, &staged);
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

    /// Begins the clone at the donor, then here.
    fn init(&mut self) -> Result<()> {
        self.engine_side.begin_version(self.session, &self.shared)?;
        let clones = self.transfer(&Command::Init(self.init_payload(true)), None)?;
        self.begin_clone(clones.ok_or_else(locators_expected)?)?;
        match self.shared.target.drops_data() {
            true => wait_after_data_drop(self.session),
            false => Ok(()),
        }
    }

    /// Says to the donor after a network failure where the clone goes on.
    fn reinit(&mut self) -> Result<()> {
        self.engine_side.restart(self.session, &self.shared)?;
        self.transfer(&Command::Reinit(self.init_payload(false)), None)?;
        Ok(())
    }

    /// Joins the clone that the master has begun.
    fn attach(&mut self) -> Result<()> {
        let clones = self.transfer(&Command::Attach(self.init_payload(false)), None)?;
        self.engine_side.join(self.session, &self.shared, clones.ok_or_else(locators_expected)?)
    }

    /// Takes the donor's stream.
    fn execute(&mut self) -> Result<()> {
        let role = if self.is_master() { TaskRole::Master } else { TaskRole::Worker };
        self.engine_side.begin_stream(&self.shared, role);
        let offer = self.offer();
        self.transfer(&Command::Execute, Some(offer))?;
        Ok(())
    }

    /// What INIT, REINIT and ATTACH tell the donor. In INIT this server asks whether the donor
    /// knows heartbeats.
    fn init_payload(&self, is_init: bool) -> Init {
        let heartbeats = &self.shared.heartbeats;
        // Releases that speak less have not been seen with the bit in the version.
        let may_ask = is_init && self.session.host().release().protocol >= Version::V3;
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
        master.parameters.same_donor = self.donor_side.dialogue.wait_for_same_donor()?;
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
        let takes_files = &self.shared.takes_files;
        let may_take =
            takes_files.load(Ordering::Relaxed) && self.donor_side.dialogue.is_within_host();
        let files = may_take.then(|| self.session.listen_for_files()).and_then(|files| {
            let failed = |error: &io::Error| {
                takes_files.store(false, Ordering::Relaxed);
                log::info!(target: CLIENT, "The donor sends its files: {error}");
            };
            files.inspect_err(failed).ok()
        });
        let handover = self.receiver.take_files(files);
        let mut accepts = self.shared.offer.accepts;
        if !self.shared.told_base() {
            // The donor may have the digests of another process, which has begun this clone.
            accepts = accepts.without(BlockForm::Base);
        }
        Offer { handover, accepts, ..self.shared.offer }
    }

    /// Sends the command and handles the donor's answer, until its last packet. Returns the
    /// locators, if the answer had some.
    fn transfer(
        &mut self,
        command: &Command<'_>,
        offer: Option<Offer>,
    ) -> Result<Option<Clones<S>>> {
        let session = self.session;
        self.map = None;
        self.donor_side.dialogue.send(command, offer)?;
        let mut clones = None;
        loop {
            let takes = match (command, &mut self.master) {
                (Command::Init(_), Some(master)) => Takes::Parameters(&mut master.parameters),
                _ => Takes::Stream,
            };
            // These errors are not raised here: a donor's error is explained first, and another
            // connection may help after an error of the network.
            let event = match self.donor_side.dialogue.receive(command, takes) {
                Ok(Event::Complete) if self.map.is_none() => return Ok(clones),
                Ok(Event::Error(error)) => {
                    self.engine_side.fail(session, &self.shared, &error);
                    return Err(explained(session, &self.shared, command, error));
                }
                Err(error) => {
                    self.engine_side.fail(session, &self.shared, &error);
                    return Err(error);
                }
                Ok(event) => event,
            };
            if let Err(error) = self.handle(event, &mut clones) {
                // The donor's error may come next.
                session.raise(&error);
                self.engine_side.fail(session, &self.shared, &error);
                if ends_connection(&error) {
                    return Err(error);
                }
                // The donor must not wait for blocks that nobody copies.
                self.receiver.close_files();
                return Err(self.donor_side.drain(command, error));
            }
        }
    }

    /// Handles one packet that is not the last one.
    fn handle(&mut self, event: Event, clones: &mut Option<Clones<S>>) -> Result<()> {
        match event {
            Event::Parameter => {}
            Event::Numbered => self.donor_side.send_first_heartbeat(),
            Event::Locators(version, locators) => {
                self.shared.set_version(version);
                *clones = Some(EngineSide::resolve(&self.shared, locators)?);
            }
            Event::Descriptor { db_type, locator_index } => self.apply(db_type, locator_index)?,
            Event::FileTrial => {
                let directory = self.shared.target.path();
                self.receiver.try_sharing(directory, &self.shared.takes_files)?;
            }
            Event::Map(map) => match self.map.replace(map) {
                None => {}
                Some(_) => return Err(unexpected()),
            },
            Event::Data | Event::Complete | Event::Error(_) => return Err(unexpected()),
        }
        Ok(())
    }

    /// Gives the current descriptor to its engine.
    fn apply(&mut self, db_type: u8, locator_index: usize) -> Result<()> {
        let descriptor = self.donor_side.dialogue.take_descriptor();
        let outcome = self.apply_descriptor(db_type, locator_index, &descriptor);
        let dialogue = &mut self.donor_side.dialogue;
        dialogue.give_back(descriptor);
        let Err(error) = &outcome else { return Ok(()) };
        // The connection that tells the donor may fail.
        self.session.raise(error);
        // After KILL the donor is told when this task disconnects. A silent donor is not waited for
        // once more.
        let tells = self.master.is_some() && !self.session.is_killed();
        let tells = tells && dialogue.silence().is_none();
        if tells && error.number() != number::ER_CLONE_DONOR {
            dialogue.report_local_error(error);
        }
        outcome
    }

    fn apply_descriptor(
        &mut self,
        db_type: u8,
        locator_index: usize,
        descriptor: &[u8],
    ) -> Result<()> {
        let Self { session, shared, master, donor_side, engine_side, receiver, map } = self;
        let (clone, expected) = engine_side.check(shared, db_type, locator_index, descriptor)?;
        let base = shared.base.as_deref();
        let equal = map.take().map(|map| map.equal_units(base, &expected)).transpose()?;
        let expected = expected.without(equal.as_ref());
        let placed = match clone.is_innodb() {
            true => EngineSide::place(*session, shared, descriptor)?,
            false => None,
        };
        let descriptor = placed.as_ref().map_or(descriptor, |placed| placed.as_slice());
        let mut applier = Applier {
            session: *session,
            shared,
            dialogue: &mut donor_side.dialogue,
            receiver,
            master: master.as_mut(),
            locator_index,
            expected,
            equal,
            failure: None,
        };
        let applied = engine_side.apply(*session, &clone, locator_index, descriptor, &mut applier);
        applier.finish(applied)
    }
}
