// SPDX-License-Identifier: GPL-2.0-only

//! Asked and measured bandwidth, as a table for docs/operations.md:
//!
//! ```text
//! MYSQL_CLONE_SO=target/release/libmysql_clone.so cargo run --release -p clone-testkit --example throttle
//! ```
//!
//! A number behind it leaves out lower limits, which take longest. `TMPDIR` decides whose speed is measured: on /dev/shm memory's. It needs room for 8 GiB. A limit above what the
//! machine can do is none, so the table ends with the speeds without a limit.

use std::env;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use clone_testkit::anyhow::{Context, Result};
use clone_testkit::clone::{self, Statement, Tls};
use clone_testkit::{Mysqld, Plugin, fixture};

/// Limits in MiB/s; 0 is none.
const LIMITS: [u32; 13] = [1, 2, 4, 8, 16, 64, 256, 512, 1024, 2048, 4096, 10_240, 0];
const TASKS: [u32; 2] = [1, 4];
/// Above this limit, in MiB/s, the clone is of 4 GiB; below, of what an empty server has, about 70 MiB.
const SLOW: u32 = 16;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let donor = Mysqld::builder().name("donor").plugin(Plugin::under_test()?).start()?;
    clone::make_donor(&donor)?;
    let recipient = fixture::recipient(&donor)?;
    println!(
        "| MiB/s asked | local, 1 task | local, 4 tasks | network, 1 task | network, 4 tasks |"
    );
    println!("|---:|---:|---:|---:|---:|");
    let least = env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let mut is_large = false;
    for limit in LIMITS.into_iter().filter(|limit| *limit >= least || *limit == 0) {
        if (limit > SLOW || limit == 0) && !is_large {
            enlarge(&donor)?;
            is_large = true;
        }
        let mut row = match limit {
            0 => "| none |".to_owned(),
            _ => format!("| {limit} |"),
        };
        for tasks in TASKS {
            row += &cell(limit, local(&donor, limit, tasks)?);
        }
        for tasks in TASKS {
            row += &cell(limit, remote(&donor, &recipient, limit, tasks)?);
        }
        println!("{row}");
    }
    Ok(())
}

fn cell(limit: u32, speed: f64) -> String {
    if limit == 0 {
        return format!(" {speed:.0} |");
    }
    format!(" {speed:.2} ({:+.1}%) |", (speed / f64::from(limit) - 1.0) * 100.0)
}

/// Four tablespaces of 1 GiB, which exist as soon as they are asked for.
fn enlarge(donor: &Mysqld) -> Result<()> {
    let mut session = donor.session()?;
    session.run("CREATE DATABASE large")?;
    for table in 0..4 {
        session.run(format!("CREATE TABLE large.t{table} (id INT) AUTOEXTEND_SIZE = 1G"))?;
    }
    Ok(())
}

fn local(server: &Mysqld, limit: u32, tasks: u32) -> Result<f64> {
    let directory = server.scratch("limited");
    let statement = Statement::local(&directory);
    speed(server, "clone_max_data_bandwidth", limit, tasks, &statement)
        .and_then(|speed| fs::remove_dir_all(directory).map(|()| speed).map_err(Into::into))
}

/// Measured is what crossed the network. Protocol 5 bytes a packet more than the data.
fn remote(donor: &Mysqld, recipient: &Mysqld, limit: u32, tasks: u32) -> Result<f64> {
    let directory = recipient.scratch("limited");
    let statement = Statement::instance(donor).tls(Tls::Disabled).into_directory(&directory);
    speed(recipient, "clone_max_network_bandwidth", limit, tasks, &statement)
        .and_then(|speed| fs::remove_dir_all(directory).map(|()| speed).map_err(Into::into))
}

/// MiB/s of FILE COPY, where nearly all of the data is.
fn speed(
    server: &Mysqld,
    variable: &str,
    limit: u32,
    tasks: u32,
    statement: &Statement,
) -> Result<f64> {
    let mut session = server.session()?;
    session.run_all([
        "SET GLOBAL clone_max_data_bandwidth = 0",
        "SET GLOBAL clone_max_network_bandwidth = 0",
        "SET GLOBAL clone_autotune_concurrency = OFF",
        &format!("SET GLOBAL clone_max_concurrency = {tasks}"),
        &format!("SET GLOBAL {variable} = {limit}"),
    ])?;
    session.run(statement.to_string())?;
    let stages = clone::progress(&mut session)?;
    let copy = stages.iter().find(|stage| stage.name == "FILE COPY").context("no FILE COPY")?;
    let elapsed = copy.elapsed.unwrap_or(Duration::ZERO).as_secs_f64();
    let bytes = if variable.contains("network") { copy.network } else { copy.data };
    Ok(bytes as f64 / elapsed / f64::from(1 << 20))
}
