// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone pull`.

use crate::failure::{Failure, Kind, Result};

/// The arguments of `pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    Err(Failure::new(Kind::Other, "not built yet"))
}
