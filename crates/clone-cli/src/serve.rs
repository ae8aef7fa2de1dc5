// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone serve`.

use crate::failure::{Failure, Kind, Result};

/// The arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    Err(Failure::new(Kind::Other, "not built yet"))
}
