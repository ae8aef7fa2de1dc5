// SPDX-License-Identifier: GPL-2.0-only

//! The part of one connection in a clone, from INIT, REINIT or ATTACH to EXIT or an error.

use std::sync::Arc;

use clone_protocol::{Base, EngineLocator, Response, Version, innodb};

use super::base::DonorBase;
use super::clones::{DonorClone, DonorClones};
use super::packing::ClonePacking;
use crate::consistency_point::ConsistencyPoint;
use crate::engine::{Engine, Mode, ServerEngine};
use crate::error::{Error, Result};
use crate::session::{DonorSession, Host};
use crate::tasks::SourceTasks;

/// The engines of a clone that a recipient names, each with its locator. Empty if a new clone is to
/// have all engines of the donor.
type Asked<E> = Vec<(E, EngineLocator)>;

/// One connection's part in a clone. It must be [ended](Self::end).
pub(super) struct Membership<E> {
    /// Tasks in the engines.
    pub(super) source: SourceTasks<E>,
    /// The clone that these tasks are part of. A recipient without InnoDB has no clone here.
    pub(super) clone: Option<Arc<DonorClone<E>>>,
    /// The tasks began with INIT or REINIT, not with ATTACH.
    pub(super) is_master: bool,
    /// Digests of a base have come over this connection.
    has_taken_base: bool,
}

impl<E> Membership<E> {
    /// Begins, joins or resumes a clone in its engines.
    ///
    /// # Errors
    /// The engines'.
    pub(super) fn begin<S>(
        session: &S,
        clones: &DonorClones<E>,
        asked: Asked<E>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Self>
    where
        S: DonorSession<Engine = E>,
        E: ServerEngine<S>,
    {
        let is_master = mode != Mode::AddTask;
        // Look the clone up before the engines begin: REINIT makes the old connection end, and its
        // entry with it.
        let innodb = asked.iter().find(|(_, locator)| locator.db_type == innodb::DB_TYPE);
        let running = innodb.and_then(|(_, locator)| clones.find(&locator.bytes));
        // Only a new clone may come without locators.
        let source = match asked.is_empty() && mode == Mode::Start {
            true => SourceTasks::begin_all(session, ddl_timeout)?,
            false => {
                let engines =
                    asked.into_iter().map(|(engine, locator)| (engine, Some(locator.bytes)));
                SourceTasks::begin(session, engines, mode, ddl_timeout)?
            }
        };
        let clone = match running {
            None if is_master => register(session, clones, &source, ddl_timeout),
            found => found,
        };
        Ok(Self { source, clone, is_master, has_taken_base: false })
    }

    /// The consistency point, if other engines follow InnoDB.
    pub(super) fn point(&self) -> Option<&ConsistencyPoint<E>> {
        self.clone.as_ref()?.point.as_ref()
    }

    /// What tells the recipient the locators of the clone.
    pub(super) fn locators<S>(&self, version: Version) -> Response<'static>
    where
        E: ServerEngine<S>,
    {
        let locators = self.source.iter().map(|task| task.clone.to_wire()).collect();
        Response::Locators { version, locators }
    }

    /// Takes digests of an older copy that the recipient has. None if this is not the connection of
    /// a master.
    ///
    /// # Errors
    /// The digests are refused.
    pub(super) fn take_base(&mut self, base: &Base<'_>) -> Option<Result<()>> {
        let clone = self.clone.as_ref().filter(|_| self.is_master)?;
        let is_first = !std::mem::replace(&mut self.has_taken_base, true);
        Some(clone.base.take(base, is_first))
    }

    /// Ends the tasks in the engines, with `error` or 0.
    pub(super) fn end<S>(self, session: &S, error: u32)
    where
        E: Engine<S>,
    {
        // A master that waits for its recipient must learn of a worker's failure. Report the
        // failure while the worker is still a task of the clone. Later the clone may belong to a
        // new connection, which must not take the failure for its own.
        if let Some(point) = self.point().filter(|_| error != 0 && !self.is_master) {
            point.fail(error);
        }
        self.source.end(session, error);
    }
}

/// Registers a clone that has begun, and its consistency point.
fn register<S>(
    session: &S,
    clones: &DonorClones<S::Engine>,
    source: &SourceTasks<S::Engine>,
    ddl_timeout: u32,
) -> Option<Arc<DonorClone<S::Engine>>>
where
    S: DonorSession,
{
    let engine_clones = source.engine_clones();
    // The recipient may not keep this server's writers waiting for longer than this server does.
    let timeout = ddl_timeout.min(session.host().settings().ddl_timeout);
    let clone = Arc::new(DonorClone {
        point: ConsistencyPoint::of(&engine_clones, timeout),
        packing: ClonePacking::default(),
        base: DonorBase::default(),
    });
    let innodb = engine_clones.iter().find(|one| one.is_innodb())?;
    clones.add(&innodb.locator, &clone);
    Some(clone)
}

/// The engines that INIT, REINIT or ATTACH names.
///
/// # Errors
/// This server lacks an engine; a new clone lacks one of this server.
pub(super) fn asked_engines<S: DonorSession>(
    session: &S,
    mode: Mode,
    locators: Vec<EngineLocator>,
) -> Result<Asked<S::Engine>> {
    let mut asked = Vec::with_capacity(locators.len());
    for locator in locators {
        let engine = engine_of(session, &locator)
            .ok_or_else(|| Error::Protocol("Wrong Clone RPC: Init buffer length".to_owned()))?;
        asked.push((engine, locator));
    }
    if mode == Mode::Start {
        check_complete(session, &asked)?;
    }
    Ok(asked)
}

/// The engine that a recipient's locator names. InnoDB's locator is parsed first, because InnoDB
/// can read more bytes than the locator has.
pub(super) fn engine_of<S: DonorSession>(
    session: &S,
    locator: &EngineLocator,
) -> Option<S::Engine> {
    if locator.db_type == innodb::DB_TYPE && innodb::Locator::parse(&locator.bytes).is_err() {
        return None;
    }
    session.engine(locator.db_type)
}

/// Refuses a new clone that lacks an engine of this server, because the copy would be incomplete. A
/// stock recipient asks for InnoDB only.
fn check_complete<S: DonorSession>(session: &S, asked: &Asked<S::Engine>) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let is_asked = |own: &S::Engine| asked.iter().any(|(one, _)| one.db_type() == own.db_type());
    match session.engines().iter().find(|own| !is_asked(own)) {
        None => Ok(()),
        Some(own) => Err(Error::Protocol(format!(
            "Wrong Clone RPC: the donor's engine {} is not asked for; the recipient needs that \
             engine and this clone plugin",
            own.name()
        ))),
    }
}
