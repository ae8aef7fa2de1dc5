// SPDX-License-Identifier: GPL-2.0-only

//! Donors and recipients as most tests want them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Error, Result, ensure};

use crate::clone::{Running, Statement};
use crate::faults::SmallDisk;
use crate::mysqld::{Builder, Mysqld};
use crate::plugin::Plugin;
use crate::sql::{SqlError, server_error};
use crate::{clone, dataset, replica};

/// How long a server may take to give up what a clone that was broken off holds.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);

/// The option for a server whose clones must come over the network. Without it files are handed
/// over where donor and recipient are on a file system whose files can share blocks.
pub const DISTANT: &str = "--loose-clone-file-handover=OFF";

/// A server with the plugin under test, loaded at start, and otherwise with the defaults that users
/// have.
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

/// A donor without data of its own, and a recipient: quick to start.
pub fn pair() -> Result<(Mysqld, Mysqld)> {
    let donor = server("donor")?.start()?;
    clone::make_donor(&donor)?;
    let recipient = recipient(&donor)?;
    Ok((donor, recipient))
}

/// Has all changed pages written to the tablespaces.
pub fn flush(server: &Mysqld) -> Result<()> {
    let mut session = server.session()?;
    session.run(
        "SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0, GLOBAL innodb_max_dirty_pages_pct = 0",
    )?;
    crate::until("all pages to be written", CLEAN_UP_LIMIT, || {
        let (_, dirty): (String, u64) =
            session.one("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")?;
        Ok((dirty < 10).then_some(()))
    })?;
    session.run("SET GLOBAL innodb_max_dirty_pages_pct = 90")
}

/// Clones to a new directory, to show that it works: again and again while a clone that was broken
/// off is not quite over on either side.
pub fn assert_clones(recipient: &Mysqld, donor: &Mysqld) -> Result<()> {
    let directory = recipient.scratch("proof");
    let statement = Statement::instance(donor).into_directory(&directory).to_string();
    let mut session = recipient.session()?;
    crate::until("a clone to be possible", CLEAN_UP_LIMIT, || match session.run(&statement) {
        Ok(()) => Ok(Some(())),
        Err(error) if is_busy(&error) => Ok(None),
        Err(error) => Err(error),
    })?;
    let status = clone::status(&mut session)?;
    ensure!(status.as_ref().is_some_and(|status| status.state == "Completed"), "{status:?}");
    Ok(fs::remove_dir_all(directory)?)
}

/// Whether the recipient (3634) or the donor (3634 within 3862) is still occupied.
fn is_busy(error: &Error) -> bool {
    server_error(error)
        .is_some_and(|error| error.number == 3634 || error.message.contains("Donor Error: 3634 "))
}

/// Removes the directory of a clone that failed, if the plugin has left it: the stock plugin does.
pub fn remove_rest(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes clones by this recipient take long: a few seconds with the stock plugin, which lets more
/// pass than it should, minutes with one that keeps the limit. For tests that do something
/// meanwhile.
pub fn slow_down(recipient: &Mysqld) -> Result<()> {
    recipient.session()?.run_all([
        "SET GLOBAL clone_max_data_bandwidth = 1",
        "SET GLOBAL clone_autotune_concurrency = OFF",
        "SET GLOBAL clone_max_concurrency = 1",
    ])
}

/// Clones to a disk that somebody else fills meanwhile, and gives the error of that.
pub fn fill_disk_under_clone(
    recipient: &Mysqld,
    donor: &Mysqld,
    disk: &SmallDisk,
) -> Result<SqlError> {
    slow_down(recipient)?;
    let directory = disk.path().join("clone");
    let statement = Statement::instance(donor).into_directory(&directory);
    let running = Running::start_copying(recipient, &statement)?;
    disk.fill()?;
    speed_up(recipient)?;
    running.failure()
}

/// Lifts the limit of [`slow_down`], also for a clone that is running.
pub fn speed_up(recipient: &Mysqld) -> Result<()> {
    recipient.session()?.run("SET GLOBAL clone_max_data_bandwidth = 0")
}
