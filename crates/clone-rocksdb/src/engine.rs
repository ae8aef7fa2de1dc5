// SPDX-License-Identifier: GPL-2.0-only

//! Donor and client as one engine.

use std::path::Path;

use clone_engine::{Begun, BlockInput, BlockOutput, Cancel, Engine, Mode, Result, TaskId};

use crate::client::Client;
use crate::donor::Donor;

/// A RocksDB in this process, to be cloned from and to.
pub struct RocksDb {
    donor: Donor,
    client: Client,
}

impl RocksDb {
    /// Both sides.
    pub fn new(donor: Donor, client: Client) -> Self {
        Self { donor, client }
    }
}

impl<'s> Engine<dyn Cancel + 's> for RocksDb {
    /// `ddl_timeout` is ignored: RocksDB waits for no DDL.
    fn begin(
        &self,
        session: &(dyn Cancel + 's),
        locator: Option<&[u8]>,
        mode: Mode,
        _ddl_timeout: u32,
    ) -> Result<Begun> {
        self.donor.begin(session, locator, mode)
    }

    fn prepare_point(&self, _: &(dyn Cancel + 's), locator: &[u8]) -> Result<()> {
        self.donor.prepare_point(locator)
    }

    fn fix_point(&self, _: &(dyn Cancel + 's), locator: &[u8]) -> Result<()> {
        self.donor.fix_point(locator)
    }

    fn copy(
        &self,
        session: &(dyn Cancel + 's),
        task: TaskId<'_>,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        self.donor.copy(session, task.locator, task.number, buffer_size, output)
    }

    fn ack(
        &self,
        session: &(dyn Cancel + 's),
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        self.donor.ack(session, locator, error, descriptor)
    }

    fn end(&self, session: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        self.donor.end(session, task.locator, task.number, error)
    }

    fn apply_begin(
        &self,
        session: &(dyn Cancel + 's),
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        self.client.apply_begin(session, locator, mode, directory)
    }

    fn apply(
        &self,
        session: &(dyn Cancel + 's),
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        self.client.apply(session, task.locator, task.number, descriptor, input)
    }

    fn apply_error(&self, session: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        self.client.apply_error(session, task.locator, task.number, error)
    }

    fn apply_end(&self, session: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        self.client.apply_end(session, task.locator, task.number, error)
    }
}
