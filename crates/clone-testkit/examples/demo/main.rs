// SPDX-License-Identifier: GPL-2.0-only

//! Clones a real MySQL server in four ways while it is written to, and proves that each clone is
//! exact.

mod display;
mod options;
mod pull;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Parser;
use clone_testkit::anyhow::{Context, Result};
use clone_testkit::clone::{self, Report, Statement, Status};
use clone_testkit::replica::{self, StartFrom};
use clone_testkit::server::Server;
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::writer::{self, Load, Writers};
use clone_testkit::{Mysqld, cancel, dataset};

use display::{MIB, Meter, Stages, headline, line, mib};
use options::Options;
use pull::Measured;

fn main() -> ExitCode {
    let begin = Instant::now();
    let options = Options::parse();
    clone_testkit::log_to_stderr();
    let verdict = on_interrupt().and_then(|()| run(&options));
    let seconds = begin.elapsed().as_secs_f64();
    match verdict {
        Ok(true) => {
            println!("Done in {seconds:.0} s");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("Done in {seconds:.0} s: NOT all clones are exact");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\nFailed after {seconds:.0} s: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first Ctrl-C ends the demo in order, the second at once. The servers end in both cases.
fn on_interrupt() -> Result<()> {
    static PRESSED: AtomicBool = AtomicBool::new(false);
    let handler = || {
        if PRESSED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted, stopping the servers");
        cancel();
    };
    ctrlc::set_handler(handler).context("handle Ctrl-C")
}

/// One way to clone, and what came of it.
struct Clone {
    name: &'static str,
    /// The running clone.
    server: Mysqld,
    measured: Measured,
    /// What the clone itself says about where it stands.
    status: Status,
    from: StartFrom,
    tables: usize,
    /// What is wrong with it; empty when all proofs hold.
    faults: Vec<String>,
}

/// Whether all proofs hold.
fn run(options: &Options) -> Result<bool> {
    let plugin = options.plugin;
    let tool = options.tool()?;
    println!(
        "MySQL {}, clone plugin {}",
        Server::locate()?.version,
        plugin.file_name().unwrap_or_default()
    );
    let instance = |name| Mysqld::builder().name(name).plugin(plugin).keep(options.keep);

    headline("Starting a donor and an empty recipient");
    let mut donor = instance("donor").start()?;
    let mut recipient = instance("recipient").start()?;
    clone::make_donor(&donor)?;
    // For what mysql-clone asks before a pull.
    donor
        .session()?
        .run(format!("GRANT PROCESS, SELECT ON *.* TO {}", clone::donor_account().user))?;
    replica::make_source(&donor)?;
    line(&format!("donor on port {}, recipient on port {}", donor.port(), recipient.port()));

    headline("Loading tables of every kind");
    let size = options.size_mib * MIB;
    let mut meter = Meter::new("load");
    dataset::load(&donor, size, |reached| meter.set(reached, size, ""))?;
    meter.finish();

    headline("Starting writers on the donor, which go on until all clones are made");
    let writers = Writers::start(&donor, Load::default())?;
    let ddl = Load { threads: 0, ddl: true, ..Load::default() };
    writers.await_transactions(100)?;

    headline("1. CLONE INSTANCE, replacing the recipient's data, while tables change as well");
    let altering = Writers::start(&donor, ddl)?;
    clone::allow_donor(&recipient, &donor)?;
    let report = clone_watched(&mut recipient, &Statement::instance(&donor), &writers)?;
    altering.stop()?;
    let mut in_place = Clone::of_report("in place", recipient, &report, StartFrom::Gtid)?;

    // Without DDL: under DDL, the server does not keep the file position exact.
    headline("2. CLONE INSTANCE to a directory, and a server started on it");
    let directory = in_place.server.scratch("clone");
    clone::allow_donor(&in_place.server, &donor)?;
    let statement = Statement::instance(&donor).into_directory(&directory);
    let report = clone_watched(&mut in_place.server, &statement, &writers)?;
    let server = instance("directory").adopt(&directory).start()?;
    let to_directory = Clone::of_report("to a directory", server, &report, StartFrom::File)?;

    headline("3. CLONE LOCAL, and a server started on the directory, while tables change as well");
    let altering = Writers::start(&donor, ddl)?;
    let directory = donor.scratch("clone");
    let report = clone_watched(&mut donor, &Statement::local(&directory), &writers)?;
    altering.stop()?;
    let server = instance("local").adopt(&directory).start()?;
    let local = Clone::of_report("local", server, &report, StartFrom::Gtid)?;

    headline("4. mysql-clone pull: no server at this end. Then a server started on the directory");
    let directory = donor.scratch("pulled");
    let measured = pull::pull(&tool, &donor, &directory)?;
    pull::verify(&tool, &directory)?;
    let server = instance("pulled").adopt(&directory).start()?;
    let status = pull::status(&server)?;
    let pulled = Clone::examine("pulled", server, measured, status, StartFrom::Gtid)?;

    let mut clones = [in_place, to_directory, local, pulled];
    prove_equal(&donor, writers, &mut clones)?;
    let proven = print_verdict(&clones);
    if options.keep {
        for server in clones.iter().map(|clone| &clone.server).chain([&donor]) {
            println!("Kept the {}'s data: {}", server.name(), server.data_dir().display());
        }
    }
    println!("\nStopping the servers{}", if options.keep { "" } else { ", removing their files" });
    Ok(proven)
}

fn clone_watched(
    recipient: &mut Mysqld,
    statement: &Statement,
    writers: &Writers,
) -> Result<Report> {
    let before = writers.written();
    let mut stages = Stages::default();
    let report = clone::run_watched(recipient, statement, |progress| stages.watch(progress))?;
    stages.finish(&report.stages);
    let after = writers.written();
    line(&format!(
        "{:10} {:6.2} s {:6.0} MiB; meanwhile the donor committed {} transactions",
        "cloned",
        report.elapsed.as_secs_f64(),
        mib(report.data()),
        after.transactions - before.transactions,
    ));
    Ok(report)
}

impl Clone {
    /// A clone of the plugin: the clone itself says where it stands.
    fn of_report(
        name: &'static str,
        server: Mysqld,
        report: &Report,
        from: StartFrom,
    ) -> Result<Self> {
        let status = clone::status(&mut server.session()?)?;
        let status = status.context("clone_status of a clone is empty")?;
        Self::examine(name, server, report.into(), status, from)
    }

    /// Looks at what can be judged without the donor.
    fn examine(
        name: &'static str,
        server: Mysqld,
        measured: Measured,
        status: Status,
        from: StartFrom,
    ) -> Result<Self> {
        let mut session = server.session()?;
        let mut faults = Vec::new();
        if let Err(error) = writer::check_invariants(&mut session) {
            faults.push(format!("invariant: {error:#}"));
        }
        let (tables, found) = verify::check_tables(&mut session)?;
        faults.extend(found);
        line(&format!(
            "CHECK TABLE EXTENDED of {tables} tables, sums of the bank: {}",
            verdict(&faults)
        ));
        Ok(Self { name, server, measured, status, from, tables, faults })
    }
}

/// Lets the clones replicate from the donor, and compares all once they have caught up.
fn prove_equal(donor: &Mysqld, writers: Writers, clones: &mut [Clone]) -> Result<()> {
    headline(
        "Proving equality: the clones replicate from the donor, starting where they say they stand",
    );
    for clone in &mut *clones {
        replica::attach(&clone.server, donor, &clone.status, clone.from)?;
    }
    writers.await_transactions(100)?;
    let written = writers.stop()?;
    line(&format!("the writers stopped after {} transactions", written.transactions));
    let expected = Fingerprint::read(&mut donor.session()?)?;
    for clone in &mut *clones {
        let before = clone.faults.len();
        if clone.from == StartFrom::File
            && let Err(error) = replica::check_coordinates(donor, &clone.status)
        {
            clone.faults.push(format!("coordinates: {error:#}"));
        }
        match replica::catch_up(&clone.server, donor) {
            Ok(()) => {
                let actual = Fingerprint::read(&mut clone.server.session()?)?;
                clone.faults.extend(expected.differences(&actual));
            }
            Err(error) => clone.faults.push(format!("{error:#}")),
        }
        line(&format!(
            "{:14} {} rows, {} tables and other things: {}",
            clone.name,
            expected.rows(),
            expected.things(),
            verdict(&clone.faults[before..])
        ));
    }
    Ok(())
}

fn print_verdict(clones: &[Clone]) -> bool {
    println!(
        "\n{:15} {:>8} {:>8} {:>8} {:>9}  {:21} verdict",
        "clone", "time", "MiB", "MiB/s", "restart", "consistent with"
    );
    for Clone { name, measured, status, from, tables, faults, .. } in clones {
        let seconds = measured.seconds;
        let position = match from {
            StartFrom::File => format!("{}:{}", status.binlog_file, status.binlog_position),
            StartFrom::Gtid => {
                format!("GTID {}", status.gtid_executed.rsplit(':').next().unwrap_or_default())
            }
        };
        let data = mib(measured.bytes);
        let restart = measured.restart.map(|seconds| format!("{seconds:.2} s")).unwrap_or_default();
        println!(
            "{name:15} {seconds:>6.2} s {data:>8.0} {:>8.0} {restart:>9}  {position:21} {}",
            data / seconds,
            match faults.is_empty() {
                true => format!("equal to the donor, {tables} tables sound"),
                false => format!("FAULTY: {}", faults.len()),
            }
        );
    }
    for clone in clones {
        for fault in &clone.faults {
            println!("FAULT {}: {fault}", clone.name);
        }
    }
    clones.iter().all(|clone| clone.faults.is_empty())
}

fn verdict(faults: &[String]) -> &'static str {
    if faults.is_empty() { "ok" } else { "FAULT" }
}
