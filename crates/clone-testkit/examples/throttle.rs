// SPDX-License-Identifier: GPL-2.0-only

//! Asked and measured bandwidth, as a table for docs/performance.md:
//!
//! ```text
//! export MYSQL_CLONE_SO=target/release/libmysql_clone.so
//! cargo run --release -p clone-testkit --example throttle
//! ```
//!
//! `--help` lists the options. `TMPDIR` decides whose speed is measured: on /dev/shm memory's. It
//! needs room for the data twice, except on a file system with reflinks, where a local clone copies
//! no data and is fast enough for any limit.
//!
//! Before each clone with a limit goes one without. A limit above that speed is none, and the table
//! says so. It also leaves memory behind that is in use already: on a virtual machine, tmpfs gets
//! pages that nobody has touched yet at some hundred MiB/s only.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use clone_testkit::anyhow::{Context, Result, anyhow};
use clone_testkit::clone::{self, Statement, Tls};
use clone_testkit::{Mysqld, fixture};

/// Limits in MiB/s.
const LIMITS: [u32; 13] = [1, 2, 4, 8, 16, 64, 128, 256, 512, 1024, 2048, 4096, 10_240];
const TASKS: [u32; 2] = [1, 4];
/// Above this limit, in MiB/s, the clone is of the large data; below, of what an empty server has,
/// about 70 MiB.
const SLOW: u32 = 16;
const MIB: f64 = 1_048_576.0;

/// Measures how exactly clone_max_data_bandwidth is kept.
#[derive(Debug, Parser)]
struct Options {
    /// The lowest limit in MiB/s. Low limits take longest.
    #[arg(long, default_value_t = 0)]
    least: u32,
    /// Size of the large data in GiB.
    #[arg(long, default_value_t = 4)]
    gib: u32,
    /// Local clones only.
    #[arg(long)]
    local: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    clone_testkit::log_to_stderr();
    clone_testkit::exit_code(run(&options))
}

fn run(options: &Options) -> Result<()> {
    let ways: &[Way] = if options.local { &[Way::Local] } else { &[Way::Local, Way::Network] };

    let donor = fixture::server("donor")?.start()?;
    clone::make_donor(&donor)?;
    let recipient = fixture::recipient(&donor)?;
    let columns: Vec<_> = ways.iter().flat_map(|way| TASKS.map(|tasks| (*way, tasks))).collect();
    let heads = columns.iter().map(|(way, tasks)| format!(" {}, {tasks} |", way.name()));
    println!("| limit |{}", heads.collect::<String>());
    println!("|---:|{}", "---|".repeat(columns.len()));
    let mut is_large = false;
    for limit in LIMITS.into_iter().filter(|limit| *limit >= options.least) {
        if limit > SLOW && !is_large {
            enlarge(&donor, options.gib)?;
            is_large = true;
        }
        let mut row = format!("| {limit} |");
        for &(way, tasks) in &columns {
            let free = way.clone(&donor, &recipient, 0, tasks)?;
            let limited = way.clone(&donor, &recipient, limit, tasks)?;
            row += &cell(f64::from(limit), &limited, &free);
        }
        println!("{row}");
    }
    Ok(())
}

/// What is measured, its difference from the limit, that of the busiest second, and the speed
/// without a limit.
fn cell(limit: f64, limited: &Measured, free: &Measured) -> String {
    let over = |speed: f64| (speed / limit - 1.0) * 100.0;
    if free.speed < limit {
        return format!(" not binding: {:.0} of {:.0} |", limited.speed, free.speed);
    }
    // A slow clone moves less in a second than one block.
    let busiest = limited.busiest.filter(|_| limit > f64::from(SLOW));
    let busiest = busiest.map_or("–".to_owned(), |speed| format!("{:+.1}%", over(speed)));
    format!(" {:.1} ({:+.1}%); {busiest}; {:.0} |", limited.speed, over(limited.speed), free.speed)
}

