// SPDX-License-Identifier: GPL-2.0-only

//! How many bytes the network was spared, for each way of packing.

use std::collections::BTreeMap;
use std::fmt;

use crate::meter::mib;

/// Bytes of data, and the bytes on the network for them, for each way `W`.
#[derive(Debug)]
pub(crate) struct Saved<W>(BTreeMap<W, (u64, u64)>);

impl<W> Default for Saved<W> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<W: Ord> Saved<W> {
    /// Adds `data` bytes that crossed the network as `network` bytes.
    pub(crate) fn add(&mut self, way: W, data: u64, network: u64) {
        let total = self.0.entry(way).or_default();
        total.0 += data;
        total.1 += network;
    }

    /// One of the ways has made the data smaller.
    pub(crate) fn has_saved(&self) -> bool {
        self.0.values().any(|(data, network)| data > network)
    }

    /// Writes `812 MiB of data sent as 330 MiB; ZSTD1: 800 MiB as 320 MiB, ...`. `verb` is "sent"
    /// or "came".
    pub(crate) fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        verb: &str,
        name: impl Fn(&W) -> String,
    ) -> fmt::Result {
        let sum = |of: fn(&(u64, u64)) -> u64| mib(self.0.values().map(of).sum());
        write!(f, "{} MiB of data {verb} as {} MiB", sum(|one| one.0), sum(|one| one.1))?;
        for (way, (data, network)) in &self.0 {
            write!(f, "; {}: {} MiB as {} MiB", name(way), mib(*data), mib(*network))?;
        }
        Ok(())
    }
}
