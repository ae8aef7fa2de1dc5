// SPDX-License-Identifier: GPL-2.0-only

//! Records the stream of a clone between two real servers, as a fixture:
//!
//! ```text
//! cargo run -p clone-testkit --example record-stream -- \
//!     --server 8.0.36 --out crates/clone-protocol/tests/stock
//! ```
//!
//! The recipient has the stock plugin, the donor the stock plugin or ours. A proxy between them
//! records, and delays a packet in each state while the donor's tables change. `--help` lists the
//! options.

mod donor;
mod options;
mod shorten;

use std::fmt::Write;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::clone::{self, Running, Statement, Tls};
use clone_testkit::fixture::DISTANT;
use clone_testkit::mysqld::Builder;
use clone_testkit::proxy::SnapshotState::{FileCopy, PageCopy, RedoCopy};
use clone_testkit::proxy::record::Line;
use clone_testkit::proxy::{Action, Point, Proxy, Target};
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, Plugin};

use donor::Changes;
use options::{Cut, Options};

const MIB: u64 = 1 << 20;
/// How long a clone may take, with the delays and the reconnection after a cut.
const CLONE_LIMIT: Duration = Duration::from_secs(300);
/// A fixture that is longer is not wanted in the repository.
const FIXTURE_LIMIT: usize = 100 << 10;

/// Where a packet waits, so that the donor's tables change in each state.
const DELAYS: [Point; 5] = [
    Point::Data { state: FileCopy, bytes: 4 * MIB },
    Point::Data { state: FileCopy, bytes: 20 * MIB },
    Point::Ack(FileCopy),
    Point::Ack(PageCopy),
    Point::Start(RedoCopy),
];

fn main() -> ExitCode {
    let options = Options::parse();
    clone_testkit::log_to_stderr();
    clone_testkit::exit_code(run(&options))
}

fn run(options: &Options) -> Result<()> {
    let server = Server::release(&options.server)?;
    let donor = builder(options, "donor").plugin(options.donor).server(server).start()?;
    donor::fill(&donor)?;
    clone::make_donor(&donor)?;
    let recipient = builder(options, "recipient").plugin(Plugin::Stock).server(server).start()?;
    let lines = record(options, &donor, &recipient, Changes::start(&donor)?)?;
    write(options, server, &lines)
}

fn builder(options: &Options, name: &str) -> Builder {
    Mysqld::builder()
        .name(name)
        .initialise_with(format!("--innodb-page-size={}", options.page_size))
        // For the tablespace outside of the data directory.
        .option("--innodb-directories=..")
        .option("--innodb-file-per-table=ON")
        .option(DISTANT)
        .option("--loose-clone-autotune-concurrency=OFF")
        .option(format!("--loose-clone-max-concurrency={}", options.threads))
}

/// Clones once through a proxy, and gives what it recorded.
fn record(
    options: &Options,
    donor: &Mysqld,
    recipient: &Mysqld,
    mut changes: Changes,
) -> Result<Vec<Line>> {
    let proxy = Proxy::to(donor.port())?;
    for point in DELAYS {
        proxy.at(point, Action::Delay(donor::ROUND));
    }
    match options.cut {
        Cut::None => {}
        Cut::FileCopy => {
            let point = Point::Data { state: FileCopy, bytes: 12 * MIB };
            proxy.at(point, Action::reset(Target::All));
        }
        Cut::RedoCopy => proxy.at(Point::End(RedoCopy), Action::reset(Target::All)),
    }
    proxy.record();
    clone::allow_address(recipient, &format!("127.0.0.1:{}", proxy.port()))?;
    let directory = recipient.scratch("clone");
    let statement = Statement::instance_at("127.0.0.1", proxy.port(), clone::donor_account())
        .tls(Tls::Disabled)
        .into_directory(&directory);
    let running = Running::start(recipient, &statement)?;
    clone_testkit::until("the clone to end", CLONE_LIMIT, || {
        changes.next_round();
        Ok(running.is_finished().then_some(()))
    })?;
    changes.finish()?;
    running.finish()?;
    let traffic = proxy.traffic();
    ensure!(proxy.pending().is_empty(), "the clone did not come to {:?}", proxy.pending());
    ensure!(traffic.tls + traffic.compressed == 0, "the proxy could not read all: {traffic:?}");
    let cuts = u64::from(options.cut != Cut::None);
    ensure!(u64::from(traffic.resumed) == cuts, "{} restarts instead of {cuts}", traffic.resumed);
    Ok(proxy.recorded())
}

fn write(options: &Options, server: &Server, lines: &[Line]) -> Result<()> {
    let version = server.version.split('-').next().unwrap_or_default();
    let mut text = head(options, version);
    for line in shorten::shorten(lines) {
        writeln!(text, "{line}")?;
    }
    let path = options.out.join(options.file_name(version));
    fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
    println!(
        "{}: {} of {} packets, {} bytes",
        path.display(),
        text.lines().count(),
        lines.len(),
        text.len()
    );
    ensure!(text.len() <= FIXTURE_LIMIT, "longer than {FIXTURE_LIMIT} bytes");
    Ok(())
}

/// How the record was made. Its readers take release and page size from the first sentence.
fn head(options: &Options, version: &str) -> String {
    let page_size = options.page_size.to_uppercase();
    let donor = match options.donor {
        Plugin::Ours => "The donor has the plugin of this project. ",
        _ => "",
    };
    let cut = options.cut.text();
    let threads = options.threads;
    let text = format!(
        "Two MySQL {version} servers on one machine, innodb_page_size {page_size}, no TLS, \
         clone_max_concurrency {threads} without autotune. {donor}There is a general \
         tablespace ../ts_out.ibd and an undo tablespace made by a user. In each state a \
         packet was delayed, while rows were changed and tables created, renamed, rebuilt, truncated and \
         dropped. {cut}Left out: most PLUGIN, PLUGIN_V2 and COLLATION packets, and of each chunk \
         and file the blocks between the first and the last. Made by clone-testkit's example \
         record-stream."
    );
    let mut head = String::from("# SPDX-License-Identifier: GPL-2.0-only\n#");
    let mut column = 1;
    for word in text.split_whitespace() {
        if column + 1 + word.len() > 100 {
            head.push_str("\n#");
            column = 1;
        }
        head.push(' ');
        head.push_str(word);
        column += 1 + word.len();
    }
    head.push('\n');
    head
}
