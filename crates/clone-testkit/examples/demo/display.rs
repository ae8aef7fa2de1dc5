// SPDX-License-Identifier: GPL-2.0-only

//! What the user sees: bars on a terminal, lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use clone_testkit::clone::Stage;
use indicatif::{ProgressBar, ProgressStyle};

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;

const BAR: &str = "    {prefix:10} {bar:30} {binary_bytes:>10} of {binary_total_bytes:10} \
    {binary_bytes_per_sec:>12}  ETA {eta:4} {msg}";
/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Prints a headline.
pub(crate) fn headline(text: &str) {
    println!("\n{text}");
}

/// Prints a result.
pub(crate) fn line(text: &str) {
    println!("    {text}");
}

/// Bytes that are on their way.
#[derive(Debug)]
pub(crate) struct Meter {
    bar: Option<ProgressBar>,
    name: String,
    begin: Instant,
    last_line: Instant,
    done: u64,
}

impl Meter {
    pub(crate) fn new(name: &str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style).with_prefix(name.to_owned())
        });
        let now = Instant::now();
        Self { bar, name: name.into(), begin: now, last_line: now, done: 0 }
    }

    /// Shows that `done` of about `total` bytes have arrived.
    pub(crate) fn set(&mut self, done: u64, total: u64, note: &str) {
        self.done = done;
        let total = total.max(done);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(note.to_owned());
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let speed = self.speed();
            let eta = if speed > 0.0 { mib(total - done) / speed } else { 0.0 };
            line(&format!(
                "{:10} {:6.0} of {:.0} MiB, {speed:.0} MiB/s, ETA {eta:.0} s {note}",
                self.name,
                mib(done),
                mib(total),
            ));
        }
    }

    /// Replaces the bar by one line.
    pub(crate) fn finish(self) {
        result(&self.name, self.begin.elapsed(), self.done);
        self.clear();
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn speed(&self) -> f64 {
        mib(self.done) / self.begin.elapsed().as_secs_f64().max(0.001)
    }
}

/// Shows the stages of a clone as they pass.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    current: Option<Meter>,
}

impl Stages {
    pub(crate) fn watch(&mut self, stages: &[Stage]) {
        let Some(stage) = stages.iter().find(|stage| stage.state == "In Progress") else { return };
        if self.current.as_ref().is_none_or(|meter| meter.name != stage.name) {
            self.clear();
            self.current = Some(Meter::new(&stage.name));
        }
        if let Some(meter) = &mut self.current {
            let threads = stage.threads;
            meter.set(stage.data, stage.estimate, &format!("{threads} threads"));
        }
    }

    /// Replaces what was shown by one line for each stage.
    pub(crate) fn finish(mut self, stages: &[Stage]) {
        self.clear();
        for stage in stages {
            if let Some(elapsed) = stage.elapsed {
                result(&stage.name, elapsed, stage.data);
            }
        }
    }

    fn clear(&mut self) {
        if let Some(meter) = self.current.take() {
            meter.clear();
        }
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        self.clear();
    }
}

fn result(name: &str, elapsed: Duration, bytes: u64) {
    let seconds = elapsed.as_secs_f64();
    let amount = match bytes {
        0 => String::new(),
        _ => format!("{:6.0} MiB {:6.0} MiB/s", mib(bytes), mib(bytes) / seconds.max(0.001)),
    };
    line(format!("{name:10} {seconds:6.2} s {amount}").trim_end());
}

/// Bytes as MiB.
#[allow(clippy::cast_precision_loss, reason = "only to be shown")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
