// SPDX-License-Identifier: GPL-2.0-only

//! Donors and recipients as most tests want them.

use anyhow::Result;

use crate::mysqld::{Builder, Mysqld};
use crate::plugin::Plugin;
use crate::{clone, dataset, replica};

/// A server with the plugin under test, loaded at start.
pub fn server(name: &str) -> Result<Builder> {
    Ok(Mysqld::builder().name(name).plugin(Plugin::under_test()?))
}

/// A donor with the small data set, and accounts for recipients and replicas.
pub fn donor() -> Result<Mysqld> {
    donor_from(server("donor")?)
}

/// As [`donor`], with options.
pub fn donor_from(builder: Builder) -> Result<Mysqld> {
    let donor = builder.start()?;
    dataset::load_small(&donor)?;
    clone::make_donor(&donor)?;
    replica::make_source(&donor)?;
    Ok(donor)
}

/// An empty server that may clone from `donor`.
pub fn recipient(donor: &Mysqld) -> Result<Mysqld> {
    recipient_from(server("recipient")?, donor)
}

/// As [`recipient`], with options.
pub fn recipient_from(builder: Builder, donor: &Mysqld) -> Result<Mysqld> {
    let recipient = builder.start()?;
    clone::allow_donor(&recipient, donor)?;
    Ok(recipient)
}

/// Makes clones by this recipient take long: a few seconds with the stock plugin, which lets more pass than
/// it should, minutes with one that keeps the limit. For tests that do something meanwhile.
pub fn slow_down(recipient: &Mysqld) -> Result<()> {
    recipient.session()?.run_all([
        "SET GLOBAL clone_max_data_bandwidth = 1",
        "SET GLOBAL clone_autotune_concurrency = OFF",
        "SET GLOBAL clone_max_concurrency = 1",
    ])
}

/// Lifts the limit of [`slow_down`], also for a clone that is running.
pub fn speed_up(recipient: &Mysqld) -> Result<()> {
    recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 0")
}
