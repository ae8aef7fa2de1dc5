// SPDX-License-Identifier: GPL-2.0-only

//! Donor and client as one engine.

use std::path::Path;

use clone_engine::{Begun, Callbacks, Mode, Result, Session, StorageEngine};

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

impl StorageEngine for RocksDb {
    fn begin(&self, session: &dyn Session, locator: Option<&[u8]>, mode: Mode) -> Result<Begun> {
        self.donor.begin(session, locator, mode)
    }

    fn prepare_point(&self, _: &dyn Session, locator: &[u8]) -> Result<()> {
        self.donor.prepare_point(locator)
    }

    fn fix_point(&self, _: &dyn Session, locator: &[u8]) -> Result<()> {
        self.donor.fix_point(locator)
    }

    fn copy(
        &self,
        session: &dyn Session,
        locator: &[u8],
        task: u32,
        buffer_size: u32,
        callbacks: &mut dyn Callbacks,
    ) -> Result<()> {
        self.donor.copy(session, locator, task, buffer_size, callbacks)
    }

    fn ack(
        &self,
        session: &dyn Session,
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        self.donor.ack(session, locator, error, descriptor)
    }

    fn end(&self, session: &dyn Session, locator: &[u8], task: u32, error: u32) -> Result<()> {
        self.donor.end(session, locator, task, error)
    }

    fn apply_begin(
        &self,
        session: &dyn Session,
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        self.client.apply_begin(session, locator, mode, directory)
    }

    fn apply(
        &self,
        session: &dyn Session,
        locator: &[u8],
        task: u32,
        descriptor: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<()> {
        self.client.apply(session, locator, task, descriptor, callbacks)
    }

    fn apply_error(
        &self,
        session: &dyn Session,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        self.client.apply_error(session, locator, task, error)
    }

    fn apply_end(
        &self,
        session: &dyn Session,
        locator: &[u8],
        task: u32,
        error: u32,
    ) -> Result<()> {
        self.client.apply_end(session, locator, task, error)
    }
}
