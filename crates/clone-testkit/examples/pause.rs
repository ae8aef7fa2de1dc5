// SPDX-License-Identifier: GPL-2.0-only

//! How long a recipient of a clone in place cannot be used, as a table for docs/performance.md:
//!
//! ```text
//! export MYSQL_CLONE_SO=target/release/libmysql_clone.so
//! cargo run --release -p clone-testkit --example pause
//! ```
//!
//! A client writes and reads at the recipient all the time. The pause is the longest time from one
//! good answer to the next. The stock plugin and the two ways of this one take turns. `TMPDIR`
//! decides which disk is measured; it needs room for four times the data.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use clone_testkit::anyhow::{Result, anyhow};
use clone_testkit::clone::{self, Statement};
use clone_testkit::fixture::{self, DISTANT};
use clone_testkit::sql::{Account, Session};
use clone_testkit::{Mysqld, Plugin, dataset};

/// Measures the pause of a recipient at a clone in place.
#[derive(Debug, Parser)]
struct Options {
    /// Size of the donor's data in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Clones of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Plugin, and `clone_keep_data`.
const KINDS: [(&str, Plugin, &str); 3] = [
    ("stock", Plugin::Stock, "OFF"),
    ("ours, `clone_keep_data=OFF`", Plugin::Ours, "OFF"),
    ("ours, `clone_keep_data=ON`", Plugin::Ours, "ON"),
];

/// Pause of the client, when there was no good answer.
const PAUSE: Duration = Duration::from_millis(2);

/// What the client uses. The donor has it, too.
const TABLE: [&str; 2] =
    ["CREATE DATABASE client", "CREATE TABLE client.t (id INT PRIMARY KEY AUTO_INCREMENT)"];

fn main() -> ExitCode {
    let options = Options::parse();
    clone_testkit::log_to_stderr();
    clone_testkit::exit_code(run(&options))
}

fn run(options: &Options) -> Result<()> {
    let ours = Mysqld::builder().name("donor").plugin(Plugin::Ours).option(DISTANT).start()?;
    dataset::load(&ours, options.mib << 20, |_| {})?;
    ours.session()?.run_all(TABLE)?;
    clone::make_donor(&ours)?;
    let copy = ours.scratch("stock");
    ours.session()?.run(Statement::local(&copy).to_string())?;
    let stock = Mysqld::builder().name("stock donor").plugin(Plugin::Stock).adopt(copy).start()?;

    let mut measured = KINDS.map(|_| Vec::new());
    for _ in 0..options.rounds {
        for ((name, plugin, keep), measured) in KINDS.into_iter().zip(&mut measured) {
            let donor = if plugin == Plugin::Stock { &stock } else { &ours };
            let builder = Mysqld::builder().name("recipient").plugin(plugin);
            let builder = builder.option(format!("--loose-clone-keep-data={keep}"));
            let recipient = fixture::recipient_from(builder.option(DISTANT), donor)?;
            let one = pause(recipient, donor)?;
            println!("{name}: {one:.2?}");
            measured.push(one);
        }
    }
    println!("| | statement, s | until it serves the clone, s | pause, s |\n|---|---|---|---|");
    for ((name, ..), measured) in KINDS.into_iter().zip(measured) {
        let column = |at: usize| median(measured.iter().map(|one| one[at]).collect());
        println!("| {name} | {} | {} | {} |", column(0), column(1), column(2));
    }
    Ok(())
}

/// One clone. Gives how long the statement took, how long until the recipient could be used with
/// the clone, and the pause.
fn pause(mut recipient: Mysqld, donor: &Mysqld) -> Result<[Duration; 3]> {
    recipient.session()?.run_all(TABLE)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let (flag, socket) = (Arc::clone(&is_over), recipient.socket());
    let client = thread::spawn(move || {
        let (mut session, mut last, mut longest) = (None, Instant::now(), Duration::ZERO);
        while !flag.load(Ordering::Relaxed) {
            session = session.or_else(|| Session::connect(&socket, &Account::root()).ok());
            if session.as_mut().is_some_and(|session| use_table(session).is_ok()) {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            } else {
                session = None;
            }
            thread::sleep(PAUSE);
        }
        longest
    });
    let begin = Instant::now();
    let report = clone::run(&mut recipient, &Statement::instance(donor))?;
    let whole = begin.elapsed();
    use_table(&mut recipient.session()?)?;
    thread::sleep(Duration::from_secs(1));
    is_over.store(true, Ordering::Relaxed);
    let pause = client.join().map_err(|_| anyhow!("the client panicked"))?;
    Ok([report.elapsed, whole, pause])
}

fn use_table(session: &mut Session) -> Result<()> {
    session.run("INSERT INTO client.t VALUES ()")?;
    session.one::<u64>("SELECT MAX(id) FROM client.t").map(drop)
}

/// Median, smallest and largest value, in seconds.
fn median(mut values: Vec<Duration>) -> String {
    values.sort_unstable();
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return String::new() };
    let middle = values[values.len() / 2];
    let seconds = [middle, *first, *last].map(|value| value.as_secs_f64());
    format!("{:.2} ({:.2}–{:.2})", seconds[0], seconds[1], seconds[2])
}