/// Tablespaces of 1 GiB, which exist as soon as they are asked for: their space is allocated, but
/// not written.
fn enlarge(donor: &Mysqld, gib: u32) -> Result<()> {
    let mut session = donor.session()?;
    session.run_all(["SET GLOBAL innodb_extend_and_initialize = OFF", "CREATE DATABASE large"])?;
    for table in 0..gib {
        session.run(format!("CREATE TABLE large.t{table} (id INT) AUTOEXTEND_SIZE = 1G"))?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Way {
    Local,
    /// Limited is data here, too: all of it are zeros, of which hardly a byte crosses the network.
    Network,
}

/// MiB/s.
struct Measured {
    /// Of FILE COPY, where nearly all of the data is: the stages after it mostly wait for the
    /// server.
    speed: f64,
    /// What the server wrote within the busiest second of the clone, if it took so long.
    busiest: Option<f64>,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Local => "local",
            Way::Network => "network",
        }
    }

    /// Clones once with a limit, or 0 for none.
    fn clone(self, donor: &Mysqld, recipient: &Mysqld, limit: u32, tasks: u32) -> Result<Measured> {
        let directory = recipient.scratch("limited");
        let (server, statement) = match self {
            Way::Local => (donor, Statement::local(&directory)),
            Way::Network => {
                let statement = Statement::instance(donor).tls(Tls::Disabled);
                (recipient, statement.into_directory(&directory))
            }
        };
        let mut session = server.session()?;
        session.run_all([
            "SET GLOBAL clone_autotune_concurrency = OFF",
            &format!("SET GLOBAL clone_max_concurrency = {tasks}"),
            &format!("SET GLOBAL clone_max_data_bandwidth = {limit}"),
        ])?;
        let (busiest, outcome) =
            while_watching(server.pid()?, || session.run(statement.to_string()))?;
        outcome?;
        fs::remove_dir_all(&directory)?;
        let stages = clone::progress(&mut session)?;
        let copy = stages.iter().find(|stage| stage.name == "FILE COPY").context("no FILE COPY")?;
        let elapsed = copy.elapsed.context("FILE COPY has not ended")?.as_secs_f64();
        Ok(Measured { speed: copy.data as f64 / elapsed / MIB, busiest })
    }
}

/// Calls `act`, and gives the MiB that the process wrote to files within the busiest second of it.
fn while_watching<T>(pid: u32, act: impl FnOnce() -> T) -> Result<(Option<f64>, T)> {
    const INTERVAL: Duration = Duration::from_millis(5);
    let (stop, stopped) = channel::<()>();
    let watcher = thread::spawn(move || {
        let file = format!("/proc/{pid}/io");
        let mut samples = Vec::new();
        loop {
            samples.push((Instant::now(), written(Path::new(&file))?));
            if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return Ok(busiest_second(&samples));
            }
        }
    });
    let outcome = act();
    drop(stop);
    let busiest = watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
    busiest.map(|busiest| (busiest, outcome))
}

/// Bytes that the process has written so far, `copy_file_range` and reflinks included.
fn written(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(bytes.context("no wchar")?.parse()?)
}

/// MiB in the busiest of all seconds between two samples; none if the samples span less.
fn busiest_second(samples: &[(Instant, u64)]) -> Option<f64> {
    const SECOND: Duration = Duration::from_secs(1);
    let mut most = None;
    let mut first = 0;
    for &(at, bytes) in samples {
        // The shortest span of a second or more that ends here.
        while samples.get(first + 1).is_some_and(|(next, _)| at.duration_since(*next) >= SECOND) {
            first += 1;
        }
        let (begin, before) = samples[first];
        let span = at.duration_since(begin);
        if span >= SECOND {
            let speed = (bytes - before) as f64 / MIB / span.as_secs_f64();
            most = Some(speed.max(most.unwrap_or(0.0)));
        }
    }
    most
}
